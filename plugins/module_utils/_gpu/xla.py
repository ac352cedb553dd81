# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""JAX programs whose GPU memory comes from XLA's own allocator, which the driver checkpoints and does not restore.

Seen with JAX for CUDA 13 on driver 580.159.04, suspended and resumed by the driver alone, without CRIU: the restore
answered CUDA_ERROR_INVALID_VALUE (1), or the process died of a segmentation fault in libcuda; with and without memory
taken in advance, on one card and on two. With XLA_PYTHON_CLIENT_ALLOCATOR=platform it came back, twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._core import state_dir
from .._core.errors import NodeError
from .._host import processes as host_processes

#: The refusal's code.
ALLOCATOR = "xla_allocator"
#: Of the wheels jax-cuda12-pjrt and jax-cuda13-pjrt.
_PLUGIN = "xla_cuda_plugin.so"
_VARIABLE, _FIT = "XLA_PYTHON_CLIENT_ALLOCATOR", "platform"


def problems(container_id: str, info: Mapping[str, Any], proc: str = "/proc") -> list[NodeError]:
    """Why JAX programs among the CUDA processes, as ``cuda_process_info`` tells of them, could not come back."""
    found = [process["pid"] for process in info["processes"] if process["gpus"] and _suspect(process["pid"], proc)]
    if not found:
        return []
    pids = ", ".join(map(str, found))
    return [
        NodeError(
            ALLOCATOR,
            f"Process {pids} of {container_id} uses JAX with XLA's own allocator of GPU memory, which the driver does "
            f"not restore (seen with 580, here is {info['driver']['version']}): the capture would end the workload.",
            f"Start it with {_VARIABLE}={_FIT}; accept: [{ALLOCATOR}] if you know that it comes back with this driver.",
            details={"pids": found},
        )
    ]


def _suspect(pid: int, proc: str) -> bool:
    if _PLUGIN not in (state_dir.read_text(f"{proc}/{pid}/maps") or ""):
        return False
    return host_processes.environment(pid, proc).get(_VARIABLE, "").lower() != _FIT
