# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long a window will take, from the sizes of a checkpoint and the rates of the node.

A window is a fixed part (snapshot, runtime, CRIU's start) and a part that grows with the memory, once for the pages and
once for the GPU memory. Both lines are fitted to what earlier restores of the node took; where there are none, the
pages go by a short measurement or by a default, and the basis says so.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: What a prediction rests on.
RESTORES, MEASURED, ESTIMATE = "earlier restores", "a measurement", "an estimate"
GIB = float(1 << 30)
#: Defaults, from the machines of docs/performance.md: CRIU with small pages, one process of an H100, a cloud disk.
PAGES_RATE, GPU_RATE, DISK_RATE = 1.2 * GIB, 4.0 * GIB, 0.4 * GIB
#: What writers beside CRIU reached at most, sixteen on an H100 host.
MOST_RATE = 24.0 * GIB
#: Seconds of a window that do not depend on sizes: container, runtime and CRIU; and the GPU's.
FIXED, GPU_FIXED = 0.4, 0.3
#: CRIU takes that many times as long as a plain read of cached bytes into fresh memory, and a thread that writes beside
#: it does not.
CRIU_FACTOR = 2.0
#: Two restores tell a slope when their sizes are so far apart.
_APART = 128 << 20


@dataclass(frozen=True)
class Sample:
    """One restore of the node: bytes of memory images and of VRAM, seconds until CRIU had done, and of the GPU.

    ``crowd``: how many workloads each processor had to restore at a time, at least 1. ``disk``: bytes per second of the
    read ahead, 0 where there was none to speak of.
    """

    size: int
    seconds: float
    vram: int = 0
    gpu_seconds: float = 0.0
    crowd: float = 1.0
    disk: float = 0.0

    def document(self) -> dict[str, Any]:
        """As it is kept."""
        return dict(vars(self))


@dataclass(frozen=True)
class Rates:
    """What is known of the node. ``copy``: bytes per second of cached bytes into fresh memory; ``disk``: its own."""

    samples: Sequence[Sample] = field(default_factory=tuple)
    copy: float = 0.0
    disk: float = 0.0


@dataclass(frozen=True)
class Load:
    """What is to be restored. ``late``: bytes that CRIU itself has to wait for the disk for; ``ahead``: those that are
    read before the window; ``writers``: threads that write the memory beside CRIU."""

    size: int
    vram: int = 0
    late: int = 0
    ahead: int = 0
    crowd: float = 1.0
    writers: int = 0


@dataclass(frozen=True)
class Prediction:
    """``seconds`` of the window, ``ahead`` of the reading before it."""

    seconds: float
    ahead: float
    basis: str
    crowd: float = 1.0

    def result(self) -> dict[str, Any]:
        """As modules return it."""
        return {"seconds": self.seconds, "ahead": self.ahead, "basis": self.basis, "crowd": self.crowd}


def predict(load: Load, rates: Rates) -> Prediction:
    """The window of one workload."""
    near = _alike(rates.samples, load.crowd)
    # Those that were restored in another crowd say how long it takes, less or more what the processors were shared.
    stretch = load.crowd / near[0].crowd if near else load.crowd
    pages_rate = rates.copy / CRIU_FACTOR if rates.copy else PAGES_RATE
    if load.writers:
        pages_rate = min(MOST_RATE, pages_rate * CRIU_FACTOR * load.writers)
    seconds = _line([(one.size, one.seconds) for one in near], FIXED, 1 / pages_rate, load.size)
    if load.vram:
        gpu = [(one.vram, one.gpu_seconds) for one in near if one.vram]
        seconds += _line(gpu, GPU_FIXED, 1 / GPU_RATE, load.vram)
        known = bool(gpu)
    else:
        known = bool(near)
    disk = _disk(rates)
    seconds = seconds * stretch + load.late / disk
    basis = RESTORES if known else MEASURED if rates.copy and not load.vram else ESTIMATE
    return Prediction(round(seconds, 2), round(load.ahead / disk, 2), basis, load.crowd)


def crowd(workloads: int, at_once: int, processors: int) -> float:
    """How many workloads each processor restores at a time."""
    return max(1.0, min(workloads, at_once) / max(1, processors))


def of_receipt(receipt: Mapping[str, Any]) -> Sample | None:
    """What a receipt tells; None where it lacks something, or where CRIU had to wait for the disk."""
    try:
        seconds, prewarm = receipt["seconds"], receipt["prewarm"]
        if prewarm["skipped"]:
            return None
        pages = float(seconds["container"]) + float(seconds["create"]) + float(seconds["start"])
        vram = (receipt.get("gpu") or {}).get("bytes") or 0
        read, took = int(prewarm["read"]), float(prewarm["seconds"])
        return sample(
            {
                "size": prewarm["bytes"],
                "seconds": pages,
                "vram": vram,
                "gpu_seconds": max(0.0, float(seconds["window"]) - pages),
                "crowd": (receipt.get("predicted") or {}).get("crowd", 1.0),
                "disk": read / took if read >= _APART and took > 0 else 0.0,
            }
        )
    except (KeyError, TypeError, ValueError):
        return None


def sample(document: Any) -> Sample | None:
    """What :meth:`Sample.document` has made; None for anything else."""
    try:
        found = Sample(
            size=int(document["size"]),
            seconds=float(document["seconds"]),
            vram=int(document["vram"]),
            gpu_seconds=float(document["gpu_seconds"]),
            crowd=float(document["crowd"]),
            disk=float(document["disk"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
    sound = found.size > 0 and found.seconds > 0 and found.crowd >= 1 and min(found.vram, found.gpu_seconds) >= 0
    return found if sound else None


def _alike(samples: Sequence[Sample], wanted: float) -> list[Sample]:
    """Those whose crowd is nearest to the wanted one; they are all of one crowd."""
    if not samples:
        return []
    nearest = min((one.crowd for one in samples), key=lambda crowd_: max(crowd_, wanted) / min(crowd_, wanted))
    return [one for one in samples if one.crowd == nearest]


def _line(points: Sequence[tuple[int, float]], fixed: float, slope: float, size: int) -> float:
    """Seconds for ``size``, from what other sizes took; ``fixed`` and ``slope`` where these do not tell."""
    if points:
        slopes = [
            (seconds - other) / (size_ - smaller)
            for size_, seconds in points
            for smaller, other in points
            if size_ - smaller >= _APART
        ]
        known = statistics.median(slopes) if slopes else 0.0
        if known > 0:
            slope = known
        else:
            middle_size = statistics.median(each for each, _seconds in points)
            middle = statistics.median(seconds for _size, seconds in points)
            # Of a large one the rate is learned, of a small one what it costs at all.
            if middle_size * slope > fixed:
                slope = max(middle - fixed, middle / 2) / middle_size
        fixed = max(0.0, statistics.median(seconds - slope * each for each, seconds in points))
    return fixed + slope * size


def _disk(rates: Rates) -> float:
    seen = [one.disk for one in rates.samples if one.disk > 0]
    return statistics.median(seen) if seen else rates.disk or DISK_RATE
