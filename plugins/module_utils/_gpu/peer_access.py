# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes that may have GPU memory in common, as the ranks of an NCCL job do by default.

Before driver 610 the driver checkpoints memory of another process (CUDA IPC) and cannot restore it: the restore answers
CUDA_ERROR_NOT_SUPPORTED (801), which poisons the process, so that a capture ends the workload whatever else it does.
Seen with two ranks over P2P on driver 580.159.04; over files in /dev/shm or sockets both came back. Without P2P
NCCL 2.24 and later shares host memory of the driver's instead (cuMem), on drivers of CUDA 12.6 and later and where
get_mempolicy works (misc/cudawrap.cc: ncclCuMemHostEnable); that is not restored either (999, seen with NCCL 2.28.9).
NVLink multicast (NVLS) is restored by no driver (NVIDIA's notes of cuda-checkpoint). NCCL uses it by itself from three
GPUs on, where they support it, whatever NCCL_P2P_DISABLE says (NCCL 2.18 to 2.21: ncclNvlsInit in transport/nvls.cc).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .._core import state_dir
from .._core.errors import NodeError
from .._host import processes as host_processes

#: The refusals' codes.
CUDA_IPC, MULTICAST = "cuda_ipc", "nvlink_multicast"
#: The first driver that restores memory of CUDA IPC (NVIDIA's release notes of cuda-checkpoint).
_RESTORES_IPC = 610
#: Of NVSHMEM, what its start loads (bootstrap_loader.cpp): PyTorch for CUDA 13 links its library into every process.
_NCCL, _NVSHMEM = "libnccl.so", "nvshmem_bootstrap"
#: What NCCL shares where it does not ask the driver for it.
_NCCL_FILE = "/dev/shm/nccl-"
#: The fewest GPUs for which NCCL turns to NVLS.
_NVLS_GPUS = 3
#: Chips without NVLink multicast, by words of their names: older than Hopper, or without NVSwitch.
_NO_MULTICAST = re.compile(
    r"\b(V100|P100|P40|T4|A100|A800|A40|A30|A16|A10G?|A2|L4|L40S?|L20|RTX|GeForce|TITAN|Quadro)\b"
)


def problems(container_id: str, info: Mapping[str, Any], proc: str = "/proc") -> list[NodeError]:
    """Why the CUDA processes, as ``cuda_process_info`` tells of them, could not come back; nothing is touched."""
    # Without memory on a card there is none to share: launchers, compile workers.
    holders = [process for process in info["processes"] if process["gpus"]]
    return [*_ipc_problems(container_id, info, holders, proc), *_multicast_problems(container_id, holders, proc)]


def _ipc_problems(
    container_id: str, info: Mapping[str, Any], holders: Sequence[Mapping[str, Any]], proc: str
) -> list[NodeError]:
    if _major(info["driver"]["version"]) >= _RESTORES_IPC:
        return []
    version, found = info["driver"]["version"], []
    nccl = [process["pid"] for process in holders if _has(process["pid"], _NCCL, proc)]
    peers = [pid for pid in nccl if _told(pid, "NCCL_P2P_DISABLE", proc) != "1"]
    host = [pid for pid in nccl if not _shares_by_files(pid, proc)]
    shmem = [
        process["pid"] for process in holders if _may_use(process["pid"], _NVSHMEM, "NVSHMEM_DISABLE_P2P", "1", proc)
    ]
    if len(peers) > 1:
        found.append(
            _ipc_problem(
                container_id,
                peers,
                "have NCCL loaded and NCCL_P2P_DISABLE=1 is not in their environment",
                f"if they reach each other's GPU memory, the driver {version} cannot restore them",
                "NCCL_P2P_DISABLE=1 and NCCL_CUMEM_HOST_ENABLE=0",
            )
        )
    elif len(host) > 1:
        found.append(
            _ipc_problem(
                container_id,
                host,
                "have NCCL loaded and neither NCCL_CUMEM_HOST_ENABLE=0 nor NCCL_SHM_DISABLE=1 in their environment",
                f"NCCL 2.24 and later shares host memory of the driver's then, which driver {version} cannot restore",
                "NCCL_CUMEM_HOST_ENABLE=0, by which it shares files in /dev/shm,",
            )
        )
    if len(shmem) > 1:
        found.append(
            _ipc_problem(
                container_id,
                shmem,
                "have NVSHMEM at work and NVSHMEM_DISABLE_P2P=1 is not in their environment",
                f"if they reach each other's GPU memory, the driver {version} cannot restore them",
                "NVSHMEM_DISABLE_P2P=1",
            )
        )
    return found


def _ipc_problem(container_id: str, pids: Sequence[int], what: str, so: str, setting: str) -> NodeError:
    return NodeError(
        CUDA_IPC,
        f"Process {', '.join(map(str, pids))} of {container_id} {what}: {so}, and the capture would end the workload.",
        f"Start the job with {setting} or use driver {_RESTORES_IPC} or newer; accept: [cuda_ipc] if you know that its "
        "processes share no memory of the driver's.",
        details={"pids": list(pids)},
    )


def _multicast_problems(container_id: str, holders: Sequence[Mapping[str, Any]], proc: str) -> list[NodeError]:
    """One process may have all the GPUs, too."""
    able = [process for process in holders if any(not _NO_MULTICAST.search(gpu["name"]) for gpu in process["gpus"])]
    nccl = [process for process in able if _may_use(process["pid"], _NCCL, "NCCL_NVLS_ENABLE", "0", proc)]
    nvshmem = [process for process in able if _may_use(process["pid"], _NVSHMEM, "NVSHMEM_DISABLE_NVLS", "1", proc)]
    found = [
        (name, setting, [process["pid"] for process in suspects])
        for name, setting, suspects, fewest in (
            ("NCCL", "NCCL_NVLS_ENABLE=0", nccl, _NVLS_GPUS),
            ("NVSHMEM", "NVSHMEM_DISABLE_NVLS=1", nvshmem, 2),
        )
        if len({gpu["uuid"] for process in suspects for gpu in process["gpus"]}) >= fewest
    ]
    return [
        NodeError(
            MULTICAST,
            f"Process {', '.join(map(str, pids))} of {container_id} may use NVLink multicast (NVLS), which no driver "
            f"restores: {name} is loaded, several GPUs are in use, and {setting} is not in the environment. The "
            "capture would end the workload.",
            f"Start the job with {setting}; accept: [nvlink_multicast] if you know that it uses none.",
            details={"pids": pids},
        )
        for name, setting, pids in found
    ]


def _may_use(pid: int, library: str, variable: str, off: str, proc: str) -> bool:
    """Whether the process has the library loaded and was not told to leave that off."""
    return _has(pid, library, proc) and _told(pid, variable, proc) != off


def _has(pid: int, library: str, proc: str) -> bool:
    return library in (state_dir.read_text(f"{proc}/{pid}/maps") or "")


def _told(pid: int, variable: str, proc: str) -> str | None:
    return host_processes.environment(pid, proc).get(variable)


def _shares_by_files(pid: int, proc: str) -> bool:
    """Whether a process shares host memory with others by files or not at all."""
    told = _told(pid, "NCCL_CUMEM_HOST_ENABLE", proc) == "0" or _told(pid, "NCCL_SHM_DISABLE", proc) == "1"
    return told or _has(pid, _NCCL_FILE, proc)


def _major(version: str | None) -> int:
    """Of ``580.159.04``; 0 where nobody tells."""
    first = (version or "").partition(".")[0]
    return int(first) if first.isdigit() else 0
