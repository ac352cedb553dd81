# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which processes a restore has been begun for, kept across calls.

A process whose restore has failed is poisoned: every retry fails, and yet the driver says CHECKPOINTED as if it were
fresh. So before a restore a small file is written, below /run since a process does not outlive the boot, and taken away
once the process is back. A file that is still there when its process is CHECKPOINTED says: never again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from .._core import state_dir
from .._host import processes as host_processes
from .._host.processes import Process

#: The restore was begun; how it ended is not known.
BEGUN = "begun"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW


def default_root() -> str:
    """The directory of the files."""
    return state_dir.runtime_dir("cuda")


def write(root: str, processes: Iterable[Process], text: str) -> None:
    """Mark processes: ``text`` is BEGUN, or why their restore failed."""
    for process in processes:
        with open(_made(root, process), "w", encoding="utf-8") as stream:
            stream.write(text)


def read(root: str, process: Process) -> str:
    """What the process is marked with, empty for nothing."""
    try:
        with open(_path(root, process), encoding="utf-8") as stream:
            return stream.read() or BEGUN
    except FileNotFoundError:
        return ""


def clear(root: str, processes: Iterable[Process]) -> None:
    """Take the marks of processes away."""
    for process in processes:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_path(root, process))
    _prune(root)


def forget_gone(root: str, proc: str = "/proc") -> None:
    """Take away the marks of processes that have ended."""
    try:
        names = os.listdir(root)
    except FileNotFoundError:
        return
    for name in names:
        pid, _dash, start = name.partition("-")
        if str(host_processes.start_time(int(pid), proc)) != start:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(root, name))
    _prune(root)


def _made(root: str, process: Process) -> int:
    """The descriptor of the process's file."""
    while True:
        state_dir.make_private(root, os.path.dirname(root))
        try:
            return os.open(_path(root, process), _NEW, 0o600)
        except FileNotFoundError:
            # Another workload has cleared the last mark in between, and the directory with it: once more.
            continue


def _path(root: str, process: Process) -> str:
    return os.path.join(root, f"{process.pid}-{process.start_time}")


def _prune(root: str) -> None:
    state_dir.prune(root, os.path.dirname(root))
