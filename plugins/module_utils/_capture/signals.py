# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signals that end a run: the workload goes on first.

A connection that breaks (SIGHUP) or an operator who gives up (SIGINT, SIGTERM) must not leave a workload paused until
somebody runs the playbook again. Only SIGKILL does, for which there is the mark. A signal is noted, not raised: an
exception in the middle of a call to the daemon would leave the channel in disorder. The call under way is finished.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .._core.errors import RETRYABLE, RestoreError

_DEFERRED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class DeferredSignals:
    """Signals that have come since their handlers were replaced."""

    def __init__(self, container_id: str, origin: DeferredSignals | None = None) -> None:
        self._container_id = container_id
        self._origin = origin
        self._first = ""

    def of(self, container_id: str) -> DeferredSignals:
        """The same signals, for one of several captures that they end."""
        return DeferredSignals(container_id, self)

    @property
    def first(self) -> str:
        """The name of the first one; empty where none has come."""
        return self._origin.first if self._origin else self._first

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """The handler: note the first one."""
        self._first = self._first or signal.Signals(number).name

    def raise_if_any(self) -> None:
        """Raise RestoreError ``capture_interrupted`` if a signal has come."""
        if self.first:
            raise RestoreError(
                "capture_interrupted",
                f"The capture of {self._container_id} was broken off by {self.first}.",
                "Run again.",
                outcome=RETRYABLE,
            )


@contextmanager
def deferred(container_id: str) -> Iterator[DeferredSignals]:
    """Replace the handlers of signals that would end this process by one that notes them, within the block.

    A signal that is ignored stays so, as under nohup. Without effect outside of the main thread.
    """
    found = DeferredSignals(container_id)
    if threading.current_thread() is not threading.main_thread():
        yield found
        return
    numbers = [number for number in _DEFERRED if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, found.handle) for number in numbers}
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
