# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A window that moves its workloads to spare nodes, by the filter that the playbook asks: what goes, and comes back."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.filter.window_decision import window_decision

DIGEST = "sha256:" + "1" * 64
ROOM = {"memory": 1 << 40, "disk": 1 << 40, "cards": [], "architecture": "x86_64", "cpu_features": []}


def container(container_id: str, live: bool = True, restored: bool = False, **more: Any) -> dict[str, Any]:
    found = {"id": container_id, "pod": None, "labels": {}, "sandbox": False, "gpu": False, "state": "RUNNING"}
    return {**found, "live": live, "restored_from": DIGEST if restored else None, "memory": 1, **more}


def record(name: str, phase: str, **more: Any) -> dict[str, Any]:
    found = {"id": name, "called": name, "pod": None, "labels": {}, "gpu": False, "attempt": 1, "checkpoint": ""}
    refs = {"out": f"gpuops.local/window/{name}:w1", "home": f"gpuops.local/window/{name}:w1.back", "moves": []}
    where = {"restored": name, "digest": "", "spare": "spare-1" if phase != "planned" else ""}
    return {**found, **refs, **where, "phase": phase, "message": "", **more}


def looked(*seen: dict[str, Any], **heard: Any) -> dict[str, Any]:
    return {"heard": {"room": ROOM, "facts": {}, "others": [], "node": {}, **heard}, "answer": answer(*seen)}


def answer(*seen: dict[str, Any]) -> dict[str, Any]:
    return {"workloads": list(seen), "checkpoints": [], "nvml": {}, "gpu_node": False}


def node(phase: str, **more: Any) -> dict[str, Any]:
    return {"phase": phase, "mode": "evacuate", "attempt": 1, **more}


def course(
    *seen: dict[str, Any],
    noted: Any = None,
    records: Any = (),
    spares: Any = None,
    mode: str = "evacuate",
    names: Any = ("*",),
) -> Any:
    return window_decision(
        {
            "window": "w1",
            "host": "gpu-a",
            "selection": {"names": list(names)},
            "method": "checkpoint",
            "mode": mode,
            "spares": {"spare-1": looked()} if spares is None else spares,
            "noted": {"node": noted or {}, "workloads": list(records), "others": [], "claim": {}, "facts": {}},
            "answer": answer(*seen),
        },
        "course",
    )


def phases(found: Any) -> dict[str, str]:
    return {one["id"]: one["phase"] for one in found["records"]}


