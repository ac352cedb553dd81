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
