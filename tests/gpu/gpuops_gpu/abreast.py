# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Part ``abreast`` of section ``node``: a container on each card, all captured and restored side by side.

Measured against the same one after another, against two, and against one alone; and what bounds it: the driver without
CRIU, and in part ``bounds`` PCIe, the place of the dumps, host memory.
"""

from __future__ import annotations

import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

from gpuops_gpu import criu_time, places, plain_write, together
from gpuops_gpu.bench import Bench, Workload, phase_seconds
from gpuops_gpu.report import Section
from gpuops_gpu.runner import StepError
from gpuops_gpu.together import Call

#: What part of the time of one after another all cards side by side take at most.
BOUNDS = {"capture": 0.60, "restore": 0.45}
GIB = 1 << 30
#: Of the plain writes that a dump is measured by.
WRITTEN = 8 << 30
THREADS = (1, 4, 16)
PCIE = pathlib.Path(__file__).resolve().parents[1] / "workloads/pcie.py"
#: Of a capture and of a restore, the phases that move memory.
MOVING = {"capture": ("cuda_suspend", "dump", "keep"), "restore": ("task", "gpu")}


def abreast(bench: Bench, section: Section, cards: int, keep: Callable[[], None]) -> None:
    """Each size at each kind of place; the smallest come first, for time may run out."""
    for kind in bench.settings.node_places:
        for gib in bench.settings.node_gib:
            name = f"{cards} x {gib:g} GiB, {kind}"
            inner = Section(name)
            try:
                _measured(bench, inner, cards, gib, kind)
            except StepError as error:
                inner.check("it was measured", False, error)
            finally:
                section.nest(name, inner)
                keep()


def _measured(bench: Bench, section: Section, cards: int, gib: float, kind: str) -> None:
    workloads = together.one_per_card(bench, "abreast", cards, gib)
    # A tmpfs has to outlast what was restored from it, or that could not be captured again.
    with places.place(bench, places.KINDS[kind], cards * gib * 1.1 + 2) as found:
        place = bench.plays.state if kind == places.DISK else found / "state"
        try:
            before = together.begin(bench, workloads)
            _cases(bench, section, workloads, place, before)
            if gib == bench.settings.node_gib[0]:
                _driver(bench, section, workloads)
                same = together.digests(bench, workloads) == before
                section.check("VRAM digests after the driver's own calls", same)
        finally:
            together.take_away(bench, workloads)


def _cases(
    bench: Bench, section: Section, workloads: list[Workload], place: pathlib.Path, before: dict[str, list[str]]
) -> None:
    """The most telling first."""
    cards = len(workloads)
    cases = [(f"{cards} side by side", cards, 0), (f"{cards} one after another", cards, 1), ("1 alone", 1, 0)]
    cases += [(f"{number} side by side", number, 0) for number in (2, 4, 8) if number < cards]
    walls: dict[str, dict[str, float]] = {}
    for name, number, parallel in cases:
        taken = sum(walls[cases[0][0]].values()) if walls else 0.0
        if bench.runner.limit(together.LONG) < taken * (0.6 * cards if parallel == 1 else 1.2):
            section.figures[f"{name}: not run"] = "no time was left"
            continue
        walls[name] = _case(bench, section, name, workloads[:number], place, parallel)
        found = together.digests(bench, workloads[:number])
        same = all(found[one.name] == before[one.name] for one in workloads[:number])
        section.check(f"{name}: the VRAM digests are the same", same)
        together.forget(bench, workloads[:number], place)
    _judge(bench, section, walls, *(case[0] for case in cases[:3]))


def _case(
    bench: Bench, section: Section, name: str, workloads: list[Workload], place: pathlib.Path, parallel: int
) -> dict[str, float]:
    """Captured and restored; the seconds of both calls."""
    moved = sum(one.bytes for one in workloads)
    captured = together.capture(bench, workloads, place, parallel=parallel)
    _told(section, f"{name}: capture", captured, moved, MOVING["capture"])
    inner = Section(name)
    restored = together.restore(bench, inner, workloads, place, parallel=parallel)
    section.add(name, inner)
    _told(section, f"{name}: restore", restored, moved, MOVING["restore"])
    section.figures[name] = {
        "capture": {**_figures(captured), "disk": captured.used, "criu": captured.criu},
        "restore": {**_figures(restored), "criu": criu_time.longest(place / "work")},
    }
    return {"capture": captured.seconds, "restore": restored.seconds}


def _told(section: Section, name: str, call: Call, moved: int, phases: tuple[str, ...]) -> None:
    section.phase(f"{name}: the whole call", call.seconds, moved)
    for phase in phases:
        if call.each(phase):
            section.phase(f"{name}: {phase}, the longest of {len(call.workloads)}", max(call.each(phase)))


def _figures(call: Call) -> dict[str, Any]:
    kept = ("seconds", "predicted", "sizes", "huge_pages", "prewarm", "parallel_memory")
    each = {name: {key: one[key] for key in kept if key in one} for name, one in call.workloads.items()}
    return {"seconds": call.seconds, "workloads": each}


def _judge(
    bench: Bench, section: Section, walls: dict[str, dict[str, float]], at_once: str, serial: str, alone: str
) -> None:
    """Ratios of the calls' seconds, which the stand-in, that moves no memory, has none of."""
    found = {}
    for what, bound in BOUNDS.items():
        for name, other in (("one after another", serial), ("one alone", alone)):
            if at_once in walls and other in walls:
                found[f"{what}: {at_once} / {name}"] = round(walls[at_once][what] / walls[other][what], 3)
        ratio = found.get(f"{what}: {at_once} / one after another")
        if ratio is not None and not bench.settings.rehearsal:
            wanted = f"at most {bound} of one after another"
            section.check(f"{what}, {at_once}: {wanted}", ratio <= bound, f"{ratio:.3f}")
    section.figures["ratios"] = found


