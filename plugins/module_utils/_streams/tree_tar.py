# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A directory tree as a tar, with all that the tree has of files, and back.

Owners, modes, times, links, named pipes and holes; no sockets, which belong to the processes that listen on them.
Others may write in the tree meanwhile, so each step goes by the descriptor of a directory and follows no link.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat as stat_module
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from .._core.errors import InputError
from .streams import Source
from .tar_extract import solid
from .tar_reader import DIRECTORY, FILE, HARDLINK, PIPE, SYMLINK, Limits, Member, members, refuse, safe_name

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


def limits(max_total: int) -> Limits:
    """The bounds of such a tar; ``max_total`` bytes of all files together."""
    return Limits(max_entries=1 << 20, max_total=max_total, max_depth=128, max_name=4096, whole_tree=True)


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


def extract(source: Source, top: int, bounds: Limits, what: str) -> None:
    """Make the tree of a tar that nobody vouches for below the descriptor of an empty directory that is only ours.

    Raises InputError as :func:`tar_reader.members`, ``tar_unsafe_name`` for a hard link to what is not there, OSError.
    """
    kinds: dict[str, str] = {}
    directories: list[Member] = []
    for member in members(source, bounds, what):
        above, _slash, name = member.name.rpartition("/")
        with _opened(top, above, kinds, what) as parent:
            if member.kind == DIRECTORY:
                if kinds.get(member.name, DIRECTORY) != DIRECTORY:
                    raise refuse("tar_duplicate_name", what, f"{member.name!r} is both a file and a directory")
                if member.name not in kinds:
                    os.mkdir(name, 0o700, dir_fd=parent)
                directories.append(member)
            elif member.name in kinds:
                raise refuse("tar_duplicate_name", what, f"{member.name!r} is in it twice")
            else:
                _make(member, name, parent, top, kinds, what)
        kinds[member.name] = member.kind
    # Last, for a directory's time is that of its last entry.
    for member in sorted(directories, key=lambda one: one.name, reverse=True):
        with _opened(top, member.name, kinds, what) as directory:
            _set_attributes(member, directory)


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


@contextlib.contextmanager
def _opened(top: int, name: str, kinds: dict[str, str], what: str) -> Iterator[int]:
    """The directory of that name, made where the tar has no entry for it before what is in it."""
    here = os.dup(top)
    try:
        path = ""
        for part in name.split("/") if name else ():
            path = f"{path}/{part}" if path else part
            if kinds.get(path, DIRECTORY) != DIRECTORY:
                raise refuse("tar_unsafe_name", what, f"{name!r} leads through {path!r}, which is no directory")
            if path not in kinds:
                os.mkdir(part, 0o755, dir_fd=here)
                kinds[path] = DIRECTORY
            below = os.open(part, _DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


def _make(member: Member, name: str, parent: int, top: int, kinds: dict[str, str], what: str) -> None:
    if member.kind == HARDLINK:
        first = safe_name(os.fsencode(member.link), Limits(max_depth=128, max_name=4096), what)
        if kinds.get(first) not in (FILE, SYMLINK, PIPE):
            raise refuse(
                "tar_unsafe_name", what, f"{member.name!r} is a link to {member.link[:120]!r}, which is not in it"
            )
        above, _slash, last = first.rpartition("/")
        with _opened(top, above, kinds, what) as directory:
            os.link(last, name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        return
    if member.kind == SYMLINK:
        if not member.link or "\0" in member.link:
            raise refuse("tar_header_invalid", what, f"{member.name!r} is a link to nothing")
        os.symlink(member.link, name, dir_fd=parent)
        attributes = member.attributes
        if attributes is not None:
            os.chown(name, attributes.uid, attributes.gid, dir_fd=parent, follow_symlinks=False)
            times = (attributes.mtime_ns, attributes.mtime_ns)
            os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
        return
    if member.kind == PIPE:
        os.mkfifo(name, 0o600, dir_fd=parent)
        flags = os.O_RDONLY | os.O_NONBLOCK
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
    try:
        if member.kind == FILE:
            _write_data(member, descriptor)
        _set_attributes(member, descriptor)
    finally:
        os.close(descriptor)


def _write_data(member: Member, descriptor: int) -> None:
    """The content, at its places; what is nothing but zeros becomes a hole too."""
    attributes = member.attributes
    pieces = list(attributes.pieces) if attributes else [(0, member.size)]
    pieces.reverse()
    for piece in member.data():
        view = memoryview(piece)
        while view:
            begin, length = pieces.pop()
            part = view[:length]
            for start, end in solid(bytes(part), begin):
                while start < end:
                    start += os.pwrite(descriptor, part[start:end], begin + start)
            if len(part) < length:
                pieces.append((begin + len(part), length - len(part)))
            view = view[len(part) :]
    os.ftruncate(descriptor, attributes.size if attributes else member.size)


def _set_attributes(member: Member, descriptor: int) -> None:
    attributes = member.attributes
    if attributes is None:
        return
    # The owner first, whose change takes set-user-id bits away.
    os.fchown(descriptor, attributes.uid, attributes.gid)
    os.fchmod(descriptor, attributes.mode)
    os.utime(descriptor, ns=(attributes.mtime_ns, attributes.mtime_ns))
