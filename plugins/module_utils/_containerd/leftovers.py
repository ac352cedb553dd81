# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What containerd and runc leave outside containerd's records: shims and runc's state.

A containerd that is killed and started again ends the shim of a restore under way, and runc with it. runc writes its
``state.json`` only after CRIU has done its work, so containerd's own clean-up (``runc delete --force``) finds no
container of that name: runc's directory with the mount ``criu-root`` stays, and the control groups do, and every later
restore of that name ends in "container with given ID already exists". Seen with containerd 1.7 and runc 1.1.15.

CRIU makes the roots of mount namespaces below a tmpfs of its own, ``.criu.mntns.XXXXXX`` (mount.c), and leaves it
mounted where a restore fails, or is killed, in the middle.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Callable

from .._core import state_dir
from .._core.errors import UNKNOWN, RestoreError
from .._host import mountinfo, private_mount, processes
from . import containers, messages
from .client import Client

#: Where containerd's shim has runc keep its state, unless the runtime options name another root.
DEFAULT_ROOT = "/run/containerd/runc"
_CGROUPS = "/sys/fs/cgroup"
_OPTIONS = "containerd.runc.v1.Options"
#: Seconds that a process that is about to end, or was killed, may take.
_END_SECONDS = 10.0
#: Seconds that a shim without a task may take to end by itself.
_ORPHAN_SECONDS = 1.0
_POLL_SECONDS = 0.02
_MNT_DETACH = 2
#: Of mkdtemp(3).
_CRIU_ROOT = re.compile(r"/(?:.*/)?\.criu\.mntns\.[A-Za-z0-9]{6}\Z")
#: What it mounts files onto (mount-v2.c).
_CRIU_FILE = re.compile(r"/mnt-[0-9]+\Z")
_LIBC = ctypes.CDLL(None, use_errno=True)


def shim_pids(namespace: str, container_id: str, proc: str = "/proc") -> list[int]:
    """The shim processes of one container (``containerd-shim-... -namespace NS ... -id ID``), root's on the host."""
    found = []
    for entry in os.listdir(proc):
        if not entry.isdigit():
            continue
        try:
            with open(f"{proc}/{entry}/cmdline", "rb") as stream:
                words = stream.read().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        options = dict(zip(words[1:], words[2:]))
        if options.get("-namespace") != namespace or options.get("-id") != container_id:
            continue
        # Anybody can have such a command line.
        if processes.root_program(int(entry), proc).startswith("containerd-shim"):
            found.append(int(entry))
    return found


