# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading the text of /proc/<pid>/mountinfo. Fields as in proc_pid_mountinfo(5)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

#: What the optional fields are called.
_PROPAGATION = {"shared": "shared", "master": "slave", "unbindable": "unbindable"}
#: File systems whose files are in host memory alone.
IN_MEMORY = ("tmpfs", "ramfs", "rootfs")
# The kernel writes space, tab, newline, backslash and # of a path as three octal digits.
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo: paths unescaped, options split at their commas."""

    mount_point: str
    root: str
    fstype: str
    source: str
    options: tuple[str, ...]
    device: str = field(default="", compare=False)
    #: As /proc/<pid>/fdinfo has it.
    mount_id: int = field(default=0, compare=False)
    #: ``shared``, ``slave`` and ``unbindable``, as far as it is.
    propagation: tuple[str, ...] = field(default=(), compare=False)
    #: Of the file system, not of this mount.
    super_options: tuple[str, ...] = field(default=(), compare=False)


def _unescape(text: str) -> str:
    """The path as it is, from the way the kernel writes it."""
    return _ESCAPE.sub(lambda match: chr(int(match.group(1), 8)), text)


def parse(text: str) -> list[Mount]:
    """All mounts in the kernel's order (a later one at the same point covers the earlier).

    Lines that are not of the documented form are left out: the kernel may add lines, never break these.
    """
    mounts = []
    for line in text.splitlines():
        left, separator, right = line.partition(" - ")
        before, after = left.split(" "), right.split(" ")
        if not separator or len(before) < 6 or len(after) < 3:
            continue
        mounts.append(
            Mount(
                mount_point=_unescape(before[4]),
                root=_unescape(before[3]),
                fstype=after[0],
                source=_unescape(after[1]),
                options=tuple(before[5].split(",")),
                device=before[2],
                mount_id=int(before[0]) if before[0].isdecimal() else 0,
                propagation=tuple(
                    _PROPAGATION[tag] for tag in (word.partition(":")[0] for word in before[6:]) if tag in _PROPAGATION
                ),
                super_options=tuple(" ".join(after[2:]).split(",")),
            )
        )
    return mounts


def read(path: str = "/proc/self/mountinfo") -> str:
    """The text for :func:`parse`. Raises OSError where there is no such file."""
    with open(path, encoding="utf-8", errors="surrogateescape") as stream:
        return stream.read()


def file_system(path: str, mounts: Iterable[Mount]) -> str:
    """The type of what ``path`` is on, or would be once it is made; "" where that cannot be told."""
    there = os.path.realpath(path)
    while not os.path.exists(there):
        there = os.path.dirname(there)
    device = os.stat(there).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    return next((mount.fstype for mount in mounts if mount.device == wanted), "")


def is_in_memory(path: str, mounts: Iterable[Mount]) -> bool:
    """Whether a reboot loses what lies at ``path``, which need not be there yet: it is on a tmpfs or the like."""
    return file_system(path, mounts) in IN_MEMORY


def of_descriptor(path: str) -> int:
    """The mount of an open file, by ``path``, its entry in a process's ``fdinfo``; 0 without one. Raises OSError."""
    with open(path, encoding="ascii", errors="replace") as stream:
        return next((int(line.split()[1]) for line in stream if line.startswith("mnt_id:")), 0)
