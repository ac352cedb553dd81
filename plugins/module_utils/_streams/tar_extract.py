# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write the files of a tar that nobody vouches for to the disk."""

from __future__ import annotations

import os
import shutil
import stat as stat_module
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Callable

from .._core.files import sync_directory
from .streams import Source, solid
from .tar_reader import DIRECTORY, FILE, Limits, Member, members, refuse


@dataclass(frozen=True)
class FileStat:
    """A file as written."""

    #: In bytes.
    size: int
    #: As the file system has it, in nanoseconds.
    mtime_ns: int


def extract(
    source: Source,
    directory: str,
    limits: Limits,
    what: str,
    check_room: Callable[[int], None] = lambda total: None,
) -> dict[str, FileStat]:
    """Write the files of a tar below ``directory`` (existing, only ours); name -> FileStat.

    What lies there already, since it was begun before, is compared and only written where it differs; what is not in
    the tar goes. Files get 0600, directories 0700, owner and times are ours; every file is on the disk (fsync) when
    this returns. ``check_room(total)`` is called before each file, with the bytes of all files so far and this one, and
    may raise. Links are InputError ``tar_unsafe_type``; else as :func:`members`, and OSError.
    """
    files: dict[str, FileStat] = {}
    directories = {""}
    total = 0
    for member in members(source, limits, what):
        if member.kind not in (FILE, DIRECTORY):
            raise refuse("tar_unsafe_type", what, f"{member.name!r} is a link")
        parent = member.name.rpartition("/")[0] if member.kind == FILE else member.name
        for made in _make_directories(directory, parent, directories, files, what):
            directories.add(made)
        if member.kind == FILE:
            if member.name in directories:
                raise refuse("tar_duplicate_name", what, f"{member.name!r} is both a file and a directory")
            total += member.size
            check_room(total)
            files[member.name] = _write(_path(directory, member.name), member)
    _remove_others(os.fsencode(directory), {_path(directory, name) for name in (*files, *directories)})
    for name in sorted(directories, reverse=True):
        sync_directory(_path(directory, name))
    return files


def _remove_others(directory: bytes, wanted: set[bytes]) -> None:
    """Remove what is not wanted, as a run that was broken off may have left it of a stream that was never verified."""
    for entry in list(os.scandir(directory)):
        if entry.path in wanted:
            if entry.is_dir(follow_symlinks=False):
                _remove_others(entry.path, wanted)
        elif entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)


def _path(directory: str, name: str) -> bytes:
    # Names are UTF-8 whatever the locale of this process is.
    return os.path.join(os.fsencode(directory), name.encode("utf-8")) if name else os.fsencode(directory)


def _make_directories(top: str, name: str, known: set[str], files: dict[str, FileStat], what: str) -> Iterator[str]:
    parts = name.split("/") if name else []
    for depth in range(1, len(parts) + 1):
        part = "/".join(parts[:depth])
        if part in files:
            raise refuse("tar_duplicate_name", what, f"{part!r} is both a file and a directory")
        if part not in known:
            path = _path(top, part)
            if not os.path.isdir(path) or os.path.islink(path):
                _clear(path)
                os.mkdir(path, 0o700)
            yield part


def _clear(path: bytes) -> None:
    """Nothing is at ``path``."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def _open(path: bytes) -> tuple[int, int]:
    """The file at ``path``, made where it is not there, and how much of it is there."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600), 0
    except FileExistsError:
        there = os.lstat(path)
    if not stat_module.S_ISREG(there.st_mode) or there.st_nlink > 1:
        _clear(path)
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600), 0
    descriptor = os.open(path, flags)
    os.fchmod(descriptor, 0o600)
    return descriptor, there.st_size


def _write(path: bytes, member: Member) -> FileStat:
    descriptor, there = _open(path)
    try:
        at = 0
        for piece in member.data():
            if at < there:
                _overwrite(descriptor, piece, at)
            else:
                _append(descriptor, piece, at)
            at += len(piece)
        os.ftruncate(descriptor, member.size)
        os.fsync(descriptor)
        stat = os.fstat(descriptor)
        return FileStat(stat.st_size, stat.st_mtime_ns)
    finally:
        os.close(descriptor)


def _overwrite(descriptor: int, piece: bytes, at: int) -> None:
    """Write ``piece`` where something lies already, if that is something else."""
    if os.pread(descriptor, len(piece), at) != piece:
        view = memoryview(piece)
        while view:
            written = os.pwrite(descriptor, view, at)
            view, at = view[written:], at + written


def _append(descriptor: int, piece: bytes, at: int) -> None:
    view = memoryview(piece)
    for start, end in solid(piece, at):
        while start < end:
            start += os.pwrite(descriptor, view[start:end], at + start)
