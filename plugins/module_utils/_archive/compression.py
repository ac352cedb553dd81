# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A tar goes into a file plain, with gzip or with zstd, in parts that can be gone on behind.

A compressed file is a row of independent parts, gzip members or zstd frames, which every reader takes as one stream.
So a file that was cut off is whole up to the last part that is. Whether all of them are there is told without
decompressing: an empty gzip member at the end has the sizes of tar and file in its extra field (RFC 1952, 2.3.1.1),
and each zstd frame names its own sizes (RFC 8878, 3.1.1).
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import IO

from .._core.errors import InputError, NodeError
from .._streams import zstd
from .._streams.streams import CHUNK, ChunkSource, file_chunks
from .tar_writer import Item, Progress

NONE, GZIP, ZSTD = "none", "gzip", "zstd"
#: Bytes of the tar in a part: what an interrupted run may have done in vain.
SEGMENT = 256 << 20
#: Memory images are large: the fast level takes a third of the default's time for a few per cent more bytes.
_GZIP_LEVEL = 1
_SLICE = 1 << 16
_ZSTD_MAGIC = 0xFD2FB528
_SKIPPABLE = 0x184D2A50
# FEXTRA set, no name, no time; one subfield "GR" of 16 bytes. Behind it: an empty deflate stream, its CRC and length.
_TRAILER_HEAD = bytes.fromhex("1f8b 08 04 00000000 00 ff 1400") + b"GR" + bytes.fromhex("1000")
_TRAILER_TAIL = bytes.fromhex("0300 00000000 00000000")
_TRAILER = len(_TRAILER_HEAD) + 16 + len(_TRAILER_TAIL)


def gzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """A gzip stream without name and time: the same bytes give the same stream."""
    engine = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    for chunk in chunks:
        piece = engine.compress(chunk)
        if piece:
            yield piece
    yield engine.flush()


def append(descriptor: int, chunks: Iterable[bytes], compression: str, left: int, size: int) -> None:
    """Write the last ``left`` bytes of a tar of ``size`` bytes at the file's offset. Raises OSError, NodeError."""
    if compression == NONE:
        for chunk in chunks:
            _write_all(descriptor, chunk)
        return
    source = ChunkSource(chunks)
    while left > 0:
        count = min(SEGMENT, left)
        if compression == GZIP:
            for piece in gzipped(source.take(count)):
                _write_all(descriptor, piece)
        else:
            _zstd_frame(descriptor, source.take(count), count)
        left -= count
    if compression == GZIP:
        _write_all(descriptor, _trailer(size, os.lseek(descriptor, 0, os.SEEK_CUR)))


def is_whole(descriptor: int, compression: str, size: int) -> bool:
    """Whether a compressed file holds a tar of ``size`` bytes to its end, told without decompressing it."""
    length = os.fstat(descriptor).st_size
    if compression == GZIP:
        return os.pread(descriptor, _TRAILER, max(0, length - _TRAILER)) == _trailer(size, length - _TRAILER)
    frames = list(_frames(descriptor, length))
    total = sum(content for _end, content in frames if content is not None)
    return bool(frames) and frames[-1][0] == length and total == size


def found(descriptor: int, compression: str, items: Sequence[Item]) -> tuple[Progress, int]:
    """What of the tar the file has already, and the bytes of the file that hold it; nothing where it is another's."""
    reader: Callable[[int], Iterator[tuple[bytes, int]]] = {NONE: _plain, GZIP: _gzip_parts, ZSTD: _zstd_parts}[
        compression
    ]
    now, whole, end = Progress(items), Progress(items), 0
    try:
        for piece, edge in reader(descriptor):
            if not now.take(piece):
                return Progress(items), 0
            if edge:
                whole, end = now.copy(), edge
    except InputError:
        return Progress(items), 0  # damaged in a place that should have been whole
    return whole, end


def _plain(descriptor: int) -> Iterator[tuple[bytes, int]]:
    edge = 0
    for piece in file_chunks(descriptor):
        edge += len(piece)
        yield piece, edge


def _gzip_parts(descriptor: int) -> Iterator[tuple[bytes, int]]:
    """What is in the members; with the last bytes of each that is whole, where it ends in the file."""
    at = 0
    while True:
        engine = zlib.decompressobj(16 + zlib.MAX_WBITS)
        slices = _slices(file_chunks(descriptor, at))
        held, piece, content = b"", b"", 0
        while not engine.eof:
            data = held or next(slices, b"")
            at += 0 if held else len(data)
            try:
                piece = engine.decompress(data, CHUNK)
            except zlib.error:
                return
            if not data:
                return
            held = engine.unconsumed_tail
            content += len(piece)
            if not engine.eof:
                yield piece, 0
        at -= len(engine.unused_data)
        if not content:
            return  # the end of a whole file, which is written again
        yield piece, at


