# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compiles the STAND-INS for libcuda.so.1 and libnvidia-ml.so.1 and arranges the world that they tell of.

They are test doubles: see README.md beside this file for what they do and what they cannot show.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENT = "GPUOPS_STANDIN_DIR"
RUNNING, LOCKED, CHECKPOINTED, FAILED = range(4)
GIB = 1 << 30
_LIBRARIES = {"libcuda.so.1": "libcuda.c", "libnvidia-ml.so.1": "libnvidia_ml.c"}


def build(directory: Path) -> Path:
    """Compile both into ``directory``, which is what LD_LIBRARY_PATH has to name. Raises CalledProcessError."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, source in _LIBRARIES.items():
        subprocess.run(
            ["cc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"]
            + [f"-Wl,-soname,{name}", "-o", str(directory / name), str(HERE / source)],
            check=True,
        )
    return directory


def uuid(number: int) -> str:
    """A GPU UUID that is easy to tell apart."""
    return f"GPU-{number:08x}-1111-2222-3333-444455556666"


@dataclass(frozen=True)
class Call:
    """One line of the log: ``time`` in milliseconds, the ``caller``'s pid and ``thread``, what, on which pid."""

    time: int
    caller: int
    thread: int
    what: str
    pid: int
    detail: str


class World:
    """The files below ``root`` that both stand-ins read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._processes: list[subprocess.Popen[bytes]] = []
        for name in ("gpus", "pids", "missing"):
            (root / name).mkdir(parents=True, exist_ok=True)

    def set(self, name: str, text: str | int = "") -> None:
        """Write one file, ``name`` relative to the root."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n", encoding="ascii")

    def unset(self, name: str) -> None:
        """Take one file away."""
        (self.root / name).unlink()

    def has(self, name: str) -> bool:
        """Whether the file is there."""
        return (self.root / name).exists()

    def add_gpu(self, number: int, total: int = 80 * GIB, name: str = "Stand-in H1", **more: str | int) -> str:
        """A GPU; its UUID."""
        for key, value in {"uuid": uuid(number), "total": total, "name": name, **more}.items():
            self.set(f"gpus/{number}/{key}", value)
        return uuid(number)

    def spawn(self) -> int:
        """A process without CUDA; its pid."""
        self._processes.append(subprocess.Popen(["sleep", "600"]))
        return self._processes[-1].pid

    def add_process(self, state: int, memory: Mapping[str, int] | None = None, **more: str | int) -> int:
        """A process with CUDA; ``memory`` is bytes by GPU UUID; its pid."""
        pid = self.spawn()
        for key, value in more.items():
            self.set(f"pids/{pid}/{key}", value)
        for gpu, size in (memory or {}).items():
            self.set(f"pids/{pid}/bytes/{gpu}", size)
        self.set(f"pids/{pid}/state", state)
        return pid

    def state(self, pid: int) -> int:
        """The state that the stand-in keeps."""
        return int((self.root / "pids" / str(pid) / "state").read_text(encoding="ascii"))

    def kill(self, pid: int) -> None:
        """End one of the processes, and wait for it."""
        for process in self._processes:
            if process.pid == pid:
                process.kill()
                process.wait()

    def close(self) -> None:
        """End all processes."""
        for process in self._processes:
            process.kill()
            process.wait()

    def calls(self) -> list[Call]:
        """The log so far."""
        path = self.root / "calls.log"
        found = []
        for line in path.read_text(encoding="ascii").splitlines() if path.exists() else []:
            words = line.split(" ", 5)
            found.append(Call(int(words[0]), int(words[1]), int(words[2]), words[3], int(words[4]), words[5]))
        return found

    def order(self) -> list[tuple[str, int]]:
        """The state-changing calls in the order in which they ended: ``(what, pid)``."""
        return [(call.what, call.pid) for call in self.calls() if call.detail.startswith("end ")]

    def wait_for(self, what: str, pid: int, seconds: float = 60.0) -> None:
        """Wait until a call has begun. Raises AssertionError."""
        give_up = time.monotonic() + seconds
        while not any(call.what == what and call.pid == pid for call in self.calls()):
            assert time.monotonic() < give_up, f"no {what} of {pid}"
            time.sleep(0.01)


def environment(libraries: Path | None, world: World) -> dict[str, str]:
    """This process's environment with the stand-ins in it; ``libraries`` None: a machine without a driver."""
    changed = {**os.environ, ENVIRONMENT: str(world.root)}
    changed.pop("LD_LIBRARY_PATH", None)
    if libraries is not None:
        changed["LD_LIBRARY_PATH"] = str(libraries)
    return changed
