# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Park a workload for work without a reboot: its GPU memory goes into host memory and its task is paused, in place.

Nothing is written but the mark of a capture (:mod:`_capture.mark`), so that a workload which a killed run has left half
parked goes on by the same way (:mod:`_capture.recovery`), be it by the next run of this step or of a capture.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from .._containerd import containers, tasks
from .._containerd.client import Client
from .._containerd.containers import Container
from .._containerd.tasks import Task
from .._core import labels
from .._core.errors import RETRYABLE, UNKNOWN, InputError, RestoreError, combined
from .._gpu import devices, peer_access, shared_gpus, state as gpu_state, xla
from .._gpu.access import GpuAccess
from .._gpu.processes import Scope
from .._host import memory as host_memory, processes as host_processes, run_lock
from . import gpu, mark as capture_mark, parked as marks, recovery, resources, settle, signals as capture_signals
from .gpu import Gpus
from .mark import PARKED, PARKING, Mark, MarkFile
from .params import CaptureParams
from .signals import DeferredSignals


@dataclass(frozen=True)
class ParkParams:
    """The workload that is meant, and how its GPUs are reached."""

    container_id: str
    gpu: str = devices.AUTO
    owner: str = labels.DEFAULT_OWNER
    force: bool = False
    marks_root: str = field(default_factory=capture_mark.default_root)
    access: GpuAccess = field(default_factory=GpuAccess)

    def as_capture(self) -> CaptureParams:
        """The same for what captures and this step have in common."""
        return CaptureParams(self.container_id, "", gpu=self.gpu, marks_root=self.marks_root, access=self.access)


@dataclass
class ParkResult:
    """What was, or in check mode would be, done."""

    changed: bool = False
    #: A run that was broken off had left the workload standing, which was taken back.
    recovered: bool = False
    before: str = ""
    after: str = ""
    #: The task's first process; 0 where nobody knows yet.
    pid: int = 0
    #: The CUDA processes, as ``cuda_process_info`` has them, before they leave their GPUs.
    processes: list[dict[str, Any]] = field(default_factory=list)
    #: Bytes on each GPU, by UUID, that leave it or come back to it.
    vram: dict[str, int] = field(default_factory=dict)
    #: What comes into the node's memory, what it has free, and what the container's limit leaves, in bytes.
    host_memory: dict[str, int | None] = field(default_factory=dict)
    #: Processes that still have NVIDIA's devices open while it is parked.
    holding: list[int] = field(default_factory=list)
    #: Processes that ended when the workload went on: pid and command.
    ended: list[dict[str, Any]] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """What is parked."""

    task: Task
    gpus: Gpus
    vram: Mapping[str, int]


def parked(client: Client, params: ParkParams, check: bool, noted: DeferredSignals | None = None) -> ParkResult:
    """Have the workload parked. ``noted``: signals that somebody else defers.

    Raises InputError (``container_absent``, ``task_not_running``, ``no_cuda_processes``), ConflictError
    (``container_not_ours``, ``busy``, ``capture_held``, ``capture_busy``, ``task_paused``, ``cuda_states_mixed``),
    NodeError (what the driver cannot bring back, want of memory), RestoreError (``park_interrupted`` and what CUDA's
    step raises). The workload goes on after each of them.
    """
    place = (params.marks_root, client.namespace, params.container_id)
    if check:
        return foretold(client, params)[0]
    begun = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(
            run_lock.changing(client.namespace, params.container_id, "containerd_park", client.busy_seconds)
        )
        mark_file = stack.enter_context(capture_mark.locked(*place))
        mark = mark_file.read()
        broken_off = mark
        if mark is None or marks.is_parked(tasks.get(client, params.container_id), mark, params.access.proc):
            broken_off = None
        actions: list[str] = []
        ended: list[dict[str, Any]] = []
        if broken_off is not None:
            # Before anything else can fail: the workload may be standing still.
            _refuse_held(client, params, broken_off)
            actions = recovery.describe(params.as_capture(), broken_off)
            ended = recovery.recover(client, params.as_capture(), mark_file, broken_off)
            mark = None
        result, subject = _plan(client, params, mark)
        result.recovered, result.ended = broken_off is not None, ended
        result.actions = actions + result.actions
        result.warnings += _ended(params, ended)
        if subject is not None:
            result.seconds["preflight"] = round(time.monotonic() - begun, 3)
            signals = nullcontext(noted) if noted else capture_signals.deferred(params.container_id)
            _Parking(client, params, subject, mark_file, result).run(stack.enter_context(signals))
        result.seconds["total"] = round(time.monotonic() - begun, 3)
        return result


