# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The course of a window whose workloads are moved to spare nodes for the work, and back. Pure.

planned ──move──▶ evacuated ──work──▶ worked ──move──▶ done
             └── one does not move ──▶ what is away comes back: (returning,) returned

A workload is planned, away, restored (it is back), or stays (on the spare). Work that fails leaves it away: it runs.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from .._core import text
from . import course as steps, placement, selection
from .course import (
    AWAY,
    CAPTURE,
    DONE,
    EVACUATE,
    EVACUATED,
    IN_PLACE,
    LEFT_OUT,
    LOST,
    NOTHING,
    PARK,
    PLANNED,
    RESTORE,
    RESTORED,
    RETURNED,
    RETURNING,
    SKIPPED,
    STAYS,
    WORK,
    WORKED,
    WORKING,
    Course,
)
from .selection import Chosen, Selection, Workload

MODES = (IN_PLACE, EVACUATE)
#: What maintenance_hosts is where nobody has said it.
HOSTS = "all"
_OVER = (DONE, RETURNED, SKIPPED)
_PAUSED = "PAUSED"


def refusal(mode: Any, method: Any, named: Mapping[str, Sequence[str]], nodes: Sequence[str], host: str) -> str:
    """Why a run may not begin as it was asked for; empty where it may.

    ``named``: what ``maintenance_spares`` has, and which hosts that are; ``nodes``: those of the window.
    """
    if mode not in MODES:
        return f"maintenance_mode is {mode!r}; it has to be one of {', '.join(MODES)}. Nothing was touched."
    if mode != EVACUATE:
        return ""
    if method == PARK:
        return (
            "maintenance_method: park does not go with maintenance_mode: evacuate. What is parked stays in the node's "
            "memory, and evacuate is for work that needs the node empty. Leave one of the two out. Nothing was touched."
        )
    if not any(named.values()):
        given = f"names no host ({', '.join(named)})" if named else "names none"
        return (
            f"maintenance_mode: evacuate needs spare nodes that take the workloads in, and maintenance_spares {given}. "
            "Give a list of hosts, or a group. Nothing was touched."
        )
    lost = [name for name, hosts in named.items() if not hosts]
    if lost:
        return (
            f"maintenance_spares names {', '.join(lost)}, which the inventory has neither as a host nor as a group. "
            "Correct it. Nothing was touched."
        )
    both = sorted({one for hosts in named.values() for one in hosts} & {*nodes, host})
    if both:
        return (
            f"{', '.join(both)} is to take workloads in (maintenance_spares) and is under maintenance in this window "
            f"itself. Leave it out of one of them: maintenance_hosts: '{HOSTS}:!{both[0]}' keeps it as a spare. "
            "Nothing was touched."
        )
    return ""


def plan(
    window: str,
    host: str,
    wanted: Selection,
    found: Sequence[Workload],
    noted: Mapping[str, Any],
    answer: Mapping[str, Any],
    spares: Mapping[str, Mapping[str, Any]],
) -> Course:
    """As :func:`.course.plan`. ``spares``: by host, ``heard`` and ``answer``, of the looks at the spare nodes."""
    node = noted.get("node") or {}
    phase, attempt = node.get("phase", ""), steps.attempt_of(node)
    own = [one for one in noted["workloads"] if one.get("attempt", 1) == attempt]
    if phase == DONE:
        return Course(NOTHING, attempt, phase, own, mode=EVACUATE)
    if phase in (RETURNED, SKIPPED):
        attempt, node = attempt + 1, {}
    course = _go_on(host, own, node, answer, spares) if node else _begin(window, host, wanted, found, attempt)
    if course.next == CAPTURE:
        course.problems += unfit(spares)
    return course


