# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who is restored, with what, and what became of it, by the filter that the role asks."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.filter.restore_decision import restore_decision

BROKEN = {"step": "task", "code": "criu", "outcome": "terminal", "msg": "It broke.", "failure": {}}
NODE = {"workload": "node", "message": "No memory."}


@pytest.mark.parametrize(
    ("planning", "problems", "names"),
    [
        (False, [], ["a", "c"]),
        # A run has stopped before, where it stops for problems.
        (False, [{"workload": "a", "message": "m"}, NODE], ["a", "c"]),
        (True, [{"workload": "a", "message": "m"}], ["c"]),
        (True, [{"workload": "a", "message": "m"}, NODE], []),
    ],
)
def test_those_go_on_that_have_not_failed(planning: bool, problems: list[Any], names: list[str]) -> None:
    known = {"names": ["a", "b", "c"], "failures": {"b": BROKEN}, "problems": problems, "planning": planning}
    assert restore_decision(known, "going") == names


def jobs(*workloads: dict[str, Any], **known: Any) -> list[dict[str, Any]]:
    whole = {
        "workloads": list(workloads),
        "going": [workload["name"] for workload in workloads],
        "found": {},
        "stages": {},
        "preflight_seconds": 1.5,
        "verify_key": ["all.pub"],
        "metadata": {},
    }
    found = restore_decision({**whole, **known}, "jobs")
    assert isinstance(found, list)
    return found


def test_a_job_is_the_workload_without_what_only_the_role_has() -> None:
    one = {"name": "a", "checkpoint": "c:1", "probe": {"file": {}}}
    own = {"metadata": "m.json", "checkpoint_archive": "/a.tar", "image_archive": "/b.tar"}
    (job,) = jobs({**one, **own}, metadata={"m.json": '{"originalImage": "o:1"}\n'})
    assert job == {
        **one,
        "verify_key": ["all.pub"],
        "metadata_content": '{"originalImage": "o:1"}\n',
        "record": {
            "seconds": {"preflight": 1.5, "stage": 0.0},
            "images_imported": [],
            "base_image": {"digest": ""},
        },
    }


def test_its_own_key_wins_and_its_record_says_what_came_before() -> None:
    (job,) = jobs(
        {"name": "a", "checkpoint": "c:1", "verify_key": ["own.pub"]},
        stages={"a": {"seconds": 2, "images": ["c:1"]}},
        found={"a": {"checkpoint": {"base_image": {"digest": "sha256:b"}}}},
    )
    assert job["verify_key"] == ["own.pub"]
    assert job["record"]["seconds"] == {"preflight": 1.5, "stage": 2.0}
    assert (job["record"]["images_imported"], job["record"]["base_image"]) == (["c:1"], {"digest": "sha256:b"})


@pytest.mark.parametrize("metadata", [None, "", "not-there.json"])
def test_without_metadata_there_is_no_content(metadata: Any) -> None:
    (job,) = jobs({"name": "a", "metadata": metadata})
    assert "metadata_content" not in job
    assert "metadata_content" not in jobs({"name": "a"})[0]


def test_an_empty_file_is_handed_on_for_the_module_to_refuse() -> None:
    assert jobs({"name": "a", "metadata": "m"}, metadata={"m": ""})[0]["metadata_content"] == ""


def test_only_those_that_go_on_are_jobs() -> None:
    assert [job["name"] for job in jobs({"name": "a"}, {"name": "b"}, going=["b"])] == ["b"]
    assert jobs() == []


def outcome(restored: dict[str, Any], *names: str) -> tuple[Any, Any]:
    known = {"restored": restored, "names": list(names)}
    return restore_decision(known, "failures"), restore_decision(known, "receipts")


def test_each_has_a_failure_or_a_receipt() -> None:
    answers = {"a": {"failure": None, "receipt": {"version": 1}}, "b": {"failure": BROKEN, "receipt": None}}
    assert outcome({"workloads": answers}, "a", "b") == ({"b": BROKEN}, {"a": {"version": 1}})


def test_nothing_was_to_be_done() -> None:
    assert outcome({"skipped": True}) == ({}, {})


@pytest.mark.parametrize(
    ("restored", "code", "kind", "message"),
    [
        ({"rc": 137}, "module_failed", "unknown", "containerd_restore did not run; -vvv shows why."),
        ({"failed": True, "msg": "Bad option."}, "module_failed", "unknown", "Bad option."),
        ({"msg": "Busy.", "failure": {"code": "busy", "outcome": "retryable"}}, "busy", "retryable", "Busy."),
    ],
)
def test_a_module_that_did_not_get_so_far_failed_for_all(
    restored: dict[str, Any], code: str, kind: str, message: str
) -> None:
    failures, receipts = outcome(restored, "a", "b")
    assert (list(failures), receipts) == (["a", "b"], {})
    assert failures["b"] == {
        "step": "containerd_restore",
        "code": code,
        "outcome": kind,
        "msg": message,
        "failure": restored.get("failure", {}),
        "evidence": "",
        "left_behind": "",
    }


def test_a_line_says_why_a_workload_failed_and_what_is_left() -> None:
    said = {"outcome": "terminal", "msg": "It broke."}
    known = {"failures": {"a": {**said, "evidence": "/debug/a", "left_behind": "a mount"}, "b": said}}
    assert restore_decision(known, "failure_lines") == [
        "a: terminal: It broke. Evidence: /debug/a Left behind: a mount",
        "b: terminal: It broke.",
    ]
