# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files in the kernel's page cache: which pages it lacks, and to have them there, where the node's memory allows.

CRIU reads its files in small pieces, each waiting for the one before; read ahead in large ones the disk is busy all the
time. What the cache has already is not read again.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import itertools
import mmap
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .._core.text import gib
from . import memory as host_memory

#: From and to, in bytes of a file.
Piece = tuple[int, int]
PIECE = 8 << 20
#: As many pieces are asked for at a time: one reader alone does not keep a fast disk busy.
_READERS = 4
#: asm-generic/mman-common.h; since Linux 5.14, and not in Python's mmap.
_MADV_POPULATE_READ = 22
#: On every architecture; the first of its five numbers is the pages that are cached (linux/mman.h).
_CACHESTAT = 451
#: The first Linux that reads large pieces for such a mapping (mm/filemap.c, VM_HUGEPAGE).
_LARGE_FOLIOS = (5, 18)
#: Below one huge page there is nothing to gain.
_WORTH_MAPPING = 2 << 20
AUTO, ALWAYS, NEVER = "auto", "always", "never"
#: Bytes that stay free when the files are cached and the process has its memory.
RESERVE = 512 << 20


@dataclass(frozen=True)
class Report:
    """What was, or would be, read."""

    #: Of the files.
    bytes: int = 0
    #: Of these, from the disk.
    read: int = 0
    seconds: float = 0.0
    #: Why nothing was read; else empty.
    skipped: str = ""
    #: Bytes that CRIU will have to wait for the disk for.
    uncached: int = 0

    def result(self) -> dict[str, object]:
        """As modules return it."""
        return {"bytes": self.bytes, "read": self.read, "seconds": self.seconds, "skipped": self.skipped}


def warm(directories: Sequence[str], mode: str, process_bytes: int) -> Report:
    """Have the files of ``directories`` in the page cache.

    ``process_bytes``: memory that the restored process will take. Raises OSError when one cannot be read.
    """
    begun = time.monotonic()
    lacking = uncached_pieces(*directories)
    report = predict(directories, mode, process_bytes, lacking)
    if report.skipped:
        return report
    for path, pieces in lacking.items():
        if pieces:
            read(path, pieces)
    return dataclasses.replace(report, seconds=round(time.monotonic() - begun, 3))


def predict(
    directories: Sequence[str], mode: str, process_bytes: int, lacking: Mapping[str, Sequence[Piece]]
) -> Report:
    """What :func:`warm` would do; ``lacking`` as :func:`uncached_pieces` tells. Raises OSError."""
    total = sum(os.stat(path).st_size for path in _paths(directories))
    wanted = sum(end - start for pieces in lacking.values() for start, end in pieces)
    if mode == NEVER:
        return Report(total, skipped="prewarm is never", uncached=wanted)
    # Cache counts as available, so what is cached already is not asked for twice.
    free = host_memory.available()
    needed = total + process_bytes + RESERVE
    if mode == AUTO and wanted and free is not None and needed > free:
        reason = f"{gib(needed)} of memory would be needed, {gib(free)} are available"
        return Report(total, skipped=reason, uncached=wanted)
    return Report(total, wanted)


def uncached_pieces(*directories: str) -> dict[str, list[Piece]]:
    """The pieces of each file that the page cache lacks. Raises OSError."""
    return {path: missing(path) for path in _paths(directories)}


def _paths(directories: Sequence[str]) -> list[str]:
    """Each file once, whatever names it has."""
    found = [entry for directory in directories for entry in os.scandir(directory)]
    return list({entry.inode(): entry.path for entry in found if entry.is_file(follow_symlinks=False)}.values())


def missing(path: str) -> list[Piece]:
    """The pieces of which a page is not in the cache. Raises OSError."""
    with _opened(path) as descriptor:
        size = os.fstat(descriptor).st_size
        pieces = [(start, min(size, start + PIECE)) for start in range(0, size, PIECE)]
        suspects = [piece for piece in pieces if not _is_counted(descriptor, *piece)]
        if not suspects:
            return []
        with _Mapping(descriptor, size) as area:
            return [piece for piece in suspects if not area.is_resident(*piece)]


