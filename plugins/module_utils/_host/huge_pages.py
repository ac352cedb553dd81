# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Transparent huge pages for the seconds of a capture or a restore.

They halve a restore on one machine and double it on another, so ``auto`` goes by what is measured on this one. The
switch is the whole node's; a guard (:mod:`_host.huge_pages_worker`) puts it back, also when this process is killed.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from types import TracebackType

from .._core.helper_process import Child, ChildEndedError
from . import huge_pages_worker

AUTO, ALWAYS, KEEP = "auto", "always", "keep"
SETTING = "/sys/kernel/mm/transparent_hugepage/enabled"
DIRECTORY = "/run/gpuops-restore"
#: Tells the node's own setting while it is switched.
NOTE = f"{DIRECTORY}/huge-pages"
#: Bytes of memory below which ``auto`` does not measure: that would take longer than it could save.
WORTH_MEASURING = 512 << 20
_SECONDS = 10.0


@dataclass(frozen=True)
class Report:
    """What became of the switch."""

    mode: str = KEEP
    switched: bool = False
    #: The node's own setting.
    was: str = ""
    #: Seconds for the same amount of fresh memory with small and with huge pages.
    measured: dict[str, float] = field(default_factory=dict)
    problem: str = ""

    def result(self) -> dict[str, object]:
        """As modules return it."""
        return {"wish": self.mode, "switched": self.switched, "was": self.was, "measured": self.measured}


def for_gpu_memory(mode: str, size: int) -> HugePages:
    """The switch for ``size`` bytes that leave GPUs or go back to them; none, for a workload without GPU.

    ``auto`` is for GPU memory only. What a process gains by huge pages, others on the node may lose; a workload that
    waits for its GPU memory is worth that, an ordinary one is not.
    """
    return HugePages(KEEP if mode == AUTO and size < WORTH_MEASURING else mode)


class HugePages:
    """The switch, held while anybody is within ``with``; from several threads too. Never raises: it only speeds up."""

    def __init__(self, mode: str, setting: str = SETTING, note: str = NOTE) -> None:
        self._mode = mode
        self._setting = setting
        self._note = note
        self._lock = threading.Lock()
        self._within = 0
        self._guard: Child | None = None
        self.report = Report(mode)

    def __enter__(self) -> HugePages:
        with self._lock:
            self._within += 1
            if self._within == 1 and self._mode != KEEP:
                self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._within -= 1
            if self._within == 0 and self._guard is not None:
                self._guard.close()
                self._guard = None

    def _begin(self) -> None:
        try:
            guard = Child(huge_pages_worker, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
        except (OSError, ImportError) as error:
            self.report = Report(self._mode, problem=str(error))
            return
        try:
            guard.send({"mode": self._mode, "setting": self._setting, "note": self._note})
            answer = guard.receive(time.monotonic() + _SECONDS)
        except ChildEndedError as error:
            answer = {"failed": str(error)}
        if answer is None or "failed" in answer:
            guard.kill()
            reason = "no answer in time" if answer is None else str(answer["failed"])
            self.report = Report(self._mode, problem=f"Huge pages stay as they are: {reason}.")
            return
        self._guard = guard
        self.report = Report(self._mode, answer["switched"], answer["was"], answer["measured"])
