# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The directory under which checkpoints are staged, where one is added or removed: its locks, its leftovers.

See ``_checkpoint.staging`` for the layout and the locking scheme.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Callable

from .._core.errors import RETRYABLE, ConflictError, NodeError, disk_full, is_full
from .staged import root_exists

_POLL_SECONDS = 0.1
_PARTIAL = re.compile(r"\.([0-9a-f]{64})\.partial-[0-9]+")


@dataclass(frozen=True)
class Waiting:
    """How long, in seconds, to wait for another run that works on the same checkpoint and gets no further."""

    seconds: float = 600.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def partial_path(root: str, name: str) -> str:
    """Where this process builds or dismantles ``name``."""
    return os.path.join(root, f"{_partial_prefix(name)}{os.getpid()}")


def _partial_prefix(name: str) -> str:
    return f".{name}.partial-"


def remove_root_if_empty(root: str) -> bool:
    """Remove the root if nothing lies in it; whether it was removed. NodeError as :func:`root_exists`.

    A root that is a mount point is the operator's and stays.
    """
    if not root_exists(root) or os.path.ismount(root):
        return False
    with Root(root, create=False).locked():
        if os.listdir(root):
            return False
        os.rmdir(root)
    return True


@contextmanager
def opened(root: str, *, create: bool) -> Iterator[Root]:
    """The root, checked; made with mode 0700 if ``create``, and unmade again if the block fails and it is
    empty.
    """
    directory = Root(root, create)
    if not root_exists(root):
        directory.make()
    try:
        yield directory
    except BaseException:
        if directory.made:
            remove_root_if_empty(root)
        raise


class Root:
    """A checked root directory; ``create``: make it whenever it is not there."""

    def __init__(self, path: str, create: bool) -> None:
        self.path = path
        self.create = create
        self.made = False

    def make(self) -> None:
        """Make it, if that is asked for; NodeError ``staging_dir_missing``."""
        try:
            if not self.create:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            os.mkdir(self.path, 0o700)
            self.made = True
        except FileExistsError:
            root_exists(self.path)  # another run was faster: check what it made
        except OSError as error:
            if is_full(error):
                raise disk_full(f"The staging directory {self.path}", error) from error
            raise NodeError(
                "staging_dir_missing",
                f"The staging directory {self.path} cannot be opened or made: {error.strerror}.",
                "Make its parent directory on the node, or set staging_dir to another path.",
                details={"path": self.path},
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the root's lock: for moments only, so waiting for it is not bounded."""
        while True:
            try:
                descriptor = _open_directory(self.path)
            except FileNotFoundError:
                self.make()
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if _is_same_directory(descriptor, self.path):  # else it was removed meanwhile and made anew
                    yield
                    return
            finally:
                os.close(descriptor)

    @contextmanager
    def locked_when_idle(self, name: str, waiting: Waiting) -> Iterator[list[str]]:
        """Hold the root's lock once nobody works on ``name``; yields what killed runs have left of it.

        Whoever works on it is waited for as long as he gets on (:meth:`beat`). ConflictError ``busy`` when he has not
        for ``waiting.seconds``.
        """
        deadline, seen = waiting.clock() + waiting.seconds, -1
        while True:
            with self.locked():
                partials = self._partials(name)
                left = [partial for partial in partials if _abandoned(partial)]
                busy = next((partial for partial in partials if partial not in left), None)
                if busy is None:
                    yield left
                    return
                beat = os.lstat(busy).st_mtime_ns
            if beat != seen:
                deadline, seen = waiting.clock() + waiting.seconds, beat
            if waiting.clock() >= deadline:
                raise ConflictError(
                    "busy",
                    f"Another run is at work on {busy} and has got no further for {waiting.seconds:g} seconds.",
                    "Wait until that run has ended, or end it, and try again.",
                    outcome=RETRYABLE,
                )
            waiting.sleep(_POLL_SECONDS)

    def beat(self, name: str) -> None:
        """Show those who wait that this process gets on with ``name``."""
        os.utime(partial_path(self.path, name))

    def _partials(self, name: str) -> list[str]:
        prefix = _partial_prefix(name)
        return [os.path.join(self.path, entry) for entry in os.listdir(self.path) if entry.startswith(prefix)]

    def abandoned(self) -> list[tuple[str, str]]:
        """Partial directories of runs that were broken off, with the checkpoints' names. Under the root's lock."""
        found = []
        for entry in sorted(os.listdir(self.path)):
            match = _PARTIAL.fullmatch(entry)
            path = os.path.join(self.path, entry)
            if match and os.path.isdir(path) and not os.path.islink(path) and _abandoned(path):
                found.append((path, match.group(1)))
        return found

    def new_partial(self, name: str, left: list[str]) -> int:
        """Make this process's partial directory (under the root's lock) and lock it; its descriptor.

        One of those that killed runs have ``left`` is gone on with; the others go.
        """
        path = partial_path(self.path, name)
        if left:
            most = max(left, key=disk_usage)
            for partial in left:
                if partial != most:
                    shutil.rmtree(partial)
            os.rename(most, path)
            os.utime(path)
        else:
            os.mkdir(path, 0o700)
        try:
            descriptor = _open_directory(path)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            shutil.rmtree(path)
            raise
        return descriptor

    def remove_now(self, name: str) -> bool:
        """Remove ``<root>/<name>`` (under the root's lock); from the first moment on it is not there any
        more.
        """
        path = os.path.join(self.path, name)
        if not os.path.lexists(path):
            return False
        aside = partial_path(self.path, name)
        os.rename(path, aside)
        _remove(aside)
        return True

    def discard(self, name: str) -> None:
        """After a failure of this process's building: nothing stays. NodeError ``staging_cleanup_failed``."""
        partial = partial_path(self.path, name)
        try:
            if os.path.lexists(partial):
                shutil.rmtree(partial)
            else:  # it failed after the last rename
                with self.locked():
                    self.remove_now(name)
        except OSError as error:
            raise NodeError(
                "staging_cleanup_failed",
                f"{partial} could not be removed after a failure: {error}.",
                "Remove it by hand: it holds parts of a process's memory.",
                details={"path": partial},
            ) from error


def disk_usage(directory: str) -> int:
    """Bytes that the files of a directory take on the disk."""
    total = 0
    for path, _directories, names in os.walk(directory):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(path, name)).st_blocks * 512
    return total


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def _open_directory(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def _is_same_directory(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _abandoned(partial: str) -> bool:
    """Whether nobody holds the lock of a partial directory."""
    descriptor = _open_directory(partial)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
