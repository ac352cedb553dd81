# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How errors are told."""

from __future__ import annotations

import errno

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import (
    RETRYABLE,
    TERMINAL,
    UNKNOWN,
    NodeError,
    RpcError,
    as_failure,
    combined,
    refused,
)


def test_a_failure_as_modules_return_it() -> None:
    error = RpcError("rpc_failed", "It broke.", "Mend it.", outcome=UNKNOWN, rpc="Tasks/Start", details={"pid": 7})
    told = error.failure().result()
    assert list(told.items()) == [
        ("code", "rpc_failed"),
        ("outcome", "unknown"),
        ("rpc", "Tasks/Start"),
        ("hint", "Mend it."),
        ("details", {"pid": 7}),
    ]
    error.left_behind("the task")
    error.left_behind("the snapshot")
    assert error.failure().details == {"pid": 7, "left_behind": "the task; the snapshot"}
    assert told["details"] == {"pid": 7}, "what was told before is as it was"


def test_a_problem_as_modules_list_it() -> None:
    error = NodeError("vram_short", "Too little.", "Free some.", outcome=RETRYABLE, details={"free": 1})
    assert error.problem() == {
        "code": "vram_short",
        "message": "Too little.",
        "remedy": "Free some.",
        "outcome": "retryable",
    }


def test_several_problems_as_one() -> None:
    first, second = NodeError("a_missing", "No a.", "Get a."), NodeError("b_missing", "No b.", "Get b.")
    assert combined([first]) is first
    both = combined([first, second])
    assert both.code == "node_problems"
    assert "2 things are missing on this node: (1) No a. Get a. (2) No b. Get b." in both.message
    assert both.details["problems"] == [
        {"code": "a_missing", "message": "No a. Get a."},
        {"code": "b_missing", "message": "No b. Get b."},
    ]
    assert combined([first, NodeError("a_missing", "No a there.")]).code == "a_missing"
    full = NodeError("disk_full", "It is full.", "Free space.", outcome=RETRYABLE)
    assert combined([full, NodeError("staging_no_space", "That, too.", outcome=RETRYABLE)]).outcome == RETRYABLE
    assert combined([full, first]).outcome == TERMINAL


@pytest.mark.parametrize(
    ("number", "code", "outcome"),
    [
        (errno.ENOSPC, "disk_full", RETRYABLE),
        (errno.EDQUOT, "disk_full", RETRYABLE),
        (errno.EIO, "io_error", TERMINAL),
        (errno.EACCES, "io_error", TERMINAL),
    ],
)
def test_what_the_operating_system_refuses(number: int, code: str, outcome: str) -> None:
    error = refused(OSError(number, "why", "/a/b"))
    assert (error.code, error.outcome) == (code, outcome)
    assert "/a/b" in error.message and error.remedy


def test_what_nobody_foresaw() -> None:
    known = NodeError("a_missing", "No a.")
    assert as_failure(known) is known
    assert as_failure(OSError(errno.EIO, "why")).code == "io_error"
    try:
        {}["x" * 1000]
    except KeyError as raised:
        error = as_failure(raised)
    assert (error.code, error.outcome) == ("internal_error", TERMINAL)
    assert "KeyError" in error.message and "test_errors.py:" in error.message and len(error.message) < 400
    assert error.details["type"] == "KeyError" and error.remedy
