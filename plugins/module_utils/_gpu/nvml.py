# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What NVML tells: the GPUs, their memory, and who holds it.

NVML lists only processes that hold a GPU now: a checkpointed one is on none, and not in its list. Works on a node
without GPU, driver or nvidia-ml-py, and then says so.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from .._core import dependencies
from .._core.errors import NodeError
from .._core.helper_process import Child, ChildEndedError
from . import driver_library, nvml_worker

#: Seconds for one reading, as long as it may take to wake GPUs without persistence mode.
SECONDS = 60.0


@dataclass(frozen=True)
class Gpu:
    """One GPU; sizes in bytes, None where it does not tell."""

    uuid: str
    index: int
    name: str
    memory_total: int | None
    memory_free: int | None
    persistence: bool | None
    #: It is divided, or may be.
    mig: bool
    #: Of its device node.
    minor: int | None = None

    def result(self) -> dict[str, Any]:
        """As modules return it."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class Holder:
    """A process's memory on one GPU."""

    pid: int
    #: Its UUID.
    gpu: str
    #: None where the driver does not tell.
    bytes: int | None


@dataclass(frozen=True)
class Reading:
    """What there is at one moment; empty but for ``reason`` where there is no NVML."""

    driver: str | None = None
    #: As cuDriverGetVersion has it.
    cuda: int | None = None
    gpus: tuple[Gpu, ...] = ()
    holders: tuple[Holder, ...] = ()
    #: Why there is no NVML.
    reason: str = ""

    def gpu(self, uuid: str) -> Gpu | None:
        """The GPU with this UUID on this node."""
        return next((gpu for gpu in self.gpus if gpu.uuid == uuid), None)

    def shares_of(self, pid: int) -> list[dict[str, Any]]:
        """The GPUs on which a process holds memory: ``uuid``, ``index``, ``name``, ``memory`` (bytes or None)."""
        return [
            {"uuid": gpu.uuid, "index": gpu.index, "name": gpu.name, "memory": holder.bytes}
            for gpu in self.gpus
            for holder in self.holders
            if holder.pid == pid and holder.gpu == gpu.uuid
        ]

    def bytes_of(self, pid: int) -> int | None:
        """VRAM of a process on all GPUs; None when it holds none, or that is not told."""
        found = [holder.bytes for holder in self.holders if holder.pid == pid]
        known = [size for size in found if size is not None]
        return sum(known) if found and len(known) == len(found) else None


def read(driver_root: str = "", seconds: float = SECONDS, fallback: str = driver_library.DRIVER_CONTAINER) -> Reading:
    """One reading, within ``seconds``; never raises for a node that has none of it."""
    if not dependencies.has_nvml():
        return Reading(reason="nvidia-ml-py is not installed for this Python")
    try:
        places = driver_library.places(driver_root, fallback)
    except NodeError as error:
        return Reading(reason=error.message)
    deadline = time.monotonic() + seconds
    found = Reading(reason="no place to look")
    for place in places:
        with driver_library.environment(place) as variables:
            found, absent = _read_with(variables, deadline)
        if not absent:
            break
    return found


def _read_with(variables: dict[str, str], deadline: float) -> tuple[Reading, bool]:
    """The reading, and whether the library is not there at all."""
    child = Child(nvml_worker, variables)
    try:
        answer = child.receive(deadline)
    except ChildEndedError as error:
        child.close()
        return Reading(reason=f"NVML broke its helper process ({error})"), False
    if answer is None:
        child.kill()
        return Reading(reason="NVML did not answer in time"), False
    child.close()
    if "failed" in answer:
        return Reading(reason=f"NVML: {answer['text']}"), answer["failed"] == "library"
    gpus = tuple(Gpu(**gpu) for gpu in answer["gpus"])
    holders = tuple(Holder(**holder) for holder in answer["processes"])
    return Reading(answer["driver"], answer["cuda"], gpus, holders), False
