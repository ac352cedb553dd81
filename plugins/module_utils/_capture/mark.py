# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The mark of a capture under way, or of a parked workload: who may be paused, and what lies about.

A file below /run and not a label: the container may be another's, on which a capture changes nothing; and neither a
paused process nor a locked one outlives the boot. It is written before the first thing that stops the workload. The
lock on it dies with its process, so a mark that is not locked says: a capture was broken off here, or keeps its
workload paused on purpose (``KEPT_PAUSED``). Parked ones have the same file, so whoever comes next finds either.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .._core import state_dir
from .._core.errors import RETRYABLE, ConflictError
from .._gpu.driver import LOCKED, RUNNING

#: Bytes of a mark, which may name some thousand links.
_LONGEST = 1 << 22
#: The workload goes on whatever happens.
CAPTURING = "capturing"
#: The image is complete, and the workload stays paused on purpose.
KEPT_PAUSED = "held"
#: The image is complete, and the workload is to end.
ENDING = "ending"
#: Nothing is captured: the workload leaves its GPUs for host memory and is paused (:mod:`_capture.park`).
PARKING = "parking"
#: It has, and stays so on purpose.
PARKED = "parked"


@dataclass(frozen=True)
class Mark:
    """What a capture is about to do; the fields are the file's keys."""

    #: The task's first process.
    pid: int
    #: When that process began, so that a later one with its pid is not taken for it.
    start_time: int
    #: Where this capture's dump lies; empty for a parked workload, of which nothing is written.
    directory: str
    staging_dir: str
    #: This run's own lease; empty where one was given.
    lease: str
    snapshotter: str
    #: Snapshots of this capture: the view of the base, and the copy of what was written (empty for none).
    view: str
    copy: str
    #: CUDA processes are taken off their GPUs.
    cuda: bool
    #: The checkpoint image.
    name: str
    phase: str = CAPTURING
    #: Before the capture somebody had locked the CUDA processes.
    locked: bool = False
    #: Links in the container's root file system that are there for the layer alone.
    links: tuple[str, ...] = ()
    #: The option ``after_capture``: what the workload is to be told when it goes on.
    after: Mapping[str, Any] = field(default_factory=dict)
    #: The staged directory that the dump becomes; it is the checkpoint's if the name leads to it.
    staged: str = ""
    #: Bytes that a parked workload had on each GPU, by UUID, and has to find there again.
    vram: Mapping[str, int] = field(default_factory=dict)

    @property
    def cuda_state(self) -> str:
        """The state that the CUDA processes had."""
        return LOCKED if self.locked else RUNNING


def default_root() -> str:
    """The directory of the marks."""
    return state_dir.runtime_dir("capture")


class MarkFile:
    """The file of one container's mark, locked while this object lives."""

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def read(self) -> Mark | None:
        """The mark that a run has left, None if there is none."""
        return _parse(os.pread(self._descriptor, _LONGEST, 0))

    def write(self, mark: Mark) -> None:
        """Set the mark, whole: the old one is only cut after the new one is there."""
        document = asdict(mark)
        for key in ("locked", "links", "after", "staged", "vram"):
            if not document[key]:
                # Earlier releases take a mark with a key that they do not know for none.
                del document[key]
        data = json.dumps(document).encode() + b"\n"
        os.pwrite(self._descriptor, data, 0)
        os.ftruncate(self._descriptor, len(data))

    def clear(self) -> None:
        """Nothing is under way any more."""
        os.ftruncate(self._descriptor, 0)


@contextlib.contextmanager
def locked(root: str, namespace: str, container_id: str) -> Iterator[MarkFile]:
    """Lock the container's file. An empty one goes with the block; a mark that was written and not cleared stays.

    Raises ConflictError ``busy`` while another run captures the container.
    """
    path = _path(root, namespace, container_id)
    descriptor = _open_locked(path, root, container_id)
    try:
        yield MarkFile(path, descriptor)
    finally:
        if os.fstat(descriptor).st_size == 0:
            os.unlink(path)
            state_dir.prune(os.path.dirname(path), os.path.dirname(root))
        os.close(descriptor)


def peek(root: str, namespace: str, container_id: str) -> Mark | None:
    """The mark that a run has left, None if there is none; nothing is made. Raises ConflictError ``busy``."""
    path = _path(root, namespace, container_id)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        _lock(descriptor, container_id)
        return _parse(os.pread(descriptor, _LONGEST, 0))
    finally:
        os.close(descriptor)


def every(root: str) -> list[tuple[str, str, Mark]]:
    """Namespace, container and mark of each capture that is under way, was broken off or keeps its workload paused."""
    found = []
    for namespace in _listed(root):
        for container_id in _listed(os.path.join(root, namespace)):
            with contextlib.suppress(OSError), open(os.path.join(root, namespace, container_id), "rb") as stream:
                mark = _parse(stream.read(_LONGEST))
                if mark is not None:
                    found.append((namespace, container_id, mark))
    return found


def _listed(directory: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(os.listdir(directory))
    return []


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
            "busy",
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
        return Mark(**{**found, "links": tuple(found.get("links", ()))})
    except (ValueError, TypeError, AttributeError):
        return None
