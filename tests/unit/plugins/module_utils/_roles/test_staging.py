# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why staging failed for a workload, and what of it is taken back, by the filter that the role asks."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.filter.restore_decision import restore_decision

FAIL = {"name": "Stop where it cannot be restored", "action": "ansible.builtin.fail"}
IMAGE = {"name": "The base image is on the node", "action": "gpuops.restore.containerd_image"}


def failure(result: dict[str, Any], task: dict[str, Any], *arrived: tuple[str, str]) -> tuple[str, str, str]:
    problems = [{"code": code, "outcome": outcome} for code, outcome in arrived]
    found = restore_decision({"result": result, "task": task, "arrived": problems}, "stage_failure")
    assert (found["step"], found["evidence"], found["left_behind"]) == (task.get("name", ""), "", "")
    return found["code"], found["outcome"], found["msg"]


def test_the_module_says_why() -> None:
    said = {"failure": {"code": "no_space", "outcome": "terminal"}, "msg": "It is full."}
    assert failure(said, IMAGE) == ("no_space", "terminal", "It is full.")
    # Also where the checkpoint had problems before.
    assert failure(said, FAIL, ("busy", "retryable")) == ("no_space", "terminal", "It is full.")


@pytest.mark.parametrize("result", [{}, {"failure": None}, {"failure": {}}])
def test_one_that_says_nothing_is_not_known(result: dict[str, Any]) -> None:
    assert failure(result, {}) == ("module_failed", "unknown", "The step ended without a message.")
    # What was found wrong with the checkpoint is not why another task failed.
    assert failure(result, IMAGE, ("cpu", "terminal"))[:2] == ("module_failed", "unknown")


def test_what_was_brought_says_why_it_cannot_be_restored() -> None:
    said = {"msg": "No such CPU."}
    assert failure(said, FAIL, ("cpu", "terminal")) == ("cpu", "terminal", "No such CPU.")
    # As lasting as the worst of them.
    assert failure(said, FAIL, ("busy", "retryable"), ("cpu", "terminal"))[:2] == ("busy", "terminal")
    assert failure(said, FAIL, ("busy", "retryable"))[:2] == ("busy", "retryable")
    assert failure(said, FAIL)[:2] == ("module_failed", "unknown")


def orphans(stages: dict[str, Any], failures: dict[str, str], checkpoints: dict[str, str]) -> Any:
    known = {
        "stages": {
            name: {"images": images, "base": "base:1", "staged": staged} for name, (staged, images) in stages.items()
        },
        "failures": {name: {"code": code} for name, code in failures.items()},
        "workloads": [{"name": name, "checkpoint": checkpoint} for name, checkpoint in checkpoints.items()],
    }
    return restore_decision(known, "orphans")


def test_what_was_brought_for_the_failed_goes() -> None:
    stages = {"a": (True, ["a:1", "base:1"]), "b": (False, ["b:1"])}
    failed = {"a": "criu", "b": "no_space"}
    assert orphans(stages, failed, {"a": "a:1", "b": "b:1"}) == {
        "staged": ["a:1"],
        "images": ["a:1", "base:1", "b:1"],
    }


def test_what_another_needs_stays() -> None:
    stages = {"a": (True, ["same:1", "base:1"]), "b": (True, [])}
    both = {"a": "same:1", "b": "same:1"}
    assert orphans(stages, {"a": "criu"}, both) == {"staged": [], "images": []}
    assert orphans(stages, {"a": "criu"}, {"a": "a:1", "b": "b:1"}) == {"staged": ["a:1"], "images": ["same:1"]}


def test_what_another_run_is_at_work_with_stays() -> None:
    stages = {"a": (True, ["a:1", "base:1"])}
    assert orphans(stages, {"a": "busy"}, {"a": "a:1"}) == {"staged": [], "images": []}


def test_what_failed_for_several_goes_once() -> None:
    stages = {"a": (True, ["same:1"]), "b": (True, ["same:1"])}
    failed = dict.fromkeys("ab", "criu")
    assert orphans(stages, failed, dict.fromkeys("ab", "same:1")) == {"staged": ["same:1"], "images": ["same:1"]}


def test_where_nothing_was_staged_nothing_goes() -> None:
    assert orphans({}, {"a": "criu"}, {"a": "a:1"}) == {"staged": [], "images": []}


def workload(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "checkpoint": f"{name}:1", **more}


def seen(present: bool = True, staged: bool = False, task: str = "absent") -> dict[str, Any]:
    """What was read of a checkpoint that is there; ``present``: its base image is, too."""
    return {"checkpoint": {"base_image": {"present": present}}, "status": {"staged": staged, "task": task}}


