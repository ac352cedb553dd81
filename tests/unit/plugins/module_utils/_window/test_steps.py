# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The course of a window, by the filter that the playbook asks: whatever ended a run, the next one goes on."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.filter.window_decision import window_decision
from ansible_collections.gpuops.restore.plugins.module_utils._migration import controller

D1, D2 = "sha256:" + "1" * 64, "sha256:" + "2" * 64
SELECTION = {"names": ["*"], "defaults": {"network": "host", "leave": "running"}}


def ref(name: str, tag: str = "w1") -> str:
    return f"gpuops.local/window/{name}:{tag}"


def container(container_id: str, live: bool = True, restored_from: str | None = None) -> dict[str, Any]:
    return {
        "id": container_id,
        "pod": None,
        "labels": {},
        "sandbox": False,
        "gpu": False,
        "live": live,
        "restored_from": restored_from,
    }


def kept(name: str, digest: str = D1, tag: str = "w1") -> dict[str, Any]:
    return {"name": ref(name, tag), "digest": digest, "container": name, "pod": None, "labels": {}, "gpu": False}


def record(name: str, phase: str, digest: str = "", attempt: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "called": name,
        "pod": None,
        "labels": {},
        "gpu": False,
        "attempt": attempt,
        "checkpoint": ref(name),
        "restored": name,
        "digest": digest,
        "phase": phase,
        "message": "",
        "history": [],
        **more,
    }


def course(
    *seen: dict[str, Any],
    kept: Any = (),
    node: Any = None,
    records: Any = (),
    others: Any = (),
    selection: Any = SELECTION,
    file_system: str = "ext4",
    reboot: bool = False,
    claim: Any = None,
    facts: Any = None,
    answer: Any = None,
) -> Any:
    return window_decision(
        {
            "window": "w1",
            "host": "gpu-a",
            "selection": selection,
            "noted": {
                "node": node or {},
                "workloads": list(records),
                "others": list(others),
                "claim": claim or {},
                "facts": {"state": {"path": "/state", "file_system": file_system}, **(facts or {})},
            },
            "reboot": reboot,
            "answer": {
                "workloads": list(seen),
                "checkpoints": list(kept),
                "nvml": {},
                "gpu_node": False,
                **(answer or {}),
            },
        },
        "course",
    )


def phases(found: Any) -> dict[str, str]:
    return {one["id"]: one["phase"] for one in found["records"]}


def test_a_window_begins_with_what_runs_and_ends_it_for_a_checkpoint_of_its_own() -> None:
    found = course(container("a"), container("b"), container("ended", live=False))
    assert (found["next"], found["problems"], phases(found)) == ("capture", [], {"a": "planned", "b": "planned"})
    assert found["captures"][0] == {"name": "a", "checkpoint": ref("a"), "leave": "stopped", "force": True}


#: What a run that was killed anywhere has left, and what the next one does: nothing twice, nothing lost.
STOPPED: list[Any] = [
    # Noted, and nothing captured.
    ("planned", [record("a", "planned")], [container("a")], [], "capture", {"a": "planned"}),
    # Captured and ended, and not noted.
    ("planned", [record("a", "planned")], [container("a", False)], [kept("a")], "work", {"a": "captured"}),
    # Its checkpoint is there, and it goes on: what it did since would be lost, so it is captured anew.
    ("planned", [record("a", "planned")], [container("a")], [kept("a")], "capture", {"a": "planned"}),
    # One captured, the other not yet.
    (
        "planned",
        [record("a", "captured", D1), record("b", "planned")],
        [container("a", False), container("b")],
        [kept("a")],
        "capture",
        {"a": "captured", "b": "planned"},
    ),
    # The node was rebooted by itself before b was captured.
    (
        "planned",
        [record("a", "captured", D1), record("b", "planned")],
        [container("a", False), container("b", False)],
        [kept("a")],
        "work",
        {"a": "captured", "b": "lost"},
    ),
    ("captured", [record("a", "captured", D1)], [container("a", False)], [kept("a")], "work", {"a": "captured"}),
    # Its record went with the pod.
    ("working", [record("a", "captured", D1)], [], [kept("a")], "work", {"a": "captured"}),
    ("worked", [record("a", "captured", D1)], [container("a", False)], [kept("a")], "restore", {"a": "captured"}),
    # Restored, and not noted.
    (
        "worked",
        [record("a", "captured", D1)],
        [container("a", True, D1)],
        [kept("a")],
        "restore",
        {"a": "restored"},
    ),
    ("worked", [record("a", "restored", D1)], [container("a", True, D1)], [kept("a")], "restore", {"a": "restored"}),
    ("done", [record("a", "restored", D1)], [container("a", True, D1)], [kept("a")], "nothing", {"a": "restored"}),
]


