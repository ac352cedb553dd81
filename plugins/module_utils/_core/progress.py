# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How far a long call is, noted at an interval, from the first one on: a short call notes nothing.

Whatever fails here, the work goes on.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable, Protocol


class Track:
    """How far one workload is. Its own thread moves it on, the board's reads it."""

    def __init__(self, name: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._phase = ""
        self._begun = 0.0
        self._total = self._done = 0
        self._measure: Callable[[], int] | None = None
        self._due: float | None = None

    def phase(self, name: str, total: int = 0, measure: Callable[[], int] | None = None) -> None:
        """It begins with something else. ``total``: bytes that this moves, 0 where nobody knows; ``measure``: how many
        it has moved so far, where nobody tells by :meth:`add`."""
        self._begun, self._total, self._done, self._measure = self._clock(), total, 0, measure
        self._phase = name

    def add(self, count: int) -> None:
        """So many bytes were moved."""
        self._done += count

    def expect(self, seconds: float | None) -> None:
        """All phases from now on will take so long, which is told where bytes do not tell; None: nobody knows."""
        self._due = None if seconds is None else self._clock() + seconds

    def entry(self) -> dict[str, Any] | None:
        """As the file has it; None before the first phase."""
        if not self._phase:
            return None
        now = self._clock()
        seconds, done, rate, left = now - self._begun, self._done, None, None
        if self._measure is not None:
            with contextlib.suppress(OSError):
                done = self._measure()
        if done and seconds > 0:
            rate = done / seconds
        if self._total and rate:
            left = max(self._total - done, 0) / rate
        elif self._due is not None:
            left = max(self._due - now, 0.0)
        return {
            "name": self._name,
            "phase": self._phase,
            "seconds": round(seconds, 1),
            "done": min(done, self._total) if self._total else done,
            "total": self._total,
            "rate": round(rate) if rate else None,
            "left": round(left, 1) if left is not None else None,
        }


class Note(Protocol):
    """Where it is noted (:class:`_core.progress_file.ProgressFile`). Both may raise OSError."""

    def write(self, document: dict[str, Any]) -> None:
        """In place of what is there."""

    def remove(self) -> None:
        """Nothing of it is left."""


class Board:
    """All workloads of a call, noted every ``seconds`` while the block lasts; without a note, nowhere."""

    def __init__(self, note: Note | None = None, seconds: float = 0.0, over: threading.Event | None = None) -> None:
        self._note, self._seconds = note, seconds
        self._over = over or threading.Event()
        self._thread: threading.Thread | None = None
        self._tracks: list[Track] = []

    @contextlib.contextmanager
    def track(self, name: str) -> Iterator[Track]:
        """One workload, shown until the block is over."""
        found = Track(name)
        # A list's own changes are safe between threads.
        self._tracks.append(found)
        try:
            yield found
        finally:
            self._tracks.remove(found)

    def __enter__(self) -> Board:
        if self._note is not None:
            self._thread = threading.Thread(target=self._write_on, args=(self._note,), name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_unused: object) -> None:
        self._over.set()
        if self._thread is not None and self._note is not None:
            self._thread.join()
            with contextlib.suppress(OSError):
                self._note.remove()

    def _write_on(self, note: Note) -> None:
        with contextlib.suppress(OSError):
            while not self._over.wait(self._seconds):
                entries = [one.entry() for one in list(self._tracks)]
                note.write({"steps": [entry for entry in entries if entry]})
