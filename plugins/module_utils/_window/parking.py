# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The course of a window whose workloads are parked in host memory and come back in place. Pure.

planned ──park──▶ parked ──work──▶ worked ──resume──▶ done
            └── one fails, or the work does ──▶ what was parked comes back: (returning,) returned

Nothing is written: what ends while it is parked is lost, and so is all of it with a reboot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._core.text import gib
from . import course as steps, gate, selection
from .course import (
    CAPTURE,
    CHECKPOINT,
    GO_ON,
    LOST,
    PARK,
    PARKED,
    PLANNED,
    RESTORE,
    RESUMED,
    RETURNING,
    WORK,
    WORKED,
    WORKING,
    Course,
)
from .selection import Selection, Workload

METHODS = (CHECKPOINT, PARK)
#: Of a workload that may stand still.
_OUT = (PLANNED, PARKED)
#: Failures of a way back that say: there is nothing to bring back any more.
_GONE = ("task_not_running", "container_absent")
#: And: it is in another one's hands.
_OTHERS = ("busy", "capture_busy", "capture_held", "task_paused")
_DID_NOT_RUN = "containerd_park did not run; -vvv shows why."


def refusal(method: Any, reboot: bool) -> str:
    """Why a run may not begin as it was asked for; empty where it may."""
    if method not in METHODS:
        return f"maintenance_method is {method!r}; it has to be one of {', '.join(METHODS)}."
    if method == PARK and reboot:
        return (
            "maintenance_method: park does not go with maintenance_reboot. Parked workloads are in the node's memory, "
            "nothing of them is written, and the reboot would take them with it. Have them captured "
            "(maintenance_method: checkpoint), or leave maintenance_reboot out. Nothing was touched."
        )
    return ""


def other_method(noted: str, asked: str, window: str, host: str) -> str:
    """Why an attempt that is under way goes on as it began."""
    return (
        f"The window {window} has begun on {host} with maintenance_method: {noted}, and this run asks for {asked}. "
        f"Finish it with maintenance_method: {noted} first."
    )


def plan(
    window: str,
    host: str,
    wanted: Selection,
    found: Sequence[Workload],
    noted: Mapping[str, Any],
    answer: Mapping[str, Any],
) -> Course:
    """As :func:`.course.plan`."""
    node = noted.get("node") or {}
    phase, attempt = node.get("phase", ""), steps.attempt_of(node)
    own = [one for one in noted["workloads"] if one.get("attempt", 1) == attempt]
    if phase == steps.DONE:
        return Course(steps.NOTHING, attempt, phase, own, method=PARK)
    if phase in (steps.RETURNED, steps.SKIPPED):
        attempt, node = attempt + 1, {}
    if not node:
        return _begin(host, wanted, found, answer, attempt)
    return _go_on(own, node, noted.get("facts") or {}, answer)


def _begin(host: str, wanted: Selection, found: Sequence[Workload], answer: Mapping[str, Any], attempt: int) -> Course:
    course = Course(CAPTURE, attempt, method=PARK)
    # It has no checkpoint, and stays what it is: nothing that two of them could share.
    mine = Selection(**{**vars(wanted), "checkpoint": "gpuops.local/parked/{id}:none", "restore_as": "{id}"})
    chosen = selection.captures(mine, [one for one in found if one.live], host)
    pids = {one["id"]: one.get("pid") for one in answer["workloads"]}
    for one in chosen:
        who = one.workload.identity.id
        course.records.append(
            {**steps.new_record(one, attempt), "checkpoint": "", "restored": who, "pid": pids.get(who)}
        )
    _to_park(course)
    course.gpu = any(one.workload.gpu for one in chosen)
    if not chosen:
        # The selection allows that.
        course.next, course.phase = WORK, PARKED
    return course


def _go_on(
    records: Sequence[Mapping[str, Any]],
    node: Mapping[str, Any],
    facts: Mapping[str, Any],
    answer: Mapping[str, Any],
) -> Course:
    course = Course(attempt=steps.attempt_of(node), phase=node["phase"], goes_on=True, method=PARK)
    course.records = see(records, node.get("before") or {}, facts, answer)
    course.gpu = any(record["gpu"] for record in course.records)
    live = {one["id"] for one in answer["workloads"] if one["live"]}
    # One that runs, as it is back or as somebody has started it anew, is nothing that the work may begin beside.
    runs = any(one["phase"] == RESUMED or (one["phase"] == LOST and one["id"] in live) for one in course.records)
    if node["phase"] == WORKED:
        course.next = RESTORE
    elif node["phase"] == RETURNING or runs:
        course.next, course.phase = RESTORE, RETURNING
    else:
        # Also what is noted as parked: somebody may have had it go on since.
        _to_park(course)
        course.next = CAPTURE if course.captures else WORK
    return course