def _is_counted(descriptor: int, start: int, end: int) -> bool:
    """Whether cachestat(2) has all pages of a piece in the cache.

    It looks at folios, mincore(2) at pages, which takes 30 times as long. False also where it cannot tell: before
    Linux 6.5, and on overlayfs, whose pages are those of another file.
    """
    span, found = (ctypes.c_uint64 * 2)(start, end - start), (ctypes.c_uint64 * 5)()
    done = ctypes.CDLL(None).syscall(_CACHESTAT, ctypes.c_int(descriptor), span, found, ctypes.c_uint(0))
    return bool(done == 0 and found[0] >= -(-(end - start) // mmap.PAGESIZE))


def read(path: str, pieces: Sequence[Piece]) -> None:
    """Have the pieces in the cache. Raises OSError.

    Through a mapping that asks for huge pages the kernel reads into large folios, where it and the file system know
    them (Linux 5.18; xfs, ext4 since 6.16): half again as fast as by read(2) with readahead, with a thirtieth of the
    processor's time, and whoever reads the file later copies large pieces. Elsewhere it is read(2).
    """
    with _opened(path) as descriptor:
        size = os.fstat(descriptor).st_size
        if size < _WORTH_MAPPING or _kernel() < _LARGE_FOLIOS:
            _read_plainly(descriptor, pieces)
            return
        with _Mapping(descriptor, size) as area:
            left = _populate(area, pieces)
        _read_plainly(descriptor, left)


def _kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(itertools.takewhile(str.isdigit, minor)))


def _populate(area: _Mapping, pieces: Sequence[Piece]) -> list[Piece]:
    """Returns the pieces that the kernel did not take."""
    if not area.advise(0, area.size, mmap.MADV_HUGEPAGE):
        return list(pieces)
    coming = iter(pieces)
    lock = threading.Lock()
    refused: list[Piece] = []

    def work() -> None:
        while True:
            with lock:
                piece = None if refused else next(coming, None)
            if piece is None:
                return
            start, end = piece
            if not area.advise(start, end - start, _MADV_POPULATE_READ):
                refused.append(piece)
            # The cache keeps them; mapped, they would count as memory of this process.
            area.advise(start, end - start, mmap.MADV_DONTNEED)

    threads = [threading.Thread(target=work) for _number in range(min(_READERS, len(pieces)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [*refused, *coming]


def _read_plainly(descriptor: int, pieces: Sequence[Piece]) -> None:
    buffer = memoryview(bytearray(PIECE)) if pieces else memoryview(b"")
    for start, end in pieces:
        os.posix_fadvise(descriptor, end, PIECE, os.POSIX_FADV_WILLNEED)
        while start < end:
            count = os.preadv(descriptor, [buffer[: end - start]], start)
            if count == 0:
                break
            start += count


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class _Mapping:
    """A file's bytes in memory, only to be read. Python's mmap gives no address of those, and holds its lock."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.size = size
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        number, flags = ctypes.c_int, ctypes.c_int(mmap.MAP_PRIVATE)
        address = self._libc.mmap(
            None, ctypes.c_size_t(size), number(mmap.PROT_READ), flags, number(descriptor), ctypes.c_int64(0)
        )
        if address in (None, ctypes.c_void_p(-1).value):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        self._address = int(address)

    def __enter__(self) -> _Mapping:
        return self

    def __exit__(self, *_unused: object) -> None:
        self._libc.munmap(ctypes.c_void_p(self._address), ctypes.c_size_t(self.size))

    def advise(self, start: int, length: int, advice: int) -> bool:
        """Whether the kernel took it; ``start`` is a multiple of the page size."""
        return bool(
            self._libc.madvise(ctypes.c_void_p(self._address + start), ctypes.c_size_t(length), ctypes.c_int(advice))
            == 0
        )

    def is_resident(self, start: int, end: int) -> bool:
        """Whether all pages of a piece are in the cache; False where that cannot be told."""
        flags = (ctypes.c_ubyte * (-(-(end - start) // mmap.PAGESIZE)))()
        done = self._libc.mincore(ctypes.c_void_p(self._address + start), ctypes.c_size_t(end - start), flags)
        pages = bytes(flags)
        # Only the lowest bit means something; the others are not set as yet.
        return bool(done == 0 and (pages.count(1) == len(pages) or all(page & 1 for page in pages)))
