# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Paths within a container's root file system, which decides what they mean and may not lead us to the host's files.

As names they are followed as runc does it where it mounts, and where it tells CRIU of its mounts (filepath-securejoin's
SecureJoin). Files are opened by openat2(2), which resolves the whole path within the root, through links but never
through magic links (``/proc/1/root`` of a container with the host's pid namespace). Kernels before 5.6, and sandboxes
that refuse it, get a walk that follows no link.
"""

from __future__ import annotations

import ctypes
import errno
import os
import posixpath
from collections.abc import Callable

#: As many as SecureJoin follows.
_LINKS = 255
#: The same on every architecture that runs containers.
_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10


def resolve(root: str, path: str) -> str:
    """Where ``path`` leads in the root file system at ``root``; both, and the result, begin with a slash.

    What is not there, or cannot be looked at, is taken for what it is called.
    """

    def link_at(inside: str) -> str:
        try:
            return os.readlink(root.rstrip("/") + inside)
        except OSError:
            return ""

    return follow(path, link_at)


def follow(path: str, link_at: Callable[[str], str]) -> str:
    """The same, where ``link_at`` tells what the link at a path of the root file system says; empty: there is none."""
    left = [part for part in path.split("/") if part]
    found = "/"
    links = 0
    while left:
        part = left.pop(0)
        if part == ".":
            continue
        if part == "..":
            found = posixpath.dirname(found)
            continue
        step = posixpath.join(found, part)
        target = link_at(step) if links < _LINKS else ""
        if not target:
            found = step
            continue
        links += 1
        if target.startswith("/"):
            found = "/"
        left[:0] = [part for part in target.split("/") if part]
    return found


class _How(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def open_path(root: str, path: str, use_openat2: bool = True) -> int:
    """A descriptor (O_PATH: nothing is opened for reading yet) for ``path`` below the directory ``root``.

    Raises OSError; ELOOP for a link where links cannot be followed safely.
    """
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if use_openat2:
            try:
                return _openat2(top, path)
            except OSError as error:
                if error.errno not in (errno.ENOSYS, errno.EPERM):
                    raise
        return _walk(top, path)
    finally:
        os.close(top)


def open_regular(root: str, path: str) -> int:
    """A descriptor for reading a regular file. Raises OSError; EINVAL for anything that is not one."""
    found = open_path(root, path)
    try:
        status = os.fstat(found)
        if not _is_regular(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        # Only now: opening a device or a FIFO could have an effect, or wait for ever.
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(found)


def _is_regular(mode: int) -> bool:
    return mode & 0o170000 == 0o100000


def _openat2(top: int, path: str) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    how = _How(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    found = library.syscall(
        ctypes.c_long(_OPENAT2),
        ctypes.c_int(top),
        ctypes.c_char_p(os.fsencode(path)),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(found)


def _walk(top: int, path: str) -> int:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise OSError(errno.EINVAL, "it has .. in it")
    here = os.dup(top)
    for part in parts:
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            below = os.open(part, flags, dir_fd=here)
        finally:
            os.close(here)
        if os.fstat(below).st_mode & 0o170000 == 0o120000:
            os.close(below)
            raise OSError(errno.ELOOP, f"{part!r} is a symbolic link")
        here = below
    return here
