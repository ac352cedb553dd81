# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signals that end a run, as an error that has the workload go on first. Private.

A connection that breaks (SIGHUP) or an operator who gives up (SIGINT, SIGTERM) must not leave a workload paused until
somebody runs the playbook again. Only SIGKILL does, for which there is the mark.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ansible_collections.gpuops.restore.plugins.module_utils._errors import RETRYABLE, RestoreError

_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class ToldError(BaseException):
    """Nobody's handler of errors catches it on the way; ``error`` is what it becomes."""

    def __init__(self, error: RestoreError) -> None:
        super().__init__(error.message)
        self.error = error


@contextmanager
def heeded(container_id: str) -> Iterator[None]:
    """The first such signal breaks the block off with RestoreError ``capture_interrupted``; later ones change nothing.

    A signal that is ignored stays so, as under nohup. Without effect outside of the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    mine = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]

    def tell(number: int, _frame: FrameType | None) -> None:
        for each in mine:
            signal.signal(each, signal.SIG_IGN)
        raise ToldError(
            RestoreError(
                "capture_interrupted",
                f"The capture of {container_id} was broken off by {signal.Signals(number).name}.",
                "Run again.",
                outcome=RETRYABLE,
            )
        )

    before = {number: signal.signal(number, tell) for number in mine}
    try:
        yield
    except ToldError as told:
        raise told.error from told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
