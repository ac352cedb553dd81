# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A window whose workloads are parked, by the filter that the playbook asks: what ended a run, and what is lost."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.filter.window_decision import window_decision

GIB = 1 << 30
DRIVER = {"boot": "one", "driver": "580.1", "gpus": [{"uuid": "GPU-1", "name": "H100"}]}


def container(container_id: str, live: bool = True, pid: int | None = 7, **more: Any) -> dict[str, Any]:
    found = {"id": container_id, "pod": None, "labels": {}, "sandbox": False, "gpu": False, "restored_from": None}
    return {**found, "live": live, "pid": pid if live else None, **more}


def record(name: str, phase: str, **more: Any) -> dict[str, Any]:
    found = {"id": name, "called": name, "pod": None, "labels": {}, "gpu": False, "attempt": 1, "checkpoint": ""}
    return {**found, "restored": name, "digest": "", "pid": 7, "phase": phase, "message": "", **more}


def node(phase: str, **more: Any) -> dict[str, Any]:
    return {"phase": phase, "method": "park", "attempt": 1, "before": {"boot": "one"}, **more}


def course(
    *seen: dict[str, Any],
    noted: Any = None,
    records: Any = (),
    boot: str = "one",
    method: str = "park",
    names: Any = ("*",),
    kept: Any = (),
) -> Any:
    state = {"path": "/state", "file_system": "ext4"}
    return window_decision(
        {
            "window": "w1",
            "host": "gpu-a",
            "selection": {"names": list(names)},
            "method": method,
            "noted": {
                "node": noted or {},
                "workloads": list(records),
                "others": [],
                "claim": {},
                "facts": {"boot": boot, "state": state},
            },
            "answer": {"workloads": list(seen), "checkpoints": list(kept), "nvml": {}, "gpu_node": False},
        },
        "course",
    )


def phases(found: Any) -> dict[str, str]:
    records = found["records"] if isinstance(found, dict) else found
    return {one["id"]: one["phase"] for one in records}


def names(found: Any) -> list[str]:
    return [one["name"] for one in found["captures"]]


@pytest.mark.parametrize(
    ("method", "reboot", "said"),
    [
        ("park", True, "park does not go with maintenance_reboot"),
        ("parked", False, "maintenance_method is 'parked'; it has to be one of checkpoint, park."),
        ("park", False, ""),
        ("checkpoint", True, ""),
    ],
)
def test_a_reboot_and_parking_do_not_go_together(method: str, reboot: bool, said: str) -> None:
    found = window_decision({"method": method, "reboot": reboot}, "refused")
    assert (said in found) if said else found == ""


def test_a_window_begins_with_what_runs_and_keeps_nothing_of_it() -> None:
    # Two that have one name would get into each other's way as checkpoints, not in place.
    pod = {"namespace": "ml", "name": "bert", "uid": "u", "container": "train"}
    found = course(container("a", pod=pod), container("b", pod=pod), container("ended", live=False))
    assert (found["next"], found["method"], found["problems"], names(found)) == ("capture", "park", [], ["a", "b"])
    assert phases(found) == {"a": "planned", "b": "planned"}
    told = [(one["pid"], one["checkpoint"], one["restored"]) for one in found["records"]]
    assert told == [(7, "", "a"), (7, "", "b")]


def test_a_selection_that_takes_nothing() -> None:
    assert "takes no container" in course(container("a"), names=["b"])["problems"][0]


@pytest.mark.parametrize(
    ("phase", "was", "next_step", "parks"),
    [
        # Noted, or half of it done.
        ("planned", {"a": "planned", "b": "planned"}, "capture", ["a", "b"]),
        ("planned", {"a": "parked", "b": "planned"}, "capture", ["a", "b"]),
        # Somebody may have had it go on since, so it is asked to be parked again, which changes nothing of what is.
        ("parked", {"a": "parked", "b": "parked"}, "capture", ["a", "b"]),
        ("working", {"a": "parked", "b": "left out"}, "capture", ["a"]),
        ("worked", {"a": "parked", "b": "parked"}, "restore", []),
        ("worked", {"a": "parked", "b": "resumed"}, "restore", []),
        # What is back runs on a node that the work would take it from.
        ("returning", {"a": "parked", "b": "resumed"}, "restore", []),
        ("working", {"a": "parked", "b": "resumed"}, "restore", []),
        ("done", {"a": "resumed", "b": "resumed"}, "nothing", []),
    ],
)
def test_the_next_run_goes_on(phase: str, was: dict[str, str], next_step: str, parks: list[str]) -> None:
    records = [record(name, each) for name, each in was.items()]
    found = course(container("a"), container("b"), noted=node(phase), records=records)
    assert (found["problems"], found["next"], found["method"], names(found)) == ([], next_step, "park", parks)
    assert phases(found) == was
    if next_step == "restore" and phase != "worked":
        assert found["phase"] == "returning"