@pytest.mark.parametrize(("phase", "records", "seen", "checkpoints", "next_step", "after"), STOPPED)
def test_the_next_run_goes_on(
    phase: str, records: Any, seen: Any, checkpoints: Any, next_step: str, after: dict[str, str]
) -> None:
    found = course(*seen, kept=checkpoints, node={"phase": phase, "attempt": 1}, records=records)
    assert (found["problems"], found["next"], phases(found)) == ([], next_step, after)
    assert [one["name"] for one in found["captures"]] == [
        name for name, now in after.items() if now == "planned" and next_step == "capture"
    ]


def test_one_that_somebody_has_started_again_is_not_taken_for_the_copy() -> None:
    for phase in ("captured", "worked"):
        found = course(
            container("a", True, D2), kept=[kept("a")], node={"phase": phase}, records=[record("a", "captured", D1)]
        )
        assert "somebody has started a again" in found["problems"][0]


def test_after_a_return_the_window_begins_anew_under_a_tag_of_its_own() -> None:
    found = course(
        container("a", True, D1),
        container("b"),
        kept=[kept("a")],
        node={"phase": "returned", "attempt": 1},
        records=[record("a", "restored", D1), record("b", "planned")],
    )
    assert (found["next"], found["attempt"], phases(found)) == ("capture", 2, {"a": "planned", "b": "planned"})
    assert [one["checkpoint"] for one in found["captures"]] == [ref("a", "w1.2"), ref("b", "w1.2")]


def test_a_node_that_was_left_alone_is_tried_again() -> None:
    # Without b, which could not be captured and has been excluded since.
    found = course(
        container("a"),
        container("b"),
        node={"phase": "skipped", "attempt": 1},
        records=[record("a", "planned"), record("b", "planned")],
        selection={**SELECTION, "exclude": ["b"]},
    )
    assert (found["next"], found["attempt"], phases(found)) == ("capture", 2, {"a": "planned"})
    assert [one["checkpoint"] for one in found["captures"]] == [ref("a", "w1.2")]
    # What the next look goes on with.
    noted = [*found["records"], record("b", "planned")]
    found = course(container("a"), container("b"), node={"phase": "planned", "attempt": 2}, records=noted)
    assert [one["name"] for one in found["captures"]] == ["a"]


@pytest.mark.parametrize("phase", ["returned", "skipped"])
@pytest.mark.parametrize("noted", [record("a", "captured", D1), record("a", "planned")])
def test_what_still_waits_comes_back_before_the_window_begins_anew(phase: str, noted: dict[str, Any]) -> None:
    known: Any = {"node": {"phase": phase, "attempt": 1}, "kept": [kept("a")]}
    found = course(container("a", False), container("b"), records=[noted, record("b", "planned")], **known)
    assert (found["next"], found["attempt"], found["captures"]) == ("restore", 1, [])
    assert (found["problems"], phases(found), found["goes_on"]) == ([], {"a": "captured"}, True)
    # Back, and noted.
    found = course(container("a", True, D1), container("b"), records=[record("a", "restored", D1)], **known)
    assert (found["next"], found["attempt"], found["goes_on"]) == ("capture", 2, False)


def test_what_a_resumed_run_has_seen_is_to_be_noted_before_it_may_be_refused() -> None:
    seen, noted = [container("a", False), container("b")], [record("a", "planned"), record("b", "planned")]
    found = course(*seen, kept=[kept("a")], node={"phase": "planned"}, records=noted)
    assert (found["goes_on"], phases(found)) == (True, {"a": "captured", "b": "planned"})
    assert not course(*seen)["goes_on"]


def test_another_window_that_is_not_over_is_named() -> None:
    found = course(container("a"), others=[{"window": "w0", "phase": "captured"}])
    assert "The window w0 is not over on gpu-a (captured)" in found["problems"][0] and found["captures"] == []