def unfit(spares: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Why nothing may be moved to the spare nodes yet."""
    found = []
    for host, spare in spares.items():
        if _looked(spare) is None:
            said = str((spare.get("answer") or {}).get("msg") or "it was not reached").strip().rstrip(".")
            if not spare.get("takes_part", True):
                said = "it is not part of this run, so --limit has to name it, too"
            found.append(
                f"The spare node {host} cannot be asked: {said}. Bring it up, or take it out of maintenance_spares. "
                "Nothing was touched."
            )
        heard = spare.get("heard") or {}
        open_here = [(heard.get("node") or {}).get("phase", DONE), *(one["phase"] for one in heard.get("others") or ())]
        if any(phase not in _OVER for phase in open_here):
            found.append(
                f"The spare node {host} is in a maintenance window itself, which is not over there. Finish that first, "
                "or take it out of maintenance_spares. Nothing was touched."
            )
    return found


def _looked(spare: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]] | None:
    """The containers of a spare by their ids; None where it gave no answer."""
    answer = (spare or {}).get("answer") or {}
    return {one["id"]: one for one in answer["workloads"]} if "workloads" in answer else None


def _begin(window: str, host: str, wanted: Selection, found: Sequence[Workload], attempt: int) -> Course:
    course = Course(CAPTURE, attempt, mode=EVACUATE)
    name = f"gpuops.local/window/{{name}}:{steps.tag_of(window, attempt)}"
    mine = Selection(**{**vars(wanted), "checkpoint": name})
    chosen = selection.captures(mine, [one for one in found if one.live], host)
    for one in chosen:
        # None of its checkpoints is one that the window restores here by itself.
        ways = {"checkpoint": "", "out": one.checkpoint, "home": f"{one.checkpoint}.back"}
        course.records.append({**steps.new_record(one, attempt), **ways, "spare": "", "moves": []})
    if not chosen:
        # The selection allows that.
        course.next, course.phase = WORK, EVACUATED
    return course


def _go_on(
    host: str,
    records: Sequence[Mapping[str, Any]],
    node: Mapping[str, Any],
    answer: Mapping[str, Any],
    spares: Mapping[str, Mapping[str, Any]],
) -> Course:
    course = Course(attempt=steps.attempt_of(node), phase=node["phase"], goes_on=True, mode=EVACUATE)
    course.records, course.problems = see(host, records, answer, spares)
    course.gpu = any(record["gpu"] for record in course.records)
    phases = [record["phase"] for record in course.records]
    if node["phase"] == RETURNING or (RESTORED in phases and node["phase"] != WORKED):
        # What is back runs on a node that the work would take it from.
        course.next, course.phase = RESTORE, RETURNING
    elif node["phase"] == WORKED:
        course.next = RESTORE
    elif PLANNED in phases:
        course.next = CAPTURE
    else:
        course.next = WORK
        course.phase = WORKING if node["phase"] == WORKING else EVACUATED
    return course


def see(
    host: str,
    records: Sequence[Mapping[str, Any]],
    answer: Mapping[str, Any],
    spares: Mapping[str, Mapping[str, Any]],
) -> tuple[list[dict[str, Any]], list[str]]:
    """The records as they are by what is on the node and on the spares, and what keeps that from being told."""
    here = {one["id"]: one for one in answer["workloads"] if one["live"]}
    found, problems = [], []
    for before in records:
        record = steps.plain(before)
        if record["phase"] in (PLANNED, AWAY) and record["spare"]:
            there = _looked(spares.get(record["spare"]))
            if there is None:
                problems.append(_silent(record, host, record["spare"] in spares))
            else:
                _see(record, host, here, there.get(record["restored"]) or {}, problems)
        elif record["phase"] == PLANNED and record["id"] not in here:
            record.update(phase=LOST, message=_ended(record, host))
        found.append(record)
    return found, problems


def _silent(record: Mapping[str, Any], host: str, named: bool) -> str:
    spare = record["spare"]
    where = f"{record['called']} of {host} {'runs on' if record['phase'] == AWAY else 'was to move to'} {spare}"
    if not named:
        return f"{where}, which maintenance_spares does not name any more. Name it again; the window then goes on."
    return f"{where}, which gives no answer. Bring it up, then run again; the window then goes on."


def _see(
    record: dict[str, Any], host: str, here: Mapping[str, Any], copy: Mapping[str, Any], problems: list[str]
) -> None:
    """``here``: what lives on the node, ``copy``: the container on the spare."""
    away = bool(copy.get("live") and copy.get("restored_from"))
    original, back = here.get(record["id"]), here.get(record["restored"])
    returned = back is not None and bool(back.get("restored_from"))
    if record["phase"] == PLANNED:
        if original is None:
            if away:
                record.update(phase=AWAY, message="")
            else:
                record.update(phase=LOST, message=_ended(record, host))
    elif away:
        if original is not None and not returned:
            problems.append(
                f"{record['called']} runs on {record['spare']}, and somebody has started {record['id']} on {host} "
                "again since. End one of the two, then run again."
            )
    elif returned:
        record.update(phase=RESTORED, message="")
    else:
        record.update(phase=LOST, message=_ended(record, record["spare"]))


def _ended(record: Mapping[str, Any], where: str) -> str:
    kept = (
        f" The checkpoint {record['out']} with which it moved is still on its node and can be restored there by hand."
        if record["phase"] == AWAY
        else ""
    )
    return f"{record['called']} has ended on {where}, so there is nothing to move.{kept} Start it anew."


def chosen(record: Mapping[str, Any], wanted: Selection, host: str, reference: str) -> Chosen:
    """A workload with the options that the node's selection has for it."""
    workload = steps.workload(record)
    return Chosen(workload, reference, record["restored"], wanted.options(workload, host))


def placed(
    nodes: Mapping[str, Mapping[str, Any]], spares: Mapping[str, Mapping[str, Any]], route: str
) -> dict[str, dict[str, Any]]:
    """By node, its ``records`` with the ``spare`` of each, the ``lines`` that say so, and the ``problems``.

    ``nodes``: those of a batch from which something has to move: ``course``, ``heard`` and ``answer`` of each. All of
    them together, since they share the spares.
    """
    needs, kept = [], {}
    for host in sorted(nodes):
        for record in nodes[host]["course"]["records"]:
            if record["phase"] == PLANNED:
                needs.append(placement.need(host, record, nodes[host]["heard"], nodes[host]["answer"]))
                if record["spare"]:
                    kept[host, record["id"]] = record["spare"]
    rooms = [
        placement.Spare.from_answers(host, spare.get("heard") or {}, spare["answer"])
        for host, spare in spares.items()
        if _looked(spare) is not None
    ]
    places, refused = placement.place(needs, rooms, route, kept)
    found: dict[str, dict[str, Any]] = {}
    for host in nodes:
        own: dict[str, Any] = {"records": [], "lines": [], "problems": []}
        for record in map(dict, nodes[host]["course"]["records"]):
            key = (host, record["id"])
            if key in places:
                record["spare"] = places[key]
                own["lines"].append(
                    f"{record['called']} moves from {host} to {record['spare']} as {record['restored']}."
                )
            elif key in refused:
                own["problems"].append(f"{refused[key]} Nothing was touched.")
            own["records"].append(record)
        found[host] = own
    return found


def captures(
    records: Sequence[Mapping[str, Any]],
    wanted: Selection,
    host: str,
    spares: Mapping[str, Mapping[str, Any]],
    answer: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Entries of checkpoint_node_workloads, by which the moves are foretold.

    Without those that an earlier run may have left paused in the middle of it: the migration settles them first.
    """
    states = {one["id"]: one["state"] for one in answer["workloads"]}
    found = []
    for record in records:
        begun = bool(record.get("begun")) and states.get(record["id"]) == _PAUSED
        if record["phase"] == PLANNED and record["spare"] and not begun:
            facts = (spares[record["spare"]].get("heard") or {}).get("facts") or {}
            target: dict[str, Any] = {"name": record["spare"]}
            if facts.get("driver"):
                target.update(driver=facts["driver"], gpus=[card["name"] for card in facts.get("gpus") or ()])
            entry = chosen(record, wanted, host, record["out"]).capture()
            found.append({**entry, "leave": "paused", "force": True, "targets": [target]})
    return found


def moves_out(records: Sequence[Mapping[str, Any]], wanted: Selection, host: str) -> list[dict[str, Any]]:
    """``source``, ``target`` and ``workloads`` (as ``migrate_workloads``) of each migration from the node."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        if record["phase"] == PLANNED and record["spare"]:
            move = found.setdefault(record["spare"], {"source": host, "target": record["spare"], "workloads": []})
            move["workloads"].append(chosen(record, wanted, host, record["out"]).migration())
    return list(found.values())


def after_out(
    host: str,
    records: Sequence[Mapping[str, Any]],
    answer: Mapping[str, Any],
    spares: Mapping[str, Mapping[str, Any]],
    done: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """``records``, the node's ``phase`` and the ``problems`` after the moves out. ``done``: as :func:`moved`."""
    if "workloads" not in answer:
        said = str(answer.get("msg") or f"{host} gave no answer; -vvv shows why.")
        return {"records": list(map(dict, records)), "phase": PLANNED, "problems": [said]}
    found, problems = see(host, records, answer, spares)
    for before, record in zip(records, found):
        if before["phase"] == PLANNED and record["phase"] == AWAY:
            moved(record, record["id"], record["restored"], host, record["spare"], done)
        elif record["phase"] == PLANNED:
            record["message"] = why_not(record["id"], host, done)
    stuck = [f"{record['called']}: {record['message']}" for record in found if record["phase"] == PLANNED]
    phases = [record["phase"] for record in found]
    if problems:
        # Nobody knows yet where those are.
        phase = PLANNED
    elif stuck:
        phase = RETURNING if AWAY in phases else RETURNED
    else:
        phase = EVACUATED
    return {"records": found, "phase": phase, "problems": [*problems, *stuck]}


def moved(
    record: dict[str, Any],
    source_name: str,
    name: str,
    source: str,
    target: str,
    done: Sequence[Mapping[str, Any]],
) -> None:
    """Take down how a move went. ``done``: ``source``, ``target``, ``captured``, ``restored`` (receipts), ``lines``."""
    told: dict[str, Any] = {"from": source, "to": target, "digest": "", "stopped_at": "", "back_at": "", "outage": None}
    for one in done:
        captured = (one.get("captured") or {}).get(source_name)
        restored = (one.get("restored") or {}).get(name)
        if (one["source"], one["target"]) == (source, target) and captured and restored:
            told["digest"] = captured["checkpoint"]["digest"]
            told["stopped_at"] = steps.stopped_at(captured)
            told["back_at"] = restored.get("finished_at") or ""
            told["outage"] = _between(told["stopped_at"], told["back_at"])
            record["bytes"] = sum((captured.get("sizes") or {}).values())
    record["moves"] = [*record["moves"], told]


def _between(begun: str, ended: str) -> int | None:
    """Seconds; None where nobody can tell, clocks that differ among the reasons."""
    try:
        first, last = (datetime.datetime.strptime(one, text.UTC) for one in (begun, ended))
    except ValueError:
        return None
    seconds = int((last - first).total_seconds())
    return seconds if seconds >= 0 else None


def why_not(name: str, source: str, done: Sequence[Mapping[str, Any]]) -> str:
    """Why a workload did not move from ``source``, where it is called ``name``."""
    mine = [one for one in done if one["source"] == source]
    for one in mine:
        for line in one.get("lines") or ():
            if line.startswith(f"{name}: "):
                return str(line.removeprefix(f"{name}: ")).strip()
    said = [str(reason).strip() for one in mine for reason in one.get("reasons") or () if reason]
    return said[0] if said else "it did not move; the run's output shows why, and the next run tries again."


def way_home(
    host: str,
    records: Sequence[Mapping[str, Any]],
    wanted: Selection,
    facts: Mapping[str, Any],
    spares: Mapping[str, Mapping[str, Any]],
    comes_back: bool,
) -> dict[str, Any]:
    """``records``, the ``moves`` that bring them back, and the ``problems``. ``facts``: of the node as it is now.

    ``comes_back``: false where the operator has them stay on the spares.
    """
    found: list[dict[str, Any]] = []
    moves: dict[str, dict[str, Any]] = {}
    problems = []
    for before in records:
        record = steps.plain(before)
        found.append(record)
        if record["phase"] != AWAY:
            continue
        there = ((spares.get(record["spare"]) or {}).get("heard") or {}).get("facts") or {}
        old, new = there.get("driver"), facts.get("driver")
        if not comes_back:
            record.update(phase=STAYS, message="")
        elif record["gpu"] and old and not new:
            problems.append(
                f"{record['called']} cannot come back yet: NVIDIA's driver is not loaded on {host}. Load it (modprobe "
                f"nvidia), then run again; it runs on {record['spare']} meanwhile."
            )
        elif record["gpu"] and old and old != new:
            record.update(phase=STAYS, message=_bridges(record, host, old, str(new)))
        else:
            way: dict[str, Any] = {"target": host, "home": True, "workloads": []}
            move = moves.setdefault(record["spare"], {**way, "source": record["spare"]})
            entry = chosen(record, wanted, host, record["home"]).migration()
            move["workloads"].append({**entry, "source_name": record["restored"]})
    return {"records": found, "moves": list(moves.values()), "problems": problems}


def _bridges(record: Mapping[str, Any], host: str, old: str, new: str) -> str:
    return (
        f"stays on {record['spare']}: it runs with NVIDIA's driver {old}, and {host} has {new} now, which no "
        f"checkpoint bridges. It comes to {host} when it is started anew there, from a checkpoint of its own."
    )


def after_home(
    host: str,
    records: Sequence[Mapping[str, Any]],
    answer: Mapping[str, Any],
    spares: Mapping[str, Mapping[str, Any]],
    done: Sequence[Mapping[str, Any]],
    phase: str,
) -> dict[str, Any]:
    """As :func:`after_out`, after the moves back. ``phase``: of the node, ``worked`` or ``returning``."""
    if "workloads" not in answer:
        said = str(answer.get("msg") or f"{host} gave no answer; -vvv shows why.")
        return {"records": list(map(dict, records)), "phase": phase, "problems": [said]}
    found, problems = see(host, records, answer, spares)
    for before, record in zip(records, found):
        if before["phase"] == AWAY and record["phase"] == RESTORED:
            moved(record, record["restored"], record["restored"], record["spare"], host, done)
        elif record["phase"] == AWAY:
            record["message"] = why_not(record["restored"], record["spare"], done)
    stuck = [f"{record['called']}: {record['message']}" for record in found if record["phase"] == AWAY]
    if not problems and not stuck:
        phase = DONE if phase == WORKED else RETURNED
    return {"records": found, "phase": phase, "problems": [*problems, *stuck]}


def to_clear(records: Sequence[Mapping[str, Any]], spare: str, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a spare still has of workloads that are back and ended there: ``name``, and the ``dumps`` that are known.

    ``answer``: of the look at the spare.
    """
    ended = {one["id"] for one in answer.get("workloads") or () if not one["live"] and one["restored_from"]}
    return [
        {"name": record["restored"], "dumps": _dumps(record)}
        for record in records
        if record["phase"] == RESTORED and record.get("spare") == spare and record["restored"] in ended
    ]


def _dumps(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """As the playbooks have what is to be dropped."""
    found = []
    for move in record["moves"]:
        if move["digest"]:
            reference = record["out" if move["to"] == record["spare"] else "home"]
            found.append({"record": {"name": record["restored"], "checkpoint": reference, "digest": move["digest"]}})
    return found


def other_mode(noted: str, asked: str, window: str, host: str) -> str:
    """Why an attempt that is under way goes on as it began."""
    return (
        f"The window {window} has begun on {host} with maintenance_mode: {noted}, and this run asks for {asked}. "
        f"Finish it with maintenance_mode: {noted} first."
    )


def where(record: Mapping[str, Any], host: str) -> str:
    """The host on which the workload runs; empty where it does not."""
    if record["phase"] in (AWAY, STAYS):
        return str(record.get("spare") or "")
    return host if record["phase"] in (PLANNED, RESTORED, LEFT_OUT) else ""
