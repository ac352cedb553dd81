# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A copy of the directory that holds what a container has written, as exact as overlayfs needs it.

The workload stands still while it is made, so it is only copied here; packed and compressed it is afterwards. Facts:
the kernel's overlayfs document (whiteouts are devices 0/0, opaque directories have an attribute), ioctl_ficlone(2).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat as stat_module
from collections.abc import Callable
from dataclasses import dataclass, field

from .._checkpoint.written import RESERVED, Record, is_carried
from .._oci import depth

_FICLONE = 0x40049409
_CHUNK = 1 << 30
#: What overlayfs notes about its own lower layers and index; a copy has none of that history.
_HISTORY = frozenset(f"trusted.overlay.{name}" for name in ("origin", "impure", "nlink", "uuid", "upper"))
#: The data of such a file is not in it but in a lower layer.
_HOLLOW = "trusted.overlay.metacopy"
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: What a reserved name begins with in a copy: as long, and one that nobody has.
_STAND_INS = (".Wh.", ".wH.", ".WH.")
_UNABLE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY)


class NotCopiedError(Exception):
    """The directory cannot be copied exactly; why is the text."""


@dataclass(frozen=True)
class Survey:
    """What a look at a directory has found."""

    #: Bytes on disk.
    size: int = 0
    #: Bytes of the longest path below it.
    longest: int = 0
    #: Files whose names a layer takes for deletions, and the path of one of them.
    reserved: int = 0
    reserved_first: str = ""
    #: Of ``_oci.depth``.
    steps: int = 0


def survey(directory: str) -> Survey:
    """Look at a directory while others may write there; what moves away meanwhile is not counted."""
    size = longest = reserved = steps = 0
    first = ""

    def look(walk: _Walk, name: str, stat: os.stat_result) -> bool:
        nonlocal size, longest, reserved, steps, first
        size += stat.st_blocks * 512
        longest = max(longest, walk.length + len(os.fsencode(name)))
        steps += depth.steps(walk.depth)
        if name.startswith(RESERVED):
            reserved += 1
            first = first or walk.below(name)
        return stat_module.S_ISDIR(stat.st_mode)

    with contextlib.suppress(OSError):
        _Walk(directory).run(look, lambda _walk: None)
    return Survey(size, longest, reserved, first, steps)


def copy(source: str, target: str, record: Record) -> None:
    """Copy all of ``source``, its own attributes too, into the empty directory ``target``; what a layer of it lacks is
    noted.

    Files with reserved names have others in the copy. Raises NotCopiedError.
    """
    try:
        _Copy(source, target, record).run()
    except OSError as error:
        raise NotCopiedError(str(error)) from error


def attributes(source: str, record: Record, every: bool) -> None:
    """Note the same of a directory that is compared as it is; nothing changes in it meanwhile. Raises OSError.

    ``every``: it holds what was written and nothing else; of others only files with attributes are noted.
    """

    def look(walk: _Walk, name: str, stat: os.stat_result) -> bool:
        if stat_module.S_ISDIR(stat.st_mode):
            return True
        if not stat_module.S_ISSOCK(stat.st_mode) and not _is_whiteout(stat):
            note(walk, name, stat)
        return False

    def note(walk: _Walk, name: str, stat: os.stat_result) -> None:
        found = _read(_within(walk.descriptor, name or "."))
        if every or any(map(is_carried, found)):
            record.note(walk.below(name).rstrip("/"), stat, found)

    _Walk(source).run(look, lambda walk: note(walk, "", os.fstat(walk.descriptor)))


@dataclass
class _Level:
    """A directory on the way down."""

    name: str
    #: Device and inode.
    identity: tuple[int, int]
    #: Still to be looked at.
    names: list[str] = field(default_factory=list)


class _Walk:
    """A walk through a tree of any depth, with one open directory: a container chooses how deep its tree is, and
    neither the length of a path, nor the number of descriptors, nor that of Python's frames goes so far."""

    def __init__(self, top: str) -> None:
        self.descriptor = os.open(top, _OPEN_DIRECTORY)
        self._levels = [_Level("", _identity(self.descriptor), os.listdir(self.descriptor))]
        #: Bytes of the path to the present directory, with a slash at its end.
        self.length = 0

    @property
    def depth(self) -> int:
        """How many directories the present one lies below the top."""
        return len(self._levels) - 1

    @property
    def path(self) -> str:
        """Of the present directory, below the top."""
        return "/".join(level.name for level in self._levels[1:])

    def below(self, name: str) -> str:
        """The path of a file in the present directory."""
        return f"{self.path}/{name}".lstrip("/")

    def run(self, enter: Callable[[_Walk, str, os.stat_result], bool], leave: Callable[[_Walk], None]) -> None:
        """Call ``enter`` for each name (True: go into it, a directory), and ``leave`` when a directory is through."""
        try:
            while True:
                level = self._levels[-1]
                if level.names:
                    self._look(level.names.pop(), enter)
                    continue
                leave(self)
                if len(self._levels) == 1:
                    return
                self._up()
        finally:
            os.close(self.descriptor)

    def _look(self, name: str, enter: Callable[[_Walk, str, os.stat_result], bool]) -> None:
        try:
            stat = os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return
        if enter(self, name, stat):
            self._go(name)
            self._levels.append(_Level(name, _identity(self.descriptor), os.listdir(self.descriptor)))
            self.length += len(os.fsencode(name)) + 1

    def _up(self) -> None:
        gone = self._levels.pop()
        self.length -= len(os.fsencode(gone.name)) + 1
        self._go("..")
        if _identity(self.descriptor) != self._levels[-1].identity:
            raise OSError(errno.ESTALE, f"the directory {gone.name!r} was moved")

    def _go(self, name: str) -> None:
        there = os.open(name, _OPEN_DIRECTORY, dir_fd=self.descriptor)
        os.close(self.descriptor)
        self.descriptor = there


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