def _to_park(course: Course) -> None:
    course.captures = [{"name": record["id"]} for record in course.records if record["phase"] in _OUT]


def see(
    records: Sequence[Mapping[str, Any]],
    before: Mapping[str, Any],
    facts: Mapping[str, Any],
    answer: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """The records, with what is lost by now.

    ``before``, ``facts``: of the node, as it was when the first was parked and as it is; ``answer``: of the look.
    """
    boots = (before.get("boot"), facts.get("boot"))
    rebooted = all(boots) and boots[0] != boots[1]
    live = {one["id"]: one for one in answer["workloads"] if one["live"]}
    found = []
    for noted in records:
        record = steps.plain(noted)
        now = live.get(record["id"])
        pids = (record.get("pid"), (now or {}).get("pid"))
        same = now is not None and not rebooted and not (all(pids) and pids[0] != pids[1])
        if record["phase"] in _OUT and not same:
            record.update(phase=LOST, message=_lost(record, rebooted, now is not None))
        found.append(record)
    return found


def _lost(record: Mapping[str, Any], rebooted: bool, runs: bool) -> str:
    when = "parked" if record["phase"] == PARKED else "about to be parked"
    how = f"was {when} when the node was rebooted" if rebooted else f"has ended while it was {when}"
    anew = f" What runs as {record['id']} now was started anew." if runs else ""
    return (
        f"{record['called']} {how}, so it is lost: nothing of it was written.{anew} "
        "Start it as you would without a window, or restore it from an earlier checkpoint."
    )


def judge(course: Mapping[str, Any], foretold: Mapping[str, Any], policy: str) -> dict[str, Any]:
    """Go or no-go, as :func:`.course.judge`. ``foretold``: the answer of ``containerd_park`` in check mode for all."""
    found = steps.judge(course, foretold, policy, "actions")
    if course["captures"] and policy == GO_ON and not foretold.get("workloads"):
        # Nobody knows of any: some may be parked by an earlier run, and to go on without those would leave them so.
        said = str(foretold.get("msg") or _DID_NOT_RUN)
        return {**found, "go": False, "captures": [], "records": list(course["records"]), "problems": [said]}
    # A run that was killed may have left some standing still, noted or not: they go on before the node is left alone.
    return {**found, "skip": found["skip"] and not course["goes_on"]}


def needs(records: Sequence[Mapping[str, Any]], foretold: Mapping[str, Any]) -> list[str]:
    """What each needs to be parked, a sentence for each, and for all together."""
    answers = foretold.get("workloads") or {}
    lines, whole, free = [], 0, None
    for record in records:
        told = answers.get(record["id"]) or {}
        memory = told.get("host_memory") or {}
        if told.get("actions") is None or told.get("failure") or not memory:
            continue
        needed, leaves = memory.get("needed") or 0, memory.get("limit_leaves")
        whole, free = whole + needed, memory.get("available")
        if needed:
            limit = f"its memory limit leaves {gib(leaves)}" if leaves is not None else "it has no memory limit"
            cards = len(told.get("vram") or {})
            lines.append(f"{record['called']} brings {gib(needed)} of {cards} GPU(s) into host memory; {limit}.")
        else:
            lines.append(f"{record['called']} has no GPU memory and is only paused.")
    if whole:
        there = f", of which {gib(free)} are free" if free is not None else ""
        lines.append(f"All together bring {gib(whole)} into host memory{there}.")
    return lines


def after_park(records: Sequence[Mapping[str, Any]], told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records with what ``containerd_park`` has said. What failed is noted as planned, and brought back like all.

    That one may stand still, too.
    """
    answers = told.get("workloads") or {}
    found = []
    for before in records:
        record = dict(before)
        answer = answers.get(record["id"]) or {}
        if record["phase"] in _OUT and (answer.get("failure") or answer.get("actions") is None):
            record.update(phase=PLANNED, message=str(answer.get("msg") or told.get("msg") or _DID_NOT_RUN))
        elif record["phase"] in _OUT:
            record.update(phase=PARKED, message="", pid=answer.get("pid") or record.get("pid"))
            record["bytes"] = sum((answer.get("vram") or {}).values())
            if answer.get("changed"):
                record["seen"] = {**record.get("seen", {}), "park": (answer.get("seconds") or {}).get("total")}
        found.append(record)
    return found


def phase_after_park(records: Sequence[Mapping[str, Any]], phase: str) -> str:
    """The node's phase then; ``phase``: before. The work goes on only where none is left that is not parked."""
    if any(record["phase"] == PLANNED for record in records):
        return PLANNED
    return WORKING if phase == WORKING else PARKED


def way_back(
    records: Sequence[Mapping[str, Any]],
    before: Mapping[str, Any],
    facts: Mapping[str, Any],
    answer: Mapping[str, Any],
) -> dict[str, Any]:
    """``records``; ``resume``: the containers that ``containerd_park`` has to have run again; ``problems``."""
    if "workloads" not in answer:
        said = str(answer.get("msg") or "containerd_workload_info did not run; -vvv shows why.")
        return {"records": list(map(dict, records)), "resume": [], "problems": [said]}
    found = see(records, before, facts, answer)
    out = [record for record in found if record["phase"] in _OUT]
    problems = gate.in_place(before, facts) if any(record["gpu"] for record in out) else []
    return {"records": found, "resume": [] if problems else [record["id"] for record in out], "problems": problems}


def after_resume(records: Sequence[Mapping[str, Any]], told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records with what ``containerd_park`` has said of their way back."""
    answers = told.get("workloads") or {}
    found = []
    for before in records:
        record = dict(before)
        if record["phase"] in _OUT:
            silent: dict[str, Any] = {"failure": {}, "msg": told.get("msg") or _DID_NOT_RUN}
            _resumed(record, answers.get(record["id"]) or silent)
        found.append(record)
    return found


def _resumed(record: dict[str, Any], answer: Mapping[str, Any]) -> None:
    failure = answer.get("failure")
    if failure is not None:
        record["message"] = str(answer.get("msg", ""))
        code = failure.get("code")
        if code in _GONE or (failure.get("details") or {}).get("lost"):
            record["phase"] = LOST
        elif code not in _OTHERS:
            # It may stand still, whatever was noted.
            record["phase"] = PARKED
    elif record.get("pid") and answer.get("pid") and answer["pid"] != record["pid"]:
        record.update(phase=LOST, message=_lost(record, False, True))
    elif record["phase"] == PARKED or answer.get("changed"):
        ended = ", ".join(f"{one['pid']} ({one['command']})" for one in answer.get("ended") or ())
        record.update(phase=RESUMED, message=f"Process {ended} ended when it went on." if ended else "")
        record["proof"] = f"Its processes run as before (pid {answer.get('pid')})."
        record["seen"] = {**record.get("seen", {}), "resume": (answer.get("seconds") or {}).get("total")}


def to_probe(wanted: Selection, records: Sequence[Mapping[str, Any]], host: str) -> list[dict[str, Any]]:
    """``containerd_probe``'s options for what is back, has a probe, and has not been probed."""
    found = []
    for record in records:
        probe = wanted.options(steps.workload(record), host).get("probe")
        if record["phase"] == RESUMED and probe and not record.get("probed"):
            found.append({**probe, "container_id": record["id"]})
    return found


def after_probe(records: Sequence[Mapping[str, Any]], answers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records with what their probes have shown. ``answers``: of ``containerd_probe``, by container."""
    found = []
    for before in records:
        record = dict(before)
        answer = answers.get(record["id"])
        if answer is not None:
            record["probed"] = True
            proof = (answer.get("probe") or {}).get("detail")
            if proof:
                record["proof"] = f"{record.get('proof', '')} {proof}".strip()
            else:
                said = answer.get("msg") or "containerd_probe did not run; -vvv shows why."
                record["message"] = f"It is back, and its probe failed: {said}"
        found.append(record)
    return found


def said(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """What somebody has to hear of them, but for what is lost or was left out, which is said elsewhere."""
    return [
        f"{record['called']}: {record['message']}"
        for record in records
        if record["message"] and record["phase"] not in (LOST, steps.LEFT_OUT)
    ]
