# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What becomes of a workload of a migration, for everything that both sides can answer."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._migration import decisions
from ansible_collections.gpuops.restore.plugins.module_utils._migration.decisions import (
    Migration,
    Seen,
    Verdict,
    Wanted,
)
from ansible_collections.gpuops.restore.plugins.module_utils._migration.records import (
    BEGUN,
    CAPTURED,
    MOVED,
    RETURNED,
    Record,
)

DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
NAME = "example.test/job:moved"
NOTED = Record(
    id="0a1b2c3d4e5f",
    source="gpu-a",
    target="gpu-b",
    source_name="job",
    name="moved",
    checkpoint=NAME,
    digest=DIGEST,
    state=CAPTURED,
    directory="/var/tmp",
)
BEFORE = dataclasses.replace(NOTED, digest="", state=BEGUN)

RUNNING = Seen(exists=True, task="RUNNING")
SOURCES = {
    "held": Seen(exists=True, task="PAUSED", capture="held", captured_as=NAME, captured_digest=DIGEST),
    "other_capture": Seen(exists=True, task="PAUSED", capture="held", captured_as="other:1", captured_digest=DIGEST),
    "ending": Seen(exists=True, task="PAUSED", capture="ending", captured_as=NAME, captured_digest=DIGEST),
    "broken_off": Seen(exists=True, task="PAUSED", capture="capturing", captured_as=NAME),
    "busy": Seen(exists=True, task="PAUSED", capture="busy"),
    "live": RUNNING,
    "ended": Seen(exists=True, task="STOPPED"),
    "unknown": None,
}
TARGETS = {
    "proved": Seen(exists=True, checkpoint=DIGEST, task="RUNNING", receipt=DIGEST),
    "stopped": Seen(exists=True, checkpoint=DIGEST, task="STOPPED", receipt=DIGEST),
    "unproved": Seen(exists=True, checkpoint=DIGEST, task="RUNNING", receipt=OTHER),
    "foreign": Seen(exists=True, checkpoint=OTHER, task="RUNNING", receipt=OTHER),
    "absent": Seen(),
    "unknown": None,
}
#: What ending the target's copy came to: nobody tried, it ended, it failed.
ENDED = {"not tried": None, "ended": "", "failed": "another run is at it"}


def judged(source: str, target: str, ended: str = "ended", record: Record = NOTED) -> Verdict:
    return decisions.settle(record, SOURCES[source], TARGETS[target], ENDED[ended])


@pytest.mark.parametrize("name", SOURCES)
def test_the_state_of_a_source(name: str) -> None:
    assert decisions.source_state(NOTED, SOURCES[name]) == name


@pytest.mark.parametrize("name", TARGETS)
def test_the_state_of_a_target(name: str) -> None:
    assert decisions.target_state(NOTED, TARGETS[name]) == name


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        (Seen(exists=True, checkpoint=DIGEST), "unproved"),
        (Seen(exists=True, checkpoint=DIGEST, receipt=DIGEST), "stopped"),
        (Seen(exists=True, checkpoint=DIGEST, task="PAUSED", receipt=DIGEST), "proved"),
        (Seen(exists=True, checkpoint=DIGEST, task="CREATED", receipt=DIGEST), "stopped"),
        (Seen(exists=True, task="RUNNING", receipt=DIGEST), "foreign"),
        (Seen(exists=True, checkpoint=OTHER, task="RUNNING", receipt=DIGEST), "foreign"),
        (Seen(task="RUNNING"), "unproved"),
        (Seen(receipt=DIGEST), "absent"),
    ],
)
def test_only_a_running_copy_with_a_receipt_of_that_digest_is_proved(seen: Seen, state: str) -> None:
    assert decisions.target_state(NOTED, seen) == state


def test_a_capture_is_ours_by_name_and_digest() -> None:
    held = SOURCES["held"]
    assert held is not None
    moved = dataclasses.replace(held, captured_digest=OTHER)
    assert decisions.source_state(NOTED, moved) == "other_capture"
    # Before the digest is noted the name has to do.
    assert decisions.source_state(BEFORE, moved) == "held"


@pytest.mark.parametrize(
    ("target", "ended", "where", "leave"),
    [
        ("proved", "not tried", "target", "stopped"),
        # It proved itself while somebody waited to end it.
        ("proved", "failed", "target", "stopped"),
        ("unproved", "not tried", "paused", ""),
        ("unproved", "ended", "paused", ""),
        ("unproved", "failed", "paused", ""),
        ("absent", "not tried", "paused", ""),
        ("absent", "failed", "paused", ""),
        ("absent", "ended", "source", "running"),
        ("foreign", "not tried", "source", "running"),
        ("foreign", "ended", "source", "running"),
        ("stopped", "not tried", "paused", ""),
        ("unknown", "not tried", "paused", ""),
        ("unknown", "ended", "paused", ""),
        ("unknown", "failed", "paused", ""),
    ],
)
def test_a_source_that_is_paused(target: str, ended: str, where: str, leave: str) -> None:
    found = judged("held", target, ended)
    assert (found.where, found.leave, found.clear) == (where, leave, where != "paused")
    assert found.state == {"target": MOVED, "source": RETURNED, "paused": CAPTURED}[where]


