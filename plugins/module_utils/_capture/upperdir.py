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
from collections.abc import Iterator

_FICLONE = 0x40049409
_CHUNK = 1 << 30
#: What overlayfs notes about its own lower layers and index; a copy has none of that history.
_HISTORY = frozenset(f"trusted.overlay.{name}" for name in ("origin", "impure", "nlink", "uuid", "upper"))
#: The data of such a file is not in it but in a lower layer.
_HOLLOW = "trusted.overlay.metacopy"
_UNABLE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY)


class NotCopiedError(Exception):
    """The directory cannot be copied exactly; why is the text."""


def size(directory: str) -> int:
    """Bytes on disk, while others may write there."""
    total = 0
    for path in _all(directory):
        with contextlib.suppress(FileNotFoundError):
            total += os.lstat(path).st_blocks * 512
    return total


def copy(source: str, target: str) -> None:
    """Copy all of ``source``, its own attributes too, into the empty directory ``target``. Raises NotCopiedError."""
    try:
        _directory(source, target, {})
    except OSError as error:
        raise NotCopiedError(str(error)) from error


def _all(directory: str) -> Iterator[str]:
    try:
        entries = list(os.scandir(directory))
    except FileNotFoundError:
        return
    for entry in entries:
        yield entry.path
        if entry.is_dir(follow_symlinks=False):
            yield from _all(entry.path)


def _directory(source: str, target: str, links: dict[tuple[int, int], str]) -> None:
    for entry in os.scandir(source):
        there = os.path.join(target, entry.name)
        stat = entry.stat(follow_symlinks=False)
        kind = stat_module.S_IFMT(stat.st_mode)
        if kind == stat_module.S_IFSOCK:
            # Neither does a layer hold any.
            continue
        if kind == stat_module.S_IFDIR:
            os.mkdir(there, 0o700)
            _directory(entry.path, there, links)
            continue
        if stat.st_nlink > 1:
            first = links.setdefault((stat.st_dev, stat.st_ino), there)
            if first != there:
                os.link(first, there, follow_symlinks=False)
                continue
        if kind == stat_module.S_IFREG:
            _file(entry.path, there)
        elif kind == stat_module.S_IFLNK:
            os.symlink(os.readlink(entry.path), there)
        else:
            os.mknod(there, kind | 0o600, stat.st_rdev)
        _attributes(entry.path, there, stat)
    _attributes(source, target, os.lstat(source))


def _file(source: str, target: str) -> None:
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOATIME)
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
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


def _attributes(source: str, target: str, stat: os.stat_result) -> None:
    os.chown(target, stat.st_uid, stat.st_gid, follow_symlinks=False)
    if not stat_module.S_ISLNK(stat.st_mode):
        os.chmod(target, stat_module.S_IMODE(stat.st_mode))
    # After the owner, whose change takes capabilities away.
    for name in os.listxattr(source, follow_symlinks=False):
        if name == _HOLLOW:
            raise NotCopiedError(f"{source} has only its attributes in this layer")
        if name not in _HISTORY:
            os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
    os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns), follow_symlinks=False)
