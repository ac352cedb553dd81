# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The CUDA processes of a task that is to be captured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._containerd.client import Client
from .._core.errors import ConflictError, InputError, NodeError
from .._gpu import driver, forks, info as gpu_info, state as gpu_state, transitions
from .._gpu.devices import NONE, REQUIRED
from .._gpu.forks import Fork
from .._host.processes import Process
from . import resources


@dataclass(frozen=True)
class Gpus:
    """What a task has of GPUs."""

    #: There are CUDA processes that have to leave their GPUs.
    suspend: bool = False
    #: Somebody has locked them already, and has them locked again afterwards.
    locked: bool = False
    #: Bytes that these hold there.
    vram: int = 0
    #: Processes that hold what they inherited of a CUDA process, as the preflight found them.
    forks: tuple[Fork, ...] = ()
    #: As ``cuda_process_info`` returns it.
    info: Mapping[str, Any] = field(default_factory=lambda: {"processes": []})


def examine(client: Client, params: gpu_state.StateParams, mode: str, processes: Sequence[Process]) -> Gpus:
    """What there is to suspend; nothing is changed.

    Raises NodeError with the driver's own reason where CUDA processes, or perhaps some, cannot be suspended, InputError
    ``no_cuda_processes`` where some are required, ConflictError ``cuda_states_mixed``, RestoreError
    ``cuda_process_failed`` or ``cuda_restore_failed`` where one is lost already.
    """
    if mode == NONE:
        return Gpus()
    access = params.access.limited_to(gpu_info.SECONDS)
    info = gpu_info.gather(client, gpu_info.InfoParams(params.container_id, access=access))
    pids = [process.pid for process in processes]
    using = resources.nvidia_devices(pids, params.access.proc) if not info["available"] else []
    if not info["available"] and (mode == REQUIRED or using):
        why = info["reason_code"] or "cuda_init_failed"
        raise NodeError(
            why,
            f"The CUDA processes of {params.container_id} cannot be suspended: {info['reason']}",
            "Mend that; gpu: none captures without, which only works for processes that do not use a GPU.",
            details={"pids": using},
        )
    found = info["processes"]
    inherited = tuple(forks.find(without_cuda(processes, found), params.access.proc))
    if not found:
        if mode == REQUIRED:
            raise InputError(
                "no_cuda_processes",
                f"No process of {params.container_id} has CUDA state.",
                "Wait until the workload uses its GPU, or set gpu to auto.",
            )
        return Gpus(forks=inherited)
    for process in found:
        # Neither would come back, whatever the driver says of the second one's state.
        if process["state"] == driver.FAILED:
            raise transitions.broken(process["pid"])
        if process["restore_failed"]:
            raise transitions.poisoned(process["pid"], process["restore_failed"])
    states = {process["state"] for process in found}
    if len(states) > 1 or not states <= {driver.RUNNING, driver.LOCKED, driver.CHECKPOINTED}:
        raise ConflictError(
            "cuda_states_mixed",
            f"The CUDA processes of {params.container_id} are not all running, all locked or all checkpointed: "
            + ", ".join(f"{process['pid']} is {process['state']}" for process in found)
            + ".",
            "Bring them to one state with cuda_process, then run again.",
        )
    # What somebody has checkpointed stays so: whoever did it brings it back.
    suspend = states != {driver.CHECKPOINTED}
    vram = sum(process["memory"] or 0 for process in found) if suspend else 0
    return Gpus(suspend, states == {driver.LOCKED}, vram, inherited, info)


def without_cuda(processes: Iterable[Process], found: Iterable[Mapping[str, Any]]) -> list[Process]:
    """Those of a task's processes for which the driver told of no CUDA state."""
    pids = {int(entry["pid"]) for entry in found}
    return [process for process in processes if process.pid not in pids]