def _slices(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), _SLICE):
            yield chunk[start : start + _SLICE]


def _zstd_parts(descriptor: int) -> Iterator[tuple[bytes, int]]:
    end = max((end for end, _content in _frames(descriptor, os.fstat(descriptor).st_size)), default=0)
    if not end:
        return
    stream = zstd.decompress(file_chunks(descriptor, 0, end), "The archive that was begun")
    with closing(stream):
        for piece in stream:
            yield piece, 0
    yield b"", end


def _trailer(size: int, offset: int) -> bytes:
    return _TRAILER_HEAD + size.to_bytes(8, "little") + max(0, offset).to_bytes(8, "little") + _TRAILER_TAIL


def _frames(descriptor: int, length: int) -> Iterator[tuple[int, int | None]]:
    """Where each whole zstd frame ends, and the bytes in it where it tells them."""
    at = 0
    while at < length:
        frame = _frame(descriptor, at)
        if frame is None or frame[0] > length:
            return
        yield frame
        at = frame[0]


def _frame(descriptor: int, at: int) -> tuple[int, int | None] | None:
    """The frame that begins at ``at``; None when it is none or has no end."""
    head = os.pread(descriptor, 18, at)
    if len(head) < 9:
        return None
    magic = int.from_bytes(head[:4], "little")
    if magic & 0xFFFFFFF0 == _SKIPPABLE:
        return at + 8 + int.from_bytes(head[4:8], "little"), 0
    if magic != _ZSTD_MAGIC:
        return None
    flags = head[4]
    single = flags >> 5 & 1
    width = (single, 2, 4, 8)[flags >> 6]
    begin = 5 + (0 if single else 1) + (0, 1, 2, 4)[flags & 3]
    content = int.from_bytes(head[begin : begin + width], "little") + (256 if width == 2 else 0) if width else None
    at += begin + width
    last = False
    while not last:
        header = os.pread(descriptor, 3, at)
        if len(header) < 3:
            return None
        value = int.from_bytes(header, "little")
        last = bool(value & 1)
        # A run of one byte takes one byte in the file, whatever its length.
        at += 3 + (1 if value >> 1 & 3 == 1 else value >> 3)
    return at + (4 if flags >> 2 & 1 else 0), content


def _zstd_frame(descriptor: int, chunks: Iterable[bytes], size: int) -> None:
    """Through the ``zstd`` program, which writes into the file itself."""
    program = shutil.which("zstd")
    if program is None:
        raise NodeError(
            "zstd_missing",
            "The archive is to be compressed with zstd, and this node has no zstd program.",
            "Install zstd on the node, or set compression to gzip or none.",
        )
    # With its size announced, the frame names it.
    command = [program, "-q", "-c", "-T0", f"--stream-size={size}"]
    process = subprocess.Popen(  # pylint: disable=ansible-bad-function
        command, bufsize=0, stdin=subprocess.PIPE, stdout=descriptor, stderr=subprocess.PIPE
    )
    try:
        _feed(process.stdin, chunks)
        complaint = process.stderr.read(4096) if process.stderr else b""
        status = process.wait()
    finally:
        if process.poll() is None:
            process.kill()
        for pipe in (process.stdin, process.stderr):
            if pipe is not None:
                pipe.close()
        process.wait()
    if status:
        reason = complaint.decode("utf-8", "replace").strip().splitlines()
        text = reason[-1] if reason else f"it ended with status {status}"
        if "no space" in text.lower():
            raise OSError(errno.ENOSPC, text)
        raise NodeError(
            "archive_write_failed",
            f"zstd could not write the archive: {text.strip(' .')}.",
            "Mend that, or set compression to gzip or none.",
        )


def _feed(pipe: IO[bytes] | None, chunks: Iterable[bytes]) -> None:
    if pipe is None:
        raise RuntimeError("zstd was started without a pipe")
    try:
        for chunk in chunks:
            _write_all(pipe.fileno(), chunk)
    except BrokenPipeError:
        # zstd gave up: its exit status and what it said tell why.
        return
    finally:
        pipe.close()


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
