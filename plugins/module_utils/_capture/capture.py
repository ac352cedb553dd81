# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The step that captures a running task as a checkpoint image.

Whatever fails, the workload goes on; and what a killed run has left stopped, the next one resumes by its mark
(:mod:`_capture.mark`) before anything else can fail. The capture itself is :mod:`_capture.run`.
"""

from __future__ import annotations

import contextlib
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from .._checkpoint import reader as checkpoint_reader, staged as staged_checkpoint
from .._containerd import containers, content, images, task_removal, tasks
from .._containerd.client import Client
from .._containerd.tasks import Task
from .._core.errors import ConflictError, InputError, RestoreError
from .._host import run_lock
from . import (
    complete as steps,
    mark as capture_mark,
    needs,
    parked,
    prediction,
    preflight,
    rates,
    recovery,
    settle,
    signals as capture_signals,
    survivors,
)
from .mark import Mark
from .params import NODE, PAUSED, RUNNING, STOPPED, CaptureParams, CaptureResult
from .prediction import Load, Sample
from .preflight import Subject
from .run import Capture
from .signals import DeferredSignals


@dataclass(frozen=True)
class Earlier:
    """What an earlier capture of the container has left, as its mark tells; at most one of the two."""

    #: It keeps the workload paused on purpose.
    kept_paused: Mark | None = None
    #: It was broken off, so the workload may stand still.
    broken_off: Mark | None = None


@dataclass(frozen=True)
class Plan:
    """What a run does; check mode returns ``result``."""

    result: CaptureResult
    #: What is captured; None where the checkpoint is there, or where the task has to be resumed before it can be asked.
    subject: Subject | None = None
    #: The checkpoint that is there lives on the node, and its image is wanted.
    unwritten: checkpoint_reader.Checkpoint | None = None


def captured(client: Client, params: CaptureParams, check: bool, noted: DeferredSignals | None = None) -> CaptureResult:
    """Have a checkpoint image of that name, taken from the container.

    ``noted``: signals that somebody else defers, where several are captured at once.

    Raises InputError (``container_absent``, ``task_not_running``, ``snapshot_absent``, ``no_cuda_processes``,
    ``node_checkpoint_gone``),
    ConflictError (``checkpoint_name_taken``, ``container_not_ours``, ``busy``, ``capture_busy``, ``capture_held``,
    ``workload_parked``, ``task_paused``, ``base_image_moved``), NodeError (what the preflight finds), RestoreError
    (``criu_dump_failed``, ``checkpoint_timeout``, ``capture_interrupted``) and what CUDA's step raises.
    """
    if check:
        return foretold(client, params).result
    place = (params.marks_root, client.namespace, params.container_id)
    with ExitStack() as stack:
        client.track.phase("preflight")
        what = "containerd_checkpoint"
        stack.enter_context(run_lock.changing(client.namespace, params.container_id, what, client.busy_seconds))
        mark_file = stack.enter_context(capture_mark.locked(*place))
        begun = time.monotonic()
        earlier = _earlier(client, params, mark_file.read())
        ended: list[dict[str, Any]] = []
        told: list[str] = []
        if earlier.broken_off is not None:
            # Before anything else can fail: the workload may be standing still.
            ended = recovery.recover(client, params, mark_file, earlier.broken_off)
            told = survivors.sentences(params.container_id, earlier.broken_off.pid, ended)
        try:
            planned = plan(client, params, earlier, resumed=True)
        except RestoreError as error:
            error.message = " ".join([error.message, *told])
            raise
        result = planned.result
        result.ended = ended
        result.warnings += told
        if planned.subject is not None:
            result.seconds["preflight"] = round(time.monotonic() - begun, 3)
            client.track.expect(result.predicted["total"])
            with contextlib.nullcontext(noted) if noted else capture_signals.deferred(params.container_id) as signals:
                Capture(client, params, planned.subject, mark_file, result, signals).run()
            if params.node_first and params.store != NODE:
                # The workload has ended, and nothing waits for this.
                _complete(client, params, checkpoint_reader.load(client, params.name), result)
            result.seconds["total"] = round(time.monotonic() - begun, 3)
            rates.note(params.rates_file, Sample.taken(_load(params, planned.subject), result.seconds))
            result.after = {"digest": result.digest}
        elif planned.unwritten is not None:
            _complete(client, params, planned.unwritten, result)
        return result


def _complete(
    client: Client, params: CaptureParams, checkpoint: checkpoint_reader.Checkpoint, result: CaptureResult
) -> None:
    try:
        client.track.phase("write its image")
        steps.complete(client, params, checkpoint, result)
    except RestoreError as error:
        error.details["checkpoint"] = {"name": checkpoint.name, "digest": checkpoint.digest}
        error.remedy += f" The checkpoint {checkpoint.name} is complete on the node; the next run writes its image."
        raise


def foretold(client: Client, params: CaptureParams) -> Plan:
    """What a run would do now, and nothing of it done. Raises as :func:`captured`."""
    mark = capture_mark.peek(params.marks_root, client.namespace, params.container_id)
    return plan(client, params, _earlier(client, params, mark), resumed=False)


def plan(client: Client, params: CaptureParams, earlier: Earlier, resumed: bool) -> Plan:
    """What a run would do, and nothing of it done. Raises as :func:`captured`.

    ``resumed``: the workload of a capture that was broken off goes on again already.
    """
    result = CaptureResult()
    if earlier.broken_off is not None:
        result.changed = result.recovered = True
        result.actions += recovery.describe(params, earlier.broken_off)
    container = containers.get(client, params.container_id)
    image = images.get(client, params.name)
    found = _present(client, params, image)
    result.before = {"digest": image.target.digest if image else None}
    stays = earlier.kept_paused is not None or not params.force
    if found is not None and (stays or _is_cut_short(client, params, found)):
        _describe_present(client, params, earlier, found, result)
        if found.on_node and params.store != NODE:
            steps.foretell(result)
            return Plan(result, unwritten=found)
        return Plan(result)
    if earlier.kept_paused is not None:
        # Its image is gone.
        raise settle.refusal(params, earlier.kept_paused)
    if container is None:
        raise InputError(
            "container_absent",
            f"There is no container {params.container_id} in containerd's namespace {client.namespace}.",
            "Name one that exists.",
        )
    if params.leave == STOPPED:
        # To capture changes nothing of a container; to end its task does.
        containers.require_ours(container, params.owner, params.force)
    result.changed = True
    result.after = {"digest": "to be taken"}
    task = tasks.get(client, params.container_id)
    if not resumed and _has_to_be_resumed(client, params, earlier, task):
        # What a paused task holds can only be asked once it goes on again.
        result.actions.append(f"capture {params.container_id} as {params.name}")
        return Plan(result)
    subject = preflight.examine(client, params, container, _running(params, task))
    result.warnings += subject.warnings
    result.accepted = list(subject.accepted)
    result.unlinked_files = [file.result() for file in subject.found.unlinked]
    result.criu_options = [need.result() for need in needs.needs(subject.found, params.criu)]
    result.mounts_taken = [mount.result() for mount in subject.taken]
    result.added_by_runtime = subject.edits.result()
    result.memory_volumes = [{"destination": one.destination, "used": one.used} for one in subject.memory_volumes]
    result.actions += _actions(params, subject)
    result.predicted = prediction.predict(_load(params, subject), rates.load(params.rates_file)).result()
    return Plan(result, subject)


def _load(params: CaptureParams, subject: Subject) -> Load:
    return Load(
        dump=subject.size.dump,
        vram=subject.gpus.vram,
        written=subject.size.written + subject.size.volumes,
        goes_on=params.leave == RUNNING,
        node_first=params.node_first,
        completed=params.node_first and params.store != NODE,
        concurrency=params.concurrency,
    )


def _earlier(client: Client, params: CaptureParams, mark: Mark | None) -> Earlier:
    """Raises ConflictError ``capture_held`` where another capture than the wanted one keeps the workload paused,
    ``workload_parked`` where it is parked."""
    if mark is None:
        return Earlier()
    if parked.is_parked(tasks.get(client, params.container_id), mark, params.access.proc):
        raise parked.refusal(params.container_id)
    if not settle.keeps_paused(client, params, mark):
        return Earlier(broken_off=mark)
    if params.leave != PAUSED or mark.name != params.name:
        raise settle.refusal(params, mark)
    return Earlier(kept_paused=mark)


def _present(client: Client, params: CaptureParams, image: images.Image | None) -> checkpoint_reader.Checkpoint | None:
    """The complete checkpoint of that name and this container.

    Raises ConflictError ``checkpoint_name_taken``, InputError ``node_checkpoint_gone``.
    """
    if image is None:
        return None
    try:
        found: checkpoint_reader.Checkpoint | None = checkpoint_reader.load(client, params.name)
    except InputError:
        found = None
    captured_from = (found.facts.container or None) if found else None
    if found is not None and captured_from == params.container_id:
        if _is_whole(client, params, found):
            return found
        if found.on_node and not params.force:
            # It may be whole below another directory, and what took its name would have that forgotten.
            error = checkpoint_reader.gone(found, params.staging_dir)
            error.remedy += " With force: true that replaces this checkpoint."
            raise error
        return None
    if params.force:
        return None
    raise ConflictError(
        "checkpoint_name_taken",
        f"The image {params.name} ({image.target.digest}) exists and "
        + (f"is a checkpoint of {captured_from}" if captured_from else "was not captured by this collection")
        + f", not one of {params.container_id}.",
        "Choose another name, delete that image (containerd_image), or set force: true to take its place.",
        details={"found": image.target.digest, "container": captured_from},
    )


def _is_whole(client: Client, params: CaptureParams, found: checkpoint_reader.Checkpoint) -> bool:
    if found.on_node:
        return staged_checkpoint.find(params.staging_dir, found.key) is not None
    return found.criu is not None and content.stat(client, found.criu.digest) is not None


def _is_cut_short(client: Client, params: CaptureParams, found: checkpoint_reader.Checkpoint) -> bool:
    """Whether it waits for its image and there is no task any more that force could capture in its place."""
    if not found.on_node or params.store == NODE:
        return False
    return not task_removal.is_live(tasks.get(client, params.container_id))


def _describe_present(
    client: Client,
    params: CaptureParams,
    earlier: Earlier,
    found: checkpoint_reader.Checkpoint,
    result: CaptureResult,
) -> None:
    """Nothing is captured: the checkpoint is there."""
    result.digest = found.digest
    result.facts = found.facts
    if found.on_node:
        result.staged = os.path.join(params.staging_dir, found.key, staged_checkpoint.IMAGES)
    result.after = result.before
    settled = params.leave == RUNNING or earlier.kept_paused is not None
    if not settled and task_removal.is_live(tasks.get(client, params.container_id)):
        result.warnings.append(
            f"The task of {params.container_id} has gone on since {params.name} was taken, so it is not "
            f"{params.leave}; with force it is captured anew and then {params.leave}."
        )


def _has_to_be_resumed(client: Client, params: CaptureParams, earlier: Earlier, task: Task | None) -> bool:
    """Whether the task is still paused by a capture that was broken off."""
    if earlier.broken_off is None or not recovery.is_paused(task):
        return False
    return recovery.marked_task(client, params.container_id, earlier.broken_off, params.access.proc) is not None


def _running(params: CaptureParams, task: Task | None) -> Task:
    """Raises ConflictError ``task_paused``, InputError ``task_not_running``."""
    if task is not None:
        tasks.refuse_paused(task)
    if task is None or task.status != "RUNNING" or task.pid <= 0:
        raise InputError(
            "task_not_running",
            f"The container {params.container_id} has no running task, so there is no process to capture "
            f"({task.status if task else 'no task'}).",
            "Start it first.",
        )
    return task


def _actions(params: CaptureParams, subject: Subject) -> list[str]:
    actions = [params.before_capture.action()] if params.before_capture else []
    suspend = subject.gpus.suspend
    if suspend:
        actions.append(f"take the CUDA processes of {params.container_id} off their GPUs")
    if subject.gpus.forks:
        pids = ", ".join(str(fork.process.pid) for fork in subject.gpus.forks)
        actions.append(f"take what process {pids} inherited of a CUDA process away from it")
    actions.append(f"pause the task (pid {subject.task.pid}) and dump it")
    kept = "keep the dump as the checkpoint" if params.node_first else "write the image"
    if params.leave == STOPPED:
        actions += [f"{kept}, then end the task"]
        later = params.node_first and params.store != NODE
        actions += ["write the image from the checkpoint on the node"] if later else []
    elif params.leave == PAUSED:
        actions.append(kept)
    else:
        actions.append("resume the task" + (" and give its CUDA processes their memory back" if suspend else ""))
        actions += [params.after_capture.action()] if params.after_capture else []
        actions.append(kept)
    return actions
