# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A directory tree as a tar, with all that the tree has of files.

Owners, modes, times, links, named pipes and holes; no sockets, which belong to the processes that listen on them.
Others may write in the tree meanwhile, so each step goes by the descriptor of a directory and follows no link.
"""

from __future__ import annotations

import errno
import os
import stat as stat_module
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from .._core.errors import InputError
from .tar_reader import Limits, safe_name

_BLOCK = 512
#: Pieces of data that one file is kept in; the last one takes the rest of the file.
_MOST_PIECES = 4096
_CHUNK = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class UnfitError(Exception):
    """The tree holds what cannot be kept; the text says what and why."""


@dataclass
class Survey:
    """What there is in a tree."""

    #: Bytes of memory, or of disk.
    bytes: int = 0
    #: Entries, the top not among them.
    entries: int = 0


def survey(top: int, bounds: Limits) -> Survey:
    """Look through the tree below a descriptor. Raises UnfitError for what :func:`write` could not keep, OSError."""
    found = Survey()
    seen: set[tuple[int, int]] = set()
    for _name, _parent, stat in _walk(top, "", bounds, found):
        if (stat.st_dev, stat.st_ino) not in seen:
            found.bytes += stat.st_blocks * 512
        if stat.st_nlink > 1:
            seen.add((stat.st_dev, stat.st_ino))
    return found


def write(top: int, target: int, bounds: Limits) -> None:
    """Write the tree below the descriptor ``top`` into the file ``target``.

    The same tree gives the same bytes. Raises UnfitError and OSError.
    """
    links: dict[tuple[int, int], str] = {}
    for name, parent, stat in _walk(top, "", bounds, Survey()):
        kind = stat_module.S_IFMT(stat.st_mode)
        entry = _entry(name, stat)
        identity = (stat.st_dev, stat.st_ino)
        if kind != stat_module.S_IFDIR and stat.st_nlink > 1 and links.setdefault(identity, name) != name:
            entry.type, entry.linkname = tarfile.LNKTYPE, links[identity]
            _all(target, entry.tobuf(tarfile.PAX_FORMAT))
        elif kind == stat_module.S_IFREG:
            _write_file(parent, entry, target)
        else:
            if kind == stat_module.S_IFLNK:
                entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(os.path.basename(name), dir_fd=parent)
            else:
                entry.type = tarfile.DIRTYPE if kind == stat_module.S_IFDIR else tarfile.FIFOTYPE
            _all(target, entry.tobuf(tarfile.PAX_FORMAT))
    _all(target, bytes(2 * _BLOCK))


def _walk(top: int, above: str, bounds: Limits, found: Survey) -> Iterator[tuple[str, int, os.stat_result]]:
    """Name, directory and status of each entry, directories before what is in them, in the order of names."""
    # Read whole: an iterator over a descriptor would share its position.
    with os.scandir(top) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        try:
            stat = os.stat(name, dir_fd=top, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat_module.S_ISSOCK(stat.st_mode):
            continue
        path = f"{above}/{name}" if above else name
        found.entries += 1
        _require_fit(path, stat, bounds, found.entries)
        yield path, top, stat
        if stat_module.S_ISDIR(stat.st_mode):
            below = os.open(name, _DIRECTORY, dir_fd=top)
            try:
                yield from _walk(below, path, bounds, found)
            finally:
                os.close(below)


def _require_fit(path: str, stat: os.stat_result, bounds: Limits, entries: int) -> None:
    """Only what can be restored is kept. Raises UnfitError."""
    if stat_module.S_ISCHR(stat.st_mode) or stat_module.S_ISBLK(stat.st_mode):
        raise UnfitError(f"{path!r} is a device")
    # Long names take headers of their own, which count.
    if entries > bounds.max_entries // 4:
        raise UnfitError(f"it has more than {bounds.max_entries // 4} entries")
    try:
        safe_name(os.fsencode(path), bounds, "The volume")
    except InputError as error:
        raise UnfitError(f"the name {path[:120]!r} is not UTF-8, not printable or too long") from error


def _entry(name: str, stat: os.stat_result) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.uid, entry.gid = stat_module.S_IMODE(stat.st_mode), stat.st_uid, stat.st_gid
    seconds, nanoseconds = divmod(stat.st_mtime_ns, 10**9)
    entry.mtime = seconds
    if nanoseconds or seconds < 0:
        sign, whole = ("-", -stat.st_mtime_ns) if stat.st_mtime_ns < 0 else ("", stat.st_mtime_ns)
        entry.pax_headers = {"mtime": f"{sign}{whole // 10**9}.{whole % 10**9:09d}"}
    return entry


def _write_file(parent: int, entry: tarfile.TarInfo, target: int) -> None:
    reading = os.open(
        os.path.basename(entry.name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=parent
    )
    try:
        stat = os.fstat(reading)
        if not stat_module.S_ISREG(stat.st_mode):
            raise OSError(errno.EAGAIN, f"{entry.name!r} became something else while it was read")
        pieces = list(_data(reading, stat.st_size))
        entry.size = sum(length for _begin, length in pieces)
        if entry.size != stat.st_size:
            # With an empty piece at the end, as GNU tar has it.
            shown = [*pieces, (stat.st_size, 0)]
            entry.pax_headers = {
                **entry.pax_headers,
                "GNU.sparse.size": str(stat.st_size),
                "GNU.sparse.numblocks": str(len(shown)),
                "GNU.sparse.map": ",".join(f"{begin},{length}" for begin, length in shown),
            }
        _all(target, entry.tobuf(tarfile.PAX_FORMAT))
        for begin, length in pieces:
            _copy(reading, target, begin, length)
        _all(target, bytes(-entry.size % _BLOCK))
    finally:
        os.close(reading)


def _data(reading: int, size: int) -> Iterator[tuple[int, int]]:
    """Offset and length of each piece of a file that is no hole."""
    at, pieces = 0, 0
    while at < size:
        try:
            begin = os.lseek(reading, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        pieces += 1
        at = os.lseek(reading, begin, os.SEEK_HOLE) if pieces < _MOST_PIECES else size
        at = min(at, size)
        if at > begin:
            yield begin, at - begin


def _copy(reading: int, target: int, begin: int, length: int) -> None:
    """By the kernel, from descriptor to descriptor."""
    end = begin + length
    while begin < end:
        done = os.sendfile(target, reading, begin, min(1 << 30, end - begin))
        if not done:
            raise OSError(errno.EIO, "a file became shorter while it was read")
        begin += done


def _all(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
