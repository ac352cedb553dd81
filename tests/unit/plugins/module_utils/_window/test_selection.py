# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.gpuops.restore.plugins.module_utils._window import selection
from ansible_collections.gpuops.restore.plugins.module_utils._window.identity import Identity
from ansible_collections.gpuops.restore.plugins.module_utils._window.selection import (
    NothingSelectedError,
    SelectionError,
    Workload,
)

#: Of the collection.
TREE = Path(str(selection.__file__)).parents[3]
HOST = "gpu-a"
NONE = "gpuops.local/checkpoint/{name}:latest"


def pod(container_id: str, namespace: str, name: str, container: str = "main", **more: Any) -> Workload:
    labels = more.pop("labels", {})
    return Workload(
        Identity(container_id, namespace, name, f"uid-of-{name}", container, labels=labels), **{"live": True, **more}
    )


BERT = pod("1a", "training", "bert-0", "trainer", gpu=True, labels={"team": "nlp", "app": "bert"})
SIDECAR = pod("2b", "training", "bert-0", "sidecar", labels={"team": "nlp"})
INFER = pod("3c", "serving", "api-0", gpu=True, labels={"team": "web"})
PLAIN = Workload(Identity("counter"), live=True)
PAUSE = Workload(Identity("4d", "training", "bert-0", "", "", sandbox=True), live=True)
ALL = [PAUSE, BERT, SIDECAR, INFER, PLAIN]


def taken(wanted: Mapping[str, Any], found: Sequence[Workload] = ALL) -> list[str]:
    return sorted(one.workload.identity.id for one in selection.captures(selection.parse(wanted), found, HOST))


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ({"gpu": True}, ["1a", "3c"]),
        ({"gpu": False}, ["2b", "counter"]),
        ({"namespaces": ["training"]}, ["1a", "2b"]),
        ({"namespaces": ["*ing"], "exclude": ["sidecar"]}, ["1a", "3c"]),
        ({"labels": {"team": "nlp"}}, ["1a", "2b"]),
        ({"labels": {"team": "nlp", "app": "*"}}, ["1a"]),
        ({"names": ["counter"]}, ["counter"]),
        ({"names": ["bert-*"]}, ["1a", "2b"]),
        ({"names": ["training-bert-0-trainer"]}, ["1a"]),
        ({"names": ["*"]}, ["1a", "2b", "3c", "counter"]),
        ({"names": ["*"], "exclude": [{"gpu": True}, "coun*"]}, ["2b"]),
        ({"gpu": True, "namespaces": ["serving"], "names": ["1a", "3c"]}, ["3c"]),
    ],
)
def test_what_a_selection_takes(wanted: dict[str, Any], ids: list[str]) -> None:
    assert taken(wanted) == ids


def test_defaults_hold_for_all_and_overrides_for_those_that_match() -> None:
    wanted = selection.parse(
        {
            "namespaces": ["training"],
            "checkpoint": "Registry.local/{namespace}/{pod}-{container}:Before",
            "restore_as": "{container}-on-{host}",
            "defaults": {
                "network": "host",
                "gpu": "required",
                "capture_criu": {"file_locks": "true"},
                "mounts": {"/var/lib/kubelet/pods/{pod_uid}/data": "/srv/{pod}"},
                "env": {"KEEP": "{pod}"},
            },
            "overrides": [
                {"match": {"names": ["sidecar"]}, "set": {"gpu": "none", "leave": "stopped"}},
                {"match": {"labels": {"app": "bert"}}, "set": {"stdout": "/var/log/{name}.log"}},
            ],
        }
    )
    sidecar, trainer = selection.captures(wanted, ALL, HOST)
    assert sidecar.capture() == {
        "name": "2b",
        "checkpoint": "registry.local/training/bert-0-sidecar:Before",
        "gpu": "none",
        "criu": {"file_locks": "true"},
        "leave": "stopped",
    }
    assert trainer.restore() == {
        "name": "trainer-on-gpu-a",
        "checkpoint": "registry.local/training/bert-0-trainer:Before",
        "network": "host",
        "gpu": "required",
        "mounts": {"/var/lib/kubelet/pods/uid-of-bert-0/data": "/srv/bert-0"},
        # A program's own text is not touched.
        "env": {"KEEP": "{pod}"},
        "stdout": "/var/log/training-bert-0-trainer.log",
    }
    moved = trainer.migration()
    assert (moved["name"], moved["source_name"]) == ("trainer-on-gpu-a", "1a")
    assert moved["capture_criu"] == {"file_locks": "true"} and "leave" not in moved