@pytest.mark.parametrize("phase", ["planned", "parked", "working"])
def test_a_reboot_has_taken_what_was_parked_and_it_is_said(phase: str) -> None:
    records = [record("a", "parked"), record("b", "planned")]
    known: Any = {"noted": node(phase), "records": records}
    found = course(container("a", live=False), container("b", live=False), boot="two", **known)
    # Nothing is left that the work could harm.
    assert (found["next"], phases(found)) == ("work", {"a": "lost", "b": "lost"})
    a, b = (one["message"] for one in found["records"])
    assert a.startswith("a was parked when the node was rebooted, so it is lost: nothing of it was written. Start it")
    assert "b was about to be parked when" in b
    # Started anew at boot, under the same id: the work would take it by surprise.
    found = course(container("a"), container("b", live=False), boot="two", **known)
    assert (found["next"], found["phase"], names(found)) == ("restore", "returning", [])
    assert "What runs as a now was started anew." in found["records"][0]["message"]
    known["noted"] = node("worked")
    assert course(container("a"), boot="two", **known)["next"] == "restore"


def test_one_that_has_ended_while_it_was_parked_is_lost_alone() -> None:
    records = [record(name, "parked") for name in "abc"]
    seen = [container("a"), container("b", live=False), container("c", pid=8)]
    found = course(*seen, noted=node("worked"), records=records)
    assert phases(found) == {"a": "parked", "b": "lost", "c": "lost"}
    assert "b has ended while it was parked" in found["records"][1]["message"]
    assert "What runs as c now was started anew." in found["records"][2]["message"]


def test_an_attempt_goes_on_as_it_began() -> None:
    for was, asked in (("park", "checkpoint"), ("checkpoint", "park")):
        noted = node("working", method=was)
        (said,) = course(container("a"), noted=noted, records=[record("a", "parked")], method=asked)["problems"]
        assert f"has begun on gpu-a with maintenance_method: {was}, and this run asks for {asked}" in said
        noted["phase"] = "done"
        assert course(container("a"), noted=noted, records=[], method=asked)["next"] == "nothing"
    # Over, it may begin anew by another.
    found = course(container("a"), noted=node("returned"), records=[record("a", "resumed")], method="checkpoint")
    assert (found["next"], found["attempt"], found["method"]) == ("capture", 2, "checkpoint")
    found = course(container("a"), noted=node("returned"), records=[record("a", "resumed")])
    assert (found["next"], found["attempt"], found["method"], phases(found)) == ("capture", 2, "park", {"a": "planned"})


def test_what_an_attempt_by_checkpoints_has_left_comes_back_before_others_are_parked() -> None:
    digest = "sha256:" + "1" * 64
    kept = {"name": "x/a:w1", "digest": digest, "container": "a", "pod": None, "labels": {}, "gpu": False}
    records = [record("a", "captured", digest=digest, checkpoint="x/a:w1")]
    noted = node("returned", method="checkpoint")
    found = course(container("a", live=False), container("b"), noted=noted, records=records, kept=[kept])
    assert (found["next"], found["method"], found["attempt"], names(found)) == ("restore", "checkpoint", 1, [])


def foretold(name: str = "a", **more: Any) -> dict[str, Any]:
    memory = {"needed": 2 * GIB, "available": 9 * GIB, "limit_leaves": 3 * GIB, **more}
    return {"actions": ["pause it"], "failure": None, "vram": {"GPU-1": memory["needed"]}, "host_memory": memory}


def test_the_plan_says_what_each_needs() -> None:
    records = [record(name, "planned") for name in "abcd"]
    told = {
        "a": foretold(),
        "b": foretold(limit_leaves=None),
        "c": {**foretold(needed=0), "vram": {}},
        "d": {"msg": "No.", "failure": {}},
    }
    assert window_decision({"records": records, "foretold": {"workloads": told}}, "needs") == [
        "a brings 2.0 GiB of 1 GPU(s) into host memory; its memory limit leaves 3.0 GiB.",
        "b brings 2.0 GiB of 1 GPU(s) into host memory; it has no memory limit.",
        "c has no GPU memory and is only paused.",
        "All together bring 4.0 GiB into host memory, of which 9.0 GiB are free.",
    ]
    assert window_decision({"records": records, "foretold": {"msg": "No."}}, "needs") == []


