# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The course of a window on one node: what was noted and what is seen say what is done next. Pure.

planned ──capture──▶ captured ──work──▶ worked ──gate, restore──▶ done
              └── one fails, or the work does ──▶ what was captured comes back: (returning,) returned

Workloads that are parked instead go the way of :mod:`.parking`.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._core import text
from . import gate, selection
from .identity import Identity
from .selection import Chosen, Selection, SelectionError, Workload

#: Of a node, and the first three of a workload.
PLANNED, CAPTURED, RESTORED = "planned", "captured", "restored"
WORKING, WORKED, DONE, RETURNED, SKIPPED = "working", "worked", "done", "returned", "skipped"
#: It was given up, and some of what was captured is back: the work must not begin any more.
RETURNING = "returning"
#: Of a workload: it cannot be captured and the window goes on without it; it ended before it was captured.
LEFT_OUT, LOST = "left out", "lost"
#: Of a workload that is parked instead of captured, the first also of its node.
PARKED, RESUMED = "parked", "resumed"
#: Of a workload that has yet to come back, and of one that is back.
WAITING, BACK = (CAPTURED, PARKED), (RESTORED, RESUMED)
#: What is next: nothing, for one of two reasons, or a phase.
CAPTURE, WORK, RESTORE, NOTHING = "capture", "work", "restore", "nothing"

#: How workloads get out of the work's way.
CHECKPOINT, PARK = "checkpoint", "park"

#: Whether workloads come back to their node, or are moved to spare nodes for the work.
IN_PLACE, EVACUATE = "in_place", "evacuate"
#: Of a workload that runs on a spare node until the work is done, and of one that stays there.
AWAY, STAYS = "away", "stays"
#: Of a node whose workloads are all away.
EVACUATED = "evacuated"

#: What may become of a node on which something cannot be captured.
SKIP_NODE, GO_ON, ABORT = "skip_node", "go_on", "abort"
POLICIES = (SKIP_NODE, GO_ON, ABORT)
#: What an entry of checkpoint_node_workloads and one of ``containerd_checkpoint`` have under the same name.
_OPTIONS = (
    "leave",
    "store",
    "gpu",
    "cuda_forks",
    "accept",
    "targets",
    "criu",
    "memory_volumes",
    "before_capture",
    "after_capture",
    "force",
)


@dataclass(frozen=True)
class Seen:
    """What is there of one workload."""

    #: The captured container has processes, which are no copy.
    live: bool = False
    #: A copy that was restored from its checkpoint has processes.
    copy: bool = False
    #: Of its checkpoint; empty where there is none.
    digest: str = ""


@dataclass
class Course:
    """What a run does next on a node."""

    next: str = NOTHING
    attempt: int = 1
    #: Of the node, to be noted.
    phase: str = PLANNED
    #: Of all workloads of this attempt, to be noted.
    records: list[dict[str, Any]] = field(default_factory=list)
    #: Entries of checkpoint_node_workloads.
    captures: list[dict[str, Any]] = field(default_factory=list)
    #: Any has GPU memory.
    gpu: bool = False
    #: With an attempt that is noted: what was seen of its records is to be noted before anything else is done.
    goes_on: bool = False
    #: Of this attempt, whatever the run asks for.
    method: str = CHECKPOINT
    mode: str = IN_PLACE
    problems: list[str] = field(default_factory=list)

    def result(self) -> dict[str, Any]:
        """As the filter returns it."""
        return dict(vars(self))


def plan(
    window: str,
    host: str,
    wanted: Selection,
    found: Sequence[Workload],
    noted: Mapping[str, Any],
    answer: Mapping[str, Any],
) -> Course:
    """``found``: what the node has, ``noted``: the journal's ``node`` and ``workloads``, ``answer``: of the look."""
    node = noted.get("node") or {}
    phase, attempt = node.get("phase", ""), attempt_of(node)
    own = [one for one in noted["workloads"] if one.get("attempt", 1) == attempt]
    if phase == DONE:
        return Course(NOTHING, attempt, phase, own)
    if phase in (RETURNED, SKIPPED):
        forgotten = _forgotten(own, found, answer)
        if forgotten:
            # It comes back first: the gate goes by what the node was when it was captured, which a new attempt
            # notes anew.
            course = _go_on(host, wanted, forgotten, answer, node, {})
            course.next, course.phase = RESTORE, phase
            return course
        # Anew, with what is selected by now.
        attempt, node = attempt + 1, {}
    if not node:
        return _begin(window, host, wanted, found, attempt)
    return _go_on(host, wanted, own, answer, node, noted.get("facts") or {})