@pytest.mark.parametrize(
    ("pull", "more", "read", "brings"),
    [
        ("missing", {}, {}, True),
        ("missing", {}, seen(), False),
        ("missing", {}, seen(present=False), True),
        ("never", {}, {}, False),
        ("never", {}, seen(present=False), False),
        ("never", {"checkpoint_archive": "/a.tar"}, {}, True),
        ("never", {"checkpoint_archive": "/a.tar"}, seen(present=False), False),
        ("never", {"image_archive": "/b.tar"}, seen(present=False), True),
        ("never", {"image_archive": "/b.tar"}, seen(), False),
    ],
)
def test_only_where_an_image_lacks_it_is_brought(pull: str, more: dict[str, Any], read: Any, brings: bool) -> None:
    known = {"workloads": [workload("a", **more)], "going": ["a"], "found": {"a": read}, "pull": pull}
    assert restore_decision(known, "to_bring") == (["a"] if brings else [])
    assert restore_decision({**known, "going": []}, "to_bring") == []


def test_what_was_brought_is_noted() -> None:
    known = {
        "checkpoint": "a:1",
        "base": "base:1",
        "image": {"created": True, "actions": ["pull a:1"]},
        "base_image": {"skipped": True},
        "seconds": 1.23456,
    }
    noted = {"images": ["a:1"], "base": "base:1", "staged": False, "seconds": 1.235, "actions": ["pull a:1"]}
    assert restore_decision(known, "brought") == noted


@pytest.mark.parametrize(
    ("read", "keep", "wanted"),
    [
        (seen(), False, True),
        (seen(staged=True), True, False),
        (seen(task="RUNNING"), False, False),
        (seen(task="RUNNING"), True, True),
        (seen(task="STOPPED"), False, True),
        # In check mode nobody has seen a checkpoint that has yet to be brought.
        ({"checkpoint": None, "problems": []}, False, True),
    ],
)
def test_what_is_not_staged_is_staged_in_one_call(read: dict[str, Any], keep: bool, wanted: bool) -> None:
    known = {"workloads": [workload("a")], "going": ["a"], "found": {"a": read}, "keep": keep, "verify_key": ["k"]}
    expected = [{"container_id": "a", "checkpoint": "a:1", "verify_key": ["k"]}]
    assert restore_decision(known, "to_stage") == (expected if wanted else [])


def test_a_workload_s_own_keys_win() -> None:
    known = {"workloads": [workload("a", verify_key=["own"])], "going": ["a"], "found": {}, "keep": False}
    assert restore_decision({**known, "verify_key": ["k"]}, "to_stage")[0]["verify_key"] == ["own"]


def staged(answer: dict[str, Any], **stages: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    known = {"stages": stages, "failures": {"z": {}}, "answer": answer, "names": ["a", "b"], "task": "Staged"}
    found = restore_decision(known, "staged")
    return found["stages"], found["failures"]


def test_what_was_staged_is_noted_beside_what_was_brought() -> None:
    brought = {"images": ["a:1"], "base": "base:1", "staged": False, "seconds": 1.0, "actions": ["pull a:1"]}
    made = {"changed": True, "created": True, "seconds": 0.5, "failure": None}
    broken = {"changed": False, "msg": "It is full.", "failure": {"code": "no_space", "outcome": "retryable"}}
    stages, failures = staged({"failed": True, "workloads": {"a": made, "b": broken}}, a=brought)
    assert stages["a"] == {
        **brought,
        "staged": True,
        "seconds": 1.5,
        "actions": ["pull a:1", "stage the CRIU images"],
    }
    assert (stages["b"]["staged"], stages["b"]["actions"], set(failures)) == (False, [], {"b", "z"})
    assert (failures["b"]["step"], failures["b"]["code"], failures["b"]["msg"]) == ("Staged", "no_space", "It is full.")


def test_a_call_that_was_killed_has_failed_for_all_of_them() -> None:
    _stages, failures = staged({"failed": True, "msg": "Killed."})
    assert {name: one.get("code") for name, one in failures.items()} == {
        "z": None,
        "a": "module_failed",
        "b": "module_failed",
    }
    assert staged({"skipped": True}) == ({}, {"z": {}})


@pytest.mark.parametrize(
    ("answer", "changed", "failed"),
    [
        ({"workloads": {"a": {"changed": True, "failure": None}}}, True, False),
        # This run had staged it.
        ({"workloads": {"b": {"changed": True, "failure": None}}}, False, False),
        ({"workloads": {"a": {"changed": False, "failure": {"code": "busy"}}}, "failed": True}, False, False),
        ({"workloads": {"a": {"changed": False, "failure": {"code": "io"}}}, "failed": True}, False, True),
        ({"failed": True, "msg": "Killed."}, False, True),
        ({"skipped": True}, False, False),
    ],
)
def test_removing_memory_images(answer: dict[str, Any], changed: bool, failed: bool) -> None:
    known = {"answer": answer, "stages": {"b": {"staged": True}}}
    assert restore_decision(known, "removed") == {"changed": changed, "failed": failed}