def test_a_restore_takes_what_has_its_checkpoint_and_a_capture_what_runs_or_has_it() -> None:
    wanted = selection.parse({"names": ["*"], "checkpoint": "x/{name}:1"})
    ended = Workload(Identity("ended"), checkpoints=frozenset({"x/ended:1"}))
    other = Workload(Identity("other"), checkpoints=frozenset({"x/other:0"}))
    found = [PLAIN, ended, other]
    assert [one.name for one in selection.restores(wanted, found, HOST)] == ["ended"]
    assert [one.name for one in selection.captures(wanted, found, HOST)] == ["counter", "ended"]


def test_the_original_gives_way_to_what_was_restored_from_it() -> None:
    name = BERT.identity.name
    ended = Workload(BERT.identity, checkpoints=frozenset({f"x/{name}:1"}))
    restored = Workload(Identity(name), live=True)
    wanted = selection.parse({"names": ["*trainer"], "checkpoint": "x/{name}:1"})
    assert [one.workload for one in selection.captures(wanted, [ended, restored], HOST)] == [restored]


@pytest.mark.parametrize(
    ("wanted", "part"),
    [
        (None, "empty"),
        ({}, "empty"),
        ([], "empty"),
        ("all", "no dictionary"),
        ({"exclude": ["x"]}, "selects by nothing"),
        ({"gpus": True}, "Is gpu meant?"),
        ({"name": ["x"]}, "Is names meant?"),
        ({"gpu": "yes"}, "true or false"),
        ({"names": []}, "takes nothing"),
        ({"names": "x"}, "has to be a list"),
        ({"labels": {}}, "of which there is none"),
        ({"names": ["*"], "defaults": {"netwrk": "host"}}, "Is network meant?"),
        ({"names": ["*"], "overrides": [{"match": {}, "set": {}}]}, "has to say by what"),
        ({"names": ["*"], "overrides": [{"set": {}}]}, "has to have match"),
        ({"names": ["*"], "exclude": [{"nmaes": ["x"]}]}, "Is names meant?"),
        ({"names": ["*"], "checkpoint": "x/{nam}:1"}, "names {nam}"),
        ({"names": ["*"], "restore_as": ""}, "has to be a text"),
    ],
)
def test_a_selection_that_says_nothing_or_is_misspelt_is_refused(wanted: Any, part: str) -> None:
    with pytest.raises(SelectionError) as caught:
        selection.parse(wanted)
    assert part in str(caught.value)


def test_a_selection_that_takes_nothing_says_what_there_is() -> None:
    wanted = selection.parse({"namespaces": ["trainning"]})
    with pytest.raises(NothingSelectedError) as caught:
        selection.captures(wanted, ALL, HOST)
    assert "takes no container with a task on gpu-a: there are counter, serving-api-0-main" in str(caught.value)
    with pytest.raises(NothingSelectedError, match="no container at all"):
        selection.captures(wanted, [PAUSE], HOST)
    with pytest.raises(NothingSelectedError, match="1 container.s. fit, none of which has the checkpoint"):
        selection.restores(selection.parse({"names": ["counter"]}), ALL, HOST)
    assert selection.captures(selection.parse({"names": ["x"], "allow_none": True}), ALL, HOST) == []


def test_two_workloads_to_one_name_are_refused() -> None:
    with pytest.raises(SelectionError, match="would both have the checkpoint one:1"):
        taken({"gpu": True, "checkpoint": "one:1"})
    with pytest.raises(SelectionError, match="2 workloads on gpu-a would come back as same"):
        taken({"gpu": True, "restore_as": "same"})


def options(role: str, name: str) -> set[str]:
    text = (Path(TREE) / "roles" / role / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
    return set(yaml.safe_load(text)["argument_specs"]["main"]["options"][name]["options"])


def test_every_option_of_the_roles_can_be_set() -> None:
    given = {"name", "checkpoint"}
    assert options("checkpoint_node", "checkpoint_node_workloads") == {*selection.CAPTURE_KEYS.values(), *given}
    assert options("restore_node", "restore_node_workloads") == selection.RESTORE_KEYS | given
