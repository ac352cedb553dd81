# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The step that brings the CUDA processes of a task to a state.

All processes take each call side by side, and the next call only when all have answered. What fails half-way towards a
checkpoint is rolled back, so that the workload goes on; what fails in a restore stays locked, since a part of a
workload must not go on without the rest.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._containerd.client import Client
from .._core import labels
from .._core.errors import RETRYABLE, UNKNOWN, InputError, RestoreError
from .._host import memory as host_memory
from .._host.processes import Process
from . import (
    gpu_map as gpu_maps,
    marks,
    nvml,
    processes as gpu_processes,
    transitions,
    vram,
)
from .access import GpuAccess
from .driver import CHECKPOINT, CHECKPOINTED, LOCK, LOCKED, RESTORE, RUNNING, UNLOCK, Done, Driver
from .processes import CudaProcess, Scope
from .run import UNANSWERED, Locks, Run

#: How often new processes, forked while the others were locked, are looked for.
_ROUNDS = 5


@dataclass(frozen=True)
class StateParams:
    """The state that the processes of a container's task, or ``pids``, are to have."""

    #: RUNNING, LOCKED or CHECKPOINTED.
    state: str = RUNNING
    container_id: str = ""
    pids: tuple[int, ...] = ()
    #: New UUIDs of GPUs by old ones.
    gpu_map: Mapping[str, str] = field(default_factory=dict)
    #: Bytes that the checkpoint had on each GPU, by old UUID.
    vram: Mapping[str, int] = field(default_factory=dict)
    #: The GPUs that the processes could see when they were captured, where that is known.
    visible: tuple[str, ...] = ()
    owner: str = labels.DEFAULT_OWNER
    force: bool = False
    assume_prepared: bool = False
    access: GpuAccess = field(default_factory=GpuAccess)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> StateParams:
        """The options of ``cuda_process``. Raises InputError ``pid_invalid``, ``vram_invalid``."""
        return cls(
            state=options["state"].upper(),
            container_id=options["container_id"] or "",
            pids=gpu_processes.require_pids(options["pids"]),
            gpu_map=dict(options["gpu_map"]),
            vram=vram.sizes(options["vram"]),
            owner=options["owner"],
            force=options["force"],
            assume_prepared=options["assume_prepared"],
            access=GpuAccess.from_options(options),
        )


@dataclass
class StateResult:
    """What was, or in check mode would be, done."""

    changed: bool = False
    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    #: As the module returns them.
    processes: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    #: How often it was tried to lock all of them.
    lock_attempts: int = 0
    #: When the last call ended, as time.monotonic() tells; what is looked at afterwards keeps nobody waiting.
    reached_at: float | None = None


