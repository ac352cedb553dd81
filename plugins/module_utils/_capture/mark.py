# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The mark of a capture under way: who may be paused, and what lies about.

A file below /run and not a label: the container may be another's, on which a capture changes nothing; and neither a
paused process nor a locked one outlives the boot. It is written before the first thing that stops the workload. The
lock on it dies with its process, so a mark that is not locked says: a capture was broken off here, or keeps its
workload paused on purpose (``HELD``).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from .._core import state_dir
from .._core.errors import RETRYABLE, ConflictError

#: The workload goes on whatever happens; or the image is complete, and the workload stays paused on purpose, or is to
#: end.
CAPTURING, HELD, ENDING = "capturing", "held", "ending"


@dataclass(frozen=True)
class Mark:
    """What a capture is about to do. ``pid`` and ``start_time`` are of the task's first process; ``directory``: ours;
    ``lease``: the one of this run, empty for one that was given; ``view`` and ``copy``: snapshots; ``cuda``: CUDA
    processes are taken off their GPUs."""

    pid: int
    start_time: int
    directory: str
    staging_dir: str
    lease: str
    snapshotter: str
    view: str
    copy: str
    cuda: bool
    name: str
    phase: str = CAPTURING


def default_root() -> str:
    """The directory of the marks."""
    return state_dir.runtime_dir("capture")


class Slot:
    """The place of one container's mark, locked while this object is held."""

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def read(self) -> Mark | None:
        """The mark that a run has left, None if there is none."""
        return _parse(os.pread(self._descriptor, 1 << 16, 0))

    def write(self, mark: Mark) -> None:
        """Set the mark, whole: the old one is only cut after the new one is there."""
        data = json.dumps(asdict(mark)).encode() + b"\n"
        os.pwrite(self._descriptor, data, 0)
        os.ftruncate(self._descriptor, len(data))

    def clear(self) -> None:
        """Nothing is under way any more."""
        os.ftruncate(self._descriptor, 0)


@contextlib.contextmanager
def held(root: str, namespace: str, container_id: str) -> Iterator[Slot]:
    """Hold the container's place. An empty mark goes with the block; one that was written and not cleared stays.

    Raises ConflictError ``capture_busy`` while another run captures the container.
    """
    path = _path(root, namespace, container_id)
    descriptor = _open_locked(path, root, container_id)
    try:
        yield Slot(path, descriptor)
    finally:
        if os.fstat(descriptor).st_size == 0:
            os.unlink(path)
            state_dir.prune(os.path.dirname(path), os.path.dirname(root))
        os.close(descriptor)


def peek(root: str, namespace: str, container_id: str) -> Mark | None:
    """The mark that a run has left, without taking the place. Raises ConflictError ``capture_busy``."""
    path = _path(root, namespace, container_id)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        _lock(descriptor, container_id)
        return _parse(os.pread(descriptor, 1 << 16, 0))
    finally:
        os.close(descriptor)


def _open_locked(path: str, root: str, container_id: str) -> int:
    while True:
        state_dir.make_private(os.path.dirname(path), os.path.dirname(root))
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:
            continue
        try:
            _lock(descriptor, container_id)
            with contextlib.suppress(FileNotFoundError):
                # Else the run before has taken it away between open and lock.
                if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, container_id: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConflictError(
            "capture_busy",
            f"Another run is capturing the container {container_id}.",
            "Wait until it has ended, then run again.",
            outcome=RETRYABLE,
        ) from error


def _path(root: str, namespace: str, container_id: str) -> str:
    return state_dir.capture_dir(root, namespace, container_id)


def _parse(data: bytes) -> Mark | None:
    # Half a mark was never followed by anything that stops the workload.
    try:
        found: Any = json.loads(data.split(b"\n", 1)[0])
        return Mark(**found)
    except (ValueError, TypeError):
        return None
