# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Between the playbook of a window, which has registered results, and the decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .._migration import controller
from . import answers, batch, course, gate, pace, selection
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
        found = course.plan(known["window"], host, wanted, answers.seen(answer), noted, answer)
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


def _foretell(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    return course.foretell(known["captures"], known["defaults"])


def _judge(known: Mapping[str, Any]) -> dict[str, Any]:
    return course.judge(known["course"], known["foretold"], known["policy"])


def _captured(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    return course.after_capture(known["records"], known["receipts"], known["failures"], known.get("answer"))


def _restored(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    return course.after_restore(known["records"], known["receipts"], known["failures"], str(known.get("boot", "")))


def _restores(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    return course.restores(selection.parse(known["selection"]), known["records"], known["host"], known["gpu_map"])


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
    "course": _course,
    "foretell": _foretell,
    "judge": _judge,
    "captured": _captured,
    "restored": _restored,
    "restores": _restores,
    "gate": _gate,
    "phase": _phase,
    "after": _after,
    "stop": _stop,
    "late": _late,
    "before": _before,
    "controller": _controller,
}