def ensure(client: Client | None, params: StateParams, check: bool, driver: Driver | None = None) -> StateResult:
    """Bring all processes to ``params.state``. ``client`` is only needed for a container; ``driver``: one that is open.

    Raises InputError (``container_absent``, ``task_absent``, ``process_gone``, ``not_a_cuda_process``,
    ``gpu_map_invalid``, ``gpu_map_incomplete``), ConflictError (``container_not_ours``, ``task_paused``), NodeError
    (what :func:`_gpu.driver.opened`, :mod:`_gpu.gpu_map` and :mod:`_host.memory` raise) and what
    :mod:`_gpu.transitions` raises. Errors after the first call have ``details.processes``.
    """
    begun = time.monotonic()
    pairs = gpu_maps.pairs(params.gpu_map, {*params.vram, *params.visible})
    result = StateResult()
    if check and params.assume_prepared:
        result.changed = params.state != CHECKPOINTED
        if result.changed:
            result.actions = [
                f"bring the CUDA processes of {params.container_id}, which would be new, to {params.state}"
            ]
        return result
    scope = _scope(client, params)
    processes = scope.processes() if scope else []
    if scope is None or not processes:
        return result
    scope.refuse_frozen()
    deadline = begun + params.access.cuda_timeout
    opening = params.access.open_driver(deadline)
    with contextlib.nullcontext(driver) if driver else opening as driver:
        found = gpu_processes.query_states(driver, processes, deadline)
        _require_cuda(params, found)
        if not check:
            marks.forget_gone(params.access.marks_root, params.access.proc)
            # They have come back after all, or by another's hand.
            back = [entry.process for entry in found if entry.state in (RUNNING, LOCKED)]
            marks.clear(params.access.marks_root, back)
        transitions.refuse(params.state, found, params.access.marks_root)
        run = Run(driver, pairs, params.access.marks_root, found)
        result.actions = run.actions(params.state)
        result.changed = bool(result.actions)
        reading = None
        if result.changed:
            reading = _preflight(params, found, pairs, driver, result)
        if result.changed and not check:
            _carry_out(params, scope, run, deadline, result)
            result.reached_at = time.monotonic()
            if params.state == RUNNING or reading is None:
                reading = params.access.read_nvml()
        result.seconds = {"init": round(driver.init_seconds, 3), **run.seconds}
    result.processes = run.results(reading or params.access.read_nvml(), None if not check else params.state)
    result.seconds["total"] = round(time.monotonic() - begun, 3)
    return result


def _scope(client: Client | None, params: StateParams) -> Scope | None:
    if params.container_id:
        if client is None:
            raise InputError("no_containerd", "A container can only be found with containerd.", "Give pids instead.")
        return gpu_processes.scope_of_container(
            client, params.container_id, params.owner, params.force, params.access.proc, params.access.cgroup_root
        )
    return gpu_processes.scope_of_pids(params.pids, params.access.proc, params.access.cgroup_root)


def _require_cuda(params: StateParams, found: Sequence[CudaProcess]) -> None:
    """A container may hold processes without CUDA; one that is named must have it."""
    with_cuda = {entry.process.pid for entry in found}
    for pid in params.pids:
        if pid not in with_cuda:
            raise InputError(
                "not_a_cuda_process",
                f"Process {pid} has no CUDA state.",
                "Name the processes that cuda_process_info lists, or give container_id to have them found.",
                details={"pid": pid},
            )


def _preflight(
    params: StateParams,
    found: Sequence[CudaProcess],
    pairs: Sequence[tuple[str, str]],
    driver: Driver,
    result: StateResult,
) -> nvml.Reading | None:
    """What has to be right before the first call; the NVML reading where one was made."""
    todo = {entry.process.pid: transitions.calls(params.state, entry.state) for entry in found}
    restored = [pid for pid, calls in todo.items() if RESTORE in calls]
    if restored:
        if pairs:
            driver.require_map()
        if not pairs and not params.vram:
            return None
        reading = params.access.read_nvml()
        gpu_maps.require_targets(tuple(pairs), reading)
        needed = vram.mapped(params.vram, params.gpu_map)
        result.warnings.extend(vram.require_room(_name(params, restored), needed, {}, reading))
        return reading
    reading = params.access.read_nvml()
    coming = {}
    for pid, calls in todo.items():
        size = reading.bytes_of(pid)
        if CHECKPOINT in calls and size is not None:
            coming[pid] = size
        elif CHECKPOINT in calls:
            why = reading.reason or "NVML does not tell"
            result.warnings.append(f"Host memory was not checked for process {pid}: its VRAM is not known ({why}).")
    for gpu in reading.gpus:
        if gpu.mig and any(holder.gpu == gpu.uuid and holder.pid in todo for holder in reading.holders):
            result.warnings.append(f"The GPU {gpu.index} is in MIG mode, which driver checkpoints do not support.")
    host_memory.require(coming, params.access.proc, params.access.cgroup_root)
    return reading


def _name(params: StateParams, pids: Sequence[int]) -> str:
    """The workload's, for messages."""
    return params.container_id or f"process {', '.join(map(str, pids))}"


