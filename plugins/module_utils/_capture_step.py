# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The step that captures a running task as a checkpoint image. Private.

Whatever fails, the workload goes on; and what a killed run has left stopped, the next one resumes by its mark
(:mod:`_capture_mark`) before anything else can fail. The capture itself is :mod:`_capture_run`.
"""

from __future__ import annotations

import time

from ansible_collections.gpuops.restore.plugins.module_utils import (
    _capture_base,
    _capture_gpu,
    _capture_hold,
    _capture_layer,
    _capture_mark,
    _capture_preflight,
    _capture_recovery,
    _capture_signals,
    _checkpoint,
    _containers,
    _content,
    _cuda,
    _cuda_processes,
    _cuda_step,
    _images,
    _ownership,
    _task_end,
    _tasks,
)
from ansible_collections.gpuops.restore.plugins.module_utils._capture_mark import Mark, Slot
from ansible_collections.gpuops.restore.plugins.module_utils._capture_run import Capture, Subject
from ansible_collections.gpuops.restore.plugins.module_utils._capture_wish import (
    PAUSED,
    RUNNING,
    STOPPED,
    Outcome,
    Wish,
)
from ansible_collections.gpuops.restore.plugins.module_utils._client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._containers import Container
from ansible_collections.gpuops.restore.plugins.module_utils._errors import (
    ConflictError,
    InputError,
    RestoreError,
    combined,
)
from ansible_collections.gpuops.restore.plugins.module_utils._tasks import Task


def captured(client: Client, wish: Wish, check: bool) -> Outcome:
    """Have a checkpoint image of that name, taken from the container.

    Raises InputError (``container_absent``, ``task_not_running``, ``snapshot_absent``, ``no_cuda_processes``),
    ConflictError (``checkpoint_name_taken``, ``container_not_ours``, ``capture_busy``, ``capture_held``,
    ``task_paused``, ``base_image_moved``), NodeError (what the preflight finds), RestoreError (``criu_dump_failed``,
    ``checkpoint_timeout``, ``capture_interrupted``) and what CUDA's step raises.
    """
    if check:
        return _captured(client, wish, None, _capture_mark.peek(wish.marks_root, client.namespace, wish.container_id))
    with _capture_mark.held(wish.marks_root, client.namespace, wish.container_id) as slot:
        return _captured(client, wish, slot, slot.read())


def _captured(client: Client, wish: Wish, slot: Slot | None, mark: Mark | None) -> Outcome:
    begun = time.monotonic()
    outcome = Outcome()
    held = mark is not None and _capture_hold.holds(client, wish, mark)
    if held and mark is not None and (wish.leave != PAUSED or mark.name != wish.name):
        raise _capture_hold.refuse(wish, mark)
    if mark is not None and not held:
        # Before anything else can fail: a workload may be standing still.
        outcome.changed = outcome.recovered = True
        outcome.actions.append(_capture_recovery.describe(wish.container_id, mark))
        if slot is not None:
            back = wish.cuda(_cuda.RUNNING)
            _capture_recovery.recover(client, wish.container_id, slot, mark, back, wish.checkpoint_timeout)
    container = _containers.get(client, wish.container_id)
    image = _images.get(client, wish.name)
    found = _present(client, wish, image)
    outcome.before = {"digest": image.target.digest if image else None}
    if found is not None and (held or not wish.force):
        outcome.digest = found.digest
        outcome.facts = dict(found.facts)
        outcome.after = outcome.before
        if wish.leave != RUNNING and not held and _task_end.is_live(_tasks.get(client, wish.container_id)):
            outcome.warnings.append(
                f"The task of {wish.container_id} has gone on since {wish.name} was taken, so it is not {wish.leave}; "
                f"with force it is captured anew and then {wish.leave}."
            )
        return outcome
    if held and mark is not None:
        # Its image is gone.
        raise _capture_hold.refuse(wish, mark)
    if container is None:
        raise InputError(
            "container_absent",
            f"There is no container {wish.container_id} in containerd's namespace {client.namespace}.",
            "Name one that exists.",
        )
    if wish.leave == STOPPED:
        # To capture changes nothing of a container; to end its task does.
        _ownership.require_ours(container, wish.owner, wish.force)
    outcome.changed = True
    outcome.after = {"digest": "to be taken"}
    task = _tasks.get(client, wish.container_id)
    stands_still = slot is None and mark is not None and _capture_recovery.is_paused(task)
    if stands_still and mark is not None and _capture_recovery.same_task(client, wish.container_id, mark, wish.proc):
        # What a paused task holds can only be asked once it goes on again.
        outcome.actions.append(f"capture {wish.container_id} as {wish.name}")
        return outcome
    subject = _preflight(client, wish, container, _running(wish, task), outcome)
    outcome.seconds["preflight"] = round(time.monotonic() - begun, 3)
    outcome.actions += _actions(wish, subject)
    if slot is None:
        return outcome
    with _capture_signals.heeded(wish.container_id) as signals:
        Capture(client, wish, subject, slot, outcome, signals).run()
    outcome.seconds["total"] = round(time.monotonic() - begun, 3)
    outcome.after = {"digest": outcome.digest}
    return outcome


def _present(client: Client, wish: Wish, image: _images.Image | None) -> _checkpoint.Checkpoint | None:
    """The complete checkpoint of that name and this container. Raises ConflictError ``checkpoint_name_taken``."""
    if image is None:
        return None
    try:
        found: _checkpoint.Checkpoint | None = _checkpoint.load(client, wish.name)
    except InputError:
        found = None
    of = found.facts.get("container") if found else None
    if found is not None and of == wish.container_id:
        whole = found.criu is not None and _content.stat(client, found.criu.digest) is not None
        return found if whole else None
    if wish.force:
        return None
    raise ConflictError(
        "checkpoint_name_taken",
        f"The image {wish.name} ({image.target.digest}) exists and "
        + (f"is a checkpoint of {of}" if of else "was not captured by this collection")
        + f", not one of {wish.container_id}.",
        "Choose another name, delete that image (containerd_image), or set force: true to take its place.",
        details={"found": image.target.digest, "container": of},
    )


def _running(wish: Wish, task: Task | None) -> Task:
    if task is not None and _capture_recovery.is_paused(task):
        _tasks.refuse_paused(task)
    if task is None or task.status != "RUNNING" or task.pid <= 0:
        raise InputError(
            "task_not_running",
            f"The container {wish.container_id} has no running task, so there is no process to capture "
            f"({task.status if task else 'no task'}).",
            "Start it first.",
        )
    return task


def _preflight(client: Client, wish: Wish, container: Container, task: Task, outcome: Outcome) -> Subject:
    """All problems at once, CUDA's among them."""
    problems: list[RestoreError] = []
    gpus = _capture_gpu.Gpus()
    base: _images.Image | None = None
    written: int | None = None
    try:
        pids = _cuda_processes.Scope(task_pid=task.pid, proc=wish.proc, cgroup_root=wish.cgroup_root).processes()
        gpus = _capture_gpu.examine(client, wish.cuda(), wish.gpu, [process.pid for process in pids])
        if gpus.suspend:
            outcome.warnings += _cuda_step.reach(client, wish.cuda(), check=True).warnings
    except RestoreError as error:
        problems.append(error)
    try:
        written = _capture_layer.written(client, container)
        if written is None:
            raise _capture_layer.absent(container)
        base = _capture_base.of(client, container)
    except RestoreError as error:
        problems.append(error)
    findings = _capture_preflight.examine(
        client,
        container,
        task,
        wish.criu,
        wish.staging_dir,
        _capture_preflight.Sizes(gpus.vram, written or 0),
        wish.proc,
        wish.cgroup_root,
    )
    problems.extend(findings.problems)
    if problems:
        raise combined(problems)
    if base is None and container.image:
        outcome.warnings.append(
            f"The image {container.image} of {container.id} is not on this node: the checkpoint only names it, and "
            "whoever restores it has to have it."
        )
    return Subject(container, task, base, gpus, findings)


def _actions(wish: Wish, subject: Subject) -> list[str]:
    actions = []
    suspend = subject.gpus.suspend
    if suspend:
        actions.append(f"take the CUDA processes of {wish.container_id} off their GPUs")
    actions.append(f"pause the task (pid {subject.task.pid}) and dump it")
    if wish.leave != RUNNING:
        actions.append("write the image" + (", then end the task" if wish.leave == STOPPED else ""))
    else:
        actions.append("resume the task" + (" and give its CUDA processes their memory back" if suspend else ""))
        actions.append("write the image")
    return actions
