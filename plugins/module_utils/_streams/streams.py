# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Byte streams in bounded memory: verify, decompress, read.

A stream is an iterator of ``bytes`` chunks; its peak memory is a few chunks, whatever its length.
"""

from __future__ import annotations

import hashlib
import os
import queue
import sys
import threading
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Protocol

from .._core.errors import InputError
from .._core.text import check_digest
from . import zstd

CHUNK = 1 << 20
_SLICE = 1 << 16  # zlib copies what it could not use yet, so it gets small slices
_THREAD_FROM = 4 << 20  # below that, starting a thread costs more than it overlaps
_QUEUED_CHUNKS = 4
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_PEEK = 512


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


def compression(head: bytes) -> str:
    """``gzip``, ``zstd`` or ``none``, by the first bytes of a stream."""
    if head.startswith(_GZIP_MAGIC):
        return "gzip"
    return "zstd" if head.startswith(_ZSTD_MAGIC) else "none"


def peek(chunks: Iterable[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes of a stream (up to 512 or a chunk), and the whole stream again."""
    rest = iter(chunks)
    head = b""
    for chunk in rest:
        head += chunk
        if len(head) >= _PEEK:
            break
    return head[:_PEEK], _chained(head, rest)


def _chained(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if head:
        yield head
    yield from rest


@dataclass(frozen=True)
class Expansion:
    """How far a compressed stream may expand."""

    #: Bytes of output; None: no limit.
    max_bytes: int | None = None
    #: Output to input. Deflate cannot exceed 1032, and memory images that are mostly zeros come near it, so the
    #: default binds only zstd.
    max_ratio: int = 1100

    def check(self, read: int, written: int, what: str) -> None:
        """InputError ``expansion_limit`` when ``written`` bytes came out of ``read`` bytes and that is too
        many.
        """
        if self.max_bytes is not None and written > self.max_bytes:
            limit, details = f"{self.max_bytes} bytes", {"max_bytes": self.max_bytes}
        elif written > CHUNK + read * self.max_ratio:
            limit, details = f"{self.max_ratio} times its compressed size", {"max_ratio": self.max_ratio}
        else:
            return
        raise InputError(
            "expansion_limit",
            f"{what} expands to more than {limit}.",
            "Use an archive from a source you trust, or raise the limit if this size is expected.",
            details=details,
        )


def decompressed(
    chunks: Iterable[bytes], *, expansion: Expansion, what: str, zstd_program: str | None = None
) -> Generator[bytes, None, None]:
    """Decompress gzip or zstd, recognised by magic; anything else passes through unchanged.

    Raises InputError ``compression_invalid``, ``compression_truncated``, ``expansion_limit``; NodeError
    ``zstd_missing``.
    """
    head, chunks = peek(chunks)
    kind = compression(head)
    if kind == "none":
        yield from chunks
        return
    meter = _Meter(chunks)
    output = _gunzip(meter, what) if kind == "gzip" else zstd.decompress(meter, what, zstd_program)
    written = 0
    with closing(output):  # an exception's traceback would keep the zstd process alive
        for piece in output:
            written += len(piece)
            expansion.check(meter.count, written, what)
            yield piece


class _Meter:
    """Count the bytes that pass."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self.count = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.count += len(chunk)
            if chunk:  # to the decoders, an empty chunk is the end
                yield chunk


def _slices(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), _SLICE):
            yield chunk[start : start + _SLICE]


def _gunzip(chunks: Iterable[bytes], what: str) -> Generator[bytes, None, None]:
    """All members of a gzip stream; zeros after the last one are padding."""
    slices = _slices(chunks)
    pending = b""
    while True:
        engine = zlib.decompressobj(16 + zlib.MAX_WBITS)
        while not engine.eof:
            data = pending or next(slices, b"")
            if not data:
                raise zstd.truncated(what)
            try:
                piece = engine.decompress(data, CHUNK)
            except zlib.error as error:
                raise zstd.invalid(what, str(error)) from error
            pending = engine.unconsumed_tail
            if piece:
                yield piece
        pending = engine.unused_data
        while len(pending) < len(_GZIP_MAGIC):
            more = next(slices, b"")
            if not more:
                break
            pending += more
        if not pending.startswith(_GZIP_MAGIC):
            break
    while pending:
        if pending.count(0) != len(pending):
            raise zstd.invalid(what, "there is other data behind the gzip stream")
        pending = next(slices, b"")


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