def test_two_runs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "at_work", lambda noted, others: "a run on this controller, pid 7" if noted else "")
    claim = {"window": "w0", "controller": "here 1/7/2", "since": "2026-12-02T20:00:00Z"}
    # Whatever it has noted by then: its hook after the window may still run.
    for node, records in (({}, []), ({"phase": "planned"}, [record("a", "planned")]), ({"phase": "done"}, [])):
        found = course(container("a"), node=node, records=records, claim=claim)
        assert (found["next"], found["captures"]) == ("nothing", [])
        assert (
            "The window w0 is in the hands of a run on this controller, pid 7 on gpu-a, since 2026-12-02T20:00:00Z"
            in found["problems"][0]
        )


@pytest.mark.parametrize("phase", ["planned", "captured", "working", "returning"])
def test_the_work_does_not_begin_where_some_is_back_already(phase: str) -> None:
    """The window was given up: one came back, the restore of another failed, or the run was killed between them."""
    records = [record("a", "captured", D1), record("b", "captured", D2), record("c", "planned")]
    found = course(
        container("a", True, D1),
        container("b", False),
        container("c"),
        kept=[kept("a"), kept("b", D2)],
        node={"phase": phase, "attempt": 1},
        records=records,
    )
    assert (found["next"], found["phase"], found["captures"]) == ("restore", "returning", [])
    assert phases(found) == {"a": "restored", "b": "captured", "c": "planned"}
    # All of it is back by now.
    found = course(container("b", True, D2), kept=[kept("b", D2)], node={"phase": "returning"}, records=[records[1]])
    assert (found["next"], phases(found)) == ("restore", {"b": "restored"})
    assert window_decision({"records": found["records"], "phase": "returning", "failed": True}, "phase") == "returned"


def test_what_was_back_and_went_with_a_loss_of_power_before_the_window_was_done_comes_back_once_more() -> None:
    receipts = {"a": {"seconds": {"window": 2.0}}}
    known = {"records": [record("a", "captured", D1)], "receipts": receipts, "failures": {}, "boot": "one"}
    (restored,) = window_decision(known, "restored")
    noted: Any = {"kept": [kept("a")], "node": {"phase": "worked"}, "records": [restored]}
    gone = container("a", False)
    assert phases(course(gone, facts={"boot": "two"}, **noted)) == {"a": "captured"}
    # It has ended by itself, or runs, or all is done.
    assert phases(course(gone, facts={"boot": "one"}, **noted)) == {"a": "restored"}
    assert phases(course(container("a", True, D1), facts={"boot": "two"}, **noted)) == {"a": "restored"}
    noted["node"] = {"phase": "done"}
    assert course(gone, facts={"boot": "two"}, **noted)["next"] == "nothing"


DRIVER = {"time": 1, "driver": "580.1", "gpus": []}


def test_what_is_captured_later_comes_back_to_the_same_node_as_what_was_captured_before() -> None:
    records = [record("a", "captured", D1, gpu=True), record("b", "planned")]
    noted: Any = {"kept": [kept("a")], "node": {"phase": "planned", "before": DRIVER}, "records": records}
    seen = [container("a", False), container("b")]
    assert course(*seen, facts=DRIVER, **noted)["problems"] == []
    (said,) = course(*seen, facts={**DRIVER, "driver": "590.2"}, **noted)["problems"]
    assert "captured with NVIDIA's driver 580.1" in said


def test_the_facts_of_the_first_capture_stay() -> None:
    heard = {"node": {"attempt": 1, "before": {"boot": "old"}}, "facts": {"boot": "new"}}
    for phase, attempt, boot in (("captured", 1, "old"), ("planned", 1, "new"), ("captured", 2, "new")):
        known = {"heard": {**heard, "workloads": [record("a", phase, D1)]}, "attempt": attempt}
        assert window_decision(known, "before") == {"boot": boot}