@pytest.mark.parametrize(
    ("policy", "go", "skip", "left"),
    [("abort", False, False, "planned"), ("skip_node", False, True, "planned"), ("go_on", True, False, "left out")],
)
def test_what_cannot_be_parked_decides_by_policy(policy: str, go: bool, skip: bool, left: str) -> None:
    begun = course(container("a"), container("b"))
    refused = {"msg": "Too little memory.", "failure": {"code": "container_memory_short"}}
    told = {"workloads": {"a": foretold(), "b": refused}}
    found = window_decision({"course": begun, "foretold": told, "policy": policy}, "judge")
    assert (found["go"], found["skip"], phases(found)) == (go, skip, {"a": "planned", "b": left})
    assert found["problems"] == ([] if go else ["b: Too little memory."])
    # A run that was broken off may have left them standing still.
    begun = course(container("a"), container("b"), noted=node("planned"), records=begun["records"])
    assert not window_decision({"course": begun, "foretold": told, "policy": policy}, "judge")["skip"]


def test_where_nobody_can_tell_of_any_nothing_begins_whatever_the_policy() -> None:
    begun = course(container("a"), noted=node("parked"), records=[record("a", "parked")])
    for policy in ("go_on", "skip_node", "abort"):
        known = {"course": begun, "foretold": {"msg": "No containerd."}, "policy": policy}
        found = window_decision(known, "judge")
        assert (found["go"], found["skip"], phases(found)) == (False, False, {"a": "parked"})
        assert "No containerd." in found["problems"][0]


def park(records: Any, told: Any, phase: str = "planned") -> Any:
    return window_decision({"records": records, "told": told, "phase": phase}, "parked")


def test_what_is_parked_is_noted_with_what_it_brought() -> None:
    done = {**foretold(), "changed": True, "pid": 7, "seconds": {"total": 1.5}}
    records = [record("a", "planned"), record("b", "left out")]
    found = park(records, {"workloads": {"a": done}})
    assert (found["phase"], phases(found)) == ("parked", {"a": "parked", "b": "left out"})
    assert (found["records"][0]["bytes"], found["records"][0]["seen"]) == (2 * GIB, {"park": 1.5})
    # Again, in the middle of the work.
    again = {**done, "changed": False, "seconds": {"total": 0.1}}
    found = park(found["records"], {"workloads": {"a": again}}, "working")
    assert (found["phase"], found["records"][0]["seen"]) == ("working", {"park": 1.5})


@pytest.mark.parametrize(
    "told", [{"workloads": {"a": {"failure": {"code": "busy"}, "msg": "Busy."}}}, {"msg": "Busy."}]
)
@pytest.mark.parametrize("phase", ["planned", "parked", "working"])
def test_the_work_does_not_begin_where_one_is_not_parked(told: Any, phase: str) -> None:
    found = park([record("a", "parked" if phase != "planned" else "planned")], told, phase)
    assert (found["phase"], phases(found), found["records"][0]["message"]) == ("planned", {"a": "planned"}, "Busy.")
    assert window_decision({"records": found["records"]}, "said") == ["a: Busy."]


def way_back(records: Any, *seen: Any, after: Any = None, answer: Any = None) -> Any:
    known = {"records": records, "before": DRIVER, "after": {**DRIVER, **(after or {})}}
    return window_decision({**known, "answer": answer or {"workloads": list(seen)}}, "way_back")


def test_what_may_stand_still_comes_back_whatever_was_noted() -> None:
    records = [record(name, phase) for name, phase in zip("abcd", ("planned", "parked", "left out", "resumed"))]
    found = way_back(records, *map(container, "abcd"))
    assert (found["resume"], found["problems"], phases(found)) == (["a", "b"], [], phases(records))
    found = way_back(records, *map(container, "abcd"), after={"boot": "two"})
    assert (found["resume"], phases(found)["b"]) == ([], "lost")
    found = way_back(records, answer={"msg": "No containerd."})
    assert (found["resume"], found["problems"], phases(found)) == ([], ["No containerd."], phases(records))


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ({"driver": "590.2"}, "parked with NVIDIA's driver 580.1, and the node has 590.2 now"),
        ({"driver": "", "gpus": []}, "driver (580.1 before) is not loaded"),
        ({"gpus": []}, "The GPU GPU-1 (H100) is not there any more"),
    ],
)
def test_another_driver_or_no_card_leaves_it_parked(after: Any, said: str) -> None:
    found = way_back([record("a", "parked", gpu=True)], container("a"), after=after)
    assert (found["resume"], phases(found)) == ([], {"a": "parked"}) and said in found["problems"][0]
    # Nothing of it is on a card.
    assert way_back([record("a", "parked")], container("a"), after=after)["resume"] == ["a"]


