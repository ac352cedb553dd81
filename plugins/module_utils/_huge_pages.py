# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Transparent huge pages for the seconds of a capture or a restore. Private.

They halve a restore on one machine and double it on another, so ``auto`` goes by what was measured on this one. The
switch is the whole node's; a guard (:mod:`_huge_pages_worker`) puts it back, also when this process is killed.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from types import TracebackType

from ansible_collections.gpuops.restore.plugins.module_utils import _huge_pages_worker
from ansible_collections.gpuops.restore.plugins.module_utils._child import Child, ChildEndedError

AUTO, ALWAYS, KEEP = "auto", "always", "keep"
CHOICES = (AUTO, ALWAYS, KEEP)
SETTING = "/sys/kernel/mm/transparent_hugepage/enabled"
DIRECTORY = "/run/gpuops-restore"
_SECONDS = 10.0


@dataclass(frozen=True)
class Report:
    """What became of the switch. ``was``: the node's own setting; ``measured``: seconds with small and huge pages."""

    wish: str = KEEP
    switched: bool = False
    was: str = ""
    measured: dict[str, float] = field(default_factory=dict)
    problem: str = ""

    def result(self) -> dict[str, object]:
        """As modules return it."""
        return {"wish": self.wish, "switched": self.switched, "was": self.was, "measured": self.measured}


class HugePages:
    """The switch, held while anybody is within ``with``; from several threads too. Never raises: it only speeds up."""

    def __init__(self, wish: str, setting: str = SETTING, directory: str = DIRECTORY) -> None:
        self._wish = wish
        self._setting = setting
        self._directory = directory
        self._lock = threading.Lock()
        self._within = 0
        self._guard: Child | None = None
        self.report = Report(wish)

    def __enter__(self) -> HugePages:
        with self._lock:
            self._within += 1
            if self._within == 1 and self._wish != KEEP:
                self._begin(self._wish)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._within -= 1
            if self._within == 0 and self._guard is not None:
                self._guard.close()
                self._guard = None

    def measure(self) -> Report:
        """Measure ahead, so that nothing is left to measure in the window; switches nothing."""
        with self._lock:
            if self._wish == AUTO and self._within == 0:
                self._begin("measure")
                if self._guard is not None:
                    self._guard.close()
                    self._guard = None
        return self.report

    def _begin(self, wish: str) -> None:
        try:
            guard = Child(_huge_pages_worker, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
        except (OSError, ImportError) as error:
            self.report = Report(self._wish, problem=str(error))
            return
        try:
            guard.send({"wish": wish, "setting": self._setting, "directory": self._directory})
            answer = guard.receive(time.monotonic() + _SECONDS)
        except ChildEndedError as error:
            answer = {"failed": str(error)}
        if answer is None or "failed" in answer:
            guard.kill()
            reason = "no answer in time" if answer is None else str(answer["failed"])
            self.report = Report(self._wish, problem=f"Huge pages stay as they are: {reason}.")
            return
        self._guard = guard
        self.report = Report(self._wish, answer["switched"], answer["was"], answer["measured"])
