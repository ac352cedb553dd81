# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What runc leaves when it is killed in the middle of a restore.

A containerd that is killed and started again ends the shim of a restore under way, and runc with it. runc writes its
``state.json`` only after CRIU has done its work, so containerd's own clean-up (``runc delete --force``) finds no
container of that name: runc's directory with the mount ``criu-root`` stays, and the control groups do, and every later
restore of that name ends in "container with given ID already exists". Seen with containerd 1.7 and runc 1.1.15.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import signal
import time
from collections.abc import Mapping
from typing import Any

from .._core.errors import UNKNOWN, RestoreError
from .._host import mountinfo
from . import containers, messages, shims
from .client import Client

#: Where containerd's shim has runc keep its state, unless the runtime options name another root.
DEFAULT_ROOT = "/run/containerd/runc"
_CGROUPS = "/sys/fs/cgroup"
_OPTIONS = "containerd.runc.v1.Options"
_SECONDS = 10.0
_MNT_DETACH = 2
_LIBC = ctypes.CDLL(None, use_errno=True)


def left_over(client: Client, container_id: str) -> str:
    """The directory of a restore that was broken off, empty if there is none. There must be no task."""
    container = containers.get(client, container_id)
    root = _root(container.runtime_options if container else None)
    directory = os.path.join(root, client.namespace, container_id)
    whole = os.path.exists(os.path.join(directory, "state.json"))
    if not os.path.isdir(directory) or whole or shims.pids(client.namespace, container_id):
        return ""
    return directory


def remove(client: Client, container_id: str) -> bool:
    """Take it away, with the control groups of the container; False if there was nothing. Call it without a task.

    Raises RestoreError ``runc_state_left``.
    """
    directory = left_over(client, container_id)
    if not directory:
        return False
    container = containers.get(client, container_id)
    try:
        for path in _groups(container.spec if container else {}, container_id):
            _end_group(path)
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


def _root(options: Any) -> str:
    if options is None or options.type_url.rsplit("/", 1)[-1] != _OPTIONS:
        return DEFAULT_ROOT
    found = messages.message(_OPTIONS)
    found.ParseFromString(options.value)
    return str(found.root) or DEFAULT_ROOT


def _groups(spec: Mapping[str, Any], container_id: str) -> list[str]:
    """The container's control groups in all hierarchies, if they bear a name that only we give."""
    path = str((spec.get("linux") or {}).get("cgroupsPath") or "")
    if os.path.basename(path) != f"gpuops-restore-{container_id}" or not path.startswith("/"):
        return []
    pattern = glob.escape(path.lstrip("/"))
    return [*glob.glob(f"{_CGROUPS}/*/{pattern}"), *glob.glob(f"{_CGROUPS}/{pattern}")]


def _end_group(path: str) -> None:
    """End what CRIU may have begun to restore into the group, then remove the group."""
    give_up = time.monotonic() + _SECONDS
    while True:
        with open(os.path.join(path, "cgroup.procs"), encoding="ascii") as stream:
            pids = [int(word) for word in stream.read().split() if word != "0"]
        if not pids or time.monotonic() >= give_up:
            break
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    os.rmdir(path)


def _unmount(directory: str) -> None:
    below = directory.rstrip("/") + "/"
    points = [mount.mount_point for mount in mountinfo.parse(mountinfo.read())]
    for point in sorted((point for point in points if point.startswith(below)), reverse=True):
        # Not by umount(8), which would leave its own directory in /run.
        if _LIBC.umount2(os.fsencode(point), _MNT_DETACH) != 0:
            raise OSError(ctypes.get_errno(), f"{os.strerror(ctypes.get_errno())} (umount {point})")
