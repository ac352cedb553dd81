# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which images a restore brings, and where metadata lies, by the filter that the role asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.filter.restore_decision import restore_decision

CHECKPOINT, IMAGE = "/a.tar", "/b.tar"


def archives(workload: dict[str, Any], checkpoint: Any = None) -> list[tuple[str, str, str]]:
    whole = {"name": "a", "checkpoint": "example.test/a:1", **workload}
    known = {"workloads": [whole], "found": {"a": {"checkpoint": checkpoint}}}
    found = restore_decision(known, "archives")
    assert all(one["workload"] == "a" and one["unpack"] == (one["archive"] == IMAGE) for one in found)
    return [(one["archive"], one["name"], one["digest"]) for one in found]


def test_what_is_not_there_yet_is_brought() -> None:
    both = {"checkpoint_archive": CHECKPOINT, "image_archive": IMAGE, "image": "base:1", "digest": "sha256:1"}
    assert archives(both) == [(CHECKPOINT, "example.test/a:1", "sha256:1"), (IMAGE, "base:1", "")]
    there = {"digest": "sha256:1", "base_image": {"present": True, "name": "base:1"}}
    assert archives(both, there) == []
    assert archives({"checkpoint_archive": CHECKPOINT, "digest": None}) == [(CHECKPOINT, "example.test/a:1", "")]
    assert archives({}) == []


def test_a_node_that_was_not_asked_has_nothing() -> None:
    whole = {"name": "a", "checkpoint": "c:1", "checkpoint_archive": CHECKPOINT}
    assert len(restore_decision({"workloads": [whole], "found": {}}, "archives")) == 1


@pytest.mark.parametrize(
    ("image", "base", "name"),
    [
        ("base:1", {"name": "other:1", "private_name": "private:1", "digest": "sha256:b"}, "base:1"),
        ("", {"name": "other:1", "private_name": "private:1", "digest": "sha256:b"}, "private:1"),
        (None, {"name": "other:1", "digest": "sha256:b"}, "other:1"),
    ],
)
def test_a_base_image_has_the_name_of_the_workload_or_the_checkpoint(image: Any, base: Any, name: str) -> None:
    workload = {"image_archive": IMAGE, "image": image}
    assert archives(workload, {"base_image": base}) == [(IMAGE, name, "sha256:b")]


@pytest.mark.parametrize("checkpoint", [None, {}, {"base_image": None}, {"base_image": {"name": ""}}])
def test_one_that_only_the_checkpoint_can_name_waits_for_it(checkpoint: Any) -> None:
    assert archives({"image_archive": IMAGE}, checkpoint) == []


def base(workload: dict[str, Any], checkpoint: Any, metadata: str = "") -> Any:
    return restore_decision({"workload": workload, "checkpoint": checkpoint, "metadata": metadata}, "base")


def test_the_base_image_is_named_by_who_knows_best() -> None:
    says = {"base_image": {"private_name": "private:1", "name": "other:1"}}
    metadata = '{"originalImage": "original:1"}'
    assert base({"image": "base:1"}, says, metadata) == "base:1"
    assert base({"image": ""}, says, metadata) == "private:1"
    assert base({}, {"base_image": {"private_name": None, "name": "other:1"}}, metadata) == "other:1"
    assert base({}, {"base_image": None}, metadata) == "original:1"
    assert base({}, {}, "{}") == base({}, {}) == ""


def test_metadata_that_is_not_needed_may_be_anything() -> None:
    assert base({"image": "base:1"}, {}, "no JSON") == "base:1"
    with pytest.raises(ValueError, match="Expecting value"):
        base({}, {}, "no JSON")


def test_metadata_lies_in_the_first_place_that_has_it(tmp_path: Path) -> None:
    inventory, playbook = tmp_path / "inventory", tmp_path / "playbook"
    for place, names in ((inventory, ["one.json"]), (playbook, ["one.json", "two.json"])):
        place.mkdir()
        for name in names:
            (place / name).write_text("{}", encoding="utf-8")
    named = ["one.json", "two.json", "three.json", str(playbook / "one.json"), "", None]
    workloads = [{"name": "a", "metadata": name} for name in named] + [{"name": "b"}]
    known = {"workloads": workloads, "places": [str(inventory), str(playbook)]}
    assert restore_decision(known, "metadata") == {
        "one.json": str(inventory / "one.json"),
        "two.json": str(playbook / "two.json"),
        str(playbook / "one.json"): str(playbook / "one.json"),
    }
