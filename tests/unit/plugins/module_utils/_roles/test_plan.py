# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run would do, by the filters that the role and the playbook ask."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.filter.plan_lines import plan_lines
from ansible_collections.gpuops.restore.plugins.filter.restore_decision import restore_decision

FOUND = {
    "a": {"checkpoint": {"digest": "sha256:1", "base_image": {"name": "base:1"}, "criu": {"size": 2048}}},
}
PREDICTED = {"seconds": 2.04, "ahead": 0.0, "basis": "its sizes"}
GO = {"go": True, "checkpoint": "c:1", "bytes": 0, "predicted": {}, "changes": [], "problems": []}
HEAD = "HOST                 WORKLOAD                            MEMORY    WINDOW  CHECKPOINT"


def entry(**known: Any) -> Any:
    whole = {
        "name": "a",
        "checkpoint": "c:1",
        "found": FOUND,
        "failures": {},
        "problems": [],
        "stages": {},
        "restored": {"skipped": True},
        "checked": {},
        "unseen": False,
    }
    return restore_decision({**whole, **known}, "plan")


def test_what_staging_and_restoring_would_do_is_one_list() -> None:
    restored = {"workloads": {"a": {"actions": ["start the task"], "predicted": PREDICTED}}}
    found = entry(
        stages={"a": {"actions": ["stage the CRIU images"]}}, restored=restored, checked={"predicted": {"a": {"x": 1}}}
    )
    assert found == {
        "go": True,
        "checkpoint": "c:1",
        "digest": "sha256:1",
        "base_image": "base:1",
        "bytes": 2048,
        "predicted": PREDICTED,
        "changes": ["stage the CRIU images", "start the task"],
        "problems": [],
    }


@pytest.mark.parametrize("found", [{}, {"a": {}}, {"a": {"checkpoint": None}}, {"a": {"checkpoint": {"criu": None}}}])
def test_of_a_checkpoint_that_nobody_has_read_nothing_is_known(found: Any) -> None:
    one = entry(found=found, unseen=True)
    assert (one["digest"], one["base_image"], one["bytes"], one["predicted"]) == ("", "", 0, {})
    assert one["changes"] == ["whatever the checkpoint needs; it can only be read once it is on the node"]


@pytest.mark.parametrize("restored", [{"skipped": True}, {"rc": 1}, {"workloads": {"a": {"predicted": None}}}])
def test_a_window_is_predicted_by_who_has_looked(restored: Any) -> None:
    assert entry(restored=restored, checked={"predicted": {"a": PREDICTED}})["predicted"] == PREDICTED
    assert entry(restored=restored, checked={"predicted": {"a": None}})["predicted"] == {}


def test_a_problem_or_a_failure_is_a_no_go() -> None:
    problems = [{"workload": name, "message": f"of {name}"} for name in ("a", "b", "node")]
    assert entry(problems=problems)["problems"] == ["of a", "of node"]
    assert not entry(problems=problems)["go"]
    failed = entry(failures={"a": {"msg": "It broke."}})
    assert (failed["go"], failed["problems"]) == (False, ["It broke."])
    assert entry(failures={"b": {"msg": "It broke."}}, problems=[{"workload": "b", "message": "m"}])["go"]


def test_a_table_shows_what_would_be_done_and_what_is_in_the_way() -> None:
    no_go = {**GO, "go": False, "changes": ["start it"], "problems": ["No room."]}
    ahead = {**PREDICTED, "ahead": 1.26}
    plans = {
        "one": {"a": {**GO, "bytes": 3 << 30, "predicted": ahead, "changes": ["start it"]}, "b": GO},
        "two": {"c": no_go},
        "three": {},
    }
    assert plan_lines(plans) == [
        HEAD,
        "one                  a                        GO        3.00 GB    ~2.0 s  c:1",
        "    window by its sizes; before it 1.3 s of reading ahead",
        "    would start it",
        "one                  b                        GO              ?         -  c:1",
        "    nothing to do",
        "two                  c                        NO-GO           ?         ?  c:1",
        "    problem: No room.",
        "three                -                        NO-GO                        The host gave no answer.",
    ]
    assert plan_lines({}) == [HEAD]


@pytest.mark.parametrize(
    ("size", "text"),
    [(1, "1.00 Bytes"), (1023, "1023.00 Bytes"), (1024, "1.00 KB"), ((1 << 20) - 1, "1024.00 KB"), ("1536", "1.50 KB")],
)
def test_sizes_are_readable(size: Any, text: str) -> None:
    assert f" {text} " in plan_lines({"one": {"a": {**GO, "bytes": size}}})[1]


def test_reading_ahead_of_no_length_is_not_told() -> None:
    lines = plan_lines({"one": {"a": {**GO, "predicted": {**PREDICTED, "ahead": 0.05}}}})
    assert lines[2:] == ["    window by its sizes", "    nothing to do"]
