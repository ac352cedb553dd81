# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long a capture will take, phase by phase, by what earlier ones of this node took.

A phase has a fixed part and one that grows with what it moves. Of the earlier captures the one that moved most nearly
as much tells both together; where there is none, rates of other machines do, and the basis says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: What a prediction rests on.
CAPTURES, ESTIMATE = "earlier captures", "an estimate"
GIB = float(1 << 30)


@dataclass(frozen=True)
class _Phase:
    """``moves``: which of the sizes of a load. Seconds that no size changes, and bytes per second."""

    moves: str
    fixed: float
    rate: float


#: By the names of a capture's ``seconds``. Rates: the lower ones of docs/performance.md.
_PHASES: Mapping[str, _Phase] = {
    "preflight": _Phase("", 0.2, GIB),
    "cuda_suspend": _Phase("vram", 0.3, 2.2 * GIB),
    "pause": _Phase("", 0.02, GIB),
    "dump": _Phase("dump", 0.3, 1.3 * GIB),
    "layer": _Phase("written", 0.05, 0.5 * GIB),
    "resume": _Phase("", 0.02, GIB),
    "cuda_resume": _Phase("vram", 0.3, 4.0 * GIB),
    "keep": _Phase("dump", 0.2, 2.0 * GIB),
    "upload": _Phase("dump", 0.3, 0.5 * GIB),
    "complete": _Phase("dump", 0.3, 0.5 * GIB),
}


@dataclass(frozen=True)
class Load:
    """What is to be captured, in bytes, and what is done with it."""

    #: Of memory, GPU memory and deleted files.
    dump: int
    vram: int
    #: Into the root file system and memory volumes.
    written: int
    #: The workload goes on when it is dumped, instead of standing still until it may end.
    goes_on: bool
    #: The dump is the checkpoint, and ``completed`` says whether its image follows.
    node_first: bool = False
    completed: bool = False
    #: How many workloads each processor captures at a time, at least 1.
    concurrency: float = 1.0

    def phases(self) -> tuple[str, ...]:
        """All that it has."""
        return (*self.standing(), *self.besides())

    def standing(self) -> tuple[str, ...]:
        """Those in which the workload stands still."""
        gpu = bool(self.vram)
        found = [*(["cuda_suspend"] if gpu else []), "pause", "dump", "layer"]
        if self.goes_on:
            return (*found, "resume", *(["cuda_resume"] if gpu else []))
        return (*found, self._stored())

    def besides(self) -> tuple[str, ...]:
        """Those before and after."""
        after = [self._stored()] if self.goes_on else []
        return ("preflight", *after, *(["complete"] if self.completed else []))

    def _stored(self) -> str:
        return "keep" if self.node_first else "upload"


@dataclass(frozen=True)
class Sample:
    """What one capture of the node took."""

    sizes: Mapping[str, int]
    seconds: Mapping[str, float]
    concurrency: float = 1.0

    @classmethod
    def taken(cls, load: Load, seconds: Mapping[str, float]) -> Sample:
        """Of a capture that is done."""
        phases = {name: took for name, took in seconds.items() if name in _PHASES}
        return cls(_sizes(load), phases, load.concurrency)

    def document(self) -> dict[str, Any]:
        """As it is kept."""
        return {"sizes": dict(self.sizes), "seconds": dict(self.seconds), "concurrency": self.concurrency}

    @classmethod
    def from_document(cls, document: Any) -> Sample | None:
        """What :meth:`document` has made; None for anything else."""
        try:
            sizes = {str(name): int(size) for name, size in document["sizes"].items()}
            seconds = {str(name): float(took) for name, took in document["seconds"].items()}
            found = cls(sizes, seconds, float(document["concurrency"]))
        except (AttributeError, KeyError, TypeError, ValueError):
            return None
        sound = found.concurrency >= 1 and min([0, *sizes.values()]) >= 0 and min([0.0, *seconds.values()]) >= 0
        return found if sound else None


@dataclass(frozen=True)
class Prediction:
    """Seconds."""

    #: How long the workload will stand still, as of the capture's result.
    standstill: float
    total: float
    phases: Mapping[str, float]
    #: One of those above.
    basis: str
    concurrency: float

    def result(self) -> dict[str, Any]:
        """As modules return it."""
        return {
            "standstill": self.standstill,
            "total": self.total,
            "phases": dict(self.phases),
            "basis": self.basis,
            "concurrency": self.concurrency,
        }


def predict(load: Load, samples: Sequence[Sample]) -> Prediction:
    """One capture."""
    sizes = _sizes(load)
    phases: dict[str, float] = {}
    known = True
    for name in load.phases():
        phase = _PHASES[name]
        near = _nearest(samples, name, sizes.get(phase.moves, 0), load.concurrency)
        known = known and (near is not None or not phase.moves)
        phases[name] = round(_seconds(phase, name, sizes.get(phase.moves, 0), near, load.concurrency), 3)
    return Prediction(
        standstill=round(sum(phases[name] for name in load.standing()), 2),
        total=round(sum(phases.values()), 2),
        phases=phases,
        basis=CAPTURES if known else ESTIMATE,
        concurrency=load.concurrency,
    )


def _seconds(phase: _Phase, name: str, size: int, near: Sample | None, concurrency: float) -> float:
    if near is None:
        return (phase.fixed + size / phase.rate) * concurrency
    took = near.seconds[name] * concurrency / near.concurrency
    before = near.sizes.get(phase.moves, 0)
    fixed = min(phase.fixed, took)
    if before <= 0:
        return took + size / phase.rate
    return fixed + (took - fixed) * size / before


def _nearest(samples: Sequence[Sample], name: str, size: int, concurrency: float) -> Sample | None:
    """That with the nearest concurrency, then with the nearest size, then the last one."""
    moves = _PHASES[name].moves
    found: Sample | None = None
    best: tuple[float, float] | None = None
    for one in reversed(samples):
        if name not in one.seconds:
            continue
        distance = (_apart(one.concurrency, concurrency), _apart(one.sizes.get(moves, 0) + 1, size + 1))
        if best is None or distance < best:
            found, best = one, distance
    return found


def _apart(one: float, other: float) -> float:
    return max(one, other) / min(one, other)


def _sizes(load: Load) -> dict[str, int]:
    return {"dump": load.dump, "vram": load.vram, "written": load.written}