def refused(mode: Any = "evacuate", method: str = "checkpoint", spares: Any = None, nodes: Any = ("gpu-a",)) -> str:
    given = {"spares": ["spare-1"]} if spares is None else spares
    known = {"mode": mode, "method": method, "reboot": False, "spares": given, "nodes": list(nodes), "host": nodes[0]}
    return str(window_decision(known, "refused"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, ""),
        ({"mode": "in_place", "spares": {}}, ""),
        ({"mode": "evacuated"}, "maintenance_mode is 'evacuated'; it has to be one of in_place, evacuate."),
        ({"method": "park"}, "park does not go with maintenance_mode: evacuate"),
        ({"spares": {}}, "maintenance_spares names none. Give a list of hosts, or a group."),
        ({"spares": {"nobody": []}}, "maintenance_spares names no host (nobody)."),
        (
            {"spares": {"s": ["spare-1"], "sapre-2": []}},
            "maintenance_spares names sapre-2, which the inventory has neither",
        ),
        (
            {"nodes": ("gpu-a", "spare-1")},
            "spare-1 is to take workloads in (maintenance_spares) and is under maintenance",
        ),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_touched(given: Any, said: str) -> None:
    found = refused(**given)
    assert said in found and bool(found) == bool(said)
    assert not found or found.endswith("Nothing was touched.")


def test_it_begins_with_everything_that_is_selected() -> None:
    found = course(container("one"), container("two"), container("old", live=False))
    assert (found["next"], found["phase"], found["mode"], found["problems"]) == ("capture", "planned", "evacuate", [])
    assert phases(found) == {"one": "planned", "two": "planned"}
    assert [one["out"] for one in found["records"]] == ["gpuops.local/window/one:w1", "gpuops.local/window/two:w1"]
    # So that no window in place restores them by itself.
    assert [one["checkpoint"] for one in found["records"]] == ["", ""]


@pytest.mark.parametrize(
    ("spare", "said"),
    [
        (
            {"answer": {}, "heard": {}},
            "The spare node spare-1 cannot be asked: it was not reached. Bring it up, or take it out",
        ),
        ({"answer": {}, "heard": {}, "takes_part": False}, "not part of this run, so --limit has to name it, too"),
        ({"answer": {"msg": "No socket."}, "heard": {}}, "cannot be asked: No socket. Bring"),
        (looked(others=[{"window": "w0", "phase": "captured"}]), "spare-1 is in a maintenance window itself"),
        (looked(node={"phase": "working"}), "spare-1 is in a maintenance window itself"),
        (looked(node={"phase": "done"}), ""),
    ],
)
def test_nothing_moves_while_a_spare_is_not_fit(spare: Any, said: str) -> None:
    found = course(container("one"), spares={"spare-1": spare})
    assert (said in " ".join(found["problems"])) and bool(found["problems"]) == bool(said)


@pytest.mark.parametrize(
    ("noted", "given", "here", "there", "phase", "course_next", "becomes"),
    [
        # Killed before, in and after the move out.
        ("planned", "planned", [container("one")], [], "planned", "capture", "planned"),
        (
            "planned",
            "planned",
            [container("one", state="PAUSED")],
            [container("one", restored=True)],
            "planned",
            "capture",
            "planned",
        ),
        (
            "planned",
            "planned",
            [container("one", live=False)],
            [container("one", restored=True)],
            "planned",
            "work",
            "away",
        ),
        (
            "evacuated",
            "away",
            [container("one", live=False)],
            [container("one", restored=True)],
            "evacuated",
            "work",
            "away",
        ),
        ("working", "away", [], [container("one", restored=True)], "working", "work", "away"),
        # Killed before, in and after the move back.
        ("worked", "away", [], [container("one", restored=True)], "worked", "restore", "away"),
        (
            "worked",
            "away",
            [container("one", restored=True)],
            [container("one", restored=True)],
            "worked",
            "restore",
            "away",
        ),
        (
            "worked",
            "away",
            [container("one", restored=True)],
            [container("one", live=False)],
            "worked",
            "restore",
            "restored",
        ),
        # It ended by itself.
        ("working", "away", [], [container("one", live=False)], "working", "work", "lost"),
        ("planned", "planned", [], [], "planned", "work", "lost"),
        # Given up.
        ("returning", "away", [], [container("one", restored=True)], "returning", "restore", "away"),
    ],
)
def test_a_run_that_was_killed_is_gone_on_with(
    noted: str, given: str, here: Any, there: Any, phase: str, course_next: str, becomes: str
) -> None:
    one = record("one", given, spare="spare-1")
    found = course(*here, noted=node(noted), records=[one], spares={"spare-1": looked(*there)})
    assert (found["next"], phases(found), found["problems"]) == (course_next, {"one": becomes}, [])
    if phase != "planned":
        assert found["phase"] == phase


def test_one_that_is_away_and_was_started_anew_is_said() -> None:
    found = course(
        container("one"),
        noted=node("worked"),
        records=[record("one", "away")],
        spares={"spare-1": looked(container("one", restored=True))},
    )
    assert "somebody has started one on gpu-a again" in found["problems"][0]


def test_one_that_is_away_on_a_spare_that_cannot_be_asked_is_no_lost_one() -> None:
    for spares, said in (({"spare-1": {"answer": {}, "heard": {}}}, "gives no answer"), ({}, "Name it again")):
        found = course(noted=node("worked"), records=[record("one", "away")], spares=spares)
        assert said in found["problems"][0] and phases(found) == {"one": "away"}


def test_what_is_over_is_left_alone_and_another_attempt_begins_anew() -> None:
    done = course(noted=node("done"), records=[record("one", "restored")])
    assert (done["next"], phases(done)) == ("nothing", {"one": "restored"})
    again = course(container("one"), noted=node("returned"), records=[record("one", "restored")])
    assert (again["next"], again["attempt"], again["records"][0]["out"]) == (
        "capture",
        2,
        "gpuops.local/window/one:w1.2",
    )


def test_an_attempt_goes_on_in_the_mode_in_which_it_began() -> None:
    begun = {"phase": "captured", "attempt": 1}
    assert "has begun on gpu-a with maintenance_mode: in_place" in course(noted=begun)["problems"][0]
    back = course(noted=node("evacuated"), records=[record("one", "away")], mode="in_place")
    assert "has begun on gpu-a with maintenance_mode: evacuate" in back["problems"][0]


def place(*records: dict[str, Any], here: Any = (), spares: Any = None) -> Any:
    known = {
        "known": {
            "hosts": ["gpu-a", "gpu-b"],
            "courses": [
                {"next": "capture", "problems": [], "records": list(records)},
                {"next": "work", "problems": [], "records": []},
            ],
            "heard": [{"room": ROOM, "facts": {}}, {}],
            "answers": [answer(*here), answer()],
        },
        "spares": spares or {"spare-1": looked()},
        "route": "direct",
    }
    return window_decision(known, "place")


def test_where_each_would_go_is_said() -> None:
    found = place(record("one", "planned"), record("two", "left out"), here=[container("one")])
    assert list(found) == ["gpu-a"]
    assert found["gpu-a"]["lines"] == ["one moves from gpu-a to spare-1 as one."]
    assert [one["spare"] for one in found["gpu-a"]["records"]] == ["spare-1", "spare-1"]


def test_one_that_no_spare_takes_in_stops_its_node() -> None:
    found = place(record("one", "planned"), here=[container("one", memory=1 << 41)])
    assert found["gpu-a"]["lines"] == []
    assert found["gpu-a"]["problems"][0].startswith("No spare node takes one of gpu-a in")
    assert found["gpu-a"]["problems"][0].endswith("Nothing was touched.")


def leaves(one: dict[str, Any], here: dict[str, Any], spare: Any = None) -> Any:
    known = {
        "records": [one],
        "selection": {"names": ["*"], "defaults": {"capture_accept": ["x"]}},
        "host": "gpu-a",
        "spares": {"spare-1": spare or looked()},
        "answer": answer(here),
    }
    return window_decision(known, "leaves")


def test_a_capture_is_foretold_for_the_spare_that_it_is_meant_for() -> None:
    planned = record("one", "planned", spare="spare-1")
    card = {"uuid": "GPU-1", "name": "H100"}
    (entry,) = leaves(planned, container("one"), looked(facts={"driver": "580.1", "gpus": [card]}))
    assert entry["targets"] == [{"name": "spare-1", "driver": "580.1", "gpus": ["H100"]}]
    assert (entry["name"], entry["leave"], entry["accept"]) == ("one", "paused", ["x"])
    assert leaves(planned, container("one"))[0]["targets"] == [{"name": "spare-1"}]


def test_one_that_a_killed_run_has_left_paused_is_settled_and_not_foretold() -> None:
    planned = record("one", "planned", spare="spare-1")
    assert len(leaves(planned, container("one", state="PAUSED"))) == 1
    assert leaves({**planned, "begun": True}, container("one", state="PAUSED")) == []


def departs(*records: dict[str, Any], policy: str = "abort", refuses: tuple[str, ...] = ()) -> Any:
    workloads = {
        one["id"]: {"checkpoint": {}, "failure": None}
        if one["id"] not in refuses
        else {"checkpoint": None, "failure": {"code": "x"}, "msg": "It cannot."}
        for one in records
    }
    known = {
        "course": {"records": list(records)},
        "records": list(records),
        "captures": [{"name": one["id"]} for one in records if one["phase"] == "planned"],
        "foretold": {"workloads": workloads},
        "policy": policy,
        "selection": {"names": ["*"], "defaults": {"probe": {"file": {"path": "/x"}}}},
        "host": "gpu-a",
    }
    return window_decision(known, "departs")


def test_the_moves_are_as_migrate_takes_them_one_for_each_spare() -> None:
    planned = [record(name, "planned", spare=spare) for name, spare in (("one", "s1"), ("two", "s2"), ("three", "s1"))]
    found = departs(*planned)
    assert [(one["source"], one["target"]) for one in found["moves"]] == [("gpu-a", "s1"), ("gpu-a", "s2")]
    assert found["moves"][0]["workloads"][0] == {
        "probe": {"file": {"path": "/x"}},
        "name": "one",
        "source_name": "one",
        "checkpoint": "gpuops.local/window/one:w1",
    }
    assert all(one["begun"] for one in found["records"])


@pytest.mark.parametrize(
    ("policy", "go", "skip"), [("abort", False, False), ("skip_node", False, True), ("go_on", True, False)]
)
def test_what_cannot_be_captured_decides_by_policy(policy: str, go: bool, skip: bool) -> None:
    planned = [record(name, "planned", spare="s1") for name in ("one", "two")]
    found = departs(*planned, policy=policy, refuses=("two",))
    assert (found["go"], found["skip"]) == (go, skip)
    moving = [workload["name"] for move in found["moves"] for workload in move["workloads"]]
    assert moving == (["one"] if go else [])


def test_a_node_from_which_something_is_away_is_not_left_alone() -> None:
    found = departs(record("one", "away"), record("two", "planned", spare="s1"), policy="skip_node", refuses=("two",))
    assert (found["go"], found["skip"]) == (False, False)


CAPTURED = {"checkpoint": {"digest": DIGEST}, "recorded": {"taken_at": "2026-12-02T20:00:00Z"}, "sizes": {"criu": 7}}
DONE = {"source": "gpu-a", "target": "spare-1", "captured": {"one": CAPTURED}, "lines": [], "reasons": []}
OUT = {**DONE, "restored": {"one": {"finished_at": "2026-12-02T20:00:09Z"}}}


def evacuated(*records: dict[str, Any], here: Any = (), there: Any = (), done: Any = ()) -> Any:
    known = {
        "host": "gpu-a",
        "records": list(records),
        "answer": answer(*here),
        "spares": {"spare-1": looked(*there)},
        "done": list(done),
    }
    return window_decision(known, "evacuated")


def test_what_has_moved_is_away_with_its_outage() -> None:
    planned = record("one", "planned", spare="spare-1")
    found = evacuated(planned, there=[container("one", restored=True)], done=[OUT])
    assert (found["phase"], phases(found), found["problems"]) == ("evacuated", {"one": "away"}, [])
    (move,) = found["records"][0]["moves"]
    assert (move["from"], move["to"], move["outage"], move["digest"]) == ("gpu-a", "spare-1", 9, DIGEST)
    assert found["records"][0]["bytes"] == 7
    # By a run that was killed, nobody knows.
    (move,) = evacuated(planned, there=[container("one", restored=True)])["records"][0]["moves"]
    assert (move["outage"], move["digest"]) == (None, "")


def test_clocks_that_differ_make_no_outage() -> None:
    late = {**DONE, "restored": {"one": {"finished_at": "2026-12-02T19:59:00Z"}}}
    planned = record("one", "planned", spare="spare-1")
    assert (
        evacuated(planned, there=[container("one", restored=True)], done=[late])["records"][0]["moves"][0]["outage"]
        is None
    )


def test_what_did_not_move_says_why_and_the_others_come_back() -> None:
    two = [record(name, "planned", spare="spare-1") for name in ("one", "two")]
    there = [container("one", restored=True)]
    line = "two: goes on on gpu-a. Its probe failed."
    found = evacuated(*two, here=[container("two")], there=there, done=[{**OUT, "lines": [line]}])
    assert (found["phase"], phases(found)) == ("returning", {"one": "away", "two": "planned"})
    assert found["problems"] == ["two: goes on on gpu-a. Its probe failed."]
    alone = evacuated(two[1], here=[container("two")], done=[{**DONE, "reasons": ["", "No way."]}])
    assert (alone["phase"], alone["problems"]) == ("returned", ["two: No way."])


def test_where_the_spare_is_silent_after_the_move_nothing_goes_on() -> None:
    known = {
        "host": "gpu-a",
        "records": [record("one", "planned", spare="spare-1")],
        "answer": answer(),
        "spares": {"spare-1": {"heard": {}, "answer": {}}},
        "done": [],
    }
    found = window_decision(known, "evacuated")
    assert (found["phase"], phases(found)) == ("planned", {"one": "planned"})
    assert "gives no answer" in found["problems"][0]
    assert window_decision({**known, "answer": {"msg": "No."}}, "evacuated")["problems"] == ["No."]


def way_home(one: dict[str, Any], here: str = "", there: str = "", comes_back: bool = True) -> Any:
    known = {
        "host": "gpu-a",
        "records": [one],
        "selection": {"names": ["*"]},
        "facts": {"driver": here},
        "spares": {"spare-1": looked(facts={"driver": there})},
        "comes_back": comes_back,
    }
    return window_decision(known, "way_home")


def test_it_comes_back_from_its_spare_under_the_name_that_it_has_there() -> None:
    found = way_home(record("c1", "away", restored="job"))
    (move,) = found["moves"]
    assert (move["source"], move["target"], move["home"]) == ("spare-1", "gpu-a", True)
    assert move["workloads"] == [{"name": "job", "source_name": "job", "checkpoint": "gpuops.local/window/c1:w1.back"}]
    assert way_home(record("c1", "restored"))["moves"] == []


def test_after_an_update_of_the_driver_it_stays_and_says_so() -> None:
    gpu = record("one", "away", gpu=True)
    found = way_home(gpu, "590.1", "580.1")
    assert (found["moves"], phases(found), found["problems"]) == ([], {"one": "stays"}, [])
    assert found["records"][0]["message"] == (
        "stays on spare-1: it runs with NVIDIA's driver 580.1, and gpu-a has 590.1 now, which no checkpoint bridges. "
        "It comes to gpu-a when it is started anew there, from a checkpoint of its own."
    )
    # Without GPU memory it does not matter, nor with the same driver.
    assert len(way_home(record("one", "away"), "590.1", "580.1")["moves"]) == 1
    assert len(way_home(gpu, "580.1", "580.1")["moves"]) == 1


def test_where_the_driver_is_not_loaded_it_waits() -> None:
    found = way_home(record("one", "away", gpu=True), "", "580.1")
    assert (found["moves"], phases(found)) == ([], {"one": "away"}) and "modprobe nvidia" in found["problems"][0]


def test_the_operator_may_have_them_stay() -> None:
    found = way_home(record("one", "away"), comes_back=False)
    assert (found["moves"], phases(found), found["records"][0]["message"]) == ([], {"one": "stays"}, "")


def home(one: dict[str, Any], here: Any = (), there: Any = (), done: Any = (), phase: str = "worked") -> Any:
    known = {
        "host": "gpu-a",
        "records": [one],
        "answer": answer(*here),
        "spares": {"spare-1": looked(*there)},
        "done": list(done),
        "phase": phase,
    }
    return window_decision(known, "home")


@pytest.mark.parametrize(("phase", "becomes"), [("worked", "done"), ("returning", "returned")])
def test_what_is_back_ends_the_window(phase: str, becomes: str) -> None:
    back = {**OUT, "source": "spare-1", "target": "gpu-a"}
    found = home(
        record("one", "away"), [container("one", restored=True)], [container("one", live=False)], [back], phase
    )
    assert (found["phase"], phases(found), found["problems"]) == (becomes, {"one": "restored"}, [])
    assert found["records"][0]["moves"][0]["outage"] == 9


def test_what_does_not_come_back_runs_on_its_spare_and_the_next_run_tries_again() -> None:
    line = "one: goes on on spare-1. No room."
    done = {"source": "spare-1", "target": "gpu-a", "captured": {}, "restored": {}, "lines": [line], "reasons": []}
    found = home(record("one", "away"), there=[container("one", restored=True)], done=[done])
    assert (found["phase"], phases(found), found["problems"]) == (
        "worked",
        {"one": "away"},
        ["one: goes on on spare-1. No room."],
    )


def test_what_stays_ends_the_window_too() -> None:
    assert home(record("one", "stays"))["phase"] == "done"


def test_the_spare_is_cleared_of_what_is_back_and_ended_there() -> None:
    moves = [
        {"from": "gpu-a", "to": "spare-1", "digest": DIGEST},
        {"from": "spare-1", "to": "gpu-a", "digest": "sha256:" + "2" * 64},
        {"from": "spare-1", "to": "gpu-a", "digest": ""},
    ]
    back = record("one", "restored", moves=moves)
    for there, said in (
        (container("one", live=False, restored=True), ["one"]),
        (container("one", restored=True), []),
        (container("one", live=False), []),
    ):
        known = {"records": [back, record("two", "away")], "spare": "spare-1", "answer": answer(there)}
        found = window_decision(known, "to_clear")
        assert [entry["name"] for entry in found] == said
        if found:
            dumps = [(one["record"]["checkpoint"], one["record"]["digest"]) for one in found[0]["dumps"]]
            assert dumps == [
                ("gpuops.local/window/one:w1", DIGEST),
                ("gpuops.local/window/one:w1.back", "sha256:" + "2" * 64),
            ]
    assert window_decision({"records": [back], "spare": "spare-2", "answer": answer()}, "to_clear") == []


def test_names_of_spares_are_hosts_or_groups() -> None:
    groups = {"all": ["a", "s1", "s2"], "spares": ["s1", "s2"]}
    known = {"names": ["spares", "a", "nobody"], "groups": groups}
    assert window_decision(known, "named") == {"spares": ["s1", "s2"], "a": ["a"], "nobody": []}


def test_what_spares_have_answered_is_by_host() -> None:
    known = {"hosts": ["s1", "s2"], "run": ["a", "s1"], "heard": [{"node": {}}, {}], "answers": [{"workloads": []}, {}]}
    found = window_decision(known, "spares")
    assert found["s1"] == {"heard": {"node": {}}, "answer": {"workloads": []}, "takes_part": True}
    assert found["s2"] == {"heard": {}, "answer": {}, "takes_part": False}


def test_the_report_goes_by_what_each_host_was_heard_of() -> None:
    known = {
        "hosts": ["a", "b"],
        "heard": [{"node": {"phase": "done"}, "workloads": [1], "facts": {"driver": "x"}}, {}],
        "problems": [[], ["It is silent."]],
        "batches": [["a"], []],
        "begun": ["1.0", ""],
        "ended": ["2.0", ""],
    }
    found = window_decision(known, "heard")
    assert found["a"]["batch"] == {"hosts": ["a"], "begun": "1.0", "ended": "2.0"}
    assert (found["a"]["node"], found["a"]["workloads"], found["a"]["facts"]) == (
        {"phase": "done"},
        [1],
        {"driver": "x"},
    )
    assert (found["b"]["node"], found["b"]["problems"]) == ({}, ["It is silent."])


def test_batches_are_made_as_ansible_makes_them() -> None:
    nodes = [f"n{number}" for number in range(5)]
    assert window_decision({"nodes": nodes, "serial": [1, "50%"]}, "rounds") == [["n0"], ["n1", "n2"], ["n3", "n4"]]
