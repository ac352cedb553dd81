# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The step that captures a running task as a checkpoint image. Private.

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
from .._gpu import driver, processes as gpu_processes, state as gpu_state
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
from .params import PAUSED, RUNNING, STOPPED, Outcome, Wish
from .run import Capture, Subject


def captured(client: Client, wish: Wish, check: bool) -> Outcome:
    """Have a checkpoint image of that name, taken from the container.

    Raises InputError (``container_absent``, ``task_not_running``, ``snapshot_absent``, ``no_cuda_processes``),
    ConflictError (``checkpoint_name_taken``, ``container_not_ours``, ``capture_busy``, ``capture_held``,
    ``task_paused``, ``base_image_moved``), NodeError (what the preflight finds), RestoreError (``criu_dump_failed``,
    ``checkpoint_timeout``, ``capture_interrupted``) and what CUDA's step raises.
    """
    if check:
        return _captured(client, wish, None, capture_mark.peek(wish.marks_root, client.namespace, wish.container_id))
    with capture_mark.held(wish.marks_root, client.namespace, wish.container_id) as slot:
        return _captured(client, wish, slot, slot.read())


def _captured(client: Client, wish: Wish, slot: Slot | None, mark: Mark | None) -> Outcome:
    begun = time.monotonic()
    outcome = Outcome()
    held = mark is not None and settle.holds(client, wish, mark)
    if held and mark is not None and (wish.leave != PAUSED or mark.name != wish.name):
        raise settle.refuse(wish, mark)
    if mark is not None and not held:
        # Before anything else can fail: a workload may be standing still.
        outcome.changed = outcome.recovered = True
        outcome.actions.append(recovery.describe(wish.container_id, mark))
        if slot is not None:
            back = wish.cuda(driver.RUNNING)
            recovery.recover(client, wish.container_id, slot, mark, back, wish.checkpoint_timeout)
    container = containers.get(client, wish.container_id)
    image = images.get(client, wish.name)
    found = _present(client, wish, image)
    outcome.before = {"digest": image.target.digest if image else None}
    if found is not None and (held or not wish.force):
        outcome.digest = found.digest
        outcome.facts = dict(found.facts)
        outcome.after = outcome.before
        if wish.leave != RUNNING and not held and task_removal.is_live(tasks.get(client, wish.container_id)):
            outcome.warnings.append(
                f"The task of {wish.container_id} has gone on since {wish.name} was taken, so it is not {wish.leave}; "
                f"with force it is captured anew and then {wish.leave}."
            )
        return outcome
    if held and mark is not None:
        # Its image is gone.
        raise settle.refuse(wish, mark)
    if container is None:
        raise InputError(
            "container_absent",
            f"There is no container {wish.container_id} in containerd's namespace {client.namespace}.",
            "Name one that exists.",
        )
    if wish.leave == STOPPED:
        # To capture changes nothing of a container; to end its task does.
        ownership.require_ours(container, wish.owner, wish.force)
    outcome.changed = True
    outcome.after = {"digest": "to be taken"}
    task = tasks.get(client, wish.container_id)
    stands_still = slot is None and mark is not None and recovery.is_paused(task)
    if stands_still and mark is not None and recovery.same_task(client, wish.container_id, mark, wish.proc):
        # What a paused task holds can only be asked once it goes on again.
        outcome.actions.append(f"capture {wish.container_id} as {wish.name}")
        return outcome
    subject = _preflight(client, wish, container, _running(wish, task), outcome)
    outcome.seconds["preflight"] = round(time.monotonic() - begun, 3)
    outcome.actions += _actions(wish, subject)
    if slot is None:
        return outcome
    with capture_signals.heeded(wish.container_id) as signals:
        Capture(client, wish, subject, slot, outcome, signals).run()
    outcome.seconds["total"] = round(time.monotonic() - begun, 3)
    outcome.after = {"digest": outcome.digest}
    return outcome


def _present(client: Client, wish: Wish, image: images.Image | None) -> checkpoint_reader.Checkpoint | None:
    """The complete checkpoint of that name and this container. Raises ConflictError ``checkpoint_name_taken``."""
    if image is None:
        return None
    try:
        found: checkpoint_reader.Checkpoint | None = checkpoint_reader.load(client, wish.name)
    except InputError:
        found = None
    of = found.facts.get("container") if found else None
    if found is not None and of == wish.container_id:
        whole = found.criu is not None and content.stat(client, found.criu.digest) is not None
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
    if task is not None and recovery.is_paused(task):
        tasks.refuse_paused(task)
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
    gpus = gpu.Gpus()
    base: images.Image | None = None
    written: int | None = None
    try:
        pids = gpu_processes.Scope(task_pid=task.pid, proc=wish.proc, cgroup_root=wish.cgroup_root).processes()
        gpus = gpu.examine(client, wish.cuda(), wish.gpu, [process.pid for process in pids])
        if gpus.suspend:
            outcome.warnings += gpu_state.reach(client, wish.cuda(), check=True).warnings
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
        wish.criu,
        wish.staging_dir,
        preflight.Sizes(gpus.vram, written or 0),
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
