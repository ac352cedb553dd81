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
#: Of memory volumes, which come through containerd's socket.
VOLUMES_RATE = 0.5 * GIB
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
    """What one restore of the node took."""

    #: Bytes of memory images.
    size: int
    #: Until CRIU had done.
    seconds: float
    #: Bytes.
    vram: int = 0
    gpu_seconds: float = 0.0
    #: How many workloads each processor had to restore at a time, at least 1.
    concurrency: float = 1.0
    #: Bytes per second of the read ahead, 0 where there was none to speak of.
    disk: float = 0.0

    def document(self) -> dict[str, Any]:
        """As it is kept."""
        return {
            "size": self.size,
            "seconds": self.seconds,
            "vram": self.vram,
            "gpu_seconds": self.gpu_seconds,
            "crowd": self.concurrency,
            "disk": self.disk,
        }

    @classmethod
    def from_document(cls, document: Any) -> Sample | None:
        """What :meth:`document` has made; None for anything else."""
        try:
            found = cls(
                size=int(document["size"]),
                seconds=float(document["seconds"]),
                vram=int(document["vram"]),
                gpu_seconds=float(document["gpu_seconds"]),
                concurrency=float(document["crowd"]),
                disk=float(document["disk"]),
            )
        except (KeyError, TypeError, ValueError):
            return None
        sound = found.size > 0 and found.seconds > 0 and found.concurrency >= 1
        return found if sound and min(found.vram, found.gpu_seconds) >= 0 else None

    @classmethod
    def from_receipt(cls, receipt: Mapping[str, Any]) -> Sample | None:
        """What a receipt tells; None where it lacks something, or where something else than sizes took its time."""
        try:
            seconds, prewarm = receipt["seconds"], receipt["prewarm"]
            if prewarm["skipped"] or (receipt.get("predicted") or {}).get("layout"):
                return None
            pages = float(seconds["container"]) + float(seconds["create"]) + float(seconds["start"])
            read, took = int(prewarm["read"]), float(prewarm["seconds"])
            return cls.from_document(
                {
                    "size": prewarm["bytes"],
                    "seconds": pages,
                    "vram": (receipt.get("gpu") or {}).get("bytes") or 0,
                    "gpu_seconds": max(0.0, float(seconds["window"]) - pages),
                    "crowd": (receipt.get("predicted") or {}).get("crowd", 1.0),
                    "disk": read / took if read >= _APART and took > 0 else 0.0,
                }
            )
        except (KeyError, TypeError, ValueError):
            return None


@dataclass(frozen=True)
class Rates:
    """What is known of the node. ``copy``: bytes per second of cached bytes into fresh memory; ``disk``: its own."""

    samples: Sequence[Sample] = field(default_factory=tuple)
    copy: float = 0.0
    disk: float = 0.0


@dataclass(frozen=True)
class Load:
    """What is to be restored, in bytes."""

    size: int
    vram: int = 0
    #: What CRIU itself has to wait for the disk for.
    uncached: int = 0
    #: What is read into the page cache before the window.
    prewarm: int = 0
    #: What goes into memory volumes before it.
    volumes: int = 0
    #: As of :class:`Sample`.
    concurrency: float = 1.0
    #: Threads that write the memory beside CRIU.
    writers: int = 0
    #: Seconds that the layout of what was written takes by itself, of ``_oci.depth``.
    layout: float = 0.0


@dataclass(frozen=True)
class Prediction:
    """How long a window will take."""

    seconds: float
    #: Of the reading, and the filling of memory volumes, before it.
    prewarm_seconds: float
    #: One of those above.
    basis: str
    #: As of :class:`Sample`.
    concurrency: float = 1.0
    #: Seconds of the window for very deep directories, 0 for others.
    layout: float = 0.0

    def result(self) -> dict[str, Any]:
        """As modules return it."""
        return {
            "seconds": self.seconds,
            "ahead": self.prewarm_seconds,
            "basis": self.basis,
            "crowd": self.concurrency,
            **({"layout": self.layout} if self.layout else {}),
        }


def predict(load: Load, rates: Rates) -> Prediction:
    """The window of one workload."""
    near = _nearest(rates.samples, load.concurrency)
    # Those that shared their processors with more or with fewer tell how long it takes, less or more that share.
    stretch = load.concurrency / near[0].concurrency if near else load.concurrency
    pages_rate = rates.copy / CRIU_FACTOR if rates.copy else PAGES_RATE
    if load.writers:
        pages_rate = min(MOST_RATE, pages_rate * CRIU_FACTOR * load.writers)
    seconds = _fitted([(one.size, one.seconds) for one in near], FIXED, 1 / pages_rate, load.size)
    if load.vram:
        gpu = [(one.vram, one.gpu_seconds) for one in near if one.vram]
        seconds += _fitted(gpu, GPU_FIXED, 1 / GPU_RATE, load.vram)
        known = bool(gpu)
    else:
        known = bool(near)
    disk = _disk_rate(rates)
    seconds = seconds * stretch + load.uncached / disk + load.layout
    basis = RESTORES if known else MEASURED if rates.copy and not load.vram else ESTIMATE
    ahead = load.prewarm / disk + load.volumes / VOLUMES_RATE
    return Prediction(round(seconds, 2), round(ahead, 2), basis, load.concurrency, round(load.layout, 2))


def concurrency(workloads: int, at_once: int, processors: int) -> float:
    """How many workloads each processor restores at a time."""
    return max(1.0, min(workloads, at_once) / max(1, processors))


def _nearest(samples: Sequence[Sample], wanted: float) -> list[Sample]:
    """Those whose concurrency is nearest to the wanted one; they all have the same."""
    if not samples:
        return []
    nearest = min((one.concurrency for one in samples), key=lambda other: max(other, wanted) / min(other, wanted))
    return [one for one in samples if one.concurrency == nearest]


def _fitted(points: Sequence[tuple[int, float]], fixed: float, slope: float, size: int) -> float:
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


def _disk_rate(rates: Rates) -> float:
    seen = [one.disk for one in rates.samples if one.disk > 0]
    return statistics.median(seen) if seen else rates.disk or DISK_RATE
