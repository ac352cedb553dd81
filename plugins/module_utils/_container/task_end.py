# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps that stop a task, or take it away."""

from __future__ import annotations

from .._capture import parked
from .._containerd import containers, extracted, leftovers, task_removal, tasks
from .._containerd.client import Client
from .._containerd.tasks import Task
from .._core import state_dir
from .._gpu import marks, teardown
from . import network as container_network
from .task_params import TaskParams, TaskResult, shown


def stopped(client: Client, params: TaskParams, check: bool) -> TaskResult:
    """Have no process run: TERM, ``grace_seconds``, then KILL. The ended task stays; none at all is fine too.

    What holds GPU memory is suspended first, and then killed (:mod:`_gpu.teardown`).
    """
    result = TaskResult()
    present = _owned_task(client, params)
    result.before = result.after = present.status if present else "absent"
    if present is None or present.status == "STOPPED":
        result.task = shown(present) if present else {}
        return result
    tasks.refuse_paused(present)
    result.changed, result.after = True, "STOPPED"
    grace = _suspend(client, params, result, check)
    result.actions.append(f"stop pid {present.pid}")
    if check:
        return result
    task_removal.end(client, params.container_id, grace)
    after = tasks.get(client, params.container_id)
    result.task = shown(after) if after else {}
    return result


def absent(client: Client, params: TaskParams, check: bool) -> TaskResult:
    """Have no task, also after a failed start: ended as in :func:`stopped`, deleted, and the shim gone."""
    result = TaskResult()
    present = _owned_task(client, params)
    result.before = present.status if present else "absent"
    left = leftovers.runc_state(client, params.container_id) if present is None else ""
    if present is None and not left:
        return result
    result.changed = True
    grace = _suspend(client, params, result, check) if present else 0.0
    result.actions.append(
        f"end and delete the task (pid {present.pid}, {present.status})"
        if present
        else f"remove {left}, which a restore that was broken off has left"
    )
    if not check:
        task_removal.remove(client, params.container_id, grace)
        work = state_dir.work_dir(params.staging_dir, client.namespace, params.container_id)
        result.warnings += extracted.remove_abandoned(client, params.staging_dir, work)
        result.warnings += container_network.release(work)
        marks.forget_gone(marks.default_root())
    return result


def _suspend(client: Client, params: TaskParams, result: TaskResult, check: bool) -> float:
    """Take GPU memory off the card first; the seconds of grace that are left for TERM.

    A process that is locked out of its GPU may wait for it when it hears TERM, so it gets none.
    """
    done = teardown.suspend(client, params.container_id, params.gpu, params.owner, params.force, check)
    result.actions.extend(done.actions)
    result.warnings.extend(done.warnings)
    return 0.0 if done.processes else params.grace_seconds


def _owned_task(client: Client, params: TaskParams) -> Task | None:
    container = containers.get(client, params.container_id)
    present = tasks.get(client, params.container_id)
    if container is not None and (present is not None or leftovers.runc_state(client, params.container_id)):
        containers.require_ours(container, params.owner, params.force)
    if present is not None:
        parked.refuse(client.namespace, present)
    return present
