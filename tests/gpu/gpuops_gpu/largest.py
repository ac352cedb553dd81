# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Part ``largest`` of section ``node``: how much VRAM the host takes in one window, and that more is refused untouched.

With the dumps on the disk, that is what is free there; on a tmpfs it is the host's memory, which holds all dumps and,
for a moment, the VRAM of the one that leaves its card last.
"""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import Any

from gpuops_gpu import gpu, places, together
from gpuops_gpu.bench import Bench, Workload
from gpuops_gpu.report import Section
from gpuops_gpu.runner import StepError

GIB = 1 << 30
#: Of each card, for contexts and the driver.
LEFT_ON_CARD = 3
#: In a rehearsal what a container holds in truth.
TOLD = 0.0625
#: How much the step beyond is larger than what was left free.
STEP = 2


def largest(bench: Bench, section: Section, cards: int, keep: Callable[[], None]) -> None:
    """First on the disk, then on a tmpfs as large as the memory; what is beyond is told by the preflight."""
    for kind in ("disk", "tmpfs"):
        inner = Section(kind)
        try:
            _at(bench, inner, cards, kind)
        except StepError as error:
            inner.check("it was measured", False, error)
        finally:
            section.nest(kind, inner)
            keep()


def _at(bench: Bench, section: Section, cards: int, kind: str) -> None:
    total = _meminfo("MemTotal") / GIB
    with places.place(bench, places.KINDS[kind], total) as found:
        place = bench.plays.state if kind == places.DISK else found / "state"
        room, times = _room(bench, kind, cards)
        margin = bench.settings.node_margin
        # The first card has to hold the step beyond, too: as much as whole numbers leave free at most, and more.
        fits = min(gpu.free(card) for card in range(cards)) / GIB - LEFT_ON_CARD - (margin + times + STEP)
        each = int(min((room - margin) / times, fits))
        if each < 1:
            raise StepError(f"There is room for {room:.0f} GiB only, which leaves nothing for {cards} workloads.")
        beyond = room - each * times + STEP
        bound = "the cards" if each == int(fits) else {"disk": "the disk", "tmpfs": "host memory"}[kind]
        section.figures |= {"room_gib": round(room, 1), "total_gib": each * cards, "each_gib": each, "bound": bound}
        section.figures["beyond_gib"] = round(beyond, 1)
        workloads = [_workload(bench, f"largest-{card}", each, card) for card in range(cards)]
        last = _workload(bench, "largest-beyond", beyond, 0)
        try:
            begun = time.monotonic()
            _begin(bench, workloads, each)
            section.phase("they begin", time.monotonic() - begun)
            _asked(bench, section, workloads, place)
            if kind in bench.settings.node_proves:
                _proved(bench, section, workloads, place)
            elif bound != "the cards":
                _begin(bench, [last], beyond)
                _refused(bench, section, [*workloads, last], place)
        finally:
            _end(bench, [*workloads, last], kind in bench.settings.node_proves)


def _room(bench: Bench, kind: str, cards: int) -> tuple[float, int]:
    """GiB that there are, and how often they have to hold what is on one card."""
    if kind == places.DISK:
        return shutil.disk_usage(bench.settings.base).free / GIB, cards
    # All dumps stay, and the memory of one card comes on top.
    return _meminfo("MemAvailable") / GIB, cards + 1


def _workload(bench: Bench, name: str, gib: float, card: int) -> Workload:
    workload = bench.pattern(name, TOLD if bench.settings.rehearsal else gib, 0, "--seed", str(card + 1))
    workload.cards = (card,)
    return workload


def _begin(bench: Bench, workloads: list[Workload], gib: float) -> None:
    """The stand-in is told of the whole size, and of nothing else."""
    for workload in workloads:
        bench.start(workload)
    for workload in workloads:
        bench.await_true(workload, "its VRAM is filled", together.LONG, (workload.directory / "ready").exists)
        workload.bytes = int(gib * GIB)
        if bench.world:
            bench.world.running(workload.name, workload.bytes)


def _asked(bench: Bench, section: Section, workloads: list[Workload], place: pathlib.Path) -> None:
    """Check mode says that all of them can be captured."""
    answer, call = together.ask_capture(bench, workloads, place, check=True)
    section.phase("the preflight of all", call.seconds)
    section.figures["predicted"] = {name: one.get("predicted") for name, one in call.workloads.items()}
    section.check("the preflight lets all of them be captured", not answer["failed"], answer.get("msg"))


def _refused(bench: Bench, section: Section, workloads: list[Workload], place: pathlib.Path) -> None:
    """One more is too much: that one is refused, the others are not, and nothing has been touched."""
    pids = {one.name: sorted(bench.engine.pids(one.name)) for one in workloads}
    answer, call = together.ask_capture(bench, workloads, place, check=True)
    failed = [name for name, one in call.workloads.items() if one.get("failure")]
    said: dict[str, Any] = call.workloads.get(workloads[-1].name) or {}
    section.figures["refusal"] = {"msg": answer.get("msg"), "failure": said.get("failure")}
    section.check("one step beyond only that one is refused", failed == [workloads[-1].name], answer.get("msg"))
    same = pids == {one.name: sorted(bench.engine.pids(one.name)) for one in workloads}
    section.check("nothing was touched", same and not bench.plays.staged(), bench.plays.staged()[:5])


def _proved(bench: Bench, section: Section, workloads: list[Workload], place: pathlib.Path) -> None:
    """It is as the preflight says: all are captured in one call, and come back."""
    before = together.digests(bench, workloads)
    moved = sum(one.bytes for one in workloads)
    call = together.capture(bench, workloads, place)
    section.phase("capture of all: the whole call", call.seconds, moved)
    section.figures["capture"] = {name: one.get("seconds") for name, one in call.workloads.items()}
    section.figures["disk_used"] = call.used
    call = together.restore(bench, section, workloads, place)
    section.phase("restore of all: the whole call", call.seconds, moved)
    section.figures["restore"] = {name: one.get("seconds") for name, one in call.workloads.items()}
    section.check("the VRAM digests are the same", together.digests(bench, workloads) == before)


def _end(bench: Bench, workloads: list[Workload], restored: bool) -> None:
    """Those that were never suspended need not be before they end, which takes long at this size."""
    if not restored:
        for workload in workloads:
            with contextlib.suppress(StepError), bench.runner.limited(60, beyond=True):
                bench.engine.delete(workload.name)
    together.take_away(bench, workloads)


def _meminfo(name: str) -> int:
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))
