# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a capture takes of the disk at its most, and what CRIU does meanwhile: whether it reckons or waits."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import threading
import time

PAUSE = 0.1


class DumpWatch:
    """Looks ten times a second while it is entered. ``used``: bytes of the file system of ``place``, beyond before."""

    def __init__(self, disk: pathlib.Path, place: pathlib.Path) -> None:
        self._places = {disk, place.parent}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._seen: dict[int, dict[str, float]] = {}
        self.used = 0

    def __enter__(self) -> DumpWatch:
        # What was deleted a moment ago is not free yet.
        os.sync()
        self._before = {place: shutil.disk_usage(place).used for place in self._places}
        self._thread.start()
        return self

    def __exit__(self, *_unused: object) -> None:
        self._over.set()
        self._thread.join()

    def result(self) -> list[dict[str, float]]:
        """Of each CRIU: seconds that it was seen, and seconds of processor of its own and in the kernel."""
        return [dict(one) for one in self._seen.values()]

    def _watch(self) -> None:
        begun = time.monotonic()
        while not self._over.wait(PAUSE):
            for place in self._places:
                self.used = max(self.used, shutil.disk_usage(place).used - self._before[place])
            for pid in _named("criu"):
                with contextlib.suppress(OSError, IndexError):
                    words = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                    own, kernel = (int(word) / os.sysconf("SC_CLK_TCK") for word in words[11:13])
                    now = time.monotonic() - begun
                    first = self._seen.get(pid, {}).get("first", now)
                    span = {"first": round(first, 2), "seconds": round(now - first, 2)}
                    self._seen[pid] = {**span, "own": own, "kernel": kernel}


def _named(name: str) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if pathlib.Path("/proc", entry, "comm").read_text().strip() == name:
                    found.append(int(entry))
    return found
