# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What becomes of each workload of a migration, by what both nodes know; nothing here touches a node.

Two rules stand above all: never two copies that run, and none that is lost. So a source goes on only after its target
has no copy any more, and ends only after the target has proved that its copy, of exactly the captured digest, goes on.
Where the target cannot be asked the source stays paused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Callable

from .records import BEGUN, CAPTURED, MOVED, RETURNED, Record

#: The source, with respect to one record.
HELD = "held"  #: paused by the migration's capture, which is whole
BROKEN_OFF = "broken_off"  #: a capture of it was killed, so it may stand still
OTHER_CAPTURE = "other_capture"  #: paused by a capture that is not the migration's
ENDING = "ending"  #: a run was killed while it ended the source, whose target had proved itself
BUSY = "busy"  #: a capture, or its settling, is under way
LIVE = "live"
ENDED = "ended"
#: The target, likewise.
PROVED = "proved"  #: its copy runs, and has a receipt
STOPPED = "stopped"  #: its copy had a receipt, and has ended since
UNPROVED = "unproved"  #: there is a copy, whole or not, without a receipt
FOREIGN = "foreign"  #: a container of that name that is from another checkpoint, or from none
ABSENT = "absent"
#: Either: nobody could look.
UNKNOWN = "unknown"

#: What to do with the source; as ``leave`` of containerd_checkpoint with ``state: settled``.
STOP, RESUME = "stopped", "running"
#: What a verdict says of the workload.
ON_TARGET, ON_SOURCE, PAUSED, TAKEN_UP, NOWHERE, TWICE = "target", "source", "paused", "taken up", "nowhere", "both"


@dataclass(frozen=True)
class Seen:
    """A container on one node."""

    exists: bool = False
    #: Digest of the checkpoint that it was made from, by its label.
    checkpoint: str = ""
    #: The task's status, empty where there is none.
    task: str = ""
    #: Digest of the checkpoint that its receipt names.
    receipt: str = ""
    #: Phase of the mark of a capture, ``busy`` while one is under way, empty for none.
    capture: str = ""
    #: The reference of that capture's image, and what it stands for now.
    captured_as: str = ""
    captured_digest: str = ""

    @property
    def live(self) -> bool:
        """Whether a process of it may run, or is paused."""
        return self.task not in ("", "STOPPED", "CREATED")

    def to_json(self) -> dict[str, Any]:
        """As the module returns it."""
        return asdict(self)


@dataclass(frozen=True)
class Verdict:
    """What becomes of one workload."""

    record: Record
    #: Where the workload is, or will be once this is carried out.
    where: str
    #: What the record says from now on.
    state: str
    #: What is so, with the remedy where something is to be done.
    message: str
    #: STOP or RESUME for the source, empty where nothing is to be done.
    leave: str = ""
    #: The archives, and the tag in the registry, can go.
    clear: bool = False
    #: The record is of no use any more once they are gone.
    forget: bool = False

    @property
    def dropped(self) -> bool:
        """What the target has of the checkpoint can go as well."""
        return self.where == ON_SOURCE and self.state == RETURNED and bool(self.record.digest)

    def to_json(self) -> dict[str, Any]:
        """As the filter returns it."""
        return {
            "record": self.record.to_json(),
            "where": self.where,
            "state": self.state,
            "message": f"{self.record.source_name}: {self.message}",
            "leave": self.leave,
            "clears": self.clear,
            "forget": self.forget,
            "open": self.where in (PAUSED, TWICE) or (self.where == NOWHERE and self.state != MOVED),
            "dropped": self.dropped,
            "place": self.record.place if self.clear else "",
            "hosts": [self.record.source, *([self.record.target] if self.record.digest else [])],
            "path": self.record.file_name,
            "uncleared": replace(self.record, state=self.state).to_json(),
            "cleared": replace(self.record, state=self.state, directory="", reference="").to_json(),
        }


def source_state(record: Record, seen: Seen | None) -> str:
    """The source's state with respect to the record."""
    if seen is None:
        return UNKNOWN
    if seen.capture == "busy":
        return BUSY
    if seen.capture in (HELD, ENDING) and seen.live:
        ours = seen.captured_as == record.checkpoint and record.digest in ("", seen.captured_digest)
        return seen.capture if ours else OTHER_CAPTURE
    if seen.capture and seen.live:
        return BROKEN_OFF
    return LIVE if seen.live else ENDED


