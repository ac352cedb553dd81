# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The mounts of a task's processes, and the devices that they have open. Facts: CRIU's ``mount.c``."""

from __future__ import annotations

import contextlib
import os
import stat as stat_module
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .._host import mountinfo, processes
from .._host.mountinfo import Mount

#: File systems that CRIU dumps together with a container, so that nobody has to name them.
_DUMPED = frozenset(
    [
        "tmpfs",
        "proc",
        "sysfs",
        "devpts",
        "mqueue",
        "cgroup",
        "cgroup2",
        "devtmpfs",
        "debugfs",
        "tracefs",
        "securityfs",
        "pstore",
        "fusectl",
        "configfs",
        "binfmt_misc",
        "hugetlbfs",
    ]
)


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


def unnamed_mounts(mounts: Sequence[Mount], spec: Mapping[str, Any]) -> list[Mount]:
    """Mounts of a container that CRIU cannot take: neither named by the spec nor of a kind that is dumped with it.

    ``mounts`` are those of the container's first process, as it sees them.
    """
    linux = spec.get("linux") or {}
    destinations = {_clean(str(mount.get("destination") or "")) for mount in spec.get("mounts") or ()}
    named = destinations | {
        _clean(str(path)) for key in ("maskedPaths", "readonlyPaths") for path in linux.get(key) or ()
    }
    known = [mount for mount in mounts if _clean(mount.mount_point) in {"/", *named}]
    found = []
    for mount in mounts:
        point = _clean(mount.mount_point)
        if mount in known:
            continue
        below_bind = any(point.startswith(bind.rstrip("/") + "/") for bind in _binds(spec))
        if below_bind or not (mount.fstype in _DUMPED or any(_shows(other, mount) for other in known)):
            found.append(mount)
    return found


def is_dumped(mount: Mount, spec: Mapping[str, Any]) -> bool:
    """Whether the files of a mount are in a dump: it is of such a kind, and not from outside of the container."""
    point = _clean(mount.mount_point) + "/"
    outside = any(point.startswith(bind.rstrip("/") + "/") for bind in _binds(spec))
    return mount.fstype in _DUMPED and not outside


def _binds(spec: Mapping[str, Any]) -> set[str]:
    return {
        _clean(str(mount.get("destination") or ""))
        for mount in spec.get("mounts") or ()
        if mount.get("type") == "bind" or {"bind", "rbind"} & set(mount.get("options") or ())
    }


def _shows(other: Mount, mount: Mount) -> bool:
    """Whether a mount is a bind of a part of the other one, from where CRIU can make it again."""
    whole = other.root.rstrip("/") + "/"
    return bool(other.device) and other.device == mount.device and (mount.root + "/").startswith(whole)


def _clean(path: str) -> str:
    return os.path.normpath(path) if path else path


def mounts(pids: Iterable[int], proc: str) -> list[Mount]:
    """Those of all the processes, which may have mount namespaces of their own."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            found += mountinfo.parse(mountinfo.read(f"{proc}/{pid}/mountinfo"))
    return found
