# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tar of an archive that is written.

Its bytes depend on the members alone: their order, names and contents; no times, no owners.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Callable

BLOCK = 512
END = bytes(2 * BLOCK)


@dataclass(frozen=True)
class Item:
    """A member of the archive."""

    name: str
    #: Bytes.
    size: int
    #: ``sha256:`` and 64 hexadecimal digits.
    digest: str
    #: Its bytes where they are few and at hand.
    data: bytes | None = None

    @classmethod
    def from_bytes(cls, name: str, data: bytes) -> Item:
        """A member with these bytes."""
        return cls(name, len(data), "sha256:" + hashlib.sha256(data).hexdigest(), data)

    def header(self) -> bytes:
        """Its tar header: ustar, with a pax record for the size from 8 GiB on."""
        found = tarfile.TarInfo(self.name)
        found.size, found.mode = self.size, 0o600
        return found.tobuf(tarfile.PAX_FORMAT)


#: The bytes of a member that has no ``data``, verified by the reader.
Read = Callable[[Item], Iterable[bytes]]


def tar_size(items: Sequence[Item]) -> int:
    """Bytes of the tar."""
    return sum(len(item.header()) + item.size + -item.size % BLOCK for item in items) + len(END)


def tar_chunks(items: Sequence[Item], read: Read) -> Generator[bytes, None, None]:
    """The bytes of the tar. Raises what ``read`` does."""
    for item in items:
        yield item.header()
        yield from read(item) if item.data is None else (item.data,)
        yield bytes(-item.size % BLOCK)
    yield END
