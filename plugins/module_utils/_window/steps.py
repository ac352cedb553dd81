# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Between the playbook of a window, which has registered results, and the decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .._migration import controller
from . import answers, batch, course, evacuation, gate, pace, parking, placement, selection
from .selection import SelectionError


def decide(step: str, known: Mapping[str, Any]) -> Any:
    """What the playbook does next. ``step``: a key of :data:`STEPS`. Raises ValueError for another one."""
    if step not in STEPS:
        raise ValueError(f"{step} is no step of a window; there are {', '.join(STEPS)}")
    return STEPS[step](known)


def _course(known: Mapping[str, Any]) -> dict[str, Any]:
    noted, answer, host = known["noted"], known["answer"], known["host"]
    # Whatever is in the way: what the journal has of this attempt is still what this run is about.
    attempt = course.attempt_of((noted.get("node") or {}) if isinstance(noted, Mapping) else {})
    for said in (noted, answer):
        if not isinstance(said, Mapping) or said.get("failed") or "workloads" not in said:
            message = said.get("msg") if isinstance(said, Mapping) else None
            return course.Course(
                attempt=attempt, problems=[str(message or f"{host} gave no answer; -vvv shows why.")]
            ).result()
    problems = [
        f"The window {other['window']} is not over on {host} ({other['phase'] or 'begun'}). Finish it first: run "
        f"gpuops.restore.maintenance with -e maintenance_window={other['window']}."
        for other in noted["others"]
    ]
    held = noted.get("claim") or {}
    at_work = controller.at_work(str(held.get("controller", "")), bool(known.get("other_controllers")))
    if at_work:
        problems.append(
            f"The window {held['window']} is in the hands of {at_work} on {host}, since {held['since']}. Wait until "
            "that has ended; if it has, run again with -e maintenance_other_controllers=true."
        )
    if problems:
        return course.Course(attempt=attempt, problems=problems).result()
    try:
        wanted = selection.parse(known["selection"])
        found = _planned(known, wanted)
        begins = not found.goes_on and found.phase != course.DONE
        blind = answers.blind(wanted, answer, host, answers.CAPTURE) if begins else ""
        if blind:
            # Before what a selection by GPU memory has not found.
            raise SelectionError([blind])
        lost = gate.forgets(noted.get("facts") or {}, host) if known.get("reboot") else ""
        if lost and found.next in (course.CAPTURE, course.WORK):
            raise SelectionError([lost])
    except SelectionError as error:
        found = course.Course(attempt=attempt, problems=error.problems)
    return found.result()


def _planned(known: Mapping[str, Any], wanted: selection.Selection) -> course.Course:
    """By the method of the attempt that is noted, else by the one that is asked for."""
    noted, answer, window, host = known["noted"], known["answer"], known["window"], known["host"]
    asked = known.get("method", course.CHECKPOINT)
    node = noted.get("node") or {}
    phase, was = node.get("phase", ""), node.get("method", course.CHECKPOINT)
    given = (window, host, wanted, answers.seen(answer), noted, answer)
    mode, was_mode = known.get("mode", course.IN_PLACE), node.get("mode", course.IN_PLACE)
    if phase not in ("", course.DONE, course.RETURNED, course.SKIPPED) and was_mode != mode:
        raise SelectionError([evacuation.other_mode(was_mode, mode, window, host)])
    if mode == course.EVACUATE:
        # What an attempt in place has left comes back first.
        left = phase in (course.RETURNED, course.SKIPPED) and (was_mode, was) == (course.IN_PLACE, course.CHECKPOINT)
        if left and course.plan(*given).next == course.RESTORE:
            raise SelectionError([evacuation.other_mode(was_mode, mode, window, host)])
        return evacuation.plan(*given, known["spares"])
    if phase not in ("", course.DONE, course.RETURNED, course.SKIPPED) and was != asked:
        raise SelectionError([parking.other_method(was, asked, window, host)])
    if phase in (course.RETURNED, course.SKIPPED) and (was, asked) == (course.CHECKPOINT, course.PARK):
        first = course.plan(*given)
        if first.next == course.RESTORE:
            # What an attempt by checkpoints has left comes back first.
            return first
    return parking.plan(*given) if asked == course.PARK else course.plan(*given)


def _refused(known: Mapping[str, Any]) -> str:
    mode = known.get("mode", course.IN_PLACE)
    why = evacuation.refusal(
        mode, known["method"], known.get("spares") or {}, known.get("nodes") or (), str(known.get("host", ""))
    )
    return why or parking.refusal(known["method"], bool(known["reboot"]))