def _carry_out(params: StateParams, scope: Scope, run: Run, deadline: float, result: StateResult) -> None:
    """The calls in their order, rolled back where that brings the workload on again."""
    for operation in transitions.ORDER[params.state]:
        if operation == LOCK:
            _lock(params, scope, run, deadline, result)
            continue
        todo = [
            process for process in run.processes if operation in transitions.calls(params.state, run.state(process))
        ]
        failed = run.call(operation, todo, deadline)
        if not failed:
            continue
        problem = transitions.summary(operation, failed, run.mapped)
        if operation == CHECKPOINT:
            _roll_back(run, problem, params.access.cuda_timeout)
        elif operation == RESTORE:
            locked = [str(process.pid) for process in run.processes if run.state(process) == LOCKED]
            if locked:
                problem.message += f" Process {', '.join(locked)} is restored and stays locked."
        raise run.explained(problem)


def _lock(params: StateParams, scope: Scope, run: Run, deadline: float, result: StateResult) -> None:
    """Lock all that run, and what comes up meanwhile; as often as it takes, or rolled back."""
    locks = Locks(run, params.access.lock_timeout)
    todo = [process for process in run.processes if LOCK in transitions.calls(params.state, run.state(process))]
    if not todo:
        return
    while True:
        failed = locks.attempt(todo, deadline)
        if not failed:
            try:
                failed = _lock_new_ones(params, scope, run, deadline, result, locks, todo)
            except RestoreError as error:
                _roll_back(run, error, params.access.cuda_timeout)
                raise run.explained(error) from error
        result.lock_attempts = locks.attempts
        if not failed:
            return
        problem = transitions.summary(LOCK, failed, run.mapped)
        if not locks.worth_another(failed):
            break
        failed = locks.withdraw(todo, deadline)
        if failed:
            problem = transitions.summary(UNLOCK, failed, run.mapped)
            break
    if locks.attempts > 1:
        problem.message += f" {locks.attempts} attempts were made."
    _roll_back(run, problem, params.access.cuda_timeout)
    raise run.explained(problem)


def _lock_new_ones(
    params: StateParams,
    scope: Scope,
    run: Run,
    deadline: float,
    result: StateResult,
    locks: Locks,
    todo: list[Process],
) -> list[Done]:
    """Lock what was forked, or came to use CUDA, while the others were being locked; ``todo`` has them, too, then."""
    if not scope.is_container:
        return []
    for _round in range(_ROUNDS):
        known = set(run.processes)
        fresh: list[Process] = [process for process in scope.processes() if process not in known]
        found = gpu_processes.query_states(run.driver, fresh, deadline) if fresh else []
        if not found:
            return []
        transitions.refuse(params.state, found, params.access.marks_root)
        run.add(found)
        result.actions = run.actions(params.state)
        to_lock = [entry.process for entry in found if LOCK in transitions.calls(params.state, entry.state)]
        todo += to_lock
        failed = locks.more(to_lock, deadline)
        if failed:
            return failed
    raise RestoreError(
        "cuda_processes_keep_coming",
        f"New CUDA processes kept coming while those of {params.container_id} were locked.",
        "Wait until the workload has started all of its processes, then run again.",
        outcome=RETRYABLE,
    )


def _roll_back(run: Run, error: RestoreError, seconds: float) -> None:
    """Bring every process back to where this call found it, in as much time again; note it in ``error``."""
    left = run.roll_back(time.monotonic() + seconds)
    error.details["rolled_back"] = not left
    if left:
        texts = [f"{process.pid} ({run.state(process)})" for process in left]
        error.message += f" Taking that back failed for process {', '.join(texts)}."
        error.left_behind("; ".join(f"process {text}" for text in texts))
        failed = run.poisoned(left)
        if failed:
            error.message += f" {failed} It is lost."
            error.details["lost"] = True
        if any(run.state(process) == UNANSWERED for process in left):
            error.outcome = UNKNOWN
