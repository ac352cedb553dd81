# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Is a file the whole archive of a certain checkpoint?

The record beside it tells without reading it. Where there is none, as with archives of earlier versions and of other
tools, or where it does not fit, the file is read through and every member compared.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from contextlib import closing

from .._core.errors import RestoreError
from .._streams.decompression import Expansion, compression, decompressed
from .._streams.streams import ChunkSource, FileSource, Source, file_chunks
from .._streams.tar_reader import Limits, members
from . import reader, record as archive_record
from .compression import NONE
from .record import Record
from .tar_writer import Item, tar_size


def kind(path: str) -> str:
    """How the file is compressed. Raises OSError."""
    with open(path, "rb") as stream:
        return compression(stream.read(8))


def find_export(path: str, checkpoint: str, items: Sequence[Item]) -> Record | None:
    """The record that fits a file which is what an export of these members gives; None for any other file.

    Where this is not the record that lies there, :func:`archive_record.write` spares the next run the reading.
    Raises OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        stat = os.fstat(descriptor)
        known = archive_record.read(path)
        if known is not None and known.members == archive_record.members_digest(items):
            if known.matches(stat):
                return known
            if known.size == stat.st_size:
                found = archive_record.measure(descriptor, checkpoint, items)
                if found.digest == known.digest:
                    return found
        if not _has_members(descriptor, items, path):
            return None
        return archive_record.measure(descriptor, checkpoint, items)
    finally:
        os.close(descriptor)


def holds(path: str, digest: str) -> bool:
    """Whether an archive of anybody's holds the image whole. This reads it through. Raises OSError."""
    try:
        with reader.open_archive(path) as archive:
            for image in archive.images:
                if image.descriptor.digest == digest:
                    for _descriptor, chunks in archive.blobs(image):
                        for _chunk in chunks:
                            continue  # verified at its end
                    return True
    except RestoreError:
        return False
    return False


def _has_members(descriptor: int, items: Sequence[Item], what: str) -> bool:
    """Whether the file is a tar of just these members, each with its bytes, in this order."""
    found = compression(os.pread(descriptor, 8, 0))
    try:
        if found == NONE:
            return _compare(FileSource(descriptor), items, what)
        # How large it should be is known, so zeros may be packed as tightly as they can.
        bound = Expansion(tar_size(items), max_ratio=sys.maxsize)
        with closing(decompressed(file_chunks(descriptor), expansion=bound, what=what)) as stream:
            return _compare(ChunkSource(stream), items, what)
    except RestoreError:
        return False  # damaged, or no tar at all


def _compare(source: Source, items: Sequence[Item], what: str) -> bool:
    expected = iter(items)
    for member in members(source, Limits(), what):
        item = next(expected, None)
        if item is None or (item.name, item.size) != (member.name, member.size):
            return False
        hasher = hashlib.sha256()
        for chunk in member.data():
            hasher.update(chunk)
        if "sha256:" + hasher.hexdigest() != item.digest:
            return False
    return next(expected, None) is None and source.position == tar_size(items)
