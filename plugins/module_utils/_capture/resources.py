# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What of a task's processes CRIU only takes when told to: TCP connections, file locks; and its mounts.

Facts: proc_pid_net(5) (``tcp``: fourth column the state, tenth the inode), proc_locks(5), CRIU's ``sk-inet.c`` (a
connected socket needs ``tcp-established``), ``file-lock.c`` and ``mount.c``.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat as stat_module
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .._host import mountinfo, processes
from .._host.mountinfo import Mount

#: SYN_SENT to LAST_ACK and CLOSING without TIME_WAIT (06), CLOSE (07) and LISTEN (0A), include/net/tcp_states.h.
_CONNECTED = frozenset({"01", "02", "03", "04", "05", "08", "09", "0B"})
_SOCKET = re.compile(r"socket:\[([0-9]+)\]\Z")
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


def tcp_connections(pids: Iterable[int], proc: str = "/proc") -> list[str]:
    """The TCP connections that the processes hold, as ``local -> remote`` in the kernel's hexadecimal form."""
    found: dict[str, str] = {}
    for pid in pids:
        inodes = _sockets(pid, proc)
        if not inodes:
            continue
        for name in ("tcp", "tcp6"):
            for words in _rows(f"{proc}/{pid}/net/{name}"):
                if len(words) > 9 and words[3] in _CONNECTED and words[9] in inodes:
                    found[words[9]] = f"{words[1]} -> {words[2]}"
    return sorted(found.values())


def file_locks(pids: Iterable[int], proc: str = "/proc") -> int:
    """How many file locks the processes hold."""
    mine = {str(pid) for pid in pids}
    return sum(1 for words in _rows(f"{proc}/locks", skip=0) if len(words) > 4 and words[4] in mine)


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
    mounts: set[int] | None = None
    for pid in pids:
        for number in range(3):
            try:
                target = os.readlink(f"{proc}/{pid}/fd/{number}")
                if not target.startswith("/") or not stat_module.S_ISCHR(os.stat(f"{proc}/{pid}/fd/{number}").st_mode):
                    continue
                mount = mountinfo.of_descriptor(f"{proc}/{pid}/fdinfo/{number}")
            except OSError:
                continue
            if mounts is None:
                mounts = {one.mount_id for one in _mounts(pids, proc)}
            if mount and mount not in mounts:
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


def _mounts(pids: Iterable[int], proc: str) -> list[Mount]:
    """Those of all the processes, which may have mount namespaces of their own."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            found += mountinfo.parse(mountinfo.read(f"{proc}/{pid}/mountinfo"))
    return found


def _sockets(pid: int, proc: str) -> set[str]:
    matches = (_SOCKET.match(target) for _number, target in processes.descriptors(pid, proc))
    return {match.group(1) for match in matches if match}


def _rows(path: str, skip: int = 1) -> list[list[str]]:
    try:
        with open(path, encoding="ascii", errors="replace") as stream:
            return [line.split() for line in stream.read().splitlines()[skip:]]
    except OSError:
        return []
