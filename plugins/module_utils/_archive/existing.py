# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Does an archive hold a certain image already, told without reading it through?.

An archive of ours begins with its index, and whether it is whole is told by the headers of a plain tar, or by what the
parts of a compressed file say of themselves.
"""

from __future__ import annotations

import os
from contextlib import closing

from .._core.errors import RestoreError
from .._streams.streams import ChunkSource, Expansion, FileSource, Source, compression, decompressed, file_chunks
from .._streams.tar_reader import Limits, members
from . import compression as archive_compression, reader
from .compression import NONE
from .tar_writer import Item

_HEAD = 1 << 20


def kind(path: str) -> str:
    """How the file is compressed. Raises OSError."""
    with open(path, "rb") as stream:
        return compression(stream.read(8))


def is_ours(path: str, items: list[Item], size: int) -> bool:
    """Whether the file is what an export of these members gives: ``size`` is that of the tar, in bytes.

    The first two members are compared, of the rest that it is there. Raises OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        packed = compression(os.pread(descriptor, 8, 0))
        try:
            if not _begins_with(descriptor, packed, items[:2], path):
                return False
            if packed == NONE and os.fstat(descriptor).st_size != size:
                return False
            if packed == NONE:
                found = [(item.name, item.size) for item in members(FileSource(descriptor), Limits(), path)]
                return found == [(item.name, item.size) for item in items]
        except RestoreError:
            return False  # damaged: it is written again
        return archive_compression.is_whole(descriptor, packed, size)
    finally:
        os.close(descriptor)


def holds(path: str, digest: str) -> bool:
    """Whether an archive of anybody's holds the image whole; this reads a compressed one through."""
    try:
        with reader.open_archive(path) as archive:
            for image in archive.images:
                if image.descriptor.digest == digest:
                    archive.graph(image)
                    return True
    except RestoreError:
        return False
    return False


def _begins_with(descriptor: int, packed: str, items: list[Item], what: str) -> bool:
    if packed == NONE:
        return _first(FileSource(descriptor), len(items), what) == [(item.name, item.data) for item in items]
    stream = decompressed(file_chunks(descriptor), expansion=Expansion(), what=what)
    with closing(stream):
        return _first(ChunkSource(stream), len(items), what) == [(item.name, item.data) for item in items]


def _first(source: Source, count: int, what: str) -> list[tuple[str, bytes | None]]:
    found: list[tuple[str, bytes | None]] = []
    for member in members(source, Limits(), what):
        if member.size > _HEAD:
            break
        found.append((member.name, b"".join(member.data())))
        if len(found) == count:
            break
    return found