def target_state(record: Record, seen: Seen | None) -> str:
    """The target's state with respect to the record. Only the captured digest makes a container the copy."""
    if seen is None:
        return UNKNOWN
    if not seen.exists:
        # A task without a record is what a removal that was broken off has left.
        return UNPROVED if seen.task else ABSENT
    if not record.digest or seen.checkpoint != record.digest:
        return FOREIGN
    if seen.receipt != record.digest:
        return UNPROVED
    return PROVED if seen.live else STOPPED


def has_to_end(record: Record, source: Seen | None, target: Seen | None, taken_up: bool = False) -> bool:
    """Whether the target's copy has to be ended, so that the source can go on.

    Also where no copy is seen: ending it waits for a restore that is still under way there, or fails.
    """
    if taken_up or record.state != CAPTURED or source_state(record, source) != HELD:
        return False
    return target_state(record, target) in (UNPROVED, ABSENT)


def can_be_taken_up(record: Record, source: Seen | None, target: Seen | None) -> bool:
    """Whether a migration that was broken off can go on from the capture that it has, without a new one."""
    return (
        record.state == CAPTURED
        and source_state(record, source) == HELD
        and target_state(record, target) not in (UNKNOWN, FOREIGN)
    )


def settle(
    record: Record,
    source: Seen | None,
    target: Seen | None,
    end_failed: str | None = None,
    taken_up: bool = False,
) -> Verdict:
    """The verdict on one workload.

    ``target`` as it is after what :func:`has_to_end` asks for; ``end_failed``: why that failed, empty where it did not,
    None where it was not tried. ``taken_up``: the migration that is under way is to go on from the capture.
    """
    here, there = source_state(record, source), target_state(record, target)
    if taken_up and can_be_taken_up(record, source, target):
        return Verdict(record, TAKEN_UP, record.state, "the capture that is there is used")
    if record.state == MOVED:
        # Of no use once the container runs on the source again, or is not there any more.
        useless = source is not None and (source.live or not source.exists)
        where = ON_TARGET if there == PROVED else NOWHERE
        return Verdict(record, where, MOVED, f"has moved to {record.target}", clear=True, forget=useless)
    if record.state == RETURNED:
        return _returned(record, "")
    if here in (UNKNOWN, BUSY, OTHER_CAPTURE):
        return _kept(record, PAUSED, _untouched(record, here, there))
    if here == ENDED:
        return _ended(record, there)
    if record.state == BEGUN:
        # Nothing has left the source.
        return _returned(record, RESUME if here != LIVE else "")
    if here == ENDING:
        return _moved(record, STOP)
    if here == HELD:
        return _held(record, there, end_failed)
    return _goes_on(record, here, there, target)


def _held(record: Record, there: str, end_failed: str | None) -> Verdict:
    source, target = record.source, record.target
    if there == PROVED:
        return _moved(record, STOP)
    if there == FOREIGN or (there == ABSENT and end_failed == ""):
        return _returned(record, RESUME)
    if there == UNKNOWN:
        return _kept(
            record,
            PAUSED,
            f"stays paused on {source}, since {target} cannot be asked whether a copy runs there. When {target} "
            "answers again, run gpuops.restore.settle, or the migration once more. If it never will, make sure that it "
            f"is off, and have containerd_checkpoint (state: settled, leave: running) resume the workload on {source}",
        )
    if there == STOPPED:
        return _kept(
            record,
            PAUSED,
            f"stays paused on {source}: {target} took it over, and its copy {record.name} has ended there since. Run "
            f"the migration once more to have it restored on {target}; or remove {record.name} there "
            "(gpuops.restore.cleanup), then run gpuops.restore.settle, to have it go on from where it was captured",
        )
    why = "nobody tried" if end_failed is None else end_failed.strip().rstrip(".") or "it is still there"
    return _kept(
        record,
        PAUSED,
        f"stays paused on {source}, since nobody can tell that its copy {record.name} on {target} has ended ({why}). "
        "Mend that, then run gpuops.restore.settle",
    )


