# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which GPUs a process can see: those that have a device node in its container.

A restore onto other GPUs wants all of them in its map, also those that the process never used; CUDA_VISIBLE_DEVICES
makes no difference (seen on two H100, driver 580.159.04).
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from typing import Callable

from .nvml import Reading

#: The driver's character devices; minors from 254 on are no GPUs (Documentation/admin-guide/devices.txt, nvidia.ko).
_MAJOR = 195
_FIRST_OTHER = 254
_NODE = re.compile(r"nvidia\d+\Z")


def gpus(pid: int, reading: Reading, proc: str = "/proc") -> list[str]:
    """UUIDs of the GPUs of ``reading`` that the process can see, by their index; none where that cannot be told."""
    found = minors(os.path.join(proc, str(pid), "root/dev"))
    return [gpu.uuid for gpu in reading.gpus if gpu.minor is not None and gpu.minor in found]


def minors(directory: str, ask: Callable[[str], os.stat_result] = os.stat) -> set[int]:
    """The minor numbers of the GPUs' nodes in a ``/dev``; a node's name need not be that of its device."""
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            if _NODE.match(name):
                node = ask(os.path.join(directory, name))
                if stat.S_ISCHR(node.st_mode) and os.major(node.st_rdev) == _MAJOR:
                    found.add(os.minor(node.st_rdev))
    return {minor for minor in found if minor < _FIRST_OTHER}
