# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands with a time limit each and one for all, everything written to one log."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

LOG_LIMIT = 12 * 1024 * 1024
OUTPUT_LIMIT = 256 * 1024


class StepError(Exception):
    """One sentence: what was done, and how it went wrong."""


@dataclasses.dataclass(frozen=True)
class Done:
    """A command that ended."""

    status: int
    output: str
    errors: str
    seconds: float

    @property
    def text(self) -> str:
        return self.output + self.errors


class Log:
    """log.txt: lines with the seconds since the start; past its limit it takes nothing more."""

    def __init__(self, path: pathlib.Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._begun = time.monotonic()
        self._left = LOG_LIMIT
        self._lock = threading.Lock()
        self._stream = path.open("w", encoding="utf-8", errors="replace")

    def write(self, text: str, *, show: bool = False) -> None:
        line = f"[{time.monotonic() - self._begun:7.2f}] {text.rstrip()}\n"
        with self._lock:
            if self._left > 0:
                self._left -= len(line)
                try:
                    self._stream.write(line[: self._left + len(line)])
                    self._stream.flush()
                except OSError as error:
                    # A full disk must not keep the test from cleaning up and reporting.
                    self._left = 0
                    print(f"log.txt ends here: {error}", flush=True)
            if show:
                print(line, end="", flush=True)


class Runner:
    """Runs commands; never longer than the step's limit nor past the deadline in force."""

    def __init__(self, log: Log, seconds: float, environment: Mapping[str, str]) -> None:
        self.log = log
        self.environment = dict(environment)
        self._end = time.monotonic() + seconds
        #: Parts of a section may run side by side, each with an end of its own.
        self._section_ends = threading.local()

    @property
    def _section_end(self) -> float:
        return float(getattr(self._section_ends, "end", self._end))

    def left(self) -> float:
        """Seconds until the whole run has to be over."""
        return self._end - time.monotonic()

    @contextlib.contextmanager
    def limited(self, seconds: float, *, beyond: bool = False) -> Iterator[None]:
        """Within, everything has to end after that many seconds; ``beyond`` the whole run's end if need be."""
        end = time.monotonic() + seconds
        before = self._section_end
        self._section_ends.end = end if beyond else min(self._end, end)
        try:
            yield
        finally:
            self._section_ends.end = before

    def limit(self, seconds: float) -> float:
        left = self._section_end - time.monotonic()
        if left <= 0.5:
            raise StepError("The time of this section is over.")
        return min(seconds, left)

    def run(
        self,
        command: Sequence[str],
        seconds: float,
        *,
        check: bool = True,
        environment: Mapping[str, str] | None = None,
        given: str | None = None,
    ) -> Done:
        """Raises StepError when it does not end in time and, with ``check``, when its status is not 0.

        ``given``: standard input.
        """
        shown = shlex.join(map(str, command))
        seconds = self.limit(seconds)
        self.log.write(f"$ {shown}   (at most {seconds:.0f} s)")
        begun = time.monotonic()
        process = self.start(command, environment=environment, fed=given is not None)
        try:
            output, errors = process.communicate(given, timeout=seconds)
        except subprocess.TimeoutExpired:
            self.end(process)
            output, errors = process.communicate()
            self._log_output(output, errors)
            raise StepError(f"{shown[:200]} did not end within {seconds:.0f} s and was killed.") from None
        done = Done(process.returncode, output, errors, round(time.monotonic() - begun, 3))
        self._log_output(output, errors)
        self.log.write(f"status {done.status} after {done.seconds:.2f} s")
        if check and done.status:
            last = "\n".join(done.text.strip().splitlines()[-12:])
            raise StepError(f"{shown[:200]} ended with status {done.status}: {last[-1500:]}")
        return done

    def start(
        self, command: Sequence[str], *, environment: Mapping[str, str] | None = None, fed: bool = False
    ) -> subprocess.Popen[str]:
        """A process in a session of its own, its output piped, and with ``fed`` its input."""
        try:
            return subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.PIPE if fed else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
                env={**self.environment, **(environment or {})},
            )
        except OSError as error:
            raise StepError(f"{command[0]} cannot be run: {error}.") from error

    def end(self, process: subprocess.Popen[str]) -> None:
        """Kill a process that this runner started, with what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def await_true(self, what: str, seconds: float, test: Callable[[], bool], pause: float = 0.05) -> float:
        """Wait until the test holds; returns after how many seconds. Raises StepError when it never does."""
        begun = time.monotonic()
        end = begun + self.limit(seconds)
        while not test():
            if time.monotonic() > end:
                raise StepError(f"{what}: not within {time.monotonic() - begun:.0f} s.")
            time.sleep(pause)
        return round(time.monotonic() - begun, 3)

    def _log_output(self, *parts: str) -> None:
        for part in parts:
            if part.strip():
                self.log.write(part if len(part) <= OUTPUT_LIMIT else f"{part[:OUTPUT_LIMIT]}\n... cut")
