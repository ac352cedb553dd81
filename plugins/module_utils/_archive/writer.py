# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An OCI image layout is written as one archive, whole or not at all, with a record beside it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat as stat_module
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager

from .._core import files
from .._core.errors import RETRYABLE, ConflictError, InputError, NodeError, is_full
from .._streams.streams import Hasher
from . import record as archive_record
from .compression import compressed
from .record import Record
from .tar_writer import Item, Read, tar_chunks, tar_size


def partial_path(path: str) -> str:
    """Where an archive is written before it gets its name."""
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.partial")


def write(path: str, checkpoint: str, items: Sequence[Item], read: Read, compression: str) -> Record:
    """Write the archive with mode 0600 under a temporary name, sync it, and rename it over ``path``.

    ``read`` gives the bytes of a member that has no ``data``. What a killed run left is removed; after a failure
    nothing of this one is left. Raises InputError ``archive_directory_missing``, ConflictError ``archive_busy``,
    NodeError ``archive_no_space``, ``archive_write_failed``, ``zstd_missing`` and what ``read`` raises.
    """
    remove_partial(path)
    temporary = partial_path(path)
    with _errors(path), _opened(temporary) as descriptor:
        try:
            os.ftruncate(descriptor, 0)
            with closing(compressed(tar_chunks(items, read), compression, tar_size(items))) as chunks:
                digest = _write_all(descriptor, chunks)
            os.fsync(descriptor)
            stat = os.fstat(descriptor)
            found = Record(checkpoint, archive_record.members_digest(items), digest, stat.st_size, stat.st_mtime_ns)
            # First, so that there is never an archive without it; alone it says nothing, for no file fits it.
            archive_record.write(path, found)
            try:
                os.rename(temporary, path)
            except BaseException:
                os.unlink(archive_record.record_path(path))
                raise
        except BaseException:
            os.unlink(temporary)
            raise
        files.sync_directory(os.path.realpath(os.path.dirname(path)))
    return found


def _write_all(descriptor: int, chunks: Iterable[bytes]) -> str:
    """Write the file; the digest of what was written."""
    hasher = Hasher()
    try:
        for chunk in chunks:
            hasher.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[os.write(descriptor, view) :]
    finally:
        digest = hasher.close()
    return "sha256:" + digest


def partials(path: str) -> list[str]:
    """What killed runs left beside ``path``; version 0.1.0 put part of the checkpoint's digest into the name."""
    directory, name = os.path.split(path)
    left = re.compile(rf"\.{re.escape(name)}(\.[0-9a-f]{{12}})?\.partial")
    with contextlib.suppress(FileNotFoundError):
        return [os.path.join(directory, found) for found in os.listdir(directory) if left.fullmatch(found)]
    return []


def remove(path: str, check: bool) -> list[str]:
    """Remove the archive, its record, and what killed runs left of both beside it; what was, or would be, removed.

    Raises ConflictError ``archive_busy`` while one is being written, ``archive_other_content`` for what is no file.
    """
    record = archive_record.record_path(path)
    left = [*partials(path), *partials(record)]
    there = [name for name in (path, record) if os.path.lexists(name)]
    for name in there:
        if not stat_module.S_ISREG(os.lstat(name).st_mode):
            raise ConflictError(
                "archive_other_content",
                f"{name} is no regular file, so it is no archive of ours.",
                "Correct path, or remove it by hand.",
                details={"path": name},
            )
    if not check:
        remove_partial(path)
        for name in there:
            os.unlink(name)
        for name in partials(record):
            os.unlink(name)
    return [*there, *left]


def remove_partial(path: str) -> None:
    """Remove what killed runs left beside ``path``. ConflictError ``archive_busy`` where one still writes it."""
    with _errors(path):
        for temporary in partials(path):
            with _opened(temporary):
                os.unlink(temporary)


@contextmanager
def _opened(temporary: str) -> Iterator[int]:
    """The temporary file, made where it is not there, locked for as long as the block runs."""
    while True:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        try:
            stat = os.fstat(descriptor)
            if not stat_module.S_ISREG(stat.st_mode) or stat.st_uid != os.geteuid() or stat.st_nlink > 1:
                raise _busy(temporary, "is not a file that a run of this user left")
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise _busy(temporary, "is being written by another run") from error
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
        if is_full(error):
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
