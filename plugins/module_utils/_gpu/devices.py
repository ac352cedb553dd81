# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the NVIDIA driver's device nodes tell: whether there is a driver, whether a container is meant for a GPU, and
which GPUs a process can see.

None of it calls the driver, so it is cheap enough for every container.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import stat
from collections.abc import Mapping
from typing import Any, Callable

from .nvml import Reading

#: Whether a workload has GPU memory: look, insist on it, or leave the driver alone.
AUTO, REQUIRED, NONE = "auto", "required", "none"

#: The driver's control device; it is there as soon as the kernel module is loaded and set up.
CONTROL_DEVICE = "/dev/nvidiactl"
#: The driver's character devices; minors from 254 on are no GPUs (Documentation/admin-guide/devices.txt, nvidia.ko).
_MAJOR = 195
_FIRST_OTHER = 254
_NODE = re.compile(r"nvidia\d+\Z")


def has_driver(control_device: str = CONTROL_DEVICE) -> bool:
    """Whether the kernel module of the driver serves this node."""
    return os.path.exists(control_device)


def wanted_by(spec: Mapping[str, Any]) -> bool:
    """Whether the container gets GPU devices, as device nodes or as mounts. ``spec`` has been checked."""
    devices = (spec.get("linux") or {}).get("devices") or []
    paths = [device.get("path") for device in devices if isinstance(device, dict)]
    for mount in spec.get("mounts") or []:
        if isinstance(mount, dict):
            paths += [mount.get("destination"), mount.get("source")]
    return any(isinstance(path, str) and path.startswith("/dev/nvidia") for path in paths)


def visible_gpus(pid: int, reading: Reading, proc: str = "/proc") -> list[str]:
    """UUIDs of the GPUs of ``reading`` with a device node in the process's container, by index; none if unknown.

    A restore onto other GPUs wants all of them in its map, also those that the process never used;
    CUDA_VISIBLE_DEVICES makes no difference (seen on two H100, driver 580.159.04).
    """
    found = minors(os.path.join(proc, str(pid), "root/dev"))
    return [gpu.uuid for gpu in reading.gpus if gpu.minor is not None and gpu.minor in found]


def minors(directory: str, stat_of: Callable[[str], os.stat_result] = os.stat) -> set[int]:
    """The minor numbers of the GPUs' nodes in a ``/dev``; a node's name need not be that of its device."""
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            if _NODE.match(name):
                node = stat_of(os.path.join(directory, name))
                if stat.S_ISCHR(node.st_mode) and os.major(node.st_rdev) == _MAJOR:
                    found.add(os.minor(node.st_rdev))
    return {minor for minor in found if minor < _FIRST_OTHER}


def numbers(pattern: str = "/dev/nvidia*") -> list[tuple[int, int]]:
    """Major and minor of the driver's devices here; the majors of some are chosen when its modules are loaded."""
    found = []
    for path in [*glob.glob(pattern), *glob.glob(os.path.join(pattern, "*"))]:
        with contextlib.suppress(OSError):
            node = os.stat(path)
            if stat.S_ISCHR(node.st_mode):
                found.append((os.major(node.st_rdev), os.minor(node.st_rdev)))
    return found