@pytest.mark.parametrize(("source", "target", "ended"), list(itertools.product(SOURCES, TARGETS, ENDED)))
def test_never_two_copies_and_none_is_lost(source: str, target: str, ended: str) -> None:
    for record in (NOTED, BEFORE):
        found = judged(source, target, ended, record)
        copy = target in ("proved", "unproved") and record is NOTED
        if found.leave == "running" and source == "held":
            # It goes on only where nothing of it runs elsewhere, and somebody has seen to that.
            assert not copy
            assert record is BEFORE or target == "foreign" or (target, ended) == ("absent", "ended")
        if found.leave == "stopped":
            # An end that an earlier run has begun cannot be taken back.
            assert record is NOTED
            assert target == "proved" or source == "ending"
        if source in ("unknown", "busy", "other_capture"):
            assert not found.leave
        if found.where == "paused":
            # Nothing that a later run needs goes, and the message says what to do.
            assert (found.state, found.clear, found.forget) == (record.state, False, False)
            assert "settle" in found.message
            assert found.leave == ""


@pytest.mark.parametrize(("source", "target"), list(itertools.product(SOURCES, TARGETS)))
def test_only_copies_without_proof_are_ended_and_only_for_a_paused_source(source: str, target: str) -> None:
    wanted = source == "held" and target in ("unproved", "absent")
    assert decisions.has_to_end(NOTED, SOURCES[source], TARGETS[target]) is wanted
    assert not decisions.has_to_end(NOTED, SOURCES[source], TARGETS[target], taken_up=True)
    for state in (MOVED, RETURNED):
        assert not decisions.has_to_end(dataclasses.replace(NOTED, state=state), SOURCES[source], TARGETS[target])
    assert not decisions.has_to_end(BEFORE, SOURCES[source], TARGETS[target])


@pytest.mark.parametrize(
    ("source", "where", "leave"),
    [
        ("held", "source", "running"),
        ("broken_off", "source", "running"),
        ("live", "source", ""),
        ("ended", "nowhere", ""),
        ("unknown", "paused", ""),
        ("busy", "paused", ""),
    ],
)
def test_before_the_digest_is_noted_the_target_has_nothing(source: str, where: str, leave: str) -> None:
    for target in TARGETS:
        if (source, target) != ("ended", "proved"):
            found = judged(source, target, "not tried", BEFORE)
            assert (found.where, found.leave) == (where, leave)


def test_a_source_that_runs_although_a_copy_does_is_told() -> None:
    for target in ("proved", "unproved"):
        found = judged("live", target)
        assert (found.where, found.leave, found.clear) == ("both", "", False)
        assert "gpu-a" in found.message
        assert "gpu-b" in found.message
    assert judged("live", "absent").where == "source"
    assert judged("live", "unknown").state == CAPTURED


def test_a_source_that_was_ended_before_anybody_noted_it() -> None:
    assert (judged("ended", "proved").where, judged("ended", "proved").state) == ("target", MOVED)
    assert judged("ended", "unknown").where == "nowhere"
    assert DIGEST in judged("ended", "absent").message
    # Whatever the target says now: it had proved itself when the end began.
    for target in TARGETS:
        assert (judged("ending", target).where, judged("ending", target).leave) == ("target", "stopped")


def test_what_the_source_refuses_is_told() -> None:
    kept = decisions.carried_out(judged("held", "proved"), "capture_busy.")
    assert (kept.where, kept.state, kept.clear) == ("paused", CAPTURED, False)
    assert "runs on gpu-b" in kept.message
    kept = decisions.carried_out(judged("held", "absent"), "CUDA does not answer.")
    assert "could not be resumed on gpu-a: CUDA does not answer. " in kept.message
    assert decisions.carried_out(judged("held", "absent"), "") == judged("held", "absent")


MIGRATION = Migration("ffffffffffff", "gpu-a", "gpu-b", [Wanted("moved", "job", NAME)], directory="/var/tmp")


@pytest.mark.parametrize(("source", "target"), list(itertools.product(SOURCES, TARGETS)))
def test_a_migration_goes_on_from_a_capture_that_is_there(source: str, target: str) -> None:
    found = decisions.settle(NOTED, SOURCES[source], TARGETS[target], taken_up=MIGRATION.goes_on_from(NOTED))
    wanted = source == "held" and target not in ("unknown", "foreign")
    assert (found.where == "taken up") is wanted
    if wanted:
        assert (found.leave, found.state, found.clear) == ("", CAPTURED, False)


@pytest.mark.parametrize(
    "changes",
    [
        {"target": "gpu-c"},
        {"name": "elsewhere"},
        {"source_name": "other"},
        {"checkpoint": "example.test/job:2"},
        {"directory": "/srv/shared"},
        {"reference": "registry.test/moved:migrate-0a1b2c3d4e5f", "directory": ""},
    ],
)
def test_it_does_not_go_on_from_another_one(changes: dict[str, str]) -> None:
    assert MIGRATION.goes_on_from(NOTED)
    assert not MIGRATION.goes_on_from(dataclasses.replace(NOTED, **changes))


