# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gives the root mount of a process flags that it lacks, as ``mount -o remount,bind,ro /`` would there.

A program of its own that CRIU starts (:mod:`_container.comparison`); it imports nothing of this collection. Never
fails: what is wrong stands in the report, and whether it matters is for others to say.

Arguments: the flags, joined by commas, the report to write, and the pid of the process.
Report: ``flags`` that the mount has now, or why it has ``failed``.
"""

from __future__ import annotations

import ctypes
import os
import sys

#: linux/mount.h, linux/sched.h.
_FLAGS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "nosymfollow": 256}
#: As statfs(2) has them.
_SEEN = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "nosymfollow": 0x2000}
_REMOUNT, _BIND, _CLONE_NEWNS = 32, 4096, 0x20000


def give(pid: int, wanted: list[str]) -> list[str]:
    """Enter the mount namespace, which moves this process, and remount; the flags afterwards. Raises OSError."""
    if os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt"):
        raise OSError(f"process {pid} is in the node's own mount namespace")
    # A task that runs may change its root: what is mounted anew is what was looked at.
    root = os.open(f"/proc/{pid}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    has = options(root)
    lacking = [flag for flag in wanted if flag in _FLAGS and flag not in has]
    if not lacking:
        return has
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/proc/{pid}/ns/mnt", "rb") as namespace:
        _checked(libc.setns(namespace.fileno(), _CLONE_NEWNS))
    os.fchdir(root)
    # How times of access are kept stays as it is where nothing is said of it.
    flags = _REMOUNT | _BIND | sum(_FLAGS[flag] for flag in [*has, *lacking])
    _checked(libc.mount(None, b".", None, ctypes.c_ulong(flags), None))
    return [*has, *lacking]


def options(directory: int) -> list[str]:
    """The flags of the mount that it lies on."""
    seen = os.fstatvfs(directory).f_flag
    return [flag for flag, bit in _SEEN.items() if seen & bit]


def _checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def main() -> None:
    """Do it, and say how it went."""
    import json

    wanted, report, pid = sys.argv[1].split(","), sys.argv[2], int(sys.argv[3])
    with open(report, "w", encoding="utf-8") as stream:
        try:
            found = {"flags": give(pid, wanted)}
        except OSError as error:
            json.dump({"failed": str(error)}, stream)
        else:
            json.dump(found, stream)


if __name__ == "__main__":
    main()