def resumed(client: Client, params: ParkParams, check: bool) -> ParkResult:
    """Have the workload run in place, with its GPU memory.

    Raises ConflictError (``busy``, ``capture_held``, ``capture_busy``, ``task_paused`` where somebody else has paused
    it), InputError (``container_absent``, ``task_not_running``: what was parked is gone) and what
    :func:`_gpu.state.ensure` raises; the mark stays then.
    """
    place = (params.marks_root, client.namespace, params.container_id)
    begun = time.monotonic()
    with ExitStack() as stack:
        if check:
            mark = capture_mark.peek(*place)
        else:
            stack.enter_context(
                run_lock.changing(client.namespace, params.container_id, "containerd_park", client.busy_seconds)
            )
            mark_file = stack.enter_context(capture_mark.locked(*place))
            mark = mark_file.read()
        result = ParkResult(before="RUNNING", after="RUNNING")
        if mark is None:
            result.pid = _require_running(client, params).pid
            return result
        _refuse_held(client, params, mark)
        living = recovery.marked_task(client, params.container_id, mark, params.access.proc) is not None
        result.before = "PARKED" if mark.phase == PARKED and living else "UNKNOWN"
        result.changed, result.recovered = True, mark.phase != PARKED
        result.vram = dict(mark.vram)
        result.actions = recovery.describe(params.as_capture(), mark)
        if not check:
            result.ended = recovery.recover(client, params.as_capture(), mark_file, mark)
            result.warnings += _ended(params, result.ended)
        result.pid = mark.pid if check and living else _require_running(client, params).pid
        result.seconds["total"] = round(time.monotonic() - begun, 3)
        return result


def foretold(client: Client, params: ParkParams) -> tuple[ParkResult, Subject | None]:
    """What :func:`parked` would do now, and nothing of it done; raises as that."""
    return _plan(client, params, capture_mark.peek(params.marks_root, client.namespace, params.container_id))


def _plan(client: Client, params: ParkParams, mark: Mark | None) -> tuple[ParkResult, Subject | None]:
    """What has to be done; no subject where it is parked, or has to go on before it can be asked."""
    result = ParkResult(before="RUNNING", after="PARKED")
    container, task = _found(client, params)
    if marks.is_parked(task, mark, params.access.proc):
        result.before, result.vram = "PARKED", dict(mark.vram if mark else {})
        result.pid = task.pid if task else 0
        return result, None
    containers.require_ours(container, params.owner, params.force)
    result.changed = True
    if mark is not None:
        _refuse_held(client, params, mark)
        result.before, result.recovered = "UNKNOWN", True
        result.actions = recovery.describe(params.as_capture(), mark)
        if recovery.marked_task(client, params.container_id, mark, params.access.proc) is not None:
            result.actions.append(f"park {params.container_id}")
            return result, None
    subject = _examine(client, params, _require_running(client, params), result)
    result.pid = subject.task.pid
    if subject.gpus.suspend:
        result.actions.append(f"take the CUDA processes of {params.container_id} off their GPUs")
    result.actions.append(f"pause the task (pid {subject.task.pid})")
    return result, subject


def _found(client: Client, params: ParkParams) -> tuple[Container, Task | None]:
    container = containers.get(client, params.container_id)
    if container is None:
        raise InputError(
            "container_absent",
            f"There is no container {params.container_id} in containerd's namespace {client.namespace}.",
            "Name one that exists.",
        )
    return container, tasks.get(client, params.container_id)


def _require_running(client: Client, params: ParkParams) -> Task:
    task = _found(client, params)[1]
    if task is not None:
        tasks.refuse_paused(task)
    if task is None or task.status != "RUNNING" or task.pid <= 0:
        raise InputError(
            "task_not_running",
            f"The container {params.container_id} has no running task ({task.status if task else 'no task'}); if it "
            "was parked, it has ended since, or a reboot took it with its memory.",
            "Start it anew, or restore it from a checkpoint.",
        )
    return task


def _refuse_held(client: Client, params: ParkParams, mark: Mark) -> None:
    capture = params.as_capture()
    if settle.keeps_paused(client, capture, mark):
        raise settle.refusal(capture, mark)


