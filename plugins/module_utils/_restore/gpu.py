# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The GPU's part in the restore of one workload: its memory is restored, and that is verified."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from .._containerd.client import Client
from .._core.errors import TERMINAL, UNKNOWN, NodeError, RestoreError
from .._core.text import gib
from .._gpu import devices, driver, nvml, state as gpu_state
from .._gpu.teardown import Policy
from .._host import processes as host_processes
from .._oci.facts import Facts

_SEEN_SECONDS = 5.0
_INTERVAL = 0.2
#: What a process may have less than when it was captured: contexts and the driver's own buffers differ a little.
_TOLERATED_BYTES, _TOLERATED_PART = 64 << 20, 0.05


@dataclass(frozen=True)
class GpuParams:
    """What is wanted of one workload's GPU memory."""

    policy: Policy = field(default_factory=Policy)
    gpu_map: Mapping[str, str] = field(default_factory=dict)
    #: Bytes by old GPU UUID, as the operator gave them.
    vram: Mapping[str, int] = field(default_factory=dict)
    #: The old GPUs that its processes could see, where that was recorded.
    visible: tuple[str, ...] = ()
    #: How often the workload is restored anew when the driver has failed.
    retries: int = 1


@dataclass
class GpuResult:
    """What was, or in check mode would be, done."""

    changed: bool = False
    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    processes: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    #: When the processes ran again, as time.monotonic() tells.
    reached_at: float | None = None

    def result(self, before: nvml.Reading | None = None, after: nvml.Reading | None = None) -> dict[str, Any]:
        """For results and receipts: sizes in bytes, ``gb_per_s`` in 10^9 bytes per second of the driver's restore."""
        sizes = [process["bytes"] for process in self.processes]
        total = sum(sizes) if sizes and all(size is not None for size in sizes) else None
        took = self.seconds.get("restore", 0.0)
        return {
            "processes": self.processes,
            "bytes": total,
            "seconds": self.seconds,
            "gb_per_s": round(total / took / 1e9, 2) if total and took else None,
            "gpus": _usage(self.processes, before, after),
        }


def needs_driver(params: GpuParams, spec: Mapping[str, Any], facts: Facts) -> bool:
    """Whether the driver has to be asked about this workload at all."""
    policy = params.policy
    if policy.mode == devices.NONE:
        return False
    return requires_gpu(params, spec, facts) or devices.has_driver(policy.access.control_device)


def requires_gpu(params: GpuParams, spec: Mapping[str, Any], facts: Facts) -> bool:
    """Whether the workload cannot do without a GPU."""
    mode = params.policy.mode
    if mode == devices.AUTO:
        return requires_processes(params, facts) or devices.wanted_by(spec)
    return mode == devices.REQUIRED


def requires_processes(params: GpuParams, facts: Facts) -> bool:
    """Whether there must be processes with CUDA: they are required, or the capture has recorded some."""
    mode = params.policy.mode
    return mode == devices.REQUIRED or (mode == devices.AUTO and bool(facts.cuda_processes))


def open_driver(params: GpuParams) -> driver.Opening:
    """The driver, to be opened while CRIU is at work: that takes as long as a gigabyte's restore."""
    access = params.policy.access
    return driver.Opening(access.open_driver(time.monotonic() + access.cuda_timeout))


def restore_memory(
    client: Client,
    container_id: str,
    params: GpuParams,
    ownership: tuple[str, bool],
    check: bool,
    *,
    gpu_required: bool,
    processes_required: bool = False,
    predicted_task: bool = False,
    opening: driver.Opening | None = None,
) -> GpuResult:
    """Restore and unlock all CUDA processes of the running task.

    ``ownership``: owner label and force. ``gpu_required`` as :func:`requires_gpu` tells, ``processes_required`` as
    :func:`requires_processes`; ``predicted_task``: in check mode, the task is one that this call would have started;
    ``opening``: a driver that is being opened.
    Raises what :func:`_gpu.state.ensure` raises, and RestoreError ``no_cuda_process``.
    """
    policy = params.policy
    result = GpuResult()
    if predicted_task and not gpu_required:
        # Whether it holds any can only be seen once it runs.
        return result
    try:
        done = gpu_state.ensure(
            client,
            gpu_state.StateParams(
                state=driver.RUNNING,
                container_id=container_id,
                gpu_map=params.gpu_map,
                vram=params.vram,
                visible=params.visible,
                owner=ownership[0],
                force=ownership[1],
                assume_prepared=predicted_task,
                access=policy.access,
            ),
            check,
            opening.driver() if opening else None,
        )
    except NodeError as error:
        if gpu_required or error.code not in driver.UNAVAILABLE:
            raise
        result.warnings.append(f"GPU memory was not looked for: {error.message}")
        return result
    result.changed, result.actions, result.warnings = done.changed, done.actions, done.warnings
    result.processes, result.seconds, result.reached_at = done.processes, done.seconds, done.reached_at
    if processes_required and not done.processes and not predicted_task:
        why = "the workload requires its GPU memory back"
        if policy.mode != devices.REQUIRED:
            why = "its capture recorded some that have"
        raise RestoreError(
            "no_cuda_process",
            f"No process of {container_id} has CUDA state, and {why}.",
            "Take the checkpoint with its CUDA processes suspended (containerd_checkpoint does); gpu: none restores "
            "without.",
        )
    return result


