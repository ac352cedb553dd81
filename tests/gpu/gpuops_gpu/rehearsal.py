# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rehearsal without a GPU: the stand-in for the driver (tests/standin) is told what a GPU would know.

Nothing of it is a result about a GPU; it shows that the test itself runs. tests/standin/README.md lists the files.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import threading
import time
from collections.abc import Iterator

CARDS = tuple(f"GPU-00000000-0000-0000-0000-{number:012}" for number in range(1, 5))
RUNNING, CHECKPOINTED = 0, 2
TOTAL = 80 << 30


class World:
    """The stand-in's GPUs and the processes on them.

    ``cards``: for containers that do not see all GPUs, the indices of those that they see.
    """

    def __init__(self, root: pathlib.Path) -> None:
        self._root = root
        self._known: set[int] = set()
        self.cards: dict[str, tuple[int, ...]] = {}

    def make(self) -> None:
        for number, uuid in enumerate(CARDS):
            gpu = {"uuid": uuid, "name": "STAND-IN", "total": TOTAL, "other_used": 0, "persistence": 1, "mig": 0}
            for name, value in gpu.items():
                self._write(f"gpus/{number}/{name}", value)
        self._write("driver", "580.0.0")
        self._write("driver_version", 13000)
        (self._root / "pids").mkdir(exist_ok=True)

    def running(self, container: str, size: int) -> None:
        """The container's processes that hold memory are on a GPU, ``size`` bytes of each."""
        self._register(container, size, RUNNING)

    @contextlib.contextmanager
    def watching(self, container: str, size: int) -> Iterator[None]:
        """Processes of the container that appear within come out of a checkpoint."""
        over = threading.Event()

        def watch() -> None:
            while not over.is_set():
                self._register(container, size, CHECKPOINTED)
                time.sleep(0.005)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def others(self, size: int) -> None:
        """VRAM of the first GPU that some other program takes."""
        self._write("gpus/0/other_used", size)

    def _register(self, container: str, size: int, state: int) -> None:
        for pid in _pids(container):
            if pid not in self._known and self._holds_memory(pid):
                self._known.add(pid)
                self._write(f"pids/{pid}/bytes/{self._card(container, pid)}", size)
                self._write(f"pids/{pid}/state", state)

    def _card(self, container: str, pid: int) -> str:
        """The GPU that the process was told to use, counted as it sees them."""
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        ordinal = int(words[words.index("--device") + 1]) if "--device" in words else 0
        seen = self.cards.get(container) or tuple(range(len(CARDS)))
        return CARDS[seen[ordinal]]

    def _holds_memory(self, pid: int) -> bool:
        """Not the one that only waits for its four children."""
        try:
            arguments = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return b"--processes" not in arguments and any(b"/gpuops/workloads/" in part for part in arguments)

    def _write(self, name: str, value: object) -> None:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")


def _pids(container: str) -> list[int]:
    """The processes in the container's cgroup, which after a restore has a prefix.

    The driver knows a process at once, so no slower way would do.
    """
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                lines = pathlib.Path("/proc", entry, "cgroup").read_text().splitlines()
                if any(line.endswith((f"/{container}", f"-{container}")) for line in lines):
                    found.append(int(entry))
    return found