def _goes_on(record: Record, here: str, there: str, target: Seen | None) -> Verdict:
    """The source has been resumed: by a run that was killed before it could note that, or by hand."""
    if there in (PROVED, UNPROVED) and target is not None and target.live:
        return _kept(
            record,
            TWICE,
            f"runs on {record.source}, where somebody has resumed it, and as {record.name} on {record.target}. End one "
            "of the two, then run gpuops.restore.settle",
        )
    if there == UNKNOWN:
        return _kept(
            record, ON_SOURCE, f"goes on on {record.source}; whether {record.target} has a copy is still to be seen"
        )
    return _returned(record, RESUME if here == BROKEN_OFF else "")


def _ended(record: Record, there: str) -> Verdict:
    """The source's task is gone: ended by a run that was killed before it noted that, by itself, or by a reboot."""
    if there == PROVED:
        return _moved(record, "")
    if record.state == CAPTURED and there == UNKNOWN:
        return _kept(
            record,
            NOWHERE,
            f"has no task on {record.source} any more, and {record.target} cannot be asked. When that answers again, "
            "run gpuops.restore.settle",
        )
    known = (
        f" Its checkpoint is {record.checkpoint} ({record.digest}); restore that where it is to run"
        if record.digest
        else ""
    )
    seen = {UNPROVED: "has a copy that has not proved itself", STOPPED: "has a copy that has ended"}.get(
        there, "has none"
    )
    message = f"has no task on {record.source} any more, and {record.target} {seen}.{known}"
    return Verdict(record, NOWHERE, RETURNED, message.rstrip("."), clear=True, forget=True)


def _untouched(record: Record, here: str, there: str) -> str:
    if here == UNKNOWN:
        runs = f" It runs on {record.target}." if there == PROVED else ""
        return (
            f"stays as it is on {record.source}, which cannot be reached.{runs} When {record.source} answers again, "
            "run gpuops.restore.settle"
        )
    if here == BUSY:
        return f"is in the hands of another run on {record.source}. Wait for that, then run gpuops.restore.settle"
    return (
        f"is kept paused on {record.source} by another capture than that of the migration to {record.target}. End that "
        "first: containerd_checkpoint with state: settled and leave: running or stopped"
    )


def _in_other_hands(record: Record, other: str) -> str:
    return (
        f"is being moved to {record.target} by {other}. Wait until it has ended; if it has, run gpuops.restore.settle "
        "with -e settle_other_controllers=true"
    )


def _moved(record: Record, leave: str) -> Verdict:
    return Verdict(
        record, ON_TARGET, MOVED, f"runs on {record.target} and has ended on {record.source}", leave, clear=True
    )


def _returned(record: Record, leave: str) -> Verdict:
    return Verdict(record, ON_SOURCE, RETURNED, f"goes on on {record.source}", leave, clear=True, forget=True)


def _kept(record: Record, where: str, message: str) -> Verdict:
    return Verdict(record, where, record.state, message)


def carried_out(verdict: Verdict, failed: str) -> Verdict:
    """The verdict after the source was to be ended or resumed. ``failed``: why it was not, empty where it was."""
    if not failed:
        return verdict
    record, why = verdict.record, failed.strip().rstrip(".")
    if verdict.leave == STOP:
        message = f"runs on {record.target}, and could not be ended on {record.source}, where it stays paused: {why}"
    else:
        message = f"could not be resumed on {record.source}: {why}"
    return _kept(record, PAUSED, f"{message}. Mend that, then run gpuops.restore.settle")


def settle_all(
    found: Sequence[Record],
    source: Mapping[str, Seen] | None,
    target: Callable[[Record], Seen | None],
    end_failed: Callable[[Record], str | None],
    taken_up: Callable[[Record], bool],
    at_work: Callable[[Record], str],
) -> list[Verdict]:
    """The verdicts on all records of one source, given with the oldest first.

    Only the last record that is not settled can be what keeps a container paused. ``at_work``: which other run may
    still be about it.
    """
    last = {record.source_name: record for record in found if record.state in (BEGUN, CAPTURED)}
    newest = {record.source_name: record for record in found}
    verdicts = []
    for record in found:
        here = None if source is None else source.get(record.source_name, Seen())
        other = at_work(record)
        if other and record.state in (BEGUN, CAPTURED):
            verdict = _kept(record, PAUSED, _in_other_hands(record, other))
        elif last.get(record.source_name, record) != record and record.state == CAPTURED and here is not None:
            verdict = _goes_on(record, LIVE, target_state(record, target(record)), target(record))
        elif last.get(record.source_name, record) != record and record.state == BEGUN:
            verdict = _returned(record, "")
        else:
            verdict = settle(record, here, target(record), end_failed(record), taken_up(record))
        if record.state == MOVED and newest[record.source_name] != record:
            verdict = replace(verdict, forget=True)
        verdicts.append(verdict)
    # Workloads of one migration have a directory together.
    needed = {verdict.record.id for verdict in verdicts if not verdict.clear}
    return [replace(verdict, clear=verdict.clear and verdict.record.id not in needed) for verdict in verdicts]


