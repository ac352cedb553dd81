# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role restore_node finds in the way of a restore, by the filter that it asks."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.filter.restore_decision import restore_decision

SILENT = "did not run; -vvv shows why."


def workload(name: str = "a", **more: Any) -> dict[str, Any]:
    return {"name": name, "checkpoint": f"example.test/{name}:1", **more}


def of_input(*workloads: dict[str, Any], metadata: Any = ()) -> list[tuple[str, str]]:
    files = dict.fromkeys(metadata, "/somewhere")
    found = restore_decision({"workloads": list(workloads), "metadata": files}, "input_problems")
    return [(problem["workload"], problem["code"]) for problem in found]


def problems(**known: Any) -> list[dict[str, Any]]:
    """Where nothing else is in the way."""
    whole = {
        "workloads": [workload()],
        "metadata": {},
        "found": {},
        "pull": "never",
        "opened": {"skipped": True},
        "checked": {"skipped": True},
        "info": {"containerd": {}},
    }
    found = restore_decision({**whole, **known}, "problems")
    assert isinstance(found, list)
    return found


def reported(code: str, remedy: str = "Bring it.") -> dict[str, Any]:
    return {"problems": [{"code": code, "outcome": "terminal", "message": "It lacks.", "remedy": remedy}]}


def test_where_nothing_is_in_the_way_there_is_none() -> None:
    assert problems(found={"a": {"problems": []}}) == []
    assert problems(workloads=[], opened={}, checked={}) == []


@pytest.mark.parametrize("name", ["a b", "-a", "a--b", "a_", "", "x" * 77])
def test_a_name_is_one_that_containerd_takes(name: str) -> None:
    assert of_input(workload(name)) == [(name, "workload_name_invalid")]


@pytest.mark.parametrize("name", ["a", "A.b-c_9", "x" * 76])
def test_such_names_are_taken(name: str) -> None:
    assert of_input(workload(name)) == []


def test_a_name_that_stands_more_than_once_is_told_once() -> None:
    assert of_input(workload("a"), workload("b"), workload("a"), workload("a")) == [("a", "workload_duplicate")]
    (problem,) = restore_decision({"workloads": [workload(), workload()], "metadata": {}}, "input_problems")
    assert problem["message"] == (
        "The name a stands 2 times in restore_node_workloads. Give each workload a name of its own."
    )


@pytest.mark.parametrize(
    ("probe", "has"),
    [({"file": {}, "http": {}}, "file and http"), ({"odd": 1}, "none of command, file and http")],
)
def test_a_probe_has_one_kind(probe: dict[str, Any], has: str) -> None:
    (problem,) = restore_decision({"workloads": [workload(probe=probe)], "metadata": {}}, "input_problems")
    assert (problem["code"], problem["message"]) == ("probe_invalid", f"The probe has {has}. Give exactly one of them.")


@pytest.mark.parametrize("probe", [None, {}, {"command": ["true"]}])
def test_no_probe_and_one_of_one_kind_are_fine(probe: Any) -> None:
    assert of_input(workload(probe=probe)) == []


def test_metadata_has_to_be_there() -> None:
    assert of_input(workload(metadata="m.json")) == [("a", "metadata_unreadable")]
    assert of_input(workload(metadata="m.json"), metadata=["m.json"]) == []
    assert of_input(workload(metadata=""), workload("b", metadata=None)) == []


@pytest.mark.parametrize("code", ["checkpoint_absent", "base_image_absent"])
def test_what_bringing_an_image_solves_is_no_problem(code: str) -> None:
    archive = {"checkpoint_absent": "checkpoint_archive", "base_image_absent": "image_archive"}
    answer = {"a": reported(code)}
    assert problems(found=answer) == [
        {"workload": "a", "code": code, "outcome": "terminal", "message": "It lacks. Bring it."}
    ]
    assert problems(found=answer, pull="missing") == []
    assert problems(found=answer, workloads=[workload(**{archive.pop(code): "/a.tar"})]) == []
    # The archive of the other image does not help.
    assert problems(found=answer, workloads=[workload(**dict.fromkeys(archive.values(), "/a.tar"))])


