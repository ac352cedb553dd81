# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What lies between the plan of a migration and its verdicts, by the filter that the playbooks ask."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.filter.migration_decision import migration_decision

RECORD = {
    "id": "0a1b",
    "name": "b",
    "source_name": "a",
    "checkpoint": "c:1",
    "reference": "",
    "place": "",
    "state": "begun",
}


def capture(record: Any = (), **workload: Any) -> Any:
    known = {
        "going": [{**RECORD, **dict(record)}],
        "workloads": [{"name": "b", **workload}, {"name": "other"}],
        "targets": [{"name": "gpu-b"}],
    }
    (found,) = migration_decision(known, "captures")
    return found


def test_a_capture_has_the_name_of_the_source_and_leaves_it_paused() -> None:
    assert capture() == {
        "name": "a",
        "checkpoint": "c:1",
        "gpu": "auto",
        "criu": {},
        "accept": [],
        "targets": [{"name": "gpu-b"}],
        "memory_volumes": ["auto"],
        "before_capture": {},
        "after_capture": {},
        "leave": "paused",
        "force": True,
    }


def test_its_options_are_those_for_a_capture() -> None:
    own = capture(
        gpu="required",
        criu={"of": "the restore"},
        capture_criu={"tcp": True},
        capture_accept=["tcp"],
        capture_memory_volumes=[],
        before_capture={"command": ["sync"]},
    )
    assert (own["gpu"], own["criu"], own["accept"], own["memory_volumes"]) == ("required", {"tcp": True}, ["tcp"], [])
    assert own["before_capture"] == {"command": ["sync"]}


def test_it_is_handed_on_by_the_route() -> None:
    place = {"place": "/var/tmp/gpuops-migrate-0a1b"}
    assert capture(place)["archive"] == "/var/tmp/gpuops-migrate-0a1b/b.tar"
    assert capture(place)["compression"] == "none"
    by_registry = capture({"reference": "registry.local/c:1", **place})
    assert (by_registry["registry"], "archive" in by_registry) == ("registry.local/c:1", False)
    assert {"archive", "registry", "compression"}.isdisjoint(capture())


@pytest.mark.parametrize(
    ("gpu", "known"),
    [
        ({}, {}),
        ({"failed": True, "msg": "No."}, {}),
        ({"driver": None, "nvml": None, "reason_code": "cuda_hangs"}, {}),
        ({"reason_code": "driver_library_missing"}, {"gpus": []}),
        (
            {"driver": {"version": "580.1"}, "nvml": {"available": False}},
            {"driver": "580.1"},
        ),
        (
            {"driver": {"version": "580.1"}, "nvml": {"available": True}, "gpus": [{"name": "H200"}, {"name": "H200"}]},
            {"driver": "580.1", "gpus": ["H200", "H200"]},
        ),
    ],
)
def test_a_target_is_what_could_be_asked(gpu: dict[str, Any], known: dict[str, Any]) -> None:
    assert migration_decision({"target": "gpu-b", "gpu": gpu}, "targets") == [{"name": "gpu-b", **known}]


def test_taken_is_what_has_a_receipt_and_no_failure() -> None:
    receipts = {name: {"checkpoint": {"digest": f"sha256:{name}"}} for name in ("a", "b")}
    going = [{**RECORD, "source_name": name} for name in ("a", "b", "c")]
    known = {"going": going, "receipts": receipts, "failures": {"b": {"msg": "It could not be archived."}}}
    assert migration_decision(known, "taken") == [{**RECORD, "state": "captured", "digest": "sha256:a"}]
    assert migration_decision({"going": going, "receipts": {}, "failures": {}}, "taken") == []


def test_what_has_arrived_is_restored_from_what_was_captured() -> None:
    workload = {
        "name": "b",
        "checkpoint": "c:1",
        "network": "host",
        "digest": "sha256:0",
        "source_name": "a",
        "capture_criu": {},
        "capture_accept": [],
        "capture_memory_volumes": [],
        "before_capture": {},
        "after_capture": {},
    }
    arriving = [{**RECORD, "digest": "sha256:1"}, {**RECORD, "name": "lost", "digest": "sha256:2"}]
    known = {"arriving": arriving, "arrived": ["b"], "workloads": [workload]}
    assert migration_decision(known, "restores") == [
        {"name": "b", "checkpoint": "c:1", "network": "host", "digest": "sha256:1"}
    ]
    assert migration_decision({**known, "arrived": []}, "restores") == []