@dataclass(frozen=True)
class Wanted:
    """A workload that is to move."""

    name: str
    source_name: str
    checkpoint: str

    @classmethod
    def from_options(cls, workload: Mapping[str, Any]) -> Wanted:
        """Of an entry of ``migrate_workloads``."""
        name = str(workload["name"])
        return cls(name, str(workload.get("source_name") or name), str(workload["checkpoint"]))

    def is_of(self, record: Record, target: str) -> bool:
        """Whether the record is of the same move."""
        return (self.name, self.source_name, self.checkpoint, target) == (
            record.name,
            record.source_name,
            record.checkpoint,
            record.target,
        )


@dataclass(frozen=True)
class Migration:
    """A migration that begins: its id, what moves where, and how."""

    id: str
    source: str
    target: str
    workloads: Sequence[Wanted]
    #: Where directories for archives are made; empty for the registry's route.
    directory: str = ""
    #: Host and path in the registry; empty for the other routes.
    registry: str = ""
    #: This run of Ansible.
    controller: str = ""

    @classmethod
    def from_options(cls, options: Mapping[str, Any], controller: str) -> Migration:
        """Of what the playbook has put together."""
        workloads = [Wanted.from_options(workload) for workload in options["workloads"]]
        given = {key: str(options.get(key, "")) for key in ("id", "source", "target", "directory", "registry")}
        return cls(workloads=workloads, controller=controller, **given)

    def record(self, workload: Wanted, run: str = "") -> Record:
        """The record of one workload, under this id or that of an earlier run."""
        number = run or self.id
        return Record(
            id=number,
            source=self.source,
            target=self.target,
            source_name=workload.source_name,
            name=workload.name,
            checkpoint=workload.checkpoint,
            directory=self.directory,
            reference=f"{self.registry}/{workload.name}:migrate-{number}" if self.registry else "",
            controller=self.controller,
        )

    def goes_on_from(self, record: Record) -> bool:
        """Whether it does what a run noted that was broken off, in the same way."""
        bare = replace(record, digest="", state=BEGUN, controller=self.controller)
        return any(self.record(workload, record.id) == bare for workload in self.workloads)


@dataclass(frozen=True)
class Plan:
    """What a migration does, after what earlier ones have left is settled."""

    #: One new record, or the one that is taken up, for each workload that has to move.
    going: Sequence[Record]
    #: Workloads that have moved already, by their names on the target.
    moved: Sequence[str]
    #: What keeps the migration from beginning.
    problems: Sequence[str]


def plan(
    migration: Migration, verdicts: Sequence[Verdict], source: Mapping[str, Seen], target: Mapping[str, Seen]
) -> Plan:
    """``verdicts``: of all records of the source; ``source``, ``target``: the containers on both hosts."""
    going, moved, problems = [], [], []
    for workload in migration.workloads:
        own = [verdict for verdict in verdicts if verdict.record.source_name == workload.source_name]
        same = [verdict for verdict in own if workload.is_of(verdict.record, migration.target)]
        blocked = [f"{workload.source_name}: {verdict.message}." for verdict in own if verdict.where in (PAUSED, TWICE)]
        taken_up = [verdict.record for verdict in own if verdict.where == TAKEN_UP]
        there = target.get(workload.name, Seen())
        proved = [
            verdict for verdict in same if verdict.state == MOVED and target_state(verdict.record, there) == PROVED
        ]
        if blocked:
            problems += blocked
        elif taken_up:
            going.append(replace(taken_up[-1], controller=migration.controller))
        elif proved and not source.get(workload.source_name, Seen()).live:
            moved.append(workload.name)
        else:
            going.append(migration.record(workload))
    return Plan(going, moved, problems)
