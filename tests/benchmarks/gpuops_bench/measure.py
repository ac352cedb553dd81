# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Both sides of a comparison, measured alternately, and what they come to. Pure but for the order of the calls."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Sample:
    """One run. ``peak`` is bytes of resident memory of the process that did the work, 0 where nobody looked."""

    seconds: float
    peak: int = 0
    phases: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Comparison:
    """Runs of ours and of the peer's, pair by pair. ``unit`` is of ``Sample.seconds``: "s", or "MiB" for memory."""

    name: str
    peer: str
    ours: list[Sample]
    theirs: list[Sample]
    unit: str = "s"

    @property
    def ratio(self) -> float:
        """Median of ours to median of the peer's."""
        theirs = median(self.theirs)
        return median(self.ours) / theirs if theirs else float("inf")

    def record(self) -> dict[str, Any]:
        """The entry of results.json; ``spread`` is the least and the greatest of each side."""
        return {
            "name": self.name,
            "peer": self.peer,
            "unit": self.unit,
            "ours_seconds" if self.unit == "s" else "ours": round(median(self.ours), 3),
            "peer_seconds" if self.unit == "s" else "theirs": round(median(self.theirs), 3),
            "ratio": round(self.ratio, 3),
            "runs": len(self.ours),
            "spread": {"ours": spread(self.ours), "peer": spread(self.theirs)},
            "phases": {"ours": phases(self.ours), "peer": phases(self.theirs)},
        }


def pairs(
    name: str,
    peer: str,
    count: int,
    ours: Callable[[], Sample],
    theirs: Callable[[], Sample],
    told: Callable[[str], None] = print,
) -> Comparison:
    """Run both sides ``count`` times, who begins changing from pair to pair, so that neither has the better start."""
    found = Comparison(name, peer, [], [])
    for number in range(count):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            if side == 0:
                found.ours.append(ours())
            else:
                found.theirs.append(theirs())
        told(f"  {name}: {found.ours[-1].seconds:.2f} s, {peer}: {found.theirs[-1].seconds:.2f} s")
    return found


def peaks(of: Comparison) -> Comparison | None:
    """The memory of the same runs, in MiB, as a comparison of its own."""
    if not all(sample.peak for sample in (*of.ours, *of.theirs)):
        return None
    ours, theirs = ([Sample(sample.peak / (1 << 20)) for sample in side] for side in (of.ours, of.theirs))
    return Comparison(f"{of.name}, memory peak", of.peer, ours, theirs, "MiB")


def median(samples: list[Sample]) -> float:
    return statistics.median(sample.seconds for sample in samples)


def spread(samples: list[Sample]) -> list[float]:
    values = [sample.seconds for sample in samples]
    return [round(min(values), 3), round(max(values), 3)]


def phases(samples: list[Sample]) -> dict[str, float]:
    """The median of every phase that all runs have, in their order."""
    names = [name for name in samples[0].phases if all(name in sample.phases for sample in samples)]
    return {name: round(statistics.median(sample.phases[name] for sample in samples), 3) for name in names}
