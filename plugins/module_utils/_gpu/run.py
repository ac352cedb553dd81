# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The calls of one step: which were made for which process, how they went, the rollback; and locks in attempts."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Sequence
from typing import Any, Callable

from .._core.errors import UNKNOWN, RestoreError
from .._host.processes import Process
from . import marks, transitions
from .driver import CHECKPOINTED, GONE, LOCK, LOCKED, NOT_READY, RESTORE, RUNNING, UNLOCK, Done, Driver, Round
from .nvml import Reading
from .processes import CudaProcess

#: The state of a process for which a call was made that never answered.
UNANSWERED = "UNKNOWN"
#: Seconds for one attempt of several processes, as long as others may follow.
ATTEMPT_SECONDS = 0.5
#: The part of the whole time that is for such attempts; the last attempt has the rest.
_SHORT_ATTEMPTS = 0.7
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.8


class Run:
    """The processes of one step and their states as the calls go on."""

    def __init__(
        self,
        driver: Driver,
        pairs: Sequence[tuple[str, str]],
        marks_root: str,
        found: Sequence[CudaProcess],
    ) -> None:
        self.driver = driver
        #: By call, for all processes side by side.
        self.seconds: dict[str, float] = {}
        self._pairs = pairs
        self._marks_root = marks_root
        self._before: dict[Process, str] = {}
        self._now: dict[Process, str] = {}
        self._took: dict[Process, dict[str, float]] = {}
        self._problems: dict[Process, str] = {}
        self.add(found)

    def add(self, found: Sequence[CudaProcess]) -> None:
        """Further processes."""
        for entry in found:
            self._before[entry.process] = self._now[entry.process] = entry.state or UNANSWERED
            self._took[entry.process] = {}

    @property
    def mapped(self) -> bool:
        """Whether memory goes to other GPUs than those where it was."""
        return bool(self._pairs)

    @property
    def processes(self) -> list[Process]:
        """All of them."""
        return list(self._now)

    def state(self, process: Process) -> str:
        """The state now, as far as it is known."""
        return self._now[process]

    def actions(self, wanted: str) -> list[str]:
        """All calls that bring the processes from where they were found to ``wanted``, in words and in their order."""
        return [
            f"{call} process {process.pid}"
            for call in transitions.ORDER[wanted]
            for process, state in self._before.items()
            if call in transitions.calls(wanted, state)
        ]

    def call(
        self, operation: str, processes: Sequence[Process], deadline: float, lock_timeout: float = 0.0
    ) -> list[Done]:
        """One call for each; those that failed. Raises RestoreError ``cuda_timeout``, ``cuda_helper_died``."""
        if not processes:
            return []
        if operation == RESTORE:
            marks.write(self._marks_root, processes, marks.BEGUN)
        begun = time.monotonic()
        found = self.driver.call(operation, processes, deadline, lock_timeout, self._pairs)
        self.seconds[operation] = round(self.seconds.get(operation, 0.0) + time.monotonic() - begun, 3)
        failed = []
        for done in found.done.values():
            reached = done.state in transitions.REACHED[operation] or (done.error == 0 and done.state is None)
            self._now[done.process] = done.state or (transitions.REACHED[operation][0] if reached else UNANSWERED)
            self._took[done.process][operation] = done.seconds
            if reached:
                self._problems.pop(done.process, None)
            else:
                failed.append(done)
                self._problems[done.process] = f"{operation}: {done.name} ({done.error})"
            if reached or done.gone or transitions.refuses_map(operation, self.mapped, done):
                marks.clear(self._marks_root, [done.process])
            elif operation == RESTORE:
                marks.write(self._marks_root, [done.process], f"{done.name} ({done.error})")
        for process in found.pending:
            self._now[process] = UNANSWERED
            self._problems[process] = f"{operation}: {found.reason}"
        if found.pending:
            raise self.explained(self._unanswered(operation, found))
        return sorted(failed, key=lambda done: (done.gone, done.process.pid))

    def roll_back(self, deadline: float) -> list[Process]:
        """Restore, then unlock, what this run has locked and checkpointed; the processes that it could not.

        What ends the driver's helper on the way shows in the states.
        """
        was_up = [process for process in self.processes if self._before[process] in (RUNNING, LOCKED)]
        was_running = [process for process in was_up if self._before[process] == RUNNING]
        # Every process onto the GPUs where it was.
        self._pairs = ()
        with contextlib.suppress(RestoreError):
            self.call(RESTORE, [process for process in was_up if self._now[process] == CHECKPOINTED], deadline)
            self.call(UNLOCK, [process for process in was_running if self._now[process] == LOCKED], deadline)
        return [process for process in self.processes if self._now[process] not in (self._before[process], GONE)]

    def poisoned(self, processes: Sequence[Process]) -> str:
        """Of the first of these whose restore the driver refused, what it said; empty where there is none."""
        found = ((process, marks.read(self._marks_root, process)) for process in processes)
        failed = (transitions.poisoned(process.pid, mark) for process, mark in found if mark not in ("", marks.BEGUN))
        return next((error.message for error in failed), "")

    def explained(self, error: RestoreError) -> RestoreError:
        """The error with all processes in its details."""
        error.details["processes"] = self.results(Reading())
        if self.driver.stuck:
            error.left_behind(self.driver.stuck)
        return error

    def results(self, reading: Reading, assumed: str | None = None) -> list[dict[str, Any]]:
        """The processes as modules return them; ``assumed`` is the state that they would have, in check mode."""
        found = []
        for process in sorted(self.processes, key=lambda each: each.pid):
            entry: dict[str, Any] = {
                "pid": process.pid,
                "start_time": process.start_time,
                "before": self._before[process],
                "after": assumed or self._now[process],
                "seconds": self._took[process],
                "bytes": reading.bytes_of(process.pid),
                "gpus": reading.shares_of(process.pid),
            }
            if process in self._problems:
                entry["problem"] = self._problems[process]
            found.append(entry)
        return found

    @staticmethod
    def _unanswered(operation: str, found: Round) -> RestoreError:
        pids = [process.pid for process in found.pending]
        return RestoreError(
            "cuda_timeout" if found.timed_out else "cuda_helper_died",
            f"The {operation} of process {', '.join(map(str, pids))} {found.reason}; whether it took effect is not "
            "known.",
            "Look at the states with cuda_process_info and at dmesg for Xid lines before anything else; this is not "
            "replayed by itself.",
            outcome=UNKNOWN,
            details={"operation": operation, "pending": pids},
        )


