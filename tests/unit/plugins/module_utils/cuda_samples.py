# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Small helpers of the tests that use the STAND-INS for the NVIDIA driver's libraries."""

from __future__ import annotations

import time

from ansible_collections.gpuops.restore.plugins.module_utils import _cuda_processes
from ansible_collections.gpuops.restore.plugins.module_utils._cuda import Process


def process(pid: int) -> Process:
    """The process that has this id now."""
    (found,) = _cuda_processes.identify([pid])
    return found


def soon(seconds: float = 20.0) -> float:
    """A deadline."""
    return time.monotonic() + seconds