def test_another_problem_stays_whatever_is_brought() -> None:
    archives = workload(checkpoint_archive="/a.tar", image_archive="/b.tar")
    (problem,) = problems(found={"a": reported("no_space", remedy="")}, workloads=[archives], pull="missing")
    assert problem["message"] == "It lacks."


@pytest.mark.parametrize(
    ("answer", "code", "outcome", "message"),
    [
        ({"rc": 137}, "module_failed", "unknown", f"containerd_checkpoint_info {SILENT}"),
        ({"failed": True, "msg": "Bad option."}, "module_failed", "unknown", "Bad option."),
        ({"failure": None, "msg": "No."}, "module_failed", "unknown", "No."),
        ({"failure": {"code": "busy", "outcome": "retryable"}, "msg": "Busy."}, "busy", "retryable", "Busy."),
    ],
)
def test_a_module_that_gave_no_answer_is_a_problem(
    answer: dict[str, Any], code: str, outcome: str, message: str
) -> None:
    assert problems(found={"a": answer}) == [{"workload": "a", "code": code, "outcome": outcome, "message": message}]


def test_archives_that_cannot_be_read_are_told() -> None:
    item = {"__restore_node_archive": {"workload": "a"}}
    opened = [
        {**item, "image": {}},
        {**item, "skipped": True},
        {**item, "failed": True, "failure": {"code": "archive_invalid"}, "msg": "No archive."},
        {**item, "rc": 1},
    ]
    assert problems(opened={"results": opened}) == [
        {"workload": "a", "code": "archive_invalid", "message": "No archive."},
        {"workload": "a", "code": "module_failed", "message": f"containerd_image {SILENT}"},
    ]


def test_what_lacks_for_all_of_them_together_is_told() -> None:
    lacks = {"workload": "node", "code": "host_memory_short", "message": "No memory.", "remedy": "Free some."}
    assert problems(checked={"problems": [lacks]}) == [
        {"workload": "node", "code": "host_memory_short", "message": "No memory. Free some."}
    ]
    assert problems(checked={"msg": "Bad.", "failure": {"code": "option_invalid"}}) == [
        {"workload": "node", "code": "option_invalid", "message": "Bad."}
    ]
    assert problems(checked={"msg": "Conditional result was False", "skipped": True}) == []


def test_a_node_that_gives_no_answer_is_a_problem() -> None:
    assert problems(info={"msg": "No socket.", "failure": {"code": "unreachable"}}) == [
        {"workload": "node", "code": "unreachable", "message": "No socket."}
    ]
    assert problems(info={"rc": 1}) == [
        {"workload": "node", "code": "module_failed", "message": f"containerd_info {SILENT}"}
    ]


def test_they_come_in_the_order_in_which_they_were_looked_for() -> None:
    found = problems(
        workloads=[workload("a b")],
        found={"a b": reported("no_space")},
        opened={"results": [{"__restore_node_archive": {"workload": "a b"}}]},
        checked={"msg": "Bad."},
        info={},
    )
    assert [problem["code"] for problem in found] == ["workload_name_invalid", "no_space", *["module_failed"] * 3]


def test_those_of_one_workload_are_what_was_read_of_its_checkpoint() -> None:
    known = {"found": {"a": reported("no_space"), "b": reported("x")}, "pull": "never"}
    known["workloads"] = [workload("a"), workload("b")]
    assert [one["code"] for one in restore_decision({**known, "name": "b"}, "arrived")] == ["x"]
    assert restore_decision({**known, "name": "c"}, "arrived") == []


def test_one_line_has_all_workloads_of_a_problem() -> None:
    said = [("b", "No room."), ("a", "Bad image."), ("a", "No room."), ("b", "No room.")]
    problems = [{"workload": name, "message": message} for name, message in said]
    lines = restore_decision({"problems": problems}, "problem_lines")
    assert lines == ["a: Bad image.", "b, a: No room."]


def test_another_step_is_an_error() -> None:
    with pytest.raises(ValueError, match="brew is no step of the role; there are metadata, "):
        restore_decision({}, "brew")