class _Copy:
    """A copy of a tree; nothing changes in it meanwhile."""

    def __init__(self, source: str, target: str, record: Record) -> None:
        self._source = source
        self._target = target
        self._record = record
        #: Of files with several names, the first one below the target.
        self._links: dict[tuple[int, int], str] = {}
        #: Open directories of the target: its top, and the present one.
        self._top = self._there = -1
        #: The path to the present one.
        self._names: list[str] = []

    def run(self) -> None:
        """Raises OSError, NotCopiedError."""
        walk = _Walk(self._source)
        try:
            self._top = os.open(self._target, _OPEN_DIRECTORY)
            self._there = os.dup(self._top)
            walk.run(self._enter, self._leave)
        finally:
            for descriptor in (self._top, self._there):
                if descriptor >= 0:
                    os.close(descriptor)

    def _enter(self, walk: _Walk, name: str, stat: os.stat_result) -> bool:
        kind = stat_module.S_IFMT(stat.st_mode)
        if kind == stat_module.S_IFSOCK:
            # Neither does a layer hold any.
            return False
        there = self._name(walk, name)
        if kind == stat_module.S_IFDIR:
            os.mkdir(there, 0o700, dir_fd=self._there)
            if there != name:
                # Before what is in it.
                self._record.note(walk.below(name), stat, {}, there)
            self._go(there)
            self._names.append(there)
            return True
        if stat.st_nlink > 1:
            place = "/".join([*self._names, there])
            first = self._links.setdefault((stat.st_dev, stat.st_ino), place)
            if first != place:
                os.link(first, there, src_dir_fd=self._top, dst_dir_fd=self._there, follow_symlinks=False)
                if there != name:
                    self._record.note(walk.below(name), stat, {}, there)
                return False
        if kind == stat_module.S_IFREG:
            _file(walk.descriptor, self._there, name, there)
        elif kind == stat_module.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=walk.descriptor), there, dir_fd=self._there)
        else:
            os.mknod(there, kind | 0o600, stat.st_rdev, dir_fd=self._there)
        found = _attributes(_within(walk.descriptor, name), _within(self._there, there), stat)
        if not _is_whiteout(stat):
            self._record.note(walk.below(name), stat, found, there if there != name else "")
        return False

    def _leave(self, walk: _Walk) -> None:
        stat = os.fstat(walk.descriptor)
        found = _attributes(_within(walk.descriptor, "."), _within(self._there, "."), stat)
        self._record.note(walk.below("").rstrip("/"), stat, found)
        if self._names:
            self._go("..")
            self._names.pop()

    def _name(self, walk: _Walk, name: str) -> str:
        """What a file is called in the copy."""
        if not name.startswith(RESERVED):
            return name
        for begin in _STAND_INS:
            there = begin + name[len(RESERVED) :]
            try:
                os.stat(there, dir_fd=walk.descriptor, follow_symlinks=False)
            except FileNotFoundError:
                return there
        raise NotCopiedError(f"{walk.below(name)} has a name that a layer takes for a deletion")

    def _go(self, name: str) -> None:
        there = os.open(name, _OPEN_DIRECTORY, dir_fd=self._there)
        os.close(self._there)
        self._there = there


def _within(descriptor: int, name: str) -> str:
    """A short path, for calls that take no directory's descriptor."""
    return f"/proc/self/fd/{descriptor}/{name}"


def _is_whiteout(stat: os.stat_result) -> bool:
    return stat_module.S_ISCHR(stat.st_mode) and stat.st_rdev == 0


def _read(path: str) -> dict[str, bytes]:
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


def _file(source: int, target: int, name: str, there: str) -> None:
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOATIME, dir_fd=source)
    try:
        writing = os.open(there, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            _data(reading, writing, os.fstat(reading).st_size)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _data(reading: int, writing: int, size: int) -> None:
    try:
        fcntl.ioctl(writing, _FICLONE, reading)
        return
    except OSError as error:
        if error.errno not in _UNABLE:
            raise
    os.ftruncate(writing, size)
    at = 0
    while at < size:
        try:
            begin = os.lseek(reading, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        at = os.lseek(reading, begin, os.SEEK_HOLE)
        _range(reading, writing, begin, at)


def _range(reading: int, writing: int, begin: int, end: int) -> None:
    while begin < end:
        try:
            done = os.copy_file_range(reading, writing, min(_CHUNK, end - begin), begin, begin)
        except OSError as error:
            if error.errno not in _UNABLE:
                raise
            done = os.pwrite(writing, os.pread(reading, min(1 << 20, end - begin), begin), begin)
        if not done:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        begin += done


def _attributes(source: str, target: str, stat: os.stat_result) -> dict[str, bytes]:
    """Give ``target`` what ``source`` has; its extended attributes."""
    os.chown(target, stat.st_uid, stat.st_gid, follow_symlinks=False)
    if not stat_module.S_ISLNK(stat.st_mode):
        os.chmod(target, stat_module.S_IMODE(stat.st_mode))
    # After the owner, whose change takes capabilities away.
    found = _read(source)
    if _HOLLOW in found:
        raise NotCopiedError(f"{source} has only its attributes in this layer")
    for name, value in found.items():
        if name not in _HISTORY:
            os.setxattr(target, name, value, follow_symlinks=False)
    os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns), follow_symlinks=False)
    return found
