# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A directory tree out of the tar that :mod:`_streams.tree_tar` makes of one, or somebody else.

Each step goes by the descriptor of a directory and follows no link.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from .streams import Source, solid
from .tar_reader import DIRECTORY, FILE, HARDLINK, PIPE, SYMLINK, Limits, Member, members, refuse, safe_name

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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