def resumed(*records: Any, told: Any = None, resume: Any = ("x",)) -> Any:
    return window_decision({"back": {"records": records, "resume": list(resume)}, "told": told or {}}, "resumed")


def test_what_is_back_is_noted_with_its_proof() -> None:
    done = {"changed": True, "failure": None, "pid": 7, "seconds": {"total": 0.5}, "ended": []}
    ended = {**done, "ended": [{"pid": 9, "command": "python"}]}
    records = [record("a", "parked", seen={"park": 1.5}), record("b", "planned"), record("c", "planned")]
    told = {"workloads": {"a": done, "b": ended, "c": {**done, "changed": False}}}
    a, b, c = resumed(*records, told=told)
    assert (a["phase"], a["seen"], a["message"]) == ("resumed", {"park": 1.5, "resume": 0.5}, "")
    assert a["proof"] == "Its processes run as before (pid 7)."
    # It had been parked by a run that could not note it; the other one ran all the time.
    assert (b["phase"], b["message"], c["phase"]) == ("resumed", "Process 9 (python) ended when it went on.", "planned")
    (other,) = resumed(record("a", "parked"), told={"workloads": {"a": {**done, "pid": 8}}})
    assert other["phase"] == "lost" and "started anew" in other["message"]
    assert list(resumed(record("a", "parked"), resume=())) == [record("a", "parked")]


@pytest.mark.parametrize(
    ("failure", "was", "phase"),
    [
        ({"code": "task_not_running"}, "parked", "lost"),
        ({"code": "cuda_restore_failed", "details": {"lost": True}}, "parked", "lost"),
        ({"code": "vram_short"}, "parked", "parked"),
        # Whatever was noted, it may stand still.
        ({"code": "vram_short"}, "planned", "parked"),
        ({"code": "task_paused"}, "planned", "planned"),
        ({"code": "busy"}, "parked", "parked"),
    ],
)
def test_what_does_not_come_back(failure: Any, was: str, phase: str) -> None:
    told = {"workloads": {"a": {"failure": failure, "msg": "No."}}}
    (found,) = resumed(record("a", was), told=told)
    assert (found["phase"], found["message"]) == (phase, "No.")
    (silent,) = resumed(record("a", was), told={"msg": "Killed."})
    assert (silent["phase"], silent["message"]) == ("parked", "Killed.")


@pytest.mark.parametrize(
    ("left", "before", "failed", "after"),
    [
        (["resumed", "lost", "left out"], "worked", False, "done"),
        (["resumed", "parked"], "worked", False, "worked"),
        (["resumed", "planned"], "working", True, "returned"),
        (["resumed", "parked"], "working", True, "returning"),
        (["parked"], "working", True, "working"),
        (["lost"], "returning", True, "returned"),
    ],
)
def test_the_phase_of_the_node(left: list[str], before: str, failed: bool, after: str) -> None:
    records = [record(str(number), phase) for number, phase in enumerate(left)]
    assert window_decision({"records": records, "phase": before, "failed": failed}, "phase") == after


def test_each_that_is_back_is_probed_once() -> None:
    selection = {"names": ["*"], "defaults": {"probe": {"file": {"path": "/x"}}}}
    records = [record("a", "resumed", proof="Runs."), record("b", "parked"), record("c", "resumed", probed=True)]
    known = {"records": records, "selection": selection, "host": "gpu-a"}
    assert window_decision(known, "to_probe") == [{"file": {"path": "/x"}, "container_id": "a"}]
    assert window_decision({**known, "selection": {"names": ["*"]}}, "to_probe") == []
    for answer, proof, message in (
        ({"probe": {"detail": "It went on."}}, "Runs. It went on.", ""),
        ({"msg": "It stands still."}, "Runs.", "It is back, and its probe failed: It stands still."),
    ):
        probed = [{"gpuops_window_probe": {"container_id": "a"}, **answer}]
        a, b, _c = window_decision({"records": records, "probed": probed}, "probed")
        assert (a["probed"], a["proof"], a["message"], b) == (True, proof, message, records[1])


def test_the_facts_of_the_first_parking_stay() -> None:
    heard = {"node": {"attempt": 1, "before": {"boot": "old"}}, "facts": {"boot": "new"}}
    known = {"heard": {**heard, "workloads": [record("a", "parked")]}, "attempt": 1}
    assert window_decision(known, "before") == {"boot": "old"}
