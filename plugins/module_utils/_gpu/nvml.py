# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What NVML tells: the GPUs, their memory, and who holds it.

NVML lists only processes that hold a GPU now: a checkpointed one is on none, and not in its list. Works on a node
without GPU, driver or nvidia-ml-py, and then says so.
"""

from __future__ import annotations

import threading
import time
import weakref
from dataclasses import dataclass
from typing import Any

from .._core.errors import NodeError
from .._core.helper_process import Child, ChildEndedError
from . import driver_library, nvml_worker

#: Seconds for one reading, as long as it may take to wake GPUs without persistence mode.
SECONDS = 60.0
_LATE = "NVML did not answer in time"


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


@dataclass(frozen=True)
class _Problem:
    """Why there is no reading."""

    reason: str
    #: The library is not there at all.
    absent: bool = False


class Session:
    """NVML, opened by the first reading and open for those that follow: to open it takes longer than to read.

    Threads may share one. Its helper process goes with it, at the latest with this one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: Child | None = None
        #: Where the child looks, of the arguments of :meth:`read`.
        self._where = ("", "")
        self._finalizer: weakref.finalize[..., Session] | None = None

    def read(
        self, driver_root: str = "", seconds: float = SECONDS, fallback: str = driver_library.DRIVER_CONTAINER
    ) -> Reading:
        """One reading, within ``seconds``; never raises for a node that has none of it."""
        if not driver_library.has_nvml():
            return Reading(reason="nvidia-ml-py is not installed for this Python")
        deadline = time.monotonic() + seconds
        if not self._lock.acquire(timeout=max(0.0, seconds)):
            return Reading(reason=_LATE)
        try:
            if self._where != (driver_root, fallback):
                self._close()
            if self._child is None:
                problem = self._open(driver_root, fallback, deadline)
                if problem is not None:
                    return Reading(reason=problem.reason)
            answer = self._answer({}, deadline)
            if isinstance(answer, _Problem):
                return Reading(reason=answer.reason)
            gpus = tuple(Gpu(**gpu) for gpu in answer["gpus"])
            holders = tuple(Holder(**holder) for holder in answer["processes"])
            return Reading(answer["driver"], answer["cuda"], gpus, holders)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Let NVML go; a reading after that opens it again."""
        with self._lock:
            self._close()

    def _open(self, driver_root: str, fallback: str, deadline: float) -> _Problem | None:
        """Why it is not open."""
        self._where = (driver_root, fallback)
        try:
            places = driver_library.places(driver_root, fallback)
        except NodeError as error:
            return _Problem(error.message)
        problem: _Problem | None = _Problem("no place to look")
        for place in places:
            with driver_library.environment(place) as variables:
                self._child = child = Child(nvml_worker, variables)
                self._finalizer = weakref.finalize(self, child.close)
                answer = self._answer(None, deadline)
            problem = answer if isinstance(answer, _Problem) else None
            if problem is None or not problem.absent:
                break
        return problem

    def _answer(self, request: dict[str, Any] | None, deadline: float) -> dict[str, Any] | _Problem:
        """What the helper says next, to ``request`` if there is one. After a problem the next reading begins anew."""
        child = self._child
        if child is None:
            return _Problem("NVML is not open")
        try:
            if request is not None:
                child.send(request)
            answer = child.receive(deadline)
        except ChildEndedError as error:
            self._close()
            return _Problem(f"NVML broke its helper process ({error})")
        if answer is None:
            # It may hang in the kernel, where nothing more can be done about it.
            if self._finalizer is not None:
                self._finalizer.detach()
            child.kill()
            self._child = self._finalizer = None
            return _Problem(_LATE)
        if "failed" in answer:
            self._close()
            return _Problem(f"NVML: {answer['text']}", answer["failed"] == "library")
        return answer

    def _close(self) -> None:
        finalizer, self._finalizer, self._child = self._finalizer, None, None
        if finalizer is not None:
            finalizer()


def read(driver_root: str = "", seconds: float = SECONDS, fallback: str = driver_library.DRIVER_CONTAINER) -> Reading:
    """One reading of its own, as of :meth:`Session.read`."""
    session = Session()
    try:
        return session.read(driver_root, seconds, fallback)
    finally:
        session.close()
