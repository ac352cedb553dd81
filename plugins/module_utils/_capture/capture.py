# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The step that captures a running task as a checkpoint image.

Whatever fails, the workload goes on; and what a killed run has left stopped, the next one resumes by its mark
(:mod:`_capture.mark`) before anything else can fail. The capture itself is :mod:`_capture.run`.
"""

from __future__ import annotations

import time

from .._checkpoint import reader as checkpoint_reader
from .._containerd import containers, content, images, ownership, task_removal, tasks
from .._containerd.client import Client
from .._containerd.containers import Container
from .._containerd.tasks import Task
from .._core.errors import ConflictError, InputError, RestoreError, combined
from .._gpu import driver, forks, processes as gpu_processes, state as gpu_state
from . import (
    base as capture_base,
    gpu,
    layer,
    mark as capture_mark,
    preflight,
    recovery,
    settle,
    signals as capture_signals,
)
from .mark import Mark, Slot
from .params import PAUSED, RUNNING, STOPPED, CaptureParams, CaptureResult
from .run import Capture, Subject


def captured(client: Client, params: CaptureParams, check: bool) -> CaptureResult:
    """Have a checkpoint image of that name, taken from the container.

    Raises InputError (``container_absent``, ``task_not_running``, ``snapshot_absent``, ``no_cuda_processes``),
    ConflictError (``checkpoint_name_taken``, ``container_not_ours``, ``capture_busy``, ``capture_held``,
    ``task_paused``, ``base_image_moved``), NodeError (what the preflight finds), RestoreError (``criu_dump_failed``,
    ``checkpoint_timeout``, ``capture_interrupted``) and what CUDA's step raises.
    """
    if check:
        return _captured(
            client, params, None, capture_mark.peek(params.marks_root, client.namespace, params.container_id)
        )
    with capture_mark.held(params.marks_root, client.namespace, params.container_id) as slot:
        return _captured(client, params, slot, slot.read())


def _captured(client: Client, params: CaptureParams, slot: Slot | None, mark: Mark | None) -> CaptureResult:
    begun = time.monotonic()
    result = CaptureResult()
    held = mark is not None and settle.holds(client, params, mark)
    if held and mark is not None and (params.leave != PAUSED or mark.name != params.name):
        raise settle.refuse(params, mark)
    if mark is not None and not held:
        # Before anything else can fail: a workload may be standing still.
        result.changed = result.recovered = True
        result.actions.append(recovery.describe(params.container_id, mark))
        if slot is not None:
            back = params.cuda(driver.RUNNING)
            recovery.recover(client, params.container_id, slot, mark, back, params.checkpoint_timeout)
    container = containers.get(client, params.container_id)
    image = images.get(client, params.name)
    found = _present(client, params, image)
    result.before = {"digest": image.target.digest if image else None}
    if found is not None and (held or not params.force):
        result.digest = found.digest
        result.facts = dict(found.facts)
        result.after = result.before
        if params.leave != RUNNING and not held and task_removal.is_live(tasks.get(client, params.container_id)):
            result.warnings.append(
                f"The task of {params.container_id} has gone on since {params.name} was taken, so it is not "
                f"{params.leave}; with force it is captured anew and then {params.leave}."
            )
        return result
    if held and mark is not None:
        # Its image is gone.
        raise settle.refuse(params, mark)
    if container is None:
        raise InputError(
            "container_absent",
            f"There is no container {params.container_id} in containerd's namespace {client.namespace}.",
            "Name one that exists.",
        )
    if params.leave == STOPPED:
        # To capture changes nothing of a container; to end its task does.
        ownership.require_ours(container, params.owner, params.force)
    result.changed = True
    result.after = {"digest": "to be taken"}
    task = tasks.get(client, params.container_id)
    stands_still = slot is None and mark is not None and recovery.is_paused(task)
    if stands_still and mark is not None and recovery.same_task(client, params.container_id, mark, params.access.proc):
        # What a paused task holds can only be asked once it goes on again.
        result.actions.append(f"capture {params.container_id} as {params.name}")
        return result
    subject = _preflight(client, params, container, _running(params, task), result)
    result.seconds["preflight"] = round(time.monotonic() - begun, 3)
    result.actions += _actions(params, subject)
    if slot is None:
        return result
    with capture_signals.heeded(params.container_id) as signals:
        Capture(client, params, subject, slot, result, signals).run()
    result.seconds["total"] = round(time.monotonic() - begun, 3)
    result.after = {"digest": result.digest}
    return result


def _present(client: Client, params: CaptureParams, image: images.Image | None) -> checkpoint_reader.Checkpoint | None:
    """The complete checkpoint of that name and this container. Raises ConflictError ``checkpoint_name_taken``."""
    if image is None:
        return None
    try:
        found: checkpoint_reader.Checkpoint | None = checkpoint_reader.load(client, params.name)
    except InputError:
        found = None
    of = found.facts.get("container") if found else None
    if found is not None and of == params.container_id:
        whole = found.criu is not None and content.stat(client, found.criu.digest) is not None
        return found if whole else None
    if params.force:
        return None
    raise ConflictError(
        "checkpoint_name_taken",
        f"The image {params.name} ({image.target.digest}) exists and "
        + (f"is a checkpoint of {of}" if of else "was not captured by this collection")
        + f", not one of {params.container_id}.",
        "Choose another name, delete that image (containerd_image), or set force: true to take its place.",
        details={"found": image.target.digest, "container": of},
    )


def _running(params: CaptureParams, task: Task | None) -> Task:
    if task is not None and recovery.is_paused(task):
        tasks.refuse_paused(task)
    if task is None or task.status != "RUNNING" or task.pid <= 0:
        raise InputError(
            "task_not_running",
            f"The container {params.container_id} has no running task, so there is no process to capture "
            f"({task.status if task else 'no task'}).",
            "Start it first.",
        )
    return task


def _preflight(
    client: Client, params: CaptureParams, container: Container, task: Task, result: CaptureResult
) -> Subject:
    """All problems at once, CUDA's among them."""
    problems: list[RestoreError] = []
    gpus = gpu.Gpus()
    base: images.Image | None = None
    written: int | None = None
    try:
        scope = gpu_processes.Scope(task_pid=task.pid, proc=params.access.proc, cgroup_root=params.access.cgroup_root)
        gpus = gpu.examine(client, params.cuda(), params.gpu, scope.processes())
        problems += forks.problems(gpus.forks, params.cuda_forks, params.container_id, params.access.proc)
        if gpus.suspend:
            result.warnings += gpu_state.reach(client, params.cuda(), check=True).warnings
    except RestoreError as error:
        problems.append(error)
    try:
        written = layer.written(client, container)
        if written is None:
            raise layer.absent(container)
        base = capture_base.of(client, container)
    except RestoreError as error:
        problems.append(error)
    findings = preflight.examine(
        client,
        container,
        task,
        params.criu,
        params.staging_dir,
        preflight.Sizes(gpus.vram, written or 0),
        params.access.proc,
        params.access.cgroup_root,
    )
    problems.extend(findings.problems)
    if problems:
        raise combined(problems)
    if base is None and container.image:
        result.warnings.append(
            f"The image {container.image} of {container.id} is not on this node: the checkpoint only names it, and "
            "whoever restores it has to have it."
        )
    return Subject(container, task, base, gpus, findings)


def _actions(params: CaptureParams, subject: Subject) -> list[str]:
    actions = []
    suspend = subject.gpus.suspend
    if suspend:
        actions.append(f"take the CUDA processes of {params.container_id} off their GPUs")
    if subject.gpus.forks:
        pids = ", ".join(str(fork.process.pid) for fork in subject.gpus.forks)
        actions.append(f"take what process {pids} inherited of a CUDA process away from it")
    actions.append(f"pause the task (pid {subject.task.pid}) and dump it")
    if params.leave != RUNNING:
        actions.append("write the image" + (", then end the task" if params.leave == STOPPED else ""))
    else:
        actions.append("resume the task" + (" and give its CUDA processes their memory back" if suspend else ""))
        actions.append("write the image")
    return actions