def require_shim_gone(
    namespace: str,
    container_id: str,
    proc: str = "/proc",
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait for the shim to end. Raises RestoreError ``shim_left``."""
    left = _await_shim_end(namespace, container_id, _END_SECONDS, proc, clock, sleep)
    if left:
        raise RestoreError(
            "shim_left",
            f"The shim of the container {container_id} (pid {', '.join(map(str, left))}) still runs {_END_SECONDS:g} s "
            "after its task was deleted.",
            "Look at containerd's log; once the container is gone the shim may be killed.",
            outcome=UNKNOWN,
        )


def end_orphaned_shims(
    namespace: str,
    container_id: str,
    proc: str = "/proc",
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """End a shim whose task containerd does not know. Raises RestoreError ``shim_left``.

    containerd 2.1 leaves one when the client that creates a task is killed; it holds no process of the container yet,
    and containerd removes its directory as soon as the connection to it is gone.
    """
    for pid in _await_shim_end(namespace, container_id, _ORPHAN_SECONDS, proc, clock, sleep):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    require_shim_gone(namespace, container_id, proc, clock, sleep)


def runc_state(client: Client, container_id: str) -> str:
    """runc's directory of a restore that was broken off, empty if there is none. Call it without a task."""
    container = containers.get(client, container_id)
    root = _runc_root(container.runtime_options if container else None)
    directory = os.path.join(root, client.namespace, container_id)
    whole = os.path.exists(os.path.join(directory, "state.json"))
    if not os.path.isdir(directory) or whole or shim_pids(client.namespace, container_id):
        return ""
    return directory


def remove_runc_state(
    client: Client,
    container_id: str,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Remove :func:`runc_state` and the control groups of the container; False if there is none. Without a task.

    Raises RestoreError ``runc_state_left``.
    """
    directory = runc_state(client, container_id)
    if not directory:
        return False
    container = containers.get(client, container_id)
    try:
        name = state_dir.node_name(client.namespace, container_id)
        for path in _own_cgroups(container.spec if container else {}, name):
            _end_cgroup(path, clock, sleep)
        _unmount(directory)
        for name in os.listdir(directory):
            # Never recursively: below a mount that could not be taken away lies the container's root.
            path = os.path.join(directory, name)
            if os.path.isdir(path) and not os.path.islink(path):
                os.rmdir(path)
            else:
                os.unlink(path)
        os.rmdir(directory)
    except OSError as error:
        raise RestoreError(
            "runc_state_left",
            f"What a restore of {container_id} that was broken off has left in {directory} cannot be removed: {error}.",
            "Unmount what is mounted there and remove the directory, then run again.",
            outcome=UNKNOWN,
            details={"directory": directory},
        ) from error
    return True


def criu_mounts(client: Client, remove: bool, proc: str = "/proc") -> list[str]:
    """Where a CRIU that is gone has left its tmpfs mounted, in our mount namespace and the daemon's; taken away on
    demand. One that holds anything but empty files of CRIU's, or on which something is mounted, is nobody's that we
    know, and stays.
    """
    pids = [os.getpid()]
    with contextlib.suppress(OSError):
        daemon = client.peer_pid()
        if os.readlink(f"{proc}/{daemon}/ns/mnt") != os.readlink(f"{proc}/self/ns/mnt"):
            pids.append(daemon)
    found: list[str] = []
    for pid in pids:
        points = _criu_roots(pid, proc)
        # Asked after that: a CRIU that has begun since has none of these.
        if points and not any(processes.root_program(int(name), proc) == "criu" for name in _pids(proc)):
            with contextlib.suppress(OSError):
                private_mount.seen_by(pid, partial(_take, points, remove, found), proc)
    return sorted(set(found))


def _criu_roots(pid: int, proc: str) -> list[str]:
    try:
        mounts = mountinfo.parse(mountinfo.read(f"{proc}/{pid}/mountinfo"))
    except OSError:
        return []
    roots = [one.mount_point for one in mounts if one.fstype == "tmpfs" and _CRIU_ROOT.match(one.mount_point)]
    return [root for root in roots if not any(one.mount_point.startswith(root + "/") for one in mounts)]


def _take(points: Sequence[str], remove: bool, found: list[str]) -> None:
    for point in points:
        files = [os.path.join(directory, name) for directory, _below, names in os.walk(point) for name in names]
        if not all(_CRIU_FILE.search(path) and os.lstat(path).st_size == 0 for path in files):
            continue
        if remove:
            if _LIBC.umount2(os.fsencode(point), 0) != 0:
                continue
            with contextlib.suppress(OSError):
                os.rmdir(point)
        found.append(point)


def _pids(proc: str) -> list[str]:
    return [name for name in os.listdir(proc) if name.isdigit()]


def _await_shim_end(
    namespace: str,
    container_id: str,
    seconds: float,
    proc: str,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> list[int]:
    """The shims of the container that still run when ``seconds`` are over."""
    give_up = clock() + seconds
    while True:
        left = shim_pids(namespace, container_id, proc)
        if not left or clock() >= give_up:
            return left
        sleep(_POLL_SECONDS)


def _runc_root(options: Any) -> str:
    if options is None or options.type_url.rsplit("/", 1)[-1] != _OPTIONS:
        return DEFAULT_ROOT
    found = messages.message(_OPTIONS)
    found.ParseFromString(options.value)
    return str(found.root) or DEFAULT_ROOT


def _own_cgroups(spec: Mapping[str, Any], name: str) -> list[str]:
    """The container's control groups in all hierarchies, if they bear a name that only we give."""
    path = str((spec.get("linux") or {}).get("cgroupsPath") or "")
    if os.path.basename(path) != f"gpuops-restore-{name}" or not path.startswith("/"):
        return []
    pattern = glob.escape(path.lstrip("/"))
    return [*glob.glob(f"{_CGROUPS}/*/{pattern}"), *glob.glob(f"{_CGROUPS}/{pattern}")]


def _end_cgroup(path: str, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
    """End what CRIU may have begun to restore into the group, then remove the group."""
    give_up = clock() + _END_SECONDS
    while True:
        with open(os.path.join(path, "cgroup.procs"), encoding="ascii") as stream:
            pids = [int(word) for word in stream.read().split() if word != "0"]
        if not pids or clock() >= give_up:
            break
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        sleep(_POLL_SECONDS)
    os.rmdir(path)


def _unmount(directory: str) -> None:
    below = directory.rstrip("/") + "/"
    points = [mount.mount_point for mount in mountinfo.parse(mountinfo.read())]
    for point in sorted((point for point in points if point.startswith(below)), reverse=True):
        # Not by umount(8), which would leave its own directory in /run.
        if _LIBC.umount2(os.fsencode(point), _MNT_DETACH) != 0:
            raise OSError(ctypes.get_errno(), f"{os.strerror(ctypes.get_errno())} (umount {point})")
