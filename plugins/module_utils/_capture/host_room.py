# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What captures take of the node's memory, and whether it has it.

GPU memory leaves its card into the memory of its process, and stays there as long as that is paused. Where dumps lie on
a tmpfs they are memory, too, whatever the tmpfs says is free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .._core.errors import RETRYABLE, NodeError, RestoreError
from .._core.text import gib
from .params import PAUSED, CaptureParams
from .room import OnDisk


@dataclass(frozen=True)
class InMemory:
    """Bytes of host memory that one capture takes."""

    #: While it is captured, and what stays.
    during: int = 0
    kept: int = 0


def taken(params: CaptureParams, vram: int, disk: OnDisk) -> InMemory:
    """``vram``: bytes that leave their cards. ``disk``: what it takes where it is staged."""
    dump = disk if params.volatile else OnDisk(0, 0)
    return InMemory(vram + dump.during, (vram if params.leave == PAUSED else 0) + dump.kept)


def problems(params: CaptureParams, takes: InMemory, free: int | None) -> list[RestoreError]:
    """Why a dump in memory has no room there; what VRAM alone takes is for the driver's part to say."""
    return [_short(params, takes.during, free)] if params.volatile and free is not None and takes.during > free else []


def refusals(wanted: Sequence[tuple[CaptureParams, InMemory]], free: int | None) -> dict[str, RestoreError]:
    """Those for which there is no room when the ones before have been captured, each by its container."""
    refused: dict[str, RestoreError] = {}
    kept = passing = 0
    for params, takes in wanted:
        now = kept + takes.kept, max(passing, takes.during - takes.kept)
        if free is not None and sum(now) > free:
            refused[params.container_id] = _short(params, sum(now), free)
        else:
            kept, passing = now
    return refused


def _short(params: CaptureParams, needed: int, free: int) -> NodeError:
    dumps = f", with the dumps that {params.staging_dir} keeps in memory," if params.volatile else ""
    disk = "Give a staging_dir that is on a disk, free" if params.volatile else "Free"
    return NodeError(
        "host_memory_short",
        f"The VRAM of {params.container_id} and of the workloads captured before it{dumps} takes {gib(needed)} of host "
        f"memory, of which {gib(free)} are free.",
        f"{disk} host memory, or capture fewer workloads at a time; nothing was touched.",
        outcome=RETRYABLE,
        details={"needed": needed, "available": free},
    )
