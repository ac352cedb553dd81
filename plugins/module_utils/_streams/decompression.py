# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compressed byte streams in bounded memory: told by their first bytes, decompressed as far as they may expand."""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

from .._core.errors import InputError
from . import zstd
from .streams import CHUNK

_SLICE = 1 << 16  # zlib copies what it could not use yet, so it gets small slices
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_PEEK = 512


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