def _driver(bench: Bench, section: Section, workloads: list[Workload]) -> None:
    """The driver's calls without CRIU, for one card, for two and for all: whether its locks or PCIe keep them apart."""
    pids = [bench.cuda_pids(one)[0] for one in workloads]
    found: dict[str, dict[str, float]] = {}
    for number in sorted({1, min(2, len(pids)), len(pids)}):
        took = {}
        for state, phase in (("checkpointed", "checkpoint"), ("running", "restore")):
            answer, _ = bench.cuda(state, pids=pids[:number])
            if answer["failed"]:
                raise StepError(f"cuda_process could not bring {number} to {state}: {answer.get('msg')}")
            took[phase] = phase_seconds(answer, phase)
            moved = sum(one.bytes for one in workloads[:number])
            section.phase(f"the driver alone, {number} side by side: {phase}", took[phase], moved)
        found[str(number)] = took
    section.figures["the driver alone"] = found


def bounds(bench: Bench, section: Section, cards: int, _keep: Callable[[], None]) -> None:
    """Part ``bounds``: what the machine gives by itself, in plain writes and in copies to its cards."""
    found: dict[str, Any] = {}
    section.figures["what the machine gives"] = found
    size = int(min(WRITTEN, max(bench.settings.node_gib) * GIB))
    for kind, options in places.KINDS.items():
        with places.place(bench, options, size / GIB + 1) as place:
            rates = {}
            for threads in THREADS:
                if bench.runner.limit(together.LONG) > 60:
                    rate = plain_write.rate(place / "plain", size, direct=not options, threads=threads)
                    rates[f"{threads} threads"] = round(rate / 1e9, 3)
            found[f"plain writes to {kind}, GB/s"] = rates
    if not bench.settings.rehearsal:
        command = [sys.executable, str(PCIE), "--cards", str(cards)]
        begun = time.monotonic()
        done = bench.runner.run(command, 120)
        found["PCIe, pinned memory, GB/s"] = json.loads(done.output)
        section.phase("PCIe was measured", time.monotonic() - begun)