def verify(
    result: GpuResult,
    container_id: str,
    policy: Policy,
    facts: Facts,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> nvml.Reading | None:
    """See by NVML that what was restored holds its memory again; the reading, None where there is none.

    Memory is demanded of a process that had some when it was captured (``facts``), as much as then within a tolerance.
    Where that was not recorded for each, as many processes as had memory have to have some again, and at least one.
    Raises RestoreError ``vram_not_back``.
    """
    restored = [p for p in result.processes if "restore" in p["seconds"] and p["after"] == driver.RUNNING]
    if not restored:
        return None
    expected = _Expected(restored, facts, policy.access.proc)
    give_up = clock() + _SEEN_SECONDS
    while True:
        reading = policy.access.read_nvml()
        if reading.reason:
            result.warnings.append(f"That the VRAM is back was not seen: {reading.reason}.")
            return None
        for process in restored:
            process["bytes"], process["gpus"] = reading.bytes_of(process["pid"]), reading.shares_of(process["pid"])
        missing = expected.missing(restored, {holder.pid for holder in reading.holders})
        if not missing:
            result.warnings += expected.doubts(restored)
            return reading
        if clock() >= give_up:
            raise _not_back(container_id, missing[0], [process["pid"] for process in missing])
        sleep(_INTERVAL)


class _Expected:
    """How much GPU memory each restored process has to have."""

    def __init__(self, restored: Sequence[Mapping[str, Any]], facts: Facts, proc: str) -> None:
        had = {process.pid: process.bytes for process in facts.cuda_processes if process.pid is not None}
        within = {process["pid"]: host_processes.namespaced_pid(process["pid"], proc) for process in restored}
        found = {pid: had[inner] for pid, inner in within.items() if inner is not None and inner in had}
        #: Bytes by host pid (None: not told); None where the processes cannot be told apart.
        self._bytes = found if len(found) == len(within) else None
        #: How many have to have memory then.
        self._count = max(1, sum(1 for process in facts.cuda_processes if process.bytes != 0))

    def doubts(self, restored: Sequence[Mapping[str, Any]]) -> list[str]:
        """Those without memory of which nobody knows whether they had any."""
        if self._bytes is not None:
            return []
        pids = [str(process["pid"]) for process in restored if not process["gpus"]]
        return [f"Process {pid} has no GPU memory, and whether it had any was not recorded." for pid in pids]

    def missing(self, restored: Sequence[dict[str, Any]], listed: Collection[int]) -> list[dict[str, Any]]:
        """Those that lack memory. One that has ended meanwhile holds nothing; whether it should live is asked later."""
        alive = [one for one in restored if host_processes.start_time(one["pid"]) == one["start_time"]]
        if self._bytes is None:
            without = [process for process in alive if process["pid"] not in listed]
            return without if len(alive) - len(without) < min(self._count, len(alive)) else []
        return [
            {**process, "had": self._bytes[process["pid"]]}
            for process in alive
            if _lacks(self._bytes[process["pid"]], process["bytes"], process["pid"] in listed)
        ]


def _lacks(had: int | None, has: int | None, listed: bool) -> bool:
    """Whether a process has too little memory; sizes that nobody tells are not judged."""
    if had == 0:
        return False
    if not listed:
        return True
    return had is not None and has is not None and has < had - max(_TOLERATED_BYTES, int(had * _TOLERATED_PART))


def _not_back(container_id: str, process: Mapping[str, Any], pids: list[int]) -> RestoreError:
    pid, has, had = process["pid"], process["bytes"], process.get("had")
    what = "NVML shows no GPU memory of it"
    if has and had:
        what = f"it has {gib(has)} of GPU memory, where it had {gib(had)} when it was captured"
    return RestoreError(
        "vram_not_back",
        f"The driver restored process {pid} of {container_id}, but {what}.",
        "Look at dmesg for Xid lines and at the process's output, then restore the workload anew.",
        outcome=UNKNOWN,
        details={"pids": pids},
    )


def not_retryable(error: RestoreError) -> RestoreError:
    """The error of a GPU step in the window: what was made has to go again, so this step cannot just be run again."""
    if error.outcome != UNKNOWN:
        error.outcome = TERMINAL
    return error


def _usage(
    processes: list[dict[str, Any]], before: nvml.Reading | None, after: nvml.Reading | None
) -> list[dict[str, Any]]:
    shares = [gpu for process in processes for gpu in process["gpus"]]
    gpus = {gpu["uuid"]: gpu for gpu in shares}
    found = []
    for uuid, gpu in sorted(gpus.items()):
        then, now = (reading.gpu(uuid) if reading else None for reading in (before, after))
        found.append(
            {
                "uuid": uuid,
                "index": gpu["index"],
                "name": gpu["name"],
                "memory": sum(share["memory"] or 0 for share in shares if share["uuid"] == uuid),
                "used_before": _used(then),
                "used_after": _used(now),
            }
        )
    return found


def _used(gpu: nvml.Gpu | None) -> int | None:
    if gpu is None or gpu.memory_total is None or gpu.memory_free is None:
        return None
    return gpu.memory_total - gpu.memory_free