def stayed(where: str = "source", **known: Any) -> Any:
    verdict = {"record": RECORD, "where": where, "message": "a: It goes on"}
    whole = {"going": [RECORD], "verdicts": [verdict], "not_captured": {}, "refused": {}, "not_restored": {}}
    return migration_decision({**whole, **known}, "stayed")


def test_what_has_moved_is_not_told() -> None:
    assert stayed("target", not_restored={"b": {"msg": "Its probe failed."}}) == []


def test_what_stayed_is_told_with_the_first_reason() -> None:
    assert stayed() == [{"line": "a: It goes on.", "explained": False}]
    reasons: dict[str, Any] = {}
    for kind, name in (("not_restored", "b"), ("refused", "b"), ("not_captured", "a")):
        reasons[kind] = {name: {"msg": f"{kind}!"}}
        assert stayed(**reasons) == [{"line": f"a: It goes on. {kind}!", "explained": True}]
    assert stayed(refused={"b": {"rc": 1}}) == [{"line": "a: It goes on.", "explained": False}]
    # By its name there, not by the other's.
    assert not stayed(not_captured={"b": {"msg": "x"}}, refused={"a": {"msg": "x"}})[0]["explained"]


def test_what_nobody_has_settled_is_told_too() -> None:
    assert stayed(verdicts=[]) == [{"line": "Nobody can tell what became of a.", "explained": False}]


def places(verdicts: Any = (), noted: Any = (), looks: Any = ()) -> Any:
    known = {"verdicts": list(verdicts), "noted": list(noted), "looks": list(looks), "idle": 86400}
    return migration_decision(known, "places")


def test_directories_go_that_verdicts_name() -> None:
    assert places([{"place": "/var/tmp/x"}, {"place": ""}, {"place": "/var/tmp/x"}]) == ["/var/tmp/x"]
    assert places() == []


def test_those_that_nobody_speaks_of_go_after_a_while() -> None:
    old = [{"path": f"/var/tmp/gpuops-migrate-{name}", "idle": 86401} for name in ("0a1b", "2c3d")]
    new = [{"path": "/var/tmp/gpuops-migrate-4e5f", "idle": 86400}]
    looks = [{"places": old + new}, {}, {"places": None}]
    assert places(looks=looks) == [place["path"] for place in old]
    assert places(noted=[RECORD], looks=looks) == [old[1]["path"]]
    assert places([{"place": old[0]["path"]}], looks=looks) == [place["path"] for place in old]


def not_settled(verdicts: Any = (), source: Any = (), found: Any = ()) -> Any:
    known = {"verdicts": list(verdicts), "source": dict(source), "found": dict(found)}
    return migration_decision(known, "not_settled")


def test_where_all_is_settled_nothing_is_said() -> None:
    assert not_settled([{"open": False, "message": "a: It runs"}], {"unreadable": []}, {"rc": 0}) == []


def test_what_is_not_settled_is_said_with_what_to_do() -> None:
    verdicts = [{"open": True, "message": "a: It stays paused"}, {"open": False, "message": "b: It runs"}]
    assert not_settled(verdicts, {"unreadable": ["/x.json"], "failure": {}, "msg": "No socket"}) == [
        "a: It stays paused.",
        "/x.json is no record of a migration that can be read; look at that workload, then remove it.",
        "No socket.",
    ]
    assert not_settled(source={"failure": {}}) == ["containerd_migration_info did not run; -vvv shows why."]
    assert not_settled(found={"unreachable": True}) == [
        "It cannot be reached, so nobody can tell what migrations have left there."
    ]


def test_another_step_is_an_error() -> None:
    with pytest.raises(ValueError, match="brew is no step of a migration; there are captures, "):
        migration_decision({}, "brew")
