# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A file system that only one thread of ours sees, for as long as it works in it.

The thread has a mount namespace of its own, which the kernel takes away with it, mounts and all: whatever ends the
process, nothing stays mounted on the node. Facts: unshare(2), mount(2).
"""

from __future__ import annotations

import ctypes
import os
import posixpath
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Callable

_CLONE_FS, _CLONE_NEWNS = 0x00000200, 0x00020000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
#: There on every node, and nobody of this thread needs it.
_PLACE = b"/sys"
_BINDS = frozenset({"bind", "rbind"})
#: What mount(8) knows and the kernel takes as a flag, or not at all.
_NO_DATA = frozenset({"rw", "ro", "bind", "rbind"})
_LIBC = ctypes.CDLL(None, use_errno=True)


def within(kind: str, source: str, options: Sequence[str], action: Callable[[int], None]) -> None:
    """Call ``action`` with a descriptor of the root of the mounted file system. Raises OSError, and what it raises."""

    def work() -> None:
        _call("unshare", _LIBC.unshare(_CLONE_NEWNS))
        _call("mount", _LIBC.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None))
        _mount(kind, source, options)
        root = os.open(_PLACE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            action(root)
        finally:
            os.close(root)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(work).result()


def seen_by(pid: int, action: Callable[[], None], proc: str = "/proc") -> None:
    """Call ``action`` where paths and mounts are those of another process, in a thread of its own. Raises OSError."""

    def work() -> None:
        namespace = os.open(f"{proc}/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("unshare", _LIBC.unshare(_CLONE_FS))
            _call("setns", _LIBC.setns(namespace, _CLONE_NEWNS))
            action()
        finally:
            os.close(namespace)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(work).result()


def _mount(kind: str, source: str, options: Sequence[str]) -> None:
    if kind in _BINDS or _BINDS & set(options):
        _call("mount", _LIBC.mount(os.fsencode(source), _PLACE, None, _MS_BIND | _MS_REC, None))
        return
    data, directory = shortened([option for option in options if option not in _NO_DATA])
    if directory:
        # Of this thread alone, since its file systems are.
        os.chdir(directory)
    _call("mount", _LIBC.mount(os.fsencode(source), _PLACE, kind.encode(), 0, os.fsencode(",".join(data))))


def shortened(options: Sequence[str]) -> tuple[list[str], str]:
    """The options with lower directories relative to the second value, as containerd has them where there are many:
    the kernel takes no more than a page of options."""
    lower = next((option for option in options if option.startswith("lowerdir=")), "")
    paths = lower[len("lowerdir=") :].split(":") if lower else []
    if len(paths) < 2 or not all(path.startswith("/") for path in paths):
        return list(options), ""
    common = posixpath.commonpath(paths)
    relative = "lowerdir=" + ":".join(posixpath.relpath(path, common) for path in paths)
    return [relative if option == lower else option for option in options], common


def _call(what: str, status: int) -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