def before(heard: Mapping[str, Any], attempt: int) -> dict[str, Any]:
    """The node as it was when the first of this attempt's workloads was captured. ``heard``: node, workloads, facts."""
    node = heard.get("node") or {}
    captured = any(
        record["phase"] in WAITING and int(record.get("attempt", 1)) == attempt for record in heard["workloads"]
    )
    noted = node.get("before") if captured and attempt_of(node) == attempt else None
    return dict(noted or heard["facts"])


def attempt_of(node: Mapping[str, Any]) -> int:
    """Which attempt the journal's ``node`` is in."""
    return int(node.get("attempt", 1))


def after_is_due(node: Mapping[str, Any]) -> bool:
    """Whether the hook after the window has yet to run, by the journal's ``node``: it may have failed, or not begun."""
    return node.get("phase") in (DONE, RETURNED) and int(node.get("after") or 0) != attempt_of(node)


def tag_of(window: str, attempt: int) -> str:
    """The tag of the window's own checkpoints."""
    return window if attempt == 1 else f"{window}.{attempt}"


def _forgotten(
    records: Sequence[Mapping[str, Any]], found: Sequence[Workload], answer: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """What an attempt that is over has ended, knowing it or not, and nobody has restored."""
    # One that runs again under another id was started anew by somebody.
    names = {one.identity.name for one in found if one.live}
    waiting = []
    for record in records:
        seen = see(record, answer)
        ended = record["phase"] == CAPTURED or (record["phase"] == PLANNED and bool(seen.digest))
        if ended and not seen.live and not seen.copy and record["called"] not in names:
            waiting.append(record)
    return waiting


def plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without what only the journal writes."""
    return {key: value for key, value in record.items() if key not in ("history", "window")}


def _begin(window: str, host: str, wanted: Selection, found: Sequence[Workload], attempt: int) -> Course:
    course = Course(CAPTURE, attempt)
    name = f"gpuops.local/window/{{name}}:{tag_of(window, attempt)}"
    mine = Selection(**{**vars(wanted), "checkpoint": name})
    try:
        chosen = selection.captures(mine, [one for one in found if one.live], host)
    except SelectionError as error:
        return Course(attempt=attempt, problems=error.problems)
    for one in chosen:
        course.records.append(new_record(one, attempt))
        course.captures.append(_capture(one))
    course.gpu = any(one.workload.gpu for one in chosen)
    if not chosen:
        # The selection allows that.
        course.next, course.phase = WORK, CAPTURED
    return course


def new_record(one: Chosen, attempt: int) -> dict[str, Any]:
    """What is noted of a workload at the beginning of its attempt."""
    who = one.workload.identity
    return {
        "id": who.id,
        "called": who.name,
        "pod": who.result(),
        "labels": dict(who.labels),
        "gpu": one.workload.gpu,
        "attempt": attempt,
        "checkpoint": one.checkpoint,
        "restored": one.name,
        "digest": "",
        "phase": PLANNED,
        "message": "",
    }


def _capture(one: Chosen) -> dict[str, Any]:
    # It ends for the work, whoever made it; its checkpoint is this window's own.
    return {**one.capture(), "leave": "stopped", "force": True}


def workload(record: Mapping[str, Any]) -> Workload:
    """The workload that a record speaks of."""
    pod = record.get("pod") or {}
    who = Identity(
        record["id"],
        pod.get("namespace", ""),
        pod.get("name", ""),
        pod.get("uid", ""),
        pod.get("container", ""),
        labels=record.get("labels") or {},
    )
    return Workload(who, bool(record.get("gpu")))


def see(record: Mapping[str, Any], answer: Mapping[str, Any]) -> Seen:
    """What the look at the node tells of one workload."""
    noted = record.get("digest") or ""
    known = next((digests for digests in _checkpoints(record, answer) if not noted or noted in digests), [])
    live = {one["id"]: one for one in answer["workloads"] if one["live"]}
    restored = live.get(record["restored"])
    # The checkpoint of one that was restored may have gone since.
    copy = restored is not None and bool(restored["restored_from"]) and restored["restored_from"] in (known or [noted])
    original = live.get(record["id"])
    return Seen(
        live=original is not None and not (copy and record["restored"] == record["id"]),
        copy=copy,
        digest=known[0] if known else "",
    )


def _checkpoints(record: Mapping[str, Any], answer: Mapping[str, Any]) -> list[list[str]]:
    """Of each that may be the record's: the digest, and the one that it had before its image was written."""
    return [
        [digest for digest in (one["digest"], one.get("earlier")) if digest]
        for one in answer["checkpoints"]
        if one["name"] == record["checkpoint"] and (record.get("digest") or one["container"] == record["id"])
    ]


def _go_on(
    host: str,
    wanted: Selection,
    records: Sequence[Mapping[str, Any]],
    answer: Mapping[str, Any],
    node: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> Course:
    course = Course(attempt=attempt_of(node), phase=node["phase"], goes_on=True)
    worked = node["phase"] == WORKED
    for before in records:
        record = plain(before)
        seen = see(record, answer)
        one = Chosen(workload(record), record["checkpoint"], record["restored"], wanted.options(workload(record), host))
        if _gone_again(record, seen, facts):
            record.update(phase=CAPTURED, digest=seen.digest)
        if record["phase"] not in (LEFT_OUT, RESTORED, LOST):
            _judge(course, record, seen, one, worked, host)
        course.records.append(record)
    course.gpu = any(record["gpu"] and record["phase"] != LEFT_OUT for record in course.records)
    back = any(record["phase"] == RESTORED for record in course.records)
    if node["phase"] == RETURNING or (back and not worked):
        # What is back runs on a node that the work would take it from.
        course.next, course.phase, course.captures = RESTORE, RETURNING, []
    elif course.captures:
        course.next = CAPTURE
        course.problems += _changed(course, node, facts)
    elif worked:
        course.next = RESTORE
    else:
        course.next = WORK
        course.phase = node["phase"] if node["phase"] == WORKING else CAPTURED
    return course


def _gone_again(record: Mapping[str, Any], seen: Seen, facts: Mapping[str, Any]) -> bool:
    """It was back, and went with a reboot before the window was done: its checkpoint is there still."""
    boots = (record.get("boot"), facts.get("boot"))
    there = seen.copy or seen.live
    return record["phase"] == RESTORED and not there and bool(seen.digest) and all(boots) and boots[0] != boots[1]


def _changed(course: Course, node: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """Why what is captured now and what was captured by an earlier run cannot come back to one node."""
    waiting = [record for record in course.records if record["phase"] == CAPTURED]
    gpu = any(record["gpu"] for record in waiting)
    return gate.problems(node.get("before") or {}, facts, {}, gpu) if waiting else []


def _judge(course: Course, record: dict[str, Any], seen: Seen, one: Chosen, worked: bool, host: str) -> None:
    called = record["called"]
    if seen.copy:
        record.update(phase=RESTORED, digest=seen.digest or record["digest"], message="")
    elif seen.live and (record["phase"] == CAPTURED or worked):
        course.problems.append(
            f"{called} on {host} was captured for this window and ended, and somebody has started {record['id']} again "
            "since. End that one, or take it for the workload: then remove "
            f"the record of {record['id']} below windows/ in the node's state directory."
        )
    elif seen.live:
        course.captures.append(_capture(one))
    elif seen.digest:
        record.update(phase=CAPTURED, digest=seen.digest, message="")
    else:
        record.update(
            phase=LOST,
            message=f"{called} had ended before it was captured, so there is nothing to restore. Start it anew.",
        )


def restores(
    wanted: Selection, records: Sequence[Mapping[str, Any]], host: str, gpu_map: Mapping[str, str]
) -> list[dict[str, Any]]:
    """What has been captured and is not restored yet, in the order of the records."""
    found = []
    for record in records:
        if record["phase"] == CAPTURED:
            options = wanted.options(workload(record), host)
            one = Chosen(workload(record), record["checkpoint"], record["restored"], options)
            more = {"gpu_map": {**gpu_map, **options.get("gpu_map", {})}} if gpu_map and record["gpu"] else {}
            found.append({**one.restore(), "digest": record["digest"], **more})
    return found


def foretell(captures: Sequence[Mapping[str, Any]], defaults: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The ``workloads`` of one call of ``containerd_checkpoint``: all of a node, since they share its disk.

    ``captures``: entries of checkpoint_node_workloads, ``defaults``: options of those that do not say otherwise.
    """
    found = []
    for entry in captures:
        given = {option: entry[option] for option in _OPTIONS if entry.get(option) not in (None, {})}
        one = {"container_id": entry["name"], "name": entry["checkpoint"], **defaults, **given}
        if one.get("store") == "node" and ("archive" in entry or "registry" in entry):
            # As the role has it: these are given images.
            one["store"] = "both"
        found.append(one)
    return found


def judge(
    course: Mapping[str, Any], foretold: Mapping[str, Any], policy: str, told: str = "checkpoint"
) -> dict[str, Any]:
    """Go or no-go before anything stops. ``foretold``: the answer of ``containerd_checkpoint`` in check mode for all.

    ``told``: a key that the module returns for whatever can be done.
    ``captures`` and ``records`` are what is left to do; ``go`` false with ``skip`` true: the node is left alone.
    """
    if policy not in POLICIES:
        said = f"maintenance_uncapturable is {policy!r}; it has to be one of {', '.join(POLICIES)}."
        return {"go": False, "skip": False, "problems": [said], "captures": [], "records": course["records"]}
    refused: dict[str, str] = {}
    answers = foretold.get("workloads") or {}
    for entry in course["captures"]:
        # Without an answer of its own, what is said of the call is said of each.
        answer = answers.get(entry["name"], foretold)
        if answer.get(told) is None or answer.get("failure"):
            refused[entry["name"]] = str(answer.get("msg") or "The module did not run; -vvv shows why.")
    records = [dict(record) for record in course["records"]]
    for record in records:
        if record["id"] in refused:
            record.update(phase=LEFT_OUT if policy == GO_ON else record["phase"], message=refused[record["id"]])
    lines = [f"{record['called']}: {record['message']}" for record in records if record["id"] in refused]
    captures = [entry for entry in course["captures"] if entry["name"] not in refused]
    go = not refused or policy == GO_ON
    # A run that was broken off may have captured some: left alone, they would stay ended. They come back.
    waiting = any(record["phase"] in WAITING for record in records)
    return {
        "go": go,
        "skip": bool(refused) and policy == SKIP_NODE and not waiting,
        "captures": captures,
        "records": records,
        # The policy may have it so; the records say what was left out.
        "problems": [] if policy == GO_ON else lines,
    }


def phase_after(
    records: Sequence[Mapping[str, Any]],
    phase: str,
    failed: bool,
    noted: Sequence[Mapping[str, Any]] = (),
    broken: bool = False,
) -> str:
    """The node's phase after captures, the work or restores; ``failed``: the window was given up on this node.

    ``noted``: all that the journal has; where no record is known, that says whether something waits. ``broken``: the
    captures failed, so that the work does not begin, even if the look found all captured.
    """
    waiting = any(record["phase"] in WAITING for record in records or noted)
    if failed:
        # As long as something waits for its restore, the next run goes on from here; with the work only if nothing
        # is back.
        back = any(record["phase"] in BACK for record in records)
        return (RETURNING if back else phase) if waiting else RETURNED
    if phase == WORKED:
        return WORKED if waiting else DONE
    return PLANNED if broken or any(record["phase"] == PLANNED for record in records) else CAPTURED


def after_capture(
    records: Sequence[Mapping[str, Any]],
    receipts: Mapping[str, Any],
    failures: Mapping[str, Any],
    answer: Any = None,
) -> list[dict[str, Any]]:
    """The records with what a capture has come to: receipts and failures of the role, by container.

    ``answer``: of a look at the node after a capture that failed. A module that was killed has no receipts of what it
    had captured and ended by then.
    """
    looked = isinstance(answer, Mapping) and "workloads" in answer and "checkpoints" in answer
    found = []
    for before in records:
        record = dict(before)
        if record["phase"] == PLANNED and record["id"] in failures:
            record["message"] = str(failures[record["id"]].get("msg", ""))
        elif record["phase"] == PLANNED and record["id"] in receipts:
            receipt = receipts[record["id"]]
            record.update(phase=CAPTURED, digest=receipt["checkpoint"]["digest"], message="")
            record["stopped_at"] = stopped_at(receipt)
            record["seen"] = {**record.get("seen", {}), "capture": (receipt.get("seconds") or {}).get("total")}
            record["bytes"] = sum((receipt.get("sizes") or {}).values())
        if looked and record["phase"] == PLANNED:
            seen = see(record, answer)
            if seen.digest and not seen.live and not seen.copy:
                record.update(phase=CAPTURED, digest=seen.digest, message="")
        found.append(record)
    return found


def stopped_at(receipt: Mapping[str, Any]) -> str:
    """When a captured workload came to stand still, UTC to the second; empty where its checkpoint does not tell."""
    taken = str((receipt.get("recorded") or {}).get("taken_at") or "")
    seconds = receipt.get("seconds") or {}
    try:
        dumped = datetime.datetime.strptime(taken, text.UTC)
    except ValueError:
        return ""
    before = sum(float(seconds.get(phase) or 0.0) for phase in ("cuda_suspend", "detach", "pause"))
    return (dumped - datetime.timedelta(seconds=before)).strftime(text.UTC)


def after_restore(
    records: Sequence[Mapping[str, Any]], receipts: Mapping[str, Any], failures: Mapping[str, Any], boot: str = ""
) -> list[dict[str, Any]]:
    """The records with what a restore has come to, by the restored container's name. ``boot``: of the node."""
    found = []
    for before in records:
        record = dict(before)
        name = record["restored"]
        if record["phase"] == CAPTURED and name in failures:
            record["message"] = str(failures[name].get("msg", ""))
        elif record["phase"] == CAPTURED and name in receipts:
            seconds = (receipts[name] or {}).get("seconds") or {}
            record.update(phase=RESTORED, message="", boot=boot)
            record["back_at"] = str((receipts[name] or {}).get("finished_at") or "")
            record["seen"] = {**record.get("seen", {}), "restore": seconds.get("window")}
            record["predicted"] = {**record.get("predicted", {}), "restore": seconds.get("predicted")}
        found.append(record)
    return found
