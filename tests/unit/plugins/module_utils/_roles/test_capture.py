# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Captures of a node's workloads, by the filter that the role checkpoint_node asks."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.filter.capture_decision import capture_decision

ONE = {"name": "a", "checkpoint": "a:1"}
SILENT = "The module did not run; -vvv shows why."


def request(store: str = "image", **workload: Any) -> Any:
    known = {"workloads": [{**ONE, **workload}], "store": store, "cuda_forks": "detach", "targets": []}
    (found,) = capture_decision(known, "requests")
    return found


def test_a_request_has_what_the_workload_says_or_the_role() -> None:
    assert request() == {
        "container_id": "a",
        "name": "a:1",
        "leave": "running",
        "store": "image",
        "gpu": "auto",
        "cuda_forks": "detach",
        "accept": [],
        "targets": [],
        "criu": {},
        "memory_volumes": ["auto"],
        "force": False,
    }
    own = {
        "leave": "stopped",
        "store": "both",
        "gpu": "required",
        "cuda_forks": "refuse",
        "accept": ["tcp"],
        "targets": [{"name": "t"}],
        "criu": {"tcp": True},
        "memory_volumes": [],
        "force": True,
        "before_capture": {"command": ["sync"]},
    }
    assert request(**own) == {**own, "container_id": "a", "name": "a:1"}


@pytest.mark.parametrize("hook", ["before_capture", "after_capture"])
@pytest.mark.parametrize("empty", [{}, None])
def test_a_hook_without_anything_is_none(hook: str, empty: Any) -> None:
    assert hook not in request(**{hook: empty})


@pytest.mark.parametrize("handed_on", [{"archive": "/a.tar"}, {"registry": "registry.local/a:1"}])
def test_archives_and_registries_are_given_images(handed_on: dict[str, Any]) -> None:
    assert request("node", **handed_on)["store"] == request(store="node", **handed_on)["store"] == "both"
    assert request("image", **handed_on)["store"] == "image"
    assert request("node")["store"] == "node"


def test_a_name_and_a_reference_stand_once() -> None:
    workloads = [ONE, ONE, {"name": "b", "checkpoint": "a:1"}, {"name": "A", "checkpoint": "A:1"}]
    assert capture_decision({"workloads": workloads, "foretold": {"skipped": True}}, "problems") == [
        "a: The name stands more than once in checkpoint_node_workloads. Capture a container once in a run.",
        "a:1: The reference stands more than once in checkpoint_node_workloads. Give each checkpoint one of its own.",
    ]


@pytest.mark.parametrize(
    ("foretold", "problems"),
    [
        ({"skipped": True}, []),
        ({}, ["containerd_checkpoint did not run; -vvv shows why."]),
        ({"msg": "Bad option."}, ["Bad option."]),
        ({"workloads": {}}, []),
        ({"workloads": {"a": {"failure": None}, "b": {"failure": {}, "msg": "No."}}, "msg": "1 of 2"}, ["b: No."]),
    ],
)
def test_what_was_foretold_keeps_them(foretold: dict[str, Any], problems: list[str]) -> None:
    assert capture_decision({"workloads": [ONE], "foretold": foretold}, "problems") == problems


def taken(taking: dict[str, Any], *names: str) -> Any:
    return capture_decision({"taking": taking, "names": list(names)}, "taken")


def test_each_has_a_capture_or_a_failure() -> None:
    good = {"changed": True, "checkpoint": {"name": "a:1"}, "failure": None, "seconds": {"dump": 1.0}}
    bad = {"failure": {"code": "no_space", "outcome": "terminal"}, "msg": "It is full."}
    assert taken({"workloads": {"a": good, "b": bad}, "failed": True}, "a", "b") == {
        "captures": {
            "a": {
                "changed": True,
                "checkpoint": {"name": "a:1"},
                "recorded": {},
                "accepted": [],
                "ended": [],
                "recovered": False,
                "staged": "",
                "sizes": {},
                "hooks": [],
                "memory_volumes": [],
                "seconds": {"dump": 1.0},
            }
        },
        "failures": {"b": {"code": "no_space", "outcome": "terminal", "msg": "It is full."}},
    }


def test_one_may_have_both() -> None:
    # The checkpoint is there; what should have become of the task is not.
    both = {"changed": True, "checkpoint": {"name": "a:1"}, "failure": {"code": "busy"}, "msg": "It runs."}
    found = taken({"workloads": {"a": both}}, "a")
    assert (list(found["captures"]), list(found["failures"])) == (["a"], ["a"])


@pytest.mark.parametrize(
    ("taking", "code", "message"),
    [
        ({"rc": 137}, "module_failed", SILENT),
        ({"msg": "Busy.", "failure": {"code": "busy"}}, "busy", "Busy."),
        ({"workloads": {}}, "module_failed", SILENT),
    ],
)
def test_one_that_got_no_answer_has_failed(taking: dict[str, Any], code: str, message: str) -> None:
    assert taken(taking, "a") == {
        "captures": {},
        "failures": {"a": {"code": code, "outcome": "unknown", "msg": message}},
    }
    assert taken(taking) == {"captures": {}, "failures": {}}


def test_a_step_has_failed_for_those_that_it_failed_for() -> None:
    answers = {
        "ran": {"changed": True},
        "good": {"failure": None},
        "skipped": {"skipped": True, "failed": True},
        "failed": {"failed": True, "msg": "No."},
        "overruled": {"failed": False, "failure": {"code": "no_space", "outcome": "terminal"}, "msg": "Full."},
        "killed": {"failed": True, "rc": 137},
    }
    found = capture_decision(
        {"answers": [{**answer, "__checkpoint_node_name": name} for name, answer in answers.items()]}, "failures"
    )
    assert found == {
        "failed": {"code": "module_failed", "outcome": "unknown", "msg": "No."},
        "overruled": {"code": "no_space", "outcome": "terminal", "msg": "Full."},
        "killed": {"code": "module_failed", "outcome": "unknown", "msg": SILENT},
    }
    assert capture_decision({"answers": []}, "failures") == {}
    assert capture_decision({"failures": found}, "failure_lines")[1] == "overruled: terminal: Full."


def test_a_receipt_says_where_a_capture_was_handed_on_to() -> None:
    def result(name: str, **more: Any) -> dict[str, Any]:
        return {"__checkpoint_node_name": name, **more}

    known = {
        "captured": {"a": {"changed": True}, "b": {"changed": False}},
        "exports": {"results": [result("a", archive={"path": "/a.tar"}), result("b", failed=True)]},
        "pushes": {"skipped": True},
    }
    assert capture_decision(known, "receipts") == {
        "a": {"changed": True, "archive": {"path": "/a.tar"}, "registry": {}},
        "b": {"changed": False, "archive": {}, "registry": {}},
    }
    known["pushes"] = {"results": [result("b", registry={"digest": "sha256:1"})]}
    assert capture_decision(known, "receipts")["b"]["registry"] == {"digest": "sha256:1"}


def test_another_step_is_an_error() -> None:
    with pytest.raises(ValueError, match="brew is no step of the role; there are requests, "):
        capture_decision({}, "brew")