@pytest.mark.parametrize("phase", ["", "returned", "skipped"])
def test_a_node_that_cannot_tell_of_gpu_memory_begins_no_attempt(phase: str) -> None:
    node = {"phase": phase, "attempt": 1} if phase else {}
    dumb = {"nvml": {"available": False, "reason": "no nvidia-ml-py"}, "gpu_node": True}
    (said,) = course(container("a"), node=node, selection={"gpu": True}, answer=dumb)["problems"]
    assert "gpu-a cannot tell which containers have some: no nvidia-ml-py" in said
    # What has been captured comes back without it.
    noted: Any = {"kept": [kept("a")], "node": {"phase": "worked"}, "records": [record("a", "captured", D1)]}
    assert course(container("a", False), selection={"gpu": True}, answer=dumb, **noted)["next"] == "restore"


@pytest.mark.parametrize(
    ("selection", "part"),
    [({"nmaes": ["*"]}, "Is names meant?"), ({"names": ["x"]}, "takes no container"), ({"gpu": True}, "takes no")],
)
def test_a_selection_that_says_nothing(selection: Any, part: str) -> None:
    assert part in course(container("a"), selection=selection)["problems"][0]


def test_a_node_that_gives_no_answer() -> None:
    for noted, answer in (
        ({"failed": True, "msg": "No disk."}, {}),
        ({"workloads": [], "others": []}, {"msg": "No disk."}),
    ):
        known = {"noted": noted, "answer": answer, "host": "gpu-a", "window": "w1", "selection": SELECTION}
        assert window_decision(known, "course")["problems"] == ["No disk."]


@pytest.mark.parametrize("file_system", ["tmpfs", "ramfs"])
def test_a_reboot_that_would_forget_the_window_is_refused_before_anything_is_captured(file_system: str) -> None:
    found = course(container("a"), file_system=file_system, reboot=True)
    assert (found["next"], found["captures"], found["records"]) == ("nothing", [], [])
    (said,) = found["problems"]
    assert f"/state on gpu-a is on {file_system}" in said and "restore_node_staging_dir" in said
    # What was captured by a run that was not to reboot it.
    noted = {"node": {"phase": "captured"}, "records": [record("a", "captured", D1)], "kept": [kept("a")]}
    assert course(container("a", False), file_system=file_system, reboot=True, **noted)["problems"] == [said]
    # Nothing is rebooted any more, or at all.
    noted["node"] = {"phase": "worked"}
    assert course(container("a", False), file_system=file_system, reboot=True, **noted)["next"] == "restore"
    assert course(container("a"), file_system=file_system)["next"] == "capture"
    assert course(container("a"), reboot=True)["next"] == "capture"


@pytest.mark.parametrize(
    "more",
    [
        {"answer": {"msg": "containerd does not answer."}},
        {"selection": {"nmaes": ["*"]}},
        {"noted": {"others": [{"window": "w0", "phase": "captured"}]}},
    ],
)
def test_a_node_that_cannot_be_planned_for_is_still_in_its_attempt(more: Any) -> None:
    noted = {"node": {"phase": "worked", "attempt": 2}, "workloads": [], "others": []}
    known = {
        "window": "w1",
        "host": "gpu-a",
        "selection": SELECTION,
        "answer": {"workloads": [], "checkpoints": []},
        **more,
        "noted": {**noted, **more.get("noted", {})},
    }
    found = window_decision(known, "course")
    assert found["problems"] and found["attempt"] == 2


FORETOLD: dict[str, Any] = {
    "workloads": {
        "a": {"checkpoint": {"name": "x"}, "failure": None},
        "b": {"msg": "It uses io_uring. Do not.", "failure": {"code": "io_uring_open"}},
    },
    "msg": "1 of 2 workload(s) failed.",
    "failure": {"code": "io_uring_open"},
}


def test_all_captures_of_a_node_are_foretold_by_one_call_with_what_each_says_of_itself() -> None:
    captures = [
        {"name": "a", "checkpoint": ref("a"), "leave": "stopped", "force": True, "criu": {}},
        {"name": "b", "checkpoint": ref("b"), "store": "image", "memory_volumes": [], "compression": "zstd"},
        {"name": "c", "checkpoint": ref("c"), "archive": "/srv/c.tar"},
    ]
    known = {"captures": captures, "defaults": {"store": "node", "cuda_forks": "detach"}}
    common = {"store": "node", "cuda_forks": "detach"}
    assert window_decision(known, "foretell") == [
        {"container_id": "a", "name": ref("a"), **common, "leave": "stopped", "force": True},
        {"container_id": "b", "name": ref("b"), **common, "store": "image", "memory_volumes": []},
        # Archives are given images.
        {"container_id": "c", "name": ref("c"), **common, "store": "both"},
    ]


