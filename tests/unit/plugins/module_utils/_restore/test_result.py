# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a workload's result says of a failure."""

from __future__ import annotations

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._restore.params import Job, Settings
from ansible_collections.gpuops.restore.plugins.module_utils._restore.result import Result, WorkloadFailure


def failed(error: RestoreError) -> WorkloadFailure:
    result = Result(Job.from_options({"name": "train", "checkpoint": "c:1"}, Settings()), step="task")
    result.fail(error)
    assert result.failure is not None
    assert result.shown()["failure"] == result.failure.result()
    return result.failure


def test_a_failure_as_results_and_evidence_have_it() -> None:
    found = failed(RestoreError("criu_restore_failed", "It broke.", "See /w/log.", details={"log": "/w/log"}))
    assert found.result() == {
        "step": "task",
        "code": "criu_restore_failed",
        "outcome": "terminal",
        "msg": "It broke. See /w/log.",
        "failure": {
            "code": "criu_restore_failed",
            "outcome": "terminal",
            "rpc": None,
            "hint": "See /w/log.",
            "details": {"log": "/w/log"},
        },
        "evidence": "",
        "left_behind": "",
    }


def test_files_that_went_into_the_evidence_are_named_there() -> None:
    details = {"log": "/w/log", "more": {"also": ["/w/a", 1, None]}, "left_behind": "/w/x"}
    told = failed(RestoreError("c", "See /w/log.", "Look at /w.", details=details)).with_evidence("/w", "/debug/1")
    assert told.msg == "See /debug/1/log. Look at /debug/1."
    assert (told.error.hint, told.evidence, told.left_behind) == ("Look at /debug/1.", "/debug/1", "/debug/1/x")
    assert told.error.details == {
        "log": "/debug/1/log",
        "more": {"also": ["/debug/1/a", 1, None]},
        "left_behind": "/debug/1/x",
    }


def test_what_could_not_be_taken_away_makes_it_unknown_everywhere() -> None:
    found = failed(RestoreError("c", "m", details={"left_behind": "the task"})).with_left_behind("a file")
    assert (found.outcome, found.left_behind) == ("unknown", "the task; a file")
    assert found.result()["failure"] == {
        "code": "c",
        "outcome": "unknown",
        "rpc": None,
        "hint": "",
        "details": {"left_behind": "the task; a file"},
    }
