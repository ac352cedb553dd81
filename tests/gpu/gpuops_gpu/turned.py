# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Part ``turn`` of section ``node``: what each card holds comes back on its neighbour, all in one call."""

from __future__ import annotations

from collections.abc import Callable

from gpuops_gpu import gpu, together
from gpuops_gpu.bench import SLACK, Bench, Workload
from gpuops_gpu.report import Section


def turned(bench: Bench, section: Section, cards: int, _keep: Callable[[], None]) -> None:
    """Containers that see all cards and hold memory of one; a map has to list every card that a process saw."""
    # Each holds another amount, by which it is known where it lies.
    workloads = [_workload(bench, card) for card in range(cards)]
    uuids = gpu.uuids()
    turn = {uuid: uuids[(number + 1) % cards] for number, uuid in enumerate(uuids)}
    base = [gpu.used(index) for index in range(cards)]
    try:
        before = together.begin(bench, workloads)
        _lie(bench, section, base, workloads, 0, "at first")
        call = together.capture(bench, workloads, bench.plays.state)
        moved = sum(one.bytes for one in workloads)
        section.phase("capture of all: the whole call", call.seconds, moved)
        bench.check_gpu_free(section, "between capture and restore")
        call = together.restore(bench, section, workloads, bench.plays.state, gpu_map=turn)
        section.phase("restore of all, each onto its neighbour: the whole call", call.seconds, moved)
        section.figures["restored"] = {name: one.get("gpu") for name, one in call.workloads.items()}
        section.check("the VRAM digests are the same", together.digests(bench, workloads) == before)
        _lie(bench, section, base, workloads, 1, "afterwards")
    finally:
        together.take_away(bench, workloads)


def _workload(bench: Bench, card: int) -> Workload:
    size = bench.settings.small * (2 * card + 1)
    return bench.pattern(f"turn-{card}", size, 0, "--seed", str(card + 1), "--device", str(card))


def _lie(bench: Bench, section: Section, base: list[int], workloads: list[Workload], turn: int, when: str) -> None:
    """A context of its own takes less than the two sizes by which neighbours differ."""
    cards = len(workloads)
    more = [gpu.used(index) - size for index, size in enumerate(base)]
    wanted = [workloads[(index - turn) % cards].bytes for index in range(cards)]
    near = 2 * bench.settings.small * (1 << 30)
    right = all(size - SLACK <= found < size + near for found, size in zip(more, wanted))
    section.check(f"each lies on {'its neighbour' if turn else 'its own card'} {when}", right, f"{more}, of {wanted}")
