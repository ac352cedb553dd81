# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Byte streams in bounded memory: verify, read, find what is nothing but zeros.

A stream is an iterator of ``bytes`` chunks; its peak memory is a few chunks, whatever its length.
"""

from __future__ import annotations

import hashlib
import os
import queue
import sys
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from typing import Protocol

from .._core.errors import InputError
from .._core.text import check_digest

CHUNK = 1 << 20
_THREAD_FROM = 4 << 20  # below that, starting a thread costs more than it overlaps
_QUEUED_CHUNKS = 4
_HOLE = 1 << 16  # runs of zeros become holes in this unit: small enough to find, big enough not to fragment
_ZEROS = bytes(_HOLE)


class Hasher:
    """sha256 in a thread of its own: hashlib releases the GIL, so hashing overlaps reading and writing."""

    def __init__(self, threaded: bool = True) -> None:
        self._hash = hashlib.sha256()
        self._queue: queue.Queue[bytes | None] = queue.Queue(_QUEUED_CHUNKS)
        self._thread: threading.Thread | None = None
        self._abandoned = False
        if threaded:
            self._thread = threading.Thread(target=self._work, name="sha256", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        chunk = self._queue.get()
        while chunk is not None and not self._abandoned:
            self._hash.update(chunk)
            chunk = self._queue.get()

    def update(self, chunk: bytes) -> None:
        """Add these bytes."""
        if self._thread is None:
            self._hash.update(chunk)
        else:
            self._queue.put(chunk)

    def close(self) -> str:
        """Wait for what is queued; the hex digest of everything given."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        return self._hash.hexdigest()

    def abandon(self) -> None:
        """Nobody wants the digest. Never waits: at the end of the process the thread does not run any more."""
        self._abandoned = True
        if self._thread is not None and not sys.is_finalizing():
            # In a full queue the thread finds something, and then that it was abandoned.
            with suppress(queue.Full):
                self._queue.put_nowait(None)


def verified(chunks: Iterable[bytes], *, digest: str, size: int, what: str) -> Generator[bytes, None, None]:
    """Pass ``chunks`` through and verify them; nothing may be trusted before the iterator is exhausted.

    Raises InputError ``size_mismatch`` as soon as there are more bytes than ``size`` or, at the end, fewer;
    ``digest_mismatch`` at the end.
    """
    check_digest(digest, what)
    seen = 0
    hasher = Hasher(size >= _THREAD_FROM)
    try:
        for chunk in chunks:
            seen += len(chunk)
            if seen > size:
                break
            hasher.update(chunk)
            yield chunk
    except BaseException:
        # Also where it is not read to its end, as when the daemon has the blob already.
        hasher.abandon()
        raise
    actual = "sha256:" + hasher.close()
    if seen != size:
        count = "more" if seen > size else f"only {seen}"
        raise InputError(
            "size_mismatch",
            f"{what} has {count} bytes where {size} were declared.",
            "Transfer or create it again: it is incomplete or not what its descriptor says.",
            details={"expected": size, "actual": seen},
        )
    if actual != digest:
        raise InputError(
            "digest_mismatch",
            f"{what} has the digest {actual}, not {digest}.",
            "Transfer or create it again: its content is damaged or was replaced.",
            details={"expected": digest, "actual": actual},
        )


class Source(Protocol):
    """What the tar reader reads from. All three return less than asked for only at the end of the data."""

    @property
    def position(self) -> int:
        """Bytes behind us."""

    def read(self, count: int) -> bytes:
        """``count`` bytes as one object: for headers, not for content."""

    def take(self, count: int) -> Iterator[bytes]:
        """``count`` bytes in pieces, copied only at the edges of chunks."""

    def skip(self, count: int) -> int:
        """Pass over ``count`` bytes; how many there were."""


class ChunkSource:
    """A Source over a stream of chunks, read once and forwards."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._chunk = b""
        self._at = 0
        self.position = 0

    def take(self, count: int) -> Iterator[bytes]:
        while count > 0:
            if self._at >= len(self._chunk):
                chunk = next(self._chunks, None)
                if chunk is None:
                    return
                self._chunk, self._at = chunk, 0
                continue
            end = min(len(self._chunk), self._at + count)
            piece = self._chunk[self._at : end]  # the whole chunk is not copied
            self._at = end
            self.position += len(piece)
            count -= len(piece)
            yield piece

    def read(self, count: int) -> bytes:
        return b"".join(self.take(count))

    def skip(self, count: int) -> int:
        return sum(map(len, self.take(count)))


class FileSource:
    """A Source over a regular file, where skipping is free. The descriptor stays the caller's."""

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor
        self._size = os.fstat(descriptor).st_size
        self.position = 0

    def take(self, count: int) -> Iterator[bytes]:
        for piece in file_chunks(self._fd, self.position, count):
            self.position += len(piece)
            yield piece

    def read(self, count: int) -> bytes:
        return b"".join(self.take(count))

    def skip(self, count: int) -> int:
        step = max(0, min(count, self._size - self.position))
        self.position += step
        return step


def file_chunks(descriptor: int, start: int = 0, count: int | None = None) -> Iterator[bytes]:
    """The bytes of an open file from ``start``, ``count`` of them or all, without moving its offset."""
    at = start
    end = None if count is None else start + count
    while end is None or at < end:
        piece = os.pread(descriptor, CHUNK if end is None else min(CHUNK, end - at), at)
        if not piece:
            return
        at += len(piece)
        yield piece


def solid(piece: bytes, at: int) -> Iterator[tuple[int, int]]:
    """The ranges of ``piece``, which begins at file offset ``at``, that are not whole aligned units of
    zeros.
    """
    first = -at % _HOLE
    probes = piece[first::_HOLE]
    start = 0
    index = probes.find(0)  # a byte of every unit tells for nearly all that they are not zeros
    while index >= 0:
        begin = first + index * _HOLE
        end = begin + _HOLE
        if _ZEROS.startswith(memoryview(piece)[begin:end]):  # the last unit may be cut short
            if begin > start:
                yield start, begin
            start = end
        index = probes.find(0, index + 1)
    if start < len(piece):
        yield start, len(piece)
