# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which processes have CUDA state, on which GPUs, and what the node's driver can do."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._containerd.client import Client
from .._core.errors import NodeError
from .._host import memory as host_memory
from .._host.processes import Process
from . import devices, driver as gpu_driver, marks, nvml, processes as gpu_processes
from .access import GpuAccess
from .processes import CudaProcess, Scope

#: Seconds for a look, as long as it may take to wake GPUs without persistence mode.
SECONDS = 60.0


@dataclass(frozen=True)
class InfoParams:
    """Whose processes: a container's, ``pids``, or without both all that have GPU memory now."""

    container_id: str = ""
    pids: tuple[int, ...] = ()
    access: GpuAccess = field(default_factory=lambda: GpuAccess(cuda_timeout=SECONDS))

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> InfoParams:
        """The options of ``cuda_process_info``. Raises InputError ``pid_invalid``."""
        return cls(
            container_id=options["container_id"] or "",
            pids=gpu_processes.require_pids(options["pids"]),
            access=GpuAccess.from_options(options),
        )


@dataclass(frozen=True)
class _Answer:
    available: bool
    reason: str | None
    code: str | None
    version: int | None
    library: str | None
    found: tuple[CudaProcess, ...]


def gather(client: Client | None, params: InfoParams) -> dict[str, Any]:
    """Everything that ``cuda_process_info`` returns; a node without GPU, driver or bindings is no error.

    Raises InputError ``container_absent``, ``task_absent``, ``process_gone``, ConflictError ``task_paused`` (a call
    for a frozen process would hang) and RestoreError ``cuda_timeout``.
    """
    reading = params.access.read_nvml(params.access.cuda_timeout)
    answer = _query_driver(params, _processes(client, params, reading))
    version = answer.version if answer.version is not None else reading.cuda
    return {
        "available": answer.available,
        "reason": answer.reason,
        "reason_code": answer.code,
        "driver": {
            "version": reading.driver,
            "cuda": gpu_driver.version_text(version),
            "library": answer.library,
            "gpu_map": version is not None and version >= gpu_driver.MAP_SINCE,
        },
        "nvml": {"available": not reading.reason, "reason": reading.reason or None},
        "gpus": [gpu.result() for gpu in reading.gpus],
        "processes": [_result(params, entry, reading) for entry in answer.found],
    }


def _processes(client: Client | None, params: InfoParams, reading: nvml.Reading) -> list[Process]:
    scope: Scope | None
    if params.container_id and client is not None:
        scope = gpu_processes.scope_of_container(
            client, params.container_id, None, proc=params.access.proc, cgroup_root=params.access.cgroup_root
        )
    elif params.pids:
        scope = gpu_processes.scope_of_pids(params.pids, params.access.proc, params.access.cgroup_root)
    else:
        scope = Scope(pids=tuple({holder.pid for holder in reading.holders}), proc=params.access.proc)
    if scope is None:
        return []
    scope.refuse_frozen()
    return scope.processes()


def _query_driver(params: InfoParams, processes: Sequence[Process]) -> _Answer:
    deadline = time.monotonic() + params.access.cuda_timeout
    try:
        with params.access.open_driver(deadline) as driver:
            found = tuple(gpu_processes.query_states(driver, processes, deadline)) if processes else ()
            return _Answer(True, None, None, driver.version, str(driver.place), found)
    except NodeError as error:
        return _Answer(False, error.message, error.code, error.details.get("version"), None, ())


def _result(params: InfoParams, entry: CudaProcess, reading: nvml.Reading) -> dict[str, Any]:
    process = entry.process
    checkpointed = entry.state == gpu_driver.CHECKPOINTED
    return {
        "pid": process.pid,
        "start_time": process.start_time,
        "state": entry.state,
        "problem": entry.problem or None,
        "restore_thread_id": entry.thread,
        "restore_failed": (marks.read(params.access.marks_root, process) or None) if checkpointed else None,
        "gpus": reading.shares_of(process.pid),
        "visible": devices.visible_gpus(process.pid, reading, params.access.proc),
        "memory": reading.bytes_of(process.pid),
        "host_memory": host_memory.resident(process.pid, params.access.proc),
    }
