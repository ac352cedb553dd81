# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work without a reboot: two containers leave their cards into host memory side by side, and come back in place."""

from __future__ import annotations

from typing import Any

from gpuops_gpu import gpu
from gpuops_gpu.bench import SLACK, Bench, Workload
from gpuops_gpu.report import Section
from gpuops_gpu.runner import StepError

MODULE = "containerd_park"


def side_by_side(bench: Bench, section: Section) -> None:
    """One with a single process, and one with several, on all cards, by the module alone."""
    cards = len(gpu.device_nodes()) or 1
    workloads = [
        bench.pattern("park-one", bench.settings.gib),
        bench.pattern("park-many", bench.settings.small, max(2, cards), *(["--spread"] if cards > 1 else [])),
    ]
    try:
        _parked_and_back(bench, section, workloads)
    finally:
        for workload in workloads:
            _ask(bench, [workload], "resumed")
            bench.take_away(workload)


def _parked_and_back(bench: Bench, section: Section, workloads: list[Workload]) -> None:
    for workload in workloads:
        bench.start(workload)
        bench.await_ready(workload, 90)
    before = {one.name: bench.digests(one) for one in workloads}
    pids = {one.name: sorted(bench.engine.pids(one.name)) for one in workloads}
    total = sum(one.bytes for one in workloads)
    _said(section, "parked", _ask(bench, workloads, "parked"), total)
    counted = {one.name: bench.count(one) for one in workloads}
    bench.check_gpu_free(section, "while they are parked")
    section.check("nothing of them is on the disk", not bench.plays.staged(), bench.plays.staged()[:5])
    again = _ask(bench, workloads, "parked")
    section.check("parking them again changes nothing", not again["failed"] and not again["changed"], again.get("msg"))
    section.check("they stand still", counted == {one.name: bench.count(one) for one in workloads}, counted)
    _said(section, "resumed", _ask(bench, workloads, "resumed"), total)
    for workload in workloads:
        same = bench.digests(workload) == before[workload.name]
        section.check(f"{workload.name}: the VRAM digest is the same", same)
        going = bench.count(workload)
        on = all(now > then for now, then in zip(going, counted[workload.name]))
        section.check(f"{workload.name}: it counts on", on, f"{counted[workload.name]}, then {going}")
        found = sorted(bench.engine.pids(workload.name))
        section.check(f"{workload.name}: by the same processes", found == pids[workload.name], found)
    held = gpu.used() - bench.base_used
    section.check("their memory is on the cards again", held + SLACK >= total, f"{held} bytes more than at the start")
    again = _ask(bench, workloads, "resumed")
    section.check("resuming them again changes nothing", not again["failed"] and not again["changed"], again.get("msg"))


def _ask(bench: Bench, workloads: list[Workload], state: str) -> dict[str, Any]:
    names = [one.name for one in workloads]
    arguments = {
        "workloads": names,
        "state": state,
        "force": True,
        **({"gpu": "required"} if state == "parked" else {}),
    }
    return bench.plays.module(MODULE, arguments, 120)[0]


def _said(section: Section, state: str, answer: dict[str, Any], total: int) -> None:
    section.figures[state] = answer
    if answer["failed"]:
        raise StepError(f"{MODULE} could not bring them to {state}: {answer.get('msg')}")
    for name, one in answer["workloads"].items():
        for phase, seconds in one["seconds"].items():
            section.phase(f"{state}: {name}: {phase}", float(seconds))
    longest = max(float(one["seconds"]["total"]) for one in answer["workloads"].values())
    section.phase(f"{state}: the longest", longest, total)