@pytest.mark.parametrize(("said", "message"), [({"msg": "No disk."}, "No disk."), ({"rc": 137}, "did not run")])
def test_a_call_that_foretells_nothing_is_no_go_for_all(said: Any, message: str) -> None:
    begun = course(container("a"), container("b"))
    found = window_decision({"course": begun, "foretold": said, "policy": "abort"}, "judge")
    assert not found["go"] and [message in line for line in found["problems"]] == [True, True]


@pytest.mark.parametrize(
    ("policy", "go", "skip", "left"),
    [
        ("abort", False, False, {"a": "planned", "b": "planned"}),
        ("skip_node", False, True, {"a": "planned", "b": "planned"}),
        ("go_on", True, False, {"a": "planned", "b": "left out"}),
    ],
)
def test_what_cannot_be_captured_decides_by_policy(policy: str, go: bool, skip: bool, left: dict[str, str]) -> None:
    begun = course(container("a"), container("b"))
    found = window_decision({"course": begun, "foretold": FORETOLD, "policy": policy}, "judge")
    assert (found["go"], found["skip"], phases(found)) == (go, skip, left)
    # To go on without it is what was asked for, and no failure; the record says why it was left out.
    assert found["problems"] == ([] if policy == "go_on" else ["b: It uses io_uring. Do not."])
    assert [one["message"] for one in found["records"] if one["id"] == "b"] == ["It uses io_uring. Do not."]
    assert [one["name"] for one in found["captures"]] == ["a"]
    good = {"workloads": dict.fromkeys("ab", FORETOLD["workloads"]["a"])}
    assert window_decision({"course": begun, "foretold": good, "policy": policy}, "judge")["go"]


def test_a_node_with_something_captured_is_not_left_alone() -> None:
    begun = course(
        container("a", False),
        container("b"),
        kept=[kept("a")],
        node={"phase": "planned"},
        records=[record("a", "captured", D1), record("b", "planned")],
    )
    found = window_decision({"course": begun, "foretold": FORETOLD, "policy": "skip_node"}, "judge")
    assert (found["go"], found["skip"], phases(found)) == (False, False, {"a": "captured", "b": "planned"})


def test_a_policy_that_is_none() -> None:
    found = window_decision({"course": course(container("a")), "foretold": {}, "policy": "skip"}, "judge")
    assert not found["go"] and "maintenance_uncapturable is 'skip'" in found["problems"][0]


def test_receipts_and_failures_are_noted_and_the_rest_stays() -> None:
    records = [record("a", "planned"), record("b", "planned"), record("c", "left out")]
    receipts = {
        "a": {"checkpoint": {"digest": D1}, "seconds": {"total": 1.5}, "sizes": {"criu": 10, "writable_layer": 2}}
    }
    failures = {"b": {"msg": "No room."}}
    a, b, c = window_decision({"records": records, "receipts": receipts, "failures": failures}, "captured")
    assert (a["phase"], a["digest"], a["bytes"], a["seen"]) == ("captured", D1, 12, {"capture": 1.5})
    assert (b["phase"], b["message"], c["phase"]) == ("planned", "No room.", "left out")
    receipts = {"a": {"seconds": {"window": 2.0, "predicted": 1.8}, "finished_at": "2026-12-02T20:04:00Z"}}
    a, b, _c = window_decision({"records": [a, b, c], "receipts": receipts, "failures": {}}, "restored")
    assert (a["phase"], a["seen"]["restore"], a["predicted"]) == ("restored", 2.0, {"restore": 1.8})
    assert a["back_at"] == "2026-12-02T20:04:00Z"
    assert b["phase"] == "planned"


