# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The file that an image archive is: its members by name, without unpacking it.

A plain tar is read by position: the scan touches headers only, and each member is found by its offset. A
compressed one is decompressed from the start for each pass: one for the scan (which keeps small JSON
members), one for the blobs, and more only for JSON beyond what was kept.
"""

from __future__ import annotations

import os
import posixpath
import stat as stat_module
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from .._core.errors import InputError
from .._streams.decompression import Expansion, compression, decompressed
from .._streams.streams import ChunkSource, FileSource, file_chunks
from .._streams.tar_reader import DIRECTORY, FILE, HARDLINK, Limits, Member, members

_HEAD = 8
_KEEP_EACH = 4 << 20
_KEEP_ALL = 32 << 20
_READ_ALL = 32 << 20  # documents of one level: they are in memory together
_OUTER_CODES = {"tar_not_a_tar": "archive_unreadable", "expansion_limit": "archive_bomb"}


@dataclass(frozen=True)
class Entry:
    """A regular member."""

    #: Bytes.
    size: int
    #: Its first bytes.
    head: bytes
    #: Where its data begins; only in a plain tar.
    offset: int


class ArchiveFile:
    """An opened archive. ``entries``: name -> Entry; names of links stand for the member they lead to.

    Raises InputError: ``archive_missing``, ``archive_unreadable`` (no tar), ``archive_link`` (a link that
    does not lead to a regular member), ``archive_bomb``, and what ``_streams.tar_reader.members`` and
    ``_streams.decompression.decompressed`` raise; NodeError ``zstd_missing``.
    """

    def __init__(self, path: str, limits: Limits, expansion: Expansion, zstd_program: str | None) -> None:
        self.path = path
        self.what = f"The archive {path}"
        self._limits = limits
        self._expansion = expansion
        self._zstd = zstd_program
        self._kept: dict[str, bytes] = {}
        self._room = _KEEP_ALL
        self._passes: list[Generator[Member, None, None]] = []
        self._fd = self._open()
        try:
            self.compression = compression(os.pread(self._fd, _HEAD, 0))
            self.entries: dict[str, Entry] = {}
            with self._errors():
                self._scan()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file, and end what an unfinished pass still runs; afterwards nothing can be read."""
        for found in self._passes:
            found.close()
        self._passes.clear()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO must not block us
        except OSError as error:
            raise InputError(
                "archive_missing",
                f"{self.what} cannot be opened: {error.strerror}.",
                "Check the path on the node, and that the archive was copied there.",
            ) from error
        if not stat_module.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise InputError(
                "archive_unreadable",
                f"{self.what} is not a regular file.",
                "Give the path of an image archive.",
            )
        return descriptor

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            if error.code in _OUTER_CODES:
                code, remedy = _OUTER_CODES[error.code], error.remedy
                raise InputError(code, error.message, remedy, details=error.details) from error
            raise
        except OSError as error:
            raise InputError(
                "archive_unreadable",
                f"{self.what} cannot be read: {error.strerror}.",
                "Check the file system that it lies on, and copy it again.",
            ) from error

    def _members(self) -> Generator[Member, None, None]:
        if self.compression == "none":
            yield from members(FileSource(self._fd), self._limits, self.what)
            return
        stream = decompressed(file_chunks(self._fd), expansion=self._expansion, what=self.what, zstd_program=self._zstd)
        with closing(stream):
            yield from members(ChunkSource(stream), self._limits, self.what)

    def _scan(self) -> None:
        links: dict[str, str] = {}
        with closing(self._members()) as found:
            for member in found:
                if member.kind == FILE:
                    self.entries[member.name] = Entry(member.size, self._head(member), member.offset)
                elif member.kind != DIRECTORY:
                    # A hard link names a member, a symbolic link starts at its own directory.
                    base = "" if member.kind == HARDLINK else posixpath.dirname(member.name)
                    links[member.name] = posixpath.normpath(posixpath.join(base, member.link))
        self._alias: dict[str, str] = {}
        for name, target in links.items():
            if target not in self.entries:
                raise InputError(
                    "archive_link",
                    f"{self.what} is refused: {name!r} is a link to {target!r}, which is not a file in it.",
                    "Export the image again; an archive needs no links to anything outside of it.",
                )
            self._alias[name] = target
        self.entries.update((name, self.entries[target]) for name, target in self._alias.items())

    def _head(self, member: Member) -> bytes:
        """The first bytes of a member; in a stream, JSON that is small enough is kept."""
        if self.compression == "none":
            return os.pread(self._fd, min(_HEAD, member.size), member.offset)
        data = b""
        chunks = member.data()
        for chunk in chunks:
            data += chunk
            if len(data) >= _HEAD:
                break
        if data[:1] in (b"{", b"[") and member.size <= min(self._room, _KEEP_EACH):
            self._kept[member.name] = data + b"".join(chunks)
            self._room -= member.size
        return data[:_HEAD]

    def real(self, name: str) -> str:
        """The name of the regular member that ``name`` stands for."""
        return self._alias.get(name, name)

    def read(self, names: Iterable[str], limit: int) -> dict[str, bytes]:
        """Small members whole, in one pass.

        InputError ``manifest_too_large`` for one above ``limit`` bytes, or for 32 MiB of them.
        """
        wanted = {self.real(name): name for name in names}
        result: dict[str, bytes] = {}
        total = 0
        for real, name in wanted.items():
            total += self.entries[real].size
            if self.entries[real].size > limit or total > _READ_ALL:
                raise InputError(
                    "manifest_too_large",
                    f"{self.what} is refused: {name!r} and what else should be small documents have {total} bytes.",
                    "Export the image again with a tool you trust.",
                )
            if real in self._kept:
                result[name] = self._kept[real]
        rest = {real for real, name in wanted.items() if name not in result}
        for real, chunks in self.stream(rest):
            result[wanted[real]] = b"".join(chunks)
        return result

    def stream(self, names: Iterable[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
        """The content of members, in the order of the archive, each to be read before the next is asked for.

        What is not read is passed over. A link is given under the name of what it leads to.
        """
        wanted = {self.real(name) for name in names}
        if self.compression == "none":
            for name in sorted(wanted, key=lambda item: self.entries[item].offset):
                entry = self.entries[name]
                yield name, self._guarded(file_chunks(self._fd, entry.offset, entry.size))
            return
        if not wanted:
            return
        with self._errors(), closing(self._members()) as found:
            self._passes.append(found)
            for member in found:
                if member.name in wanted:
                    yield member.name, self._guarded(member.data())
                    wanted.remove(member.name)
                    if not wanted:
                        return

    def _guarded(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        with self._errors():
            yield from chunks
