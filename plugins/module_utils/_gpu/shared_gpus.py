# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""GPUs that are divided (MIG) or served by a daemon (MPS), which the driver's checkpoints do not support.

The driver says so itself only when a process is locked already, if at all (NVIDIA, notes of cuda-checkpoint).
Facts: the MIG user guide for ``/dev/nvidia-caps`` and ``CUDA_VISIBLE_DEVICES=MIG-...``; the MPS guide for the names of
the daemons, ``CUDA_MPS_PIPE_DIRECTORY`` and its default. Of managed memory nobody tells beforehand: the driver refuses
it (801) when the process is locked, which is taken back.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from .._core.errors import NodeError
from .._host import processes as host_processes

#: The refusals' codes.
MIG, MPS = "cuda_mig", "cuda_mps"
_CAPABILITIES = "/dev/nvidia-caps/"
#: As /proc/PID/comm has the names of nvidia-cuda-mps-control and nvidia-cuda-mps-server: 15 characters.
_DAEMON = "nvidia-cuda-mps"
_PIPES, _DEFAULT_PIPES, _CONTROL = "CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps", "control"


def problems(container_id: str, info: Mapping[str, Any], pids: Iterable[int], proc: str = "/proc") -> list[NodeError]:
    """Why the CUDA processes, as ``cuda_process_info`` tells of them, cannot be checkpointed; nothing is touched.

    ``pids``: all processes of the task.
    """
    return [*_mig_problems(container_id, info, proc), *_mps_problems(container_id, info, pids, proc)]


def _mig_problems(container_id: str, info: Mapping[str, Any], proc: str) -> list[NodeError]:
    divided = {gpu["uuid"]: gpu["index"] for gpu in info.get("gpus", ()) if gpu["mig"]}
    found = [process["pid"] for process in info["processes"] if _uses_mig(process, divided, proc)]
    if not found:
        return []
    where = ", ".join(f"GPU {index}" for index in sorted(divided.values()))
    return [
        NodeError(
            MIG,
            f"Process {_listed(found)} of {container_id} uses a MIG instance{f' ({where} is divided)' if where else ''}"
            ", which the driver's checkpoints do not support.",
            "Run the workload on a GPU that is not divided.",
            details={"pids": found},
        )
    ]


def _uses_mig(process: Mapping[str, Any], divided: Mapping[str, int], proc: str) -> bool:
    pid = process["pid"]
    if any(gpu["uuid"] in divided for gpu in process["gpus"]):
        return True
    if host_processes.environment(pid, proc).get("CUDA_VISIBLE_DEVICES", "").startswith("MIG-"):
        return True
    # The same directory has the capabilities of MIG's management, which is nothing without a divided GPU.
    return bool(divided) and any(
        target.startswith(_CAPABILITIES) for _number, target in host_processes.descriptors(pid, proc)
    )


def _mps_problems(container_id: str, info: Mapping[str, Any], pids: Iterable[int], proc: str) -> list[NodeError]:
    here = [pid for pid in pids if _is_daemon(pid, proc)]
    if here:
        return [_mps_problem(container_id, here, "belongs to the MPS daemon")]
    clients = [process["pid"] for process in info["processes"] if _has_pipes(process["pid"], proc)]
    if not clients or not any(_is_daemon(int(name), proc) for name in os.listdir(proc) if name.isdigit()):
        return []
    return [_mps_problem(container_id, clients, "reaches the MPS daemon that runs on this node")]


def _mps_problem(container_id: str, found: list[int], why: str) -> NodeError:
    return NodeError(
        MPS,
        f"Process {_listed(found)} of {container_id} {why}, and the driver's checkpoints do not support MPS.",
        "Run the workload without MPS (without its pipe directory in the container), or accept: [cuda_mps] if you know "
        "that it began before the daemon and does not use it.",
        details={"pids": found},
    )


def _has_pipes(pid: int, proc: str) -> bool:
    """Whether a control daemon has made its pipes where CUDA looks for them in this process's container."""
    pipes = host_processes.environment(pid, proc).get(_PIPES) or _DEFAULT_PIPES
    return os.path.lexists(f"{proc}/{pid}/root/{pipes.lstrip('/')}/{_CONTROL}")


def _is_daemon(pid: int, proc: str) -> bool:
    return host_processes.command(pid, proc) == _DAEMON


def _listed(pids: Iterable[int]) -> str:
    return ", ".join(map(str, pids))
