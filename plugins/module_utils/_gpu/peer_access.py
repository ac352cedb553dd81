# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes that may read each other's GPU memory, as the ranks of an NCCL job do by default.

Before driver 610 the driver checkpoints such memory (CUDA IPC) and cannot restore it: the restore answers
CUDA_ERROR_NOT_SUPPORTED (801), which poisons the process, so that a capture ends the workload whatever else it does.
Seen with two ranks over P2P on driver 580.159.04; over shared memory or sockets (NCCL_P2P_DISABLE=1) both came back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .._core import state_dir
from .._core.errors import NodeError

#: The refusal's code.
CUDA_IPC = "cuda_ipc"
#: The first driver that restores memory of CUDA IPC (NVIDIA's release notes of cuda-checkpoint).
_RESTORES_IPC = 610
_LIBRARY = "libnccl.so"
_DISABLED = b"NCCL_P2P_DISABLE=1"


def problems(container_id: str, info: Mapping[str, Any], proc: str = "/proc") -> list[NodeError]:
    """Why the CUDA processes, as ``cuda_process_info`` tells of them, could not come back; nothing is touched."""
    if _major(info["driver"]["version"]) >= _RESTORES_IPC:
        return []
    suspects = list(_suspects(info["processes"], proc))
    if len(suspects) < 2:
        return []
    pids = ", ".join(map(str, suspects))
    return [
        NodeError(
            CUDA_IPC,
            f"Process {pids} of {container_id} have NCCL loaded and NCCL_P2P_DISABLE=1 is not in their environment: if "
            f"they reach each other's GPU memory, the driver {info['driver']['version']} cannot restore them, and the "
            "capture would end the workload.",
            "Start the job with NCCL_P2P_DISABLE=1, or use driver 610 or newer; accept: [cuda_ipc] if you know that "
            "its processes do not share GPU memory.",
            details={"pids": suspects},
        )
    ]


def _suspects(processes: Iterable[Mapping[str, Any]], proc: str) -> Iterable[int]:
    """Those with memory on a card that have NCCL loaded and were not told to keep off P2P."""
    for process in processes:
        pid = int(process["pid"])
        # Without memory on a card there is none to share: launchers, compile workers.
        if not process["gpus"]:
            continue
        if _LIBRARY in (state_dir.read_text(f"{proc}/{pid}/maps") or "") and _DISABLED not in _environment(pid, proc):
            yield pid


def _environment(pid: int, proc: str) -> list[bytes]:
    """As the process was started with; a program may have changed it since (proc_pid_environ(5))."""
    try:
        with open(f"{proc}/{pid}/environ", "rb") as stream:
            return stream.read().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def _major(version: str | None) -> int:
    """Of ``580.159.04``; 0 where nobody tells."""
    first = (version or "").partition(".")[0]
    return int(first) if first.isdecimal() else 0