def test_of_four_cards_one_is_refused_and_one_fails_its_probe_and_the_others_go_on() -> None:
    """The job over all cards runs on; what failed waits under its digest for the next run, alone."""
    begun = course(*(container(name) for name in "abcd"), container("job"))
    good, refused = (FORETOLD["workloads"][name] for name in "ab")
    foretold = {"workloads": {**dict.fromkeys("abcd", good), "job": refused}}
    judged = window_decision({"course": begun, "foretold": foretold, "policy": "go_on"}, "judge")
    assert judged["go"] and [one["name"] for one in judged["captures"]] == list("abcd")
    taken = {name: {"checkpoint": {"digest": D1}} for name in "abcd"}
    records = window_decision({"records": judged["records"], "receipts": taken, "failures": {}}, "captured")
    back = {name: {"finished_at": f"2026-12-02T20:01:0{place}Z"} for place, name in enumerate("abc")}
    failed = {"d": {"msg": "The file never-written did not come into being."}}
    records = window_decision({"records": records, "receipts": back, "failures": failed}, "restored")
    assert phases({"records": records}) == {**dict.fromkeys("abc", "restored"), "d": "captured", "job": "left out"}
    # Each was back when its own restore was over.
    assert [one.get("back_at") for one in records[:3]] == [back[name]["finished_at"] for name in "abc"]
    assert records[3]["message"] == failed["d"]["msg"]


@pytest.mark.parametrize(
    ("taken", "seconds", "stopped"),
    [
        # It stands still from the moment at which its memory leaves the card.
        ("2026-12-02T20:00:30Z", {"cuda_suspend": 14.8, "pause": 0.3, "dump": 23.8}, "2026-12-02T20:00:14Z"),
        ("2026-12-02T20:00:30Z", {"dump": 1.0}, "2026-12-02T20:00:30Z"),
        ("", {}, ""),
        ("yesterday", {}, ""),
    ],
)
def test_when_a_workload_came_to_stand_still_is_noted(taken: str, seconds: dict[str, float], stopped: str) -> None:
    receipt = {"checkpoint": {"digest": D1}, "recorded": {"taken_at": taken}, "seconds": seconds}
    known = {"records": [record("a", "planned")], "receipts": {"a": receipt}, "failures": {}}
    assert window_decision(known, "captured")[0]["stopped_at"] == stopped


def test_what_a_capture_that_was_killed_has_ended_waits_for_its_restore() -> None:
    """One call captures all of a node: no receipt, one message for all, and some have ended with whole checkpoints."""
    killed = {"msg": "The module did not run."}
    records = [record(name, "planned") for name in "abcd"] + [record("e", "left out")]
    known = {
        "records": records,
        "receipts": {},
        "failures": dict.fromkeys("abcd", killed),
        "answer": {
            "workloads": [container("a", False), container("b"), container("c", False)],
            "checkpoints": [kept("a"), kept("b"), kept("c", tag="w0"), kept("d", D2), kept("e")],
        },
    }
    after = window_decision(known, "captured")
    # b goes on, and nothing of this window was captured of c.
    assert [one["phase"] for one in after] == ["captured", "planned", "planned", "captured", "left out"]
    assert [one["digest"] for one in after[:4]] == [D1, "", "", D2]
    assert (after[0]["message"], after[1]["message"]) == ("", killed["msg"])
    assert window_decision({"records": after, "phase": "planned", "failed": True}, "phase") == "planned"
    for silent in (None, {"msg": "No containerd."}):
        again = window_decision({**known, "answer": silent}, "captured")
        assert [one["phase"] for one in again] == ["planned"] * 4 + ["left out"]


COMPLETED = {**kept("a", D2), "earlier": D1}


@pytest.mark.parametrize(
    ("node", "noted", "seen", "phase", "digest"),
    [
        ("working", D1, container("a", False), "captured", D2),
        ("worked", D1, container("a", False), "captured", D2),
        ("worked", D2, container("a", False), "captured", D2),
        # Restored before the image was written, and after that.
        ("worked", D1, container("a", True, D1), "restored", D2),
        ("worked", D1, container("a", True, D2), "restored", D2),
        ("worked", D2, container("a", True, D1), "restored", D2),
    ],
)
def test_a_checkpoint_whose_image_was_written_since_is_the_same(
    node: str, noted: str, seen: Any, phase: str, digest: str
) -> None:
    found = course(seen, kept=[COMPLETED], node={"phase": node}, records=[record("a", "captured", noted)])
    (one,) = found["records"]
    assert (found["problems"], one["phase"], one["digest"]) == ([], phase, digest)


def test_another_checkpoint_under_the_name_is_not_the_one_that_was_noted() -> None:
    other = {**kept("a", D2), "earlier": "sha256:" + "3" * 64}
    found = course(container("a", False), kept=[other], node={"phase": "worked"}, records=[record("a", "captured", D1)])
    assert phases(found) == {"a": "lost"}


