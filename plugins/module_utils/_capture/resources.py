# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The mounts of a task's processes, and the devices that they have open."""

from __future__ import annotations

import contextlib
import os
import stat as stat_module
from collections.abc import Iterable

from .._host import mountinfo, processes
from .._host.mountinfo import Mount


def nvidia_devices(pids: Iterable[int], proc: str = "/proc") -> list[int]:
    """Those of the processes that have a device of the NVIDIA driver open."""
    return [
        pid
        for pid in pids
        if any(target.startswith("/dev/nvidia") for _number, target in processes.descriptors(pid, proc))
    ]


def foreign_devices(pids: Iterable[int], proc: str = "/proc") -> list[str]:
    """Devices that are input or output of the processes, and on no mount of theirs: the host's, handed in from outside.

    CRIU looks the mount of an open file up among those of all processes (criu/files-reg.c), and gives up without one.
    """
    found = []
    pids = list(pids)
    known: set[int] | None = None
    for pid in pids:
        for number in range(3):
            try:
                target = os.readlink(f"{proc}/{pid}/fd/{number}")
                if not target.startswith("/") or not stat_module.S_ISCHR(os.stat(f"{proc}/{pid}/fd/{number}").st_mode):
                    continue
                mount = mountinfo.of_descriptor(f"{proc}/{pid}/fdinfo/{number}")
            except OSError:
                continue
            if known is None:
                known = {one.mount_id for one in mounts(pids, proc)}
            if mount and mount not in known:
                found.append(f"{target} as descriptor {number} of process {pid}")
    return found


def mounts(pids: Iterable[int], proc: str) -> list[Mount]:
    """Those of all the processes, which may have mount namespaces of their own; each namespace once."""
    found = []
    seen: set[str] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            namespace = os.readlink(f"{proc}/{pid}/ns/mnt")
            if namespace not in seen:
                found += mountinfo.parse(mountinfo.read(f"{proc}/{pid}/mountinfo"))
                seen.add(namespace)
    return found