def _examine(client: Client, params: ParkParams, task: Task, result: ParkResult) -> Subject:
    """The rules of a capture for what the driver has to bring back; CRIU has no part in this."""
    access, capture = params.access, params.as_capture()
    scope = Scope(task_pid=task.pid, proc=access.proc, cgroup_root=access.cgroup_root)
    pids = [process.pid for process in scope.processes()]
    gpus = gpu.examine(client, capture.cuda(), params.gpu, scope.processes())
    problems: list[RestoreError] = []
    if params.gpu != devices.NONE:
        problems += shared_gpus.problems(params.container_id, gpus.info, pids, access.proc)
    vram: dict[str, int] = {}
    if gpus.suspend:
        problems += peer_access.problems(params.container_id, gpus.info, access.proc)
        problems += xla.problems(params.container_id, gpus.info, access.proc)
        result.warnings += gpu_state.ensure(client, capture.cuda(), check=True).warnings
        result.processes = [dict(process) for process in gpus.info["processes"]]
        for process in result.processes:
            for share in process["gpus"]:
                vram[share["uuid"]] = vram.get(share["uuid"], 0) + (share["memory"] or 0)
    if problems:
        raise combined(problems)
    result.vram = vram
    result.host_memory = {
        "needed": gpus.vram,
        "available": host_memory.available(access.proc),
        "limit_leaves": host_memory.tightest(pids, access.proc, access.cgroup_root),
    }
    return Subject(task, gpus, vram)


def _ended(params: ParkParams, found: list[dict[str, Any]]) -> list[str]:
    names = ", ".join(f"{process['pid']} ({process['command']})" for process in found)
    return [f"Of {params.container_id}, process {names} ended when it went on."] if found else []


class _Parking:
    """From the mark to the pause."""

    def __init__(
        self, client: Client, params: ParkParams, subject: Subject, mark_file: MarkFile, result: ParkResult
    ) -> None:
        self._client, self._params, self._mark_file, self._result = client, params, mark_file, result
        self._subject = subject
        pid = subject.task.pid
        self._mark = Mark(
            pid=pid,
            start_time=host_processes.start_time(pid, params.access.proc) or 0,
            directory="",
            staging_dir="",
            lease="",
            snapshotter="",
            view="",
            copy="",
            cuda=subject.gpus.suspend,
            name="",
            phase=PARKING,
            locked=subject.gpus.locked,
            vram=subject.vram,
        )

    def run(self, signals: DeferredSignals) -> None:
        """Carry it out; after a failure the workload goes on."""
        client, params, access = self._client, self._params, self._params.access
        self._mark_file.write(self._mark)
        try:
            if self._subject.gpus.suspend:
                begun = time.monotonic()
                gpu_state.ensure(client, params.as_capture().cuda(), False)
                self._result.seconds["cuda_suspend"] = round(time.monotonic() - begun, 3)
            begun = time.monotonic()
            tasks.pause(client, params.container_id)
            self._result.seconds["pause"] = round(time.monotonic() - begun, 3)
            scope = Scope(task_pid=self._mark.pid, proc=access.proc, cgroup_root=access.cgroup_root)
            pids = [process.pid for process in scope.processes()]
            self._result.holding = resources.nvidia_devices(pids, access.proc)
            if signals.first:
                raise RestoreError(
                    "park_interrupted",
                    f"The run that parks {params.container_id} was broken off by {signals.first}.",
                    "Run again.",
                    outcome=RETRYABLE,
                )
            self._mark_file.write(replace(self._mark, phase=PARKED))
        except BaseException as error:
            self._go_on(error)
            raise
        if self._result.holding:
            held = ", ".join(map(str, self._result.holding))
            self._result.warnings.append(
                f"Process {held} of {params.container_id} still has NVIDIA's devices open, "
                "so that a card cannot be reset."
            )

    def _go_on(self, error: BaseException) -> None:
        """As the next run would have it go on; what cannot be done is told, and left to that one by the mark."""
        try:
            recovery.recover(self._client, self._params.as_capture(), self._mark_file, self._mark)
        except RestoreError as problem:
            if not isinstance(error, RestoreError):
                return
            if recovery.is_lost(problem):
                error.message = f"{problem.message} It was to be parked: {error.message}"
                error.remedy, error.outcome = problem.remedy, problem.outcome
                error.details["lost"] = True
                return
            error.left_behind(f"the task of {self._params.container_id} may stand still: {problem.message}")
            error.outcome = UNKNOWN