def planned(verdicts: list[Verdict], source: Seen, target: Seen) -> decisions.Plan:
    return decisions.plan(MIGRATION, verdicts, {"job": source}, {"moved": target})


def test_a_plan_captures_what_nobody_knows() -> None:
    plan = planned([], RUNNING, Seen())
    assert [(record.id, record.state, record.place) for record in plan.going] == [
        ("ffffffffffff", BEGUN, "/var/tmp/gpuops-migrate-ffffffffffff")
    ]
    assert (plan.moved, plan.problems) == ([], [])


def test_names_are_unique_to_a_migration() -> None:
    registry = dataclasses.replace(MIGRATION, directory="", registry="registry.test/moves")
    record = decisions.plan(registry, [], {"job": RUNNING}, {}).going[0]
    assert (record.reference, record.place) == ("registry.test/moves/moved:migrate-ffffffffffff", "")


def test_a_plan_takes_up_leaves_alone_or_stops() -> None:
    ended, proved, there = SOURCES["ended"], TARGETS["proved"], TARGETS["absent"]
    assert ended is not None
    assert proved is not None
    assert there is not None
    taken_up = decisions.settle(NOTED, SOURCES["held"], there, taken_up=True)
    assert planned([taken_up], RUNNING, there).going == [NOTED]
    over = dataclasses.replace(NOTED, state=MOVED)
    moved = decisions.settle(over, ended, proved)
    assert planned([moved], ended, proved).moved == ["moved"]
    # The workload came back to the source, or the copy is gone: what was once is of no use.
    assert [record.state for record in planned([moved], RUNNING, proved).going] == [BEGUN]
    assert [record.state for record in planned([moved], ended, there).going] == [BEGUN]
    kept = judged("held", "unknown")
    plan = planned([kept], RUNNING, there)
    assert (plan.going, len(plan.problems)) == ([], 1)
    assert plan.problems[0].startswith("job: stays paused on gpu-a")


def all_of(found: list[Record], source: Seen, target: Seen | None, ended: str | None = "") -> list[Verdict]:
    return decisions.settle_all(
        found, {"job": source}, lambda _record: target, lambda _record: ended, lambda _record: False, lambda _record: ""
    )


def test_only_the_last_record_can_be_what_keeps_a_container_paused() -> None:
    held = SOURCES["held"]
    assert held is not None
    old = dataclasses.replace(NOTED, id="old0old0", digest=OTHER, target="gpu-c")
    first, last = all_of([old, NOTED], held, Seen())
    assert (first.where, first.leave, first.state) == ("source", "", RETURNED)
    assert (last.where, last.leave) == ("source", "running")
    first, last = all_of([old, NOTED], held, None)
    assert (first.leave, first.state, last.where) == ("", CAPTURED, "paused")


def test_a_record_of_a_move_lasts_until_the_next() -> None:
    over = dataclasses.replace(NOTED, id="old0old0", state=MOVED)
    ended = SOURCES["ended"]
    assert ended is not None
    assert [verdict.forget for verdict in all_of([over], ended, TARGETS["proved"])] == [False]
    assert [verdict.forget for verdict in all_of([over, NOTED], ended, TARGETS["proved"])] == [True, False]
    assert [verdict.forget for verdict in all_of([over], RUNNING, TARGETS["absent"])] == [True]
    assert [verdict.forget for verdict in all_of([over], Seen(), TARGETS["proved"])] == [True]


def test_a_directory_stays_while_one_of_the_migration_needs_it() -> None:
    box = dataclasses.replace(NOTED, source_name="box", name="box")
    held = SOURCES["held"]
    assert held is not None
    found = decisions.settle_all(
        [NOTED, box],
        {"job": held, "box": held},
        lambda record: TARGETS["proved"] if record is NOTED else None,
        lambda _record: None,
        lambda _record: False,
        lambda _record: "",
    )
    assert [(verdict.where, verdict.clear, verdict.to_json()["place"]) for verdict in found] == [
        ("target", False, ""),
        ("paused", False, ""),
    ]
    assert [verdict.clear for verdict in all_of([NOTED], held, TARGETS["proved"])] == [True]


def test_images_on_the_target_go_only_where_the_source_goes_on() -> None:
    assert judged("held", "absent").dropped
    assert not judged("held", "proved").dropped
    assert not judged("held", "unknown").dropped
    assert not judged("held", "absent", record=BEFORE).dropped


def test_what_another_run_is_at_is_left_to_it() -> None:
    held = SOURCES["held"]
    assert held is not None
    for record, wanted in ((NOTED, "paused"), (BEFORE, "paused"), (dataclasses.replace(NOTED, state=MOVED), "target")):
        (found,) = decisions.settle_all(
            [record],
            {"job": held},
            lambda _record: TARGETS["proved"],
            lambda _record: "",
            lambda _record: True,
            lambda _record: "pid 7",
        )
        assert (found.where, found.leave) == (wanted, "")
        assert ("pid 7" in found.message) is (wanted == "paused")
