# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tar of an archive that is written, and how much of it is there already.

Its bytes depend on the members alone (order, names and sizes; no times, no owners). So what a run that was killed left
is compared with what there should be, and gone on with at the very byte.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Callable

BLOCK = 512
END = bytes(2 * BLOCK)


@dataclass(frozen=True)
class Item:
    """A member of the archive: its name, ``size`` in bytes and ``digest``; ``data`` where it is small and at hand."""

    name: str
    size: int
    digest: str
    data: bytes | None = None

    @classmethod
    def of(cls, name: str, data: bytes) -> Item:
        """A member with these bytes."""
        return cls(name, len(data), "sha256:" + hashlib.sha256(data).hexdigest(), data)

    def header(self) -> bytes:
        """Its tar header: ustar, with a pax record for the size from 8 GiB on."""
        found = tarfile.TarInfo(self.name)
        found.size, found.mode = self.size, 0o600
        return found.tobuf(tarfile.PAX_FORMAT)


#: The bytes of a member from an offset on; verified by the reader when that is 0.
Read = Callable[[Item, int], Iterable[bytes]]


class StaleError(Exception):
    """What was there is not what it should be, as its digest told in the end: to be written anew."""


def tar_size(items: Sequence[Item]) -> int:
    """Bytes of the tar."""
    return sum(len(item.header()) + item.size + -item.size % BLOCK for item in items) + len(END)


class Progress:
    """How far the bytes seen so far are those of the tar: ``kept`` whole members, ``size`` bytes in all."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items
        self._header = b""
        self._inside = 0
        self._hasher = hashlib.sha256()
        self.kept = 0
        self.size = 0
        self._begin()

    def copy(self) -> Progress:
        """The same state, for when what comes next proves not to count."""
        made = Progress(self._items)
        made.__dict__.update(self.__dict__)
        made._hasher = self._hasher.copy()
        return made

    def take(self, chunk: bytes) -> bool:
        """Go on with these bytes; False, with the state spoilt, when they are not those of the tar."""
        view = memoryview(chunk)
        while view:
            piece = view[: self._room()]
            if not piece or not self._fits(piece):
                return False
            view = view[len(piece) :]
            self._inside += len(piece)
            self.size += len(piece)
            if self.kept < len(self._items) and not self._finish():
                return False
        return True

    def rest(self, read: Read) -> Generator[bytes, None, None]:
        """The bytes of the tar that lack. Raises what ``read`` does, and StaleError."""
        if self.kept == len(self._items):
            yield END[self._inside :]
            return
        yield from self._rest_of(self._items[self.kept], read)
        for item in self._items[self.kept + 1 :]:
            yield item.header()
            yield from read(item, 0) if item.data is None else (item.data,)
            yield bytes(-item.size % BLOCK)
        yield END

    def _begin(self) -> None:
        self._inside = 0
        self._hasher = hashlib.sha256()
        self._header = self._items[self.kept].header() if self.kept < len(self._items) else b""

    def _room(self) -> int:
        """Bytes until the part (header, content, padding or end) that comes next ends."""
        if self.kept == len(self._items):
            return len(END) - self._inside
        size = self._items[self.kept].size
        edges = (len(self._header), len(self._header) + size, len(self._header) + size + -size % BLOCK)
        return next(edge - self._inside for edge in edges if edge > self._inside)

    def _fits(self, piece: memoryview) -> bool:
        if self._inside < len(self._header):
            return self._header.startswith(bytes(piece), self._inside)
        if self.kept < len(self._items) and self._inside < len(self._header) + self._items[self.kept].size:
            self._hasher.update(piece)
            return True
        return bytes(piece).count(0) == len(piece)

    def _finish(self) -> bool:
        """Go to the next member where this one ends; False when it has another digest."""
        item = self._items[self.kept]
        if self._inside < len(self._header) + item.size + -item.size % BLOCK:
            return True
        if "sha256:" + self._hasher.hexdigest() != item.digest:
            return False
        self.kept += 1
        self._begin()
        return True

    def _rest_of(self, item: Item, read: Read) -> Iterator[bytes]:
        head = len(self._header)
        yield self._header[self._inside :]
        at = max(0, self._inside - head)
        padding = -item.size % BLOCK - max(0, at - item.size)
        at = min(at, item.size)
        if item.data is not None:
            yield item.data[at:]
        elif not at:
            yield from read(item, 0)
        else:
            if at < item.size:
                yield from self._continued(read(item, at))
            if "sha256:" + self._hasher.hexdigest() != item.digest:
                raise StaleError(item.name)
        yield bytes(padding)

    def _continued(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._hasher.update(chunk)
            yield chunk
