# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Locking the CUDA processes of one job, which may wait for each other.

A process that is within a collective operation (NCCL) comes to rest only when its partners take part, and one that is
locked already does not. So with several processes a lock that does not come soon is not waited for: all are unlocked,
and after a pause of random length it is tried again. Seen with two ranks on driver 580.159.04: the first to the fifth
attempt had both. A single long kernel, on the other hand, needs one long attempt: the last one is.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Callable

from .._host.processes import Process
from .driver import LOCK, LOCKED, NOT_READY, UNLOCK, Done
from .run import Run

#: Seconds for one attempt of several processes, as long as others may follow.
ATTEMPT_SECONDS = 0.5
#: The part of the whole time that is for such attempts; the last attempt has the rest.
_SHORT_ATTEMPTS = 0.5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.8


class Locks:
    """Locks processes of one run; ``attempts`` counts how often that was tried. Times in seconds."""

    def __init__(
        self,
        run: Run,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        pick: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._run = run
        self._clock = clock
        self._sleep = sleep
        self._pick = pick
        self._begun = clock()
        self._seconds = seconds
        self.attempts = 0

    def attempt(self, processes: Sequence[Process], deadline: float) -> list[Done]:
        """One attempt to lock these, all side by side; those that could not be locked."""
        self.attempts += 1
        return self.more(processes, deadline)

    def more(self, processes: Sequence[Process], deadline: float) -> list[Done]:
        """Lock further ones in the same attempt."""
        seconds = ATTEMPT_SECONDS if self._is_short() else self._left()
        failed = self._run.call(LOCK, processes, deadline, seconds)
        # One that ends of its own accord while it runs is nobody's failure.
        return [done for done in failed if not done.gone]

    def worth_another(self, failed: Sequence[Done]) -> bool:
        """Whether those that are locked may be what the others wait for, and there is time."""
        return self._is_short() and all(done.error == NOT_READY for done in failed)

    def withdraw(self, processes: Sequence[Process], deadline: float) -> list[Done]:
        """Unlock what the attempt has locked and wait a while; those that could not be unlocked."""
        locked = [process for process in processes if self._run.state(process) == LOCKED]
        failed = [done for done in self._run.call(UNLOCK, locked, deadline) if not done.gone]
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self.attempts)
        if not failed:
            self._sleep(self._pick(0.0, longest))
        return failed

    def _left(self) -> float:
        return max(0.0, self._begun + self._seconds - self._clock())

    def _is_short(self) -> bool:
        """Whether this attempt is one of the short ones: never for one process, which waits for nobody."""
        if len(self._run.processes) < 2:
            return False
        return self._left() > max(ATTEMPT_SECONDS, self._seconds * (1 - _SHORT_ATTEMPTS))
