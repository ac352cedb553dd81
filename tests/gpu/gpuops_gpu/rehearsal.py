# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rehearsal without a GPU: the stand-in for the driver (tests/standin) is told what a GPU would know.

Nothing of it is a result about a GPU; it shows that the test itself runs. tests/standin/README.md lists the files.
"""

from __future__ import annotations

import contextlib
import pathlib
import threading
import time
from collections.abc import Callable, Iterator

UUID = "GPU-00000000-0000-0000-0000-000000000001"
RUNNING, CHECKPOINTED = 0, 2
TOTAL = 80 << 30


class World:
    """The stand-in's GPU and the processes on it; ``pids`` gives the host's pids of a container."""

    def __init__(self, root: pathlib.Path, pids: Callable[[str], list[int]]) -> None:
        self._root = root
        self._pids = pids
        self._known: set[int] = set()

    def make(self) -> None:
        gpu = {"uuid": UUID, "name": "STAND-IN", "total": TOTAL, "other_used": 0, "persistence": 1, "mig": 0}
        for name, value in gpu.items():
            self._write(f"gpus/0/{name}", value)
        self._write("driver", "580.0.0")
        self._write("driver_version", 13000)
        (self._root / "pids").mkdir(exist_ok=True)

    def running(self, container: str, size: int) -> None:
        """The container's processes that hold memory are on the GPU."""
        self._register(container, size, RUNNING)

    @contextlib.contextmanager
    def watching(self, container: str, size: int) -> Iterator[None]:
        """Processes of the container that appear within come out of a checkpoint."""
        over = threading.Event()

        def watch() -> None:
            while not over.is_set():
                self._register(container, size, CHECKPOINTED)
                time.sleep(0.02)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def others(self, size: int) -> None:
        """VRAM that some other program takes."""
        self._write("gpus/0/other_used", size)

    def _register(self, container: str, size: int, state: int) -> None:
        pids = [pid for pid in self._pids(container) if self._holds_memory(pid)]
        for pid in pids:
            if pid not in self._known:
                self._known.add(pid)
                self._write(f"pids/{pid}/bytes/{UUID}", size // len(pids))
                self._write(f"pids/{pid}/state", state)

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
