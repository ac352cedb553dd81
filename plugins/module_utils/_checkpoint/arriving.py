# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of a dump that come from another node, written as they come; the disk works beside the network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Callable

from .._core.errors import InputError
from .._core.files import sync_directory
from .._streams.tar_extract import FileStat

#: Bytes of a file that are written to the disk at a time while more of it comes.
_FLUSH_BYTES = 64 << 20


def written(
    images: str, files: Mapping[str, FileStat], fetch: Callable[[str, int], Iterable[bytes]]
) -> dict[str, FileStat]:
    """Write ``files`` into the directory ``images``, durable, with their times; as the file system has them.

    A file gets its time when it is whole on the disk, so one that has it already is not fetched again; what else lies
    there goes. Raises InputError ``size_mismatch``, OSError.
    """
    for name in os.listdir(images):
        if name not in files:
            _remove(os.path.join(images, name))
    found = {}
    with ThreadPoolExecutor(max_workers=1) as disk:
        for name in sorted(files):
            path = os.path.join(images, name)
            if not _is_whole(path, files[name]):
                _write(path, name, files[name], fetch(name, files[name].size), disk)
            stat = os.lstat(path)
            found[name] = FileStat(stat.st_size, stat.st_mtime_ns)
    sync_directory(images)
    return found


def _is_whole(path: str, wanted: FileStat) -> bool:
    try:
        stat = os.lstat(path)
    except FileNotFoundError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (wanted.size, wanted.mtime_ns)


def _write(path: str, name: str, wanted: FileStat, chunks: Iterable[bytes], disk: ThreadPoolExecutor) -> None:
    _remove(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    flushing: Future[None] | None = None
    written_bytes = unflushed = 0
    try:
        for chunk in chunks:
            rest = memoryview(chunk)
            written_bytes += len(rest)
            if written_bytes > wanted.size:
                break
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            unflushed += len(chunk)
            if unflushed >= _FLUSH_BYTES and (flushing is None or flushing.done()):
                _hear(flushing)
                flushing, unflushed = disk.submit(os.fdatasync, descriptor), 0
        if written_bytes != wanted.size:
            raise InputError(
                "size_mismatch",
                f"The file {name} of the dump came with {written_bytes} bytes, not {wanted.size}.",
                "Run again; if it stays so, capture the workload again.",
                details={"expected": wanted.size, "actual": written_bytes},
            )
        _hear(flushing)
        flushing = None
        os.fsync(descriptor)
        os.utime(descriptor, ns=(wanted.mtime_ns, wanted.mtime_ns))
        os.fsync(descriptor)
    finally:
        try:
            if flushing is not None:
                # It works on the descriptor; what it says does not matter any more.
                flushing.exception()
        finally:
            os.close(descriptor)


def _hear(flushing: Future[None] | None) -> None:
    """Raise what it raised: the kernel tells only once of what it could not write."""
    if flushing is not None:
        flushing.result()


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
