# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Between the playbook of a window, which has registered results, and the decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .._migration import controller
from . import answers, batch, course, gate, pace, parking, selection
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
    if phase not in ("", course.DONE, course.RETURNED, course.SKIPPED) and was != asked:
        raise SelectionError([parking.other_method(was, asked, window, host)])
    if phase in (course.RETURNED, course.SKIPPED) and (was, asked) == (course.CHECKPOINT, course.PARK):
        first = course.plan(*given)
        if first.next == course.RESTORE:
            # What an attempt by checkpoints has left comes back first.
            return first
    return parking.plan(*given) if asked == course.PARK else course.plan(*given)


def _refused(known: Mapping[str, Any]) -> str:
    return parking.refusal(known["method"], bool(known["reboot"]))


def _foretell(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    return course.foretell(known["captures"], known["defaults"])


def _judge(known: Mapping[str, Any]) -> dict[str, Any]:
    judge = parking.judge if known["course"].get("method") == course.PARK else course.judge
    return judge(known["course"], known["foretold"], known["policy"])


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
