# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The annotation that a capture writes, and what is made of others' that look like it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._oci.facts import (
    CardFacts,
    Facts,
    GpuFacts,
    ProcessFacts,
)

#: As checkpoints have it that were taken before this was a class.
DOCUMENT: dict[str, Any] = {
    "version": 1,
    "container": "train",
    "taken_at": "2026-11-24T05:31:31Z",
    "kernel": "6.12.1",
    "architecture": "x86_64",
    "cpu": {"model": "One", "features": ["avx2", "sse2"]},
    "runtime": {"name": "io.containerd.runc.v2", "version": "1.1.15"},
    "criu": "4.1",
    "cgroup": "v2",
    "memory_bytes": 4096,
    "base_image": {"name": "example.test/base:1", "digest": "sha256:" + "0" * 64},
    "gpu": {
        "driver": "580.1",
        "cuda": "13.0",
        "gpus": [{"uuid": "GPU-1", "index": 0, "name": "One"}],
        "visible": ["GPU-1", "GPU-2"],
        "processes": [{"bytes": 5, "gpus": {"GPU-1": 5}}, {"bytes": None, "gpus": {"GPU-1": None}}],
    },
}
FACTS = Facts(
    container="train",
    taken_at="2026-11-24T05:31:31Z",
    kernel="6.12.1",
    architecture="x86_64",
    cpu_model="One",
    cpu_features=("avx2", "sse2"),
    runtime="io.containerd.runc.v2",
    runtime_version="1.1.15",
    criu="4.1",
    cgroup="v2",
    memory_bytes=4096,
    base_image="example.test/base:1",
    base_image_digest="sha256:" + "0" * 64,
    gpu=GpuFacts(
        driver="580.1",
        cuda="13.0",
        cards=(CardFacts("GPU-1", 0, "One"),),
        visible=("GPU-1", "GPU-2"),
        processes=(ProcessFacts(5, {"GPU-1": 5}), ProcessFacts(None, {"GPU-1": None})),
    ),
    gpu_examined=True,
)
#: Of another type than any value has.
STRANGE: list[Any] = [7.5, True, [[]], {"x": [1]}]


def test_how_deep_files_lie_is_kept() -> None:
    facts = Facts(container="train", written_steps=7)
    assert Facts.parse(facts.render()) == facts and "written_steps" not in Facts(container="train").to_json()


def test_labels_that_are_texts_are_kept() -> None:
    facts = Facts(container="train", labels={"team": "nlp"})
    assert Facts.parse(facts.render()) == facts
    assert Facts.from_json({**DOCUMENT, "labels": {"team": "nlp", "rank": 1}}).labels == {"team": "nlp"}


def gpu(**changes: Any) -> Facts:
    return Facts.from_json({"version": 1, "gpu": {**DOCUMENT["gpu"], **changes}})


def paths(document: dict[str, Any], before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in document.items():
        found.append((*before, key))
        if isinstance(value, dict):
            found += paths(value, (*before, key))
    return found


def test_the_annotation_is_as_it_was() -> None:
    assert Facts.from_json(DOCUMENT) == FACTS
    assert FACTS.to_json() == DOCUMENT
    text = FACTS.render()
    assert text == json.dumps(DOCUMENT, separators=(",", ":"), sort_keys=True)
    assert Facts.parse(text) == FACTS


@pytest.mark.parametrize(
    ("value", "rights"),
    [
        (None, None),
        ("devices=all", None),
        ({}, None),
        ([], ()),
        (["devices=all", 7, "privileged"], ("devices=all", "privileged")),
    ],
)
def test_rights_that_are_recorded_and_none(value: Any, rights: Any) -> None:
    found = Facts.from_json({**DOCUMENT, "rights": value})
    assert found.rights == rights
    assert found.to_json().get("rights") == (None if rights is None else list(rights))


@pytest.mark.parametrize("gpus", [{}, {"gpu": None}])
def test_nobody_looked_is_not_none_found(gpus: dict[str, Any]) -> None:
    document = {key: value for key, value in DOCUMENT.items() if key != "gpu"}
    found = Facts.from_json({**document, **gpus})
    assert (found.gpu, found.gpu_examined, found.tells_vram) == (None, bool(gpus), bool(gpus))
    assert found.to_json() == {**document, **gpus}


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "7", "{", '{"version": 2}', '{"version": true}', '{"version": "1"}', '{"version": 1, "x": NaN}'],
)
def test_what_is_unreadable_or_of_another_version_is_nothing(text: str) -> None:
    assert Facts.parse(text) == Facts()
    assert Facts().to_json() == {}


def test_what_is_not_known_here_is_passed_over() -> None:
    document = json.loads(json.dumps(DOCUMENT))
    for part in (document, document["cpu"], document["gpu"], document["gpu"]["processes"][0]):
        part["more"] = {"deep": [1]}
    assert Facts.from_json(document) == FACTS


@pytest.mark.parametrize("path", [path for path in paths(DOCUMENT) if path != ("version",)], ids=".".join)
@pytest.mark.parametrize("value", STRANGE)
def test_a_value_of_another_type_is_not_recorded_and_the_others_are(path: tuple[str, ...], value: Any) -> None:
    spoilt = json.loads(json.dumps(DOCUMENT))
    part = spoilt
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    found = Facts.from_json(spoilt)
    assert found != FACTS
    lacking = json.loads(json.dumps(DOCUMENT))
    part = lacking
    for key in path[:-1]:
        part = part[key]
    del part[path[-1]]
    if not isinstance(value, dict):
        assert found == Facts.from_json(lacking)
    # What is said of it can be written.
    assert Facts.parse(found.render()) == found


@pytest.mark.parametrize("strange", [7, "all", {}, [7], [{"bytes": 1}, None]])
def test_processes_that_cannot_be_read_are_unknown(strange: Any) -> None:
    found = gpu(processes=strange)
    assert (found.cuda_processes, found.vram(), found.tells_vram) == ((), {}, False)
    assert found.gpu is not None and found.gpu.driver == "580.1"


def test_memory_of_all_processes_is_added() -> None:
    assert FACTS.vram() == {"GPU-1": 5}
    processes = [{"bytes": 3, "gpus": {"a": 1, "b": 2}}, {"bytes": 4, "gpus": {"a": 4, "c": 0}}]
    assert gpu(processes=processes).vram() == {"a": 5, "b": 2}
    assert gpu(processes=[{"bytes": 1, "gpus": {"a": "much", "b": -1, "c": None, "d": True}}]).vram() == {}
    assert gpu(processes=[{"bytes": 1, "gpus": [1]}]).vram() == {}


def test_memory_is_told_where_that_of_each_process_is() -> None:
    assert not FACTS.tells_vram, "one of them did not tell"
    assert gpu(processes=[{"bytes": 5, "gpus": {}}]).tells_vram
    assert gpu(processes=[]).tells_vram
    assert not gpu(processes=[{"gpus": {}}]).tells_vram
    assert not Facts().tells_vram


def test_gpus_that_the_processes_could_see() -> None:
    assert FACTS.visible_gpus == ("GPU-1", "GPU-2")
    assert gpu(visible="GPU-a").visible_gpus == ()
    assert gpu(visible=[1, "GPU-b"]).visible_gpus == ("GPU-b",)
    assert Facts().visible_gpus == ()
