# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The step that starts a task, from a checkpoint or anew."""

from __future__ import annotations

import contextlib
import os

from .._capture import parked
from .._checkpoint import reader as checkpoint_reader
from .._checkpoint.reader import Checkpoint
from .._containerd import containers, extracted, snapshots, task_removal, tasks
from .._containerd.client import Client
from .._core import labels, state_dir
from .._core.errors import InputError
from .._criu import config as criu_config
from .._host import run_lock
from .._oci import spec_adapt, spec_namespaces
from .._parallel_memory import hook as memory_hook
from . import (
    comparison as task_comparison,
    loopback as container_loopback,
    network as container_network,
    staged_images,
    stdio as container_stdio,
    sysctls as container_sysctls,
    task_plan,
    task_run,
)
from .task_params import TaskParams, TaskResult, shown
from .task_plan import Plan
from .task_run import Start


def started(client: Client, params: TaskParams, check: bool, checkpoint: Checkpoint | None = None) -> TaskResult:
    """Have the task run, from the checkpoint where one is given.

    ``checkpoint``: the one that ``params`` names, where it is read already.
    Raises InputError, ConflictError (``task_paused``, ``snapshot_used``, ``task_other_checkpoint``), NodeError and
    RestoreError (``criu_restore_failed``, ``memory_write_failed``, ``memory_unwritten``, ``process_died``). After a
    failure no task, shim or output file of this call is left; CRIU's log stays in the container's work directory.
    """
    result = TaskResult()
    if check and params.assume_prepared:
        # Neither the container nor the checkpoint has to be there yet.
        result.changed = result.created = True
        result.after = "RUNNING"
        result.actions.append(f"start the task of the container {params.container_id}, which would be new")
        return result
    if checkpoint is None and params.checkpoint:
        checkpoint = checkpoint_reader.load(client, params.checkpoint)
    container = containers.get(client, params.container_id)
    if container is None:
        raise _no_container(client, params.container_id)
    containers.require_ours(container, params.owner, params.force)
    if checkpoint is not None:
        known = checkpoint.digest_for(container.labels.get(labels.CHECKPOINT, ""))
        containers.require_same_checkpoint(container, known, force=False)
    present = tasks.get(client, params.container_id)
    result.before = present.status if present else "absent"
    work = state_dir.work_dir(params.staging_dir, client.namespace, params.container_id)
    if present is not None and present.status == "RUNNING":
        memory_hook.require_memory_written(params.container_id, work)
        result.after = present.status
        result.task = shown(present)
        return result
    if present is not None:
        parked.refuse(client.namespace, present)
        tasks.refuse_paused(present)
    if snapshots.stat(client, container.snapshotter, container.snapshot_key) is None:
        raise InputError(
            "snapshot_absent",
            f"The snapshot {container.snapshot_key} of the container {params.container_id} is gone.",
            "Make the container anew with containerd_container.",
        )
    if checkpoint is not None and containers.is_used(client, container):
        raise containers.used_snapshot(container)
    plan = Plan()
    if checkpoint is not None:
        plan = task_plan.of_restore(client, params, container, checkpoint, work)
        result.warnings += plan.warnings
    task_plan.require_config(container)
    terminal = bool(container.spec.get("process", {}).get("terminal"))
    stdin = os.path.join(work, "stdin") if checkpoint is not None else ""
    stdio = container_stdio.plan(params.stdout, params.stderr, terminal, stdin)
    result.warnings += stdio.warnings(plan.staged)
    result.changed = result.created = True
    result.after = "RUNNING"
    result.actions.append("start the task" + (f" from the checkpoint {checkpoint.name}" if checkpoint else ""))
    if check:
        return result
    # Without a task too: a restore that was broken off may have left what stands in the way of another.
    task_removal.remove(client, params.container_id, 0.0)
    result.warnings += extracted.remove_abandoned(client, params.staging_dir, work)
    memory_hook.clear(work)
    container_loopback.clear(work)
    task_comparison.clear(work)
    container_sysctls.clear(work)
    container_network.clear(work)
    result.warnings += container_network.release(work)
    state_dir.make_private(work, params.staging_dir)
    root = spec_namespaces.mapped_root(container.spec)
    with contextlib.ExitStack() as stack:
        if checkpoint is not None:
            stack.enter_context(run_lock.kept(checkpoint.digest, client.busy_seconds))
        if root is not None and plan.staged:
            staged_images.hand_over({plan.staged, plan.images}, root[1])
        result.output_created = stack.enter_context(container_stdio.prepared(stdio))
        start = Start(
            plan,
            stdio.task(),
            _seconds(client, params, checkpoint),
            checkpoint is not None,
            criu_config.external_mounts(spec_adapt.external_mounts(container.spec)),
        )
        task_run.carry_out(client, params, container, start, result)
    return result


def _seconds(client: Client, params: TaskParams, checkpoint: Checkpoint | None) -> float:
    """How long the start may take: CRIU reads all memory."""
    criu = checkpoint.criu if checkpoint is not None else None
    return params.restore_timeout or client.seconds_for(criu.size if criu is not None else 0)


def _no_container(client: Client, container_id: str) -> InputError:
    return InputError(
        "container_absent",
        f"There is no container {container_id} in containerd's namespace {client.namespace}.",
        "Make it first with containerd_container.",
    )
