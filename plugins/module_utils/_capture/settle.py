# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Workloads that stand still after their capture, and what ends that.

A migration keeps its source paused until the target has proved itself: then it is ended, else it goes on. The mark of
the capture (:mod:`_capture.mark`) tells of it for as long as it lasts.
"""

from __future__ import annotations

from dataclasses import replace

from .._containerd import containers, ownership, task_removal, tasks
from .._containerd.client import Client
from .._core.errors import ConflictError
from .._gpu import driver
from . import mark as capture_mark, recovery
from .mark import Mark, Slot
from .params import STOPPED, CaptureParams, CaptureResult


def holds(client: Client, params: CaptureParams, mark: Mark) -> bool:
    """Whether the task is the one that the mark speaks of, and paused because somebody wanted it so."""
    if mark.phase != capture_mark.HELD:
        return False
    task = recovery.same_task(client, params.container_id, mark, params.access.proc)
    return task is not None and recovery.is_paused(task)


def refuse(params: CaptureParams, mark: Mark) -> ConflictError:
    """Whoever wants another capture has to say first what becomes of the one that is held."""
    return ConflictError(
        "capture_held",
        f"The capture {mark.name} keeps {params.container_id} paused.",
        "End that first: containerd_checkpoint with state: settled and leave: running or stopped.",
        details={"name": mark.name},
    )


def settled(client: Client, params: CaptureParams, check: bool) -> CaptureResult:
    """Have what a capture has left standing still go on or end, as ``params.leave`` says.

    A capture that was broken off has no image, so its workload goes on in any case. Raises ConflictError
    (``capture_busy``, ``container_not_ours``) and what :func:`_gpu.state.reach` raises.
    """
    if check:
        mark = capture_mark.peek(params.marks_root, client.namespace, params.container_id)
        return _settled(client, params, None, mark)
    with capture_mark.held(params.marks_root, client.namespace, params.container_id) as slot:
        return _settled(client, params, slot, slot.read())


def _settled(client: Client, params: CaptureParams, slot: Slot | None, mark: Mark | None) -> CaptureResult:
    result = CaptureResult()
    if mark is None:
        return result
    ends = params.leave == STOPPED and holds(client, params, mark)
    if ends:
        container = containers.get(client, params.container_id)
        if container is not None:
            ownership.require_ours(container, params.owner, params.force)
    result.changed = True
    result.before = {"task": "PAUSED"}
    result.after = {"task": "STOPPED" if ends else "RUNNING"}
    result.actions.append(
        f"end {params.container_id}, which the capture {mark.name} keeps paused"
        if ends
        else recovery.describe(params.container_id, mark)
    )
    if slot is None:
        return result
    if ends:
        end(client, params.container_id, slot, mark)
        recovery.clear_away(client, mark)
        slot.clear()
    else:
        back = params.cuda(driver.RUNNING)
        recovery.recover(client, params.container_id, slot, mark, back, params.checkpoint_timeout)
    return result


def end(client: Client, container_id: str, slot: Slot, mark: Mark) -> None:
    """The image is complete: the task goes, without having done anything more."""
    slot.write(replace(mark, phase=capture_mark.ENDING))
    tasks.kill(client, container_id, 9, everything=True)
    recovery.thaw(client, container_id)
    task_removal.end(client, container_id, 0.0)
