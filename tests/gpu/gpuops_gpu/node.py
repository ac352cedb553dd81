# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node with several cards: what a window over all of them takes, and whether jobs over all of them come back.

Each part stands for itself, is in the report as soon as it is over, and begins only while time is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gpuops_gpu import abreast, gpu, largest, node_jobs, node_window, turned
from gpuops_gpu.bench import Bench
from gpuops_gpu.report import Section
from gpuops_gpu.runner import StepError

Part = Callable[[Bench, Section, int, Callable[[], None]], None]
#: And seconds that have to be left for each to begin.
PARTS: dict[str, tuple[Part, float]] = {
    "abreast": (abreast.abreast, 60),
    "bounds": (abreast.bounds, 40),
    "ddp": (node_jobs.ddp, 60),
    "model": (node_jobs.model, 50),
    "turn": (turned.turned, 40),
    "window": (node_window.window, 60),
    "largest": (largest.largest, 60),
}


def node(bench: Bench, section: Section) -> None:
    """The parts that the settings name, in their order."""
    cards = len(gpu.uuids()) if bench.suspends else 0
    if cards < 2:
        raise StepError(f"This needs two GPUs or more, and there are {cards}.")
    section.figures["cards"] = cards
    for name in bench.settings.node:
        run, needed = PARTS[name]
        left = bench.runner.limit(3600)
        if left < needed:
            section.check(f"{name}: there was time for it", False, f"{left:.0f} s were left, and it needs {needed:.0f}")
            continue
        bench.runner.log.write(f"--> {name}, {left:.0f} s are left", show=True)
        _part(bench, section, name, run, cards)


def _part(bench: Bench, section: Section, name: str, run: Part, cards: int) -> None:
    """What it has found when it is cut off is kept, too."""
    begun = time.monotonic()
    inner = Section(name)

    def keep() -> None:
        so_far = section.so_far()
        so_far.reason = ""
        so_far.nest(name, inner)
        bench.write_report(so_far)

    try:
        run(bench, inner, cards, keep)
    except StepError as error:
        inner.check("it ran", False, error)
    finally:
        inner.phase("the whole part", time.monotonic() - begun)
        section.nest(name, inner)
        bench.write_report(section)