def _foretell(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    return course.foretell(known["captures"], known["defaults"])


def _judge(known: Mapping[str, Any]) -> dict[str, Any]:
    judge = parking.judge if known["course"].get("method") == course.PARK else course.judge
    return judge(known["course"], known["foretold"], known["policy"])


def _heard(known: Mapping[str, Any]) -> dict[str, Any]:
    """What each host was heard of last, for the report. ``known``: a list of each thing, in the order of ``hosts``."""
    keys = ("hosts", "heard", "problems", "batches", "begun", "ended")
    return {
        host: {
            "batch": {"hosts": batch, "begun": begun, "ended": ended},
            "node": heard.get("node", {}),
            "workloads": heard.get("workloads", []),
            "facts": heard.get("facts", {}),
            "problems": problems,
        }
        for host, heard, problems, batch, begun, ended in zip(*(known[key] for key in keys))
    }


def _named(known: Mapping[str, Any]) -> dict[str, list[str]]:
    """The hosts of each name, which is a host's or a group's."""
    groups = known["groups"]
    every = groups.get("all", ())
    return {
        str(name): list(groups[name]) if name in groups else [name] if name in every else [] for name in known["names"]
    }


def _spares(known: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        host: {"heard": heard, "answer": answer, "takes_part": host in known["run"]}
        for host, heard, answer in zip(known["hosts"], known["heard"], known["answers"])
    }


def _rounds(known: Mapping[str, Any]) -> list[list[str]]:
    nodes = list(known["nodes"])
    found = []
    for size in pace.sizes(known["serial"], len(nodes)):
        found.append(nodes[:size])
        nodes = nodes[size:]
    return found


def _place(known: Mapping[str, Any]) -> dict[str, Any]:
    given = known["known"]
    nodes = {
        host: {"course": found, "heard": heard, "answer": answer}
        for host, found, heard, answer in zip(given["hosts"], given["courses"], given["heard"], given["answers"])
        if found.get("next") == course.CAPTURE and not found["problems"]
    }
    return evacuation.placed(nodes, known["spares"], known["route"])


def _leaves(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    wanted = selection.parse(known["selection"])
    return evacuation.captures(known["records"], wanted, known["host"], known["spares"], known["answer"])


def _departs(known: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict on what was foretold, and what moves by it."""
    course_known = {**known["course"], "records": known["records"], "captures": known["captures"]}
    found = course.judge(course_known, known["foretold"], known["policy"])
    away = any(record["phase"] == course.AWAY for record in found["records"])
    found["skip"] = found["skip"] and not away
    for record in found["records"]:
        if record["phase"] == course.PLANNED:
            record["begun"] = True
    wanted = selection.parse(known["selection"])
    found["moves"] = evacuation.moves_out(found["records"], wanted, known["host"]) if found["go"] else []
    return found


def _evacuated(known: Mapping[str, Any]) -> dict[str, Any]:
    return evacuation.after_out(known["host"], known["records"], known["answer"], known["spares"], known["done"])


def _way_home(known: Mapping[str, Any]) -> dict[str, Any]:
    wanted = selection.parse(known["selection"])
    return evacuation.way_home(
        known["host"], known["records"], wanted, known["facts"], known["spares"], bool(known["comes_back"])
    )


def _home(known: Mapping[str, Any]) -> dict[str, Any]:
    return evacuation.after_home(
        known["host"], known["records"], known["answer"], known["spares"], known["done"], known["phase"]
    )


def _turns(known: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    return placement.turns(known["moves"])


def _to_clear(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    return evacuation.to_clear(known["records"], known["spare"], known["answer"])


def _captured(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    return course.after_capture(known["records"], known["receipts"], known["failures"], known.get("answer"))


def _restored(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    return course.after_restore(known["records"], known["receipts"], known["failures"], str(known.get("boot", "")))


def _restores(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    return course.restores(selection.parse(known["selection"]), known["records"], known["host"], known["gpu_map"])


def _needs(known: Mapping[str, Any]) -> list[str]:
    return parking.needs(known["records"], known["foretold"])


def _parked(known: Mapping[str, Any]) -> dict[str, Any]:
    records = parking.after_park(known["records"], known["told"])
    return {"records": records, "phase": parking.phase_after_park(records, known["phase"])}


def _way_back(known: Mapping[str, Any]) -> dict[str, Any]:
    return parking.way_back(known["records"], known["before"], known["after"], known["answer"])


def _resumed(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    records = known["back"]["records"]
    return parking.after_resume(records, known["told"]) if known["back"]["resume"] else records


def _to_probe(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    return parking.to_probe(selection.parse(known["selection"]), known["records"], known["host"])


def _probed(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    answers = {one["gpuops_window_probe"]["container_id"]: one for one in known["probed"]}
    return parking.after_probe(known["records"], answers)


def _said(known: Mapping[str, Any]) -> list[str]:
    return parking.said(known["records"])


def _gate(known: Mapping[str, Any]) -> list[str]:
    waiting = [record for record in known["records"] if record["phase"] == course.CAPTURED]
    gpu = any(record["gpu"] for record in waiting)
    return gate.problems(known["before"], known["after"], known["gpu_map"], gpu) if waiting else []


def _phase(known: Mapping[str, Any]) -> str:
    failed, broken = bool(known["failed"]), bool(known.get("broken"))
    return course.phase_after(known["records"], known["phase"], failed, known.get("noted", ()), broken)


def _after(known: Mapping[str, Any]) -> bool:
    return course.after_is_due(known["node"])


def _stop(known: Mapping[str, Any]) -> str:
    return batch.stop(known["batch"], known["active"], known["allowed"])


def _late(known: Mapping[str, Any]) -> str:
    return pace.late(known["nodes"], known["batch"], known["minutes"], float(known["now"]))


def _before(known: Mapping[str, Any]) -> dict[str, Any]:
    return course.before(known["heard"], int(known["attempt"]))


def _controller(_known: Mapping[str, Any]) -> str:
    return controller.own()


STEPS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "refused": _refused,
    "course": _course,
    "heard": _heard,
    "named": _named,
    "spares": _spares,
    "rounds": _rounds,
    "place": _place,
    "leaves": _leaves,
    "departs": _departs,
    "turns": _turns,
    "evacuated": _evacuated,
    "way_home": _way_home,
    "home": _home,
    "to_clear": _to_clear,
    "foretell": _foretell,
    "judge": _judge,
    "captured": _captured,
    "restored": _restored,
    "restores": _restores,
    "needs": _needs,
    "parked": _parked,
    "way_back": _way_back,
    "resumed": _resumed,
    "to_probe": _to_probe,
    "probed": _probed,
    "said": _said,
    "gate": _gate,
    "phase": _phase,
    "after": _after,
    "stop": _stop,
    "late": _late,
    "before": _before,
    "controller": _controller,
}