class Locks:
    """Locks the processes of one job, which may wait for each other. Times in seconds.

    A process that is within a collective operation (NCCL) comes to rest only when its partners take part, and one that
    is locked already does not. So with several processes a lock that does not come soon is not waited for: all are
    unlocked, and after a pause of random length it is tried again. Seen with two ranks on driver 580.159.04: the first
    to the fifth attempt had both. A single long kernel, on the other hand, needs one long attempt: the last one is.
    """

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
        #: How often it was tried.
        self.attempts = 0
        #: Those that did not come to rest in the last attempt.
        self._waiting: set[Process] = set()

    def attempt(self, processes: Sequence[Process], deadline: float) -> list[Done]:
        """One attempt to lock these, side by side; those that could not be locked.

        One that did not come to rest may be within a collective operation, which ends when the others arrive: so it is
        locked while they go on, and they are locked after it.
        """
        self.attempts += 1
        first = [process for process in processes if process in self._waiting]
        failed = self.more(first, deadline) if first else []
        if not failed:
            failed = self.more([process for process in processes if process not in first], deadline)
        self._waiting = {done.process for done in failed}
        return failed

    def more(self, processes: Sequence[Process], deadline: float) -> list[Done]:
        """Lock further ones in the same attempt."""
        if not processes:
            return []
        seconds = self._short() if self._is_short() else max(ATTEMPT_SECONDS, self._left())
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

    def _short(self) -> float:
        """Seconds of a short attempt: twice as many after each three, for steps of a program that take longer."""
        return min(ATTEMPT_SECONDS * float(2 ** ((self.attempts - 1) // 3)), self._left())

    def _left(self) -> float:
        return max(0.0, self._begun + self._seconds - self._clock())

    def _is_short(self) -> bool:
        """Whether this attempt is one of the short ones: never for one process, which waits for nobody."""
        if len(self._run.processes) < 2:
            return False
        return self._left() > max(ATTEMPT_SECONDS, self._seconds * (1 - _SHORT_ATTEMPTS))
