# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a node has NVIDIA's driver, and whether a container is meant for a GPU.

Neither asks the driver, so both are cheap enough to be asked for every container.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

AUTO, REQUIRED, NONE = "auto", "required", "none"

#: The driver's control device; it is there as soon as the kernel module is loaded and set up.
CONTROL_DEVICE = "/dev/nvidiactl"


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
