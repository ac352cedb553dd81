# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An OCI image layout is written as one archive."""

from __future__ import annotations

import errno
import fcntl
import os
import stat as stat_module
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

from .._core import files
from .._core.errors import RETRYABLE, ConflictError, InputError, NodeError
from . import compression as archive_compression
from .tar_writer import Item, Progress, Read, StaleError, tar_size

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
#: A killed run's zstd ends a moment after it, and holds the file until then.
_LOCK_SECONDS = 5.0


@dataclass(frozen=True)
class Written:
    """``size`` of the archive in bytes; ``kept``: members that an interrupted run had written already, ``kept_bytes``
    of the tar.
    """

    size: int
    kept: int
    kept_bytes: int


def partial_path(path: str, digest: str) -> str:
    """Where the archive of the image with that digest is written before it gets its name."""
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{digest[-12:]}.partial")


def write(path: str, digest: str, items: Sequence[Item], read: Read, compression: str) -> Written:
    """Write the archive with mode 0600 under a temporary name beside ``path``, sync it and rename it over ``path``.

    What a killed run left there is gone on with. ``read`` gives the bytes of a member that has no ``data``. After a
    failure the temporary file is gone. Raises InputError ``archive_directory_missing``, ConflictError ``archive_busy``,
    NodeError ``archive_no_space``, ``archive_write_failed``, ``zstd_missing`` and what ``read`` raises.
    """
    temporary = partial_path(path, digest)
    with _errors(path), _opened(temporary) as descriptor:
        try:
            progress, end = archive_compression.found(descriptor, compression, items)
            kept, kept_bytes = progress.kept, progress.size
            try:
                _go_on(descriptor, progress, end, items, read, compression)
            except StaleError:
                kept, kept_bytes = 0, 0
                _go_on(descriptor, Progress(items), 0, items, read, compression)
            os.fsync(descriptor)
            size = os.fstat(descriptor).st_size
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        files.sync_directory(os.path.realpath(os.path.dirname(path)))
    return Written(size, kept, kept_bytes)


def _go_on(descriptor: int, progress: Progress, end: int, items: Sequence[Item], read: Read, compression: str) -> None:
    size = tar_size(items)
    os.ftruncate(descriptor, end)
    os.lseek(descriptor, end, os.SEEK_SET)
    with closing(progress.rest(read)) as chunks:
        archive_compression.append(descriptor, chunks, compression, size - progress.size, size)


def remove_partial(path: str, digest: str) -> bool:
    """Remove what a killed run left beside ``path``; False if there was nothing. ConflictError ``archive_busy``."""
    temporary = partial_path(path, digest)
    if not os.path.lexists(temporary):
        return False
    with _errors(path), _opened(temporary):
        os.unlink(temporary)
    return True


@contextmanager
def _opened(temporary: str) -> Iterator[int]:
    """The temporary file, locked: made, or the one that a killed run of the same user left."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        try:
            stat = os.fstat(descriptor)
            if not stat_module.S_ISREG(stat.st_mode) or stat.st_uid != os.geteuid() or stat.st_nlink > 1:
                raise _busy(temporary, "is not a file that a run of this user left")
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise _busy(temporary, "is being written by another run") from error
                time.sleep(0.1)
                continue
            # Whoever held the lock before may have given the file its name, or removed it.
            if not os.path.lexists(temporary) or not os.path.samestat(os.lstat(temporary), os.fstat(descriptor)):
                continue
            os.fchmod(descriptor, 0o600)
            yield descriptor
            return
        finally:
            os.close(descriptor)


def _busy(temporary: str, why: str) -> ConflictError:
    return ConflictError(
        "archive_busy",
        f"The temporary file {temporary} {why}.",
        "Wait for the other run, or remove the file if nobody writes it.",
        outcome=RETRYABLE,
    )


@contextmanager
def _errors(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        directory = os.path.dirname(path)
        if error.errno in _NO_SPACE:
            raise no_space(path, None) from error
        if error.errno == errno.ENOENT:
            raise InputError(
                "archive_directory_missing",
                f"The archive {path} cannot be written: there is no directory {directory}.",
                "Make the directory first; it should be root's with mode 0700.",
            ) from error
        raise NodeError(
            "archive_write_failed",
            f"The archive {path} cannot be written: {error.strerror or error}.",
            "Check the file system and the rights of this user there.",
        ) from error


def no_space(path: str, needed: int | None) -> NodeError:
    """The error for a file system that is too small; ``needed`` in bytes where it is known."""
    directory = os.path.dirname(path)
    free = files.free_bytes(directory)
    more = f"needs {needed} bytes" if needed is not None else "needs more"
    return NodeError(
        "archive_no_space",
        f"The archive {path} {more}, and {free} bytes are free in {directory}.",
        "Free space on that file system, or give a path on a larger one.",
        outcome=RETRYABLE,
        details={"path": directory, "needed": needed, "free": free},
    )
