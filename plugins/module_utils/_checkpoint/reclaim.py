# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A dump gives its disk back while the daemon packs it, so that its memory is on the disk once and not twice.

The daemon reads the files in the order of their names, and what its tar has so far was read. So large files get holes
as far as the tar surely has them; when it is complete, its own headers show whether each hole came after its bytes.
Facts: tar(5), fallocate(2); containerd, archive/tar.go (names in order, one file after another, each header with at
most one pax header before it).
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from .._containerd import content
from .._containerd.client import Client
from .._core.errors import NodeError, RestoreError
from .._oci.image import Descriptor

#: Bytes of a file that is worth it.
LEAST = 64 << 20
#: Seconds between two looks at how far the daemon is.
_PAUSE = 0.1
#: What comes before a file's bytes in a tar, at the most: its header, and a pax header with its records.
_HEADERS = 8192
_BLOCK = 512
_PAGE = 4096
#: Bytes that are read of a tar at once to get at its headers.
_WINDOW = 64 << 10
#: linux/falloc.h: keep the size, punch a hole.
_PUNCH = 0x01 | 0x02


@dataclass
class _File:
    """A large file of the dump."""

    name: str
    size: int
    #: Where in the tar its bytes begin at the latest.
    begins: int
    #: Bytes from its begin on that are a hole by now.
    freed: int = 0


class Reclaim:
    """The large files of a flat directory, which get holes from their begin on."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._files = list(_large(directory))

    @contextlib.contextmanager
    def during(self, client: Client, ref: str) -> Iterator[None]:
        """While the block lasts, free what the write ``ref`` of the daemon has packed. Where that cannot be done
        nothing is freed."""
        if not self._files:
            yield
            return
        over = threading.Event()
        thread = threading.Thread(target=self._follow, args=(client, ref, over), name="reclaim", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def require_packed(self, client: Client, tar: Descriptor) -> None:
        """Raise NodeError ``dump_freed_too_early`` unless the tar had all bytes before they were freed."""
        freed = {file.name: file for file in self._files if file.freed}
        if not freed:
            return
        with tarfile.open(fileobj=io.BufferedReader(_Blob(client, tar), _WINDOW), mode="r:") as archive:
            for member in archive:
                file = freed.get(member.name.removeprefix("./"))
                if file is not None and member.offset_data <= file.begins and member.size == file.size:
                    del freed[file.name]
        if freed:
            raise NodeError(
                "dump_freed_too_early",
                f"containerd has packed {', '.join(sorted(freed))} of the dump in {self._directory} elsewhere in its "
                "tar than where this collection frees the disk behind it, so the checkpoint may lack memory.",
                "Set keep_staged: true, with which nothing of a dump is freed, and tell the maintainers which differ "
                "this containerd has.",
            )

    def _follow(self, client: Client, ref: str, over: threading.Event) -> None:
        # Whatever goes wrong here, the dump is only larger.
        with contextlib.suppress(RestoreError, OSError), client.another() as own, contextlib.ExitStack() as stack:
            opened = [(file, stack.enter_context(_opened(self._directory, file.name))) for file in self._files]
            while not over.wait(_PAUSE):
                packed = content.ingested(own, ref) or 0
                for file, descriptor in opened:
                    end = min(file.size, packed - file.begins) // _PAGE * _PAGE
                    if end > file.freed:
                        # Noted first: what fails half-way has to be looked at, too.
                        begin, file.freed = file.freed, end
                        punch(descriptor, begin, end - begin)


def works_in(directory: str) -> bool:
    """Whether the file system of a directory, which may not be there yet, can free a part of a file."""
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    try:
        with tempfile.TemporaryFile(dir=directory) as stream:
            stream.write(bytes(_PAGE))
            stream.flush()
            punch(stream.fileno(), 0, _PAGE)
    except OSError:
        return False
    return True


def punch(descriptor: int, offset: int, size: int) -> None:
    """Make a hole in a file, which keeps its size. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(descriptor, _PUNCH, ctypes.c_int64(offset), ctypes.c_int64(size)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _large(directory: str) -> Iterator[_File]:
    # The entry of the directory itself comes first.
    begins = _HEADERS
    for name in sorted(os.listdir(directory)):
        size = os.lstat(os.path.join(directory, name)).st_size
        begins += _HEADERS
        if size >= LEAST:
            yield _File(name, size, begins)
        begins += size + -size % _BLOCK


@contextlib.contextmanager
def _opened(directory: str, name: str) -> Iterator[int]:
    descriptor = os.open(os.path.join(directory, name), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class _Blob(io.RawIOBase):
    """A blob of the content store to read here and there."""

    def __init__(self, client: Client, blob: Descriptor) -> None:
        self._client, self._blob, self._at = client, blob, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go there."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._blob.size}[whence]
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """As much as fits into the buffer."""
        size = min(len(buffer), max(0, self._blob.size - self._at))
        data = content.read_at(self._client, self._blob.digest, self._at, size) if size else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