def test_the_work_does_not_begin_after_a_capture_that_failed() -> None:
    known = {"records": [record("a", "captured", D1)], "phase": "planned", "failed": False, "broken": True}
    assert window_decision(known, "phase") == "planned"


@pytest.mark.parametrize("phase", ["returned", "skipped"])
def test_what_an_earlier_attempt_has_ended_and_forgotten_comes_back_before_the_next(phase: str) -> None:
    records = [
        record("a", "planned", history=[{"phase": "planned"}], window="w1"),
        record("b", "planned"),
        record("c", "planned"),
        record("d", "restored", D1),
        record("e", "captured", D2),
    ]
    checkpoints = [kept("a"), kept("b"), kept("d"), kept("e", D2)]
    seen = [container("a", False), container("b"), container("c", False), container("d", False)]
    node = {"phase": phase, "attempt": 1}
    found = course(*seen, kept=checkpoints, node=node, records=records)
    assert (found["next"], found["attempt"], found["problems"]) == ("restore", 1, [])
    assert phases(found) == {"a": "captured", "e": "captured"} and found["captures"] == []
    (a,) = (one for one in found["records"] if one["id"] == "a")
    assert (a["attempt"], a["checkpoint"], a["digest"]) == (1, ref("a"), D1)
    assert "history" not in a and "window" not in a
    # Somebody has started it anew, under another id.
    called = [{**records[0], "called": "x"}]
    found = course(container("a", False), container("x"), kept=checkpoints[:1], node=node, records=called)
    assert (found["next"], found["attempt"], phases(found)) == ("capture", 2, {"x": "planned"})


def test_only_what_waits_is_restored_under_its_digest() -> None:
    known = {
        "selection": SELECTION,
        "records": [record("a", "captured", D1, gpu=True), record("b", "restored", D2)],
        "host": "gpu-a",
        "gpu_map": {"GPU-1": "GPU-2"},
    }
    assert window_decision(known, "restores") == [
        {"name": "a", "checkpoint": ref("a"), "network": "host", "digest": D1, "gpu_map": {"GPU-1": "GPU-2"}}
    ]


@pytest.mark.parametrize(
    ("left", "before", "failed", "after"),
    [
        (["planned"], "planned", False, "planned"),
        (["captured", "left out"], "planned", False, "captured"),
        (["captured"], "worked", False, "worked"),
        (["restored", "lost"], "worked", False, "done"),
        (["restored", "planned"], "planned", True, "returned"),
        (["captured", "planned"], "planned", True, "planned"),
        (["captured"], "working", True, "working"),
        (["captured", "restored"], "working", True, "returning"),
        (["captured", "restored"], "planned", True, "returning"),
        (["captured", "restored"], "worked", False, "worked"),
    ],
)
def test_the_phase_of_the_node(left: list[str], before: str, failed: bool, after: str) -> None:
    records = [record(str(number), phase) for number, phase in enumerate(left)]
    assert window_decision({"records": records, "phase": before, "failed": failed}, "phase") == after


@pytest.mark.parametrize(("before", "failed"), [("worked", False), ("working", True)])
def test_a_node_is_not_done_with_what_its_journal_says_waits(before: str, failed: bool) -> None:
    known = {"records": [], "noted": [record("a", "captured", attempt=2)], "phase": before, "failed": failed}
    assert window_decision(known, "phase") == before


@pytest.mark.parametrize(
    ("node", "due"),
    [
        ({}, False),
        ({"phase": "worked", "attempt": 1}, False),
        ({"phase": "skipped", "attempt": 1}, False),
        ({"phase": "done", "attempt": 1}, True),
        ({"phase": "returned", "attempt": 2, "after": 1}, True),
        ({"phase": "done", "attempt": 2, "after": 2}, False),
        ({"phase": "done", "attempt": "2", "after": "2"}, False),
    ],
)
def test_the_hook_after_is_due_until_it_is_noted_for_the_attempt(node: Any, due: bool) -> None:
    assert window_decision({"node": node}, "after") is due


def test_a_step_that_is_none() -> None:
    with pytest.raises(ValueError, match="no step of a window"):
        window_decision({}, "nap")
