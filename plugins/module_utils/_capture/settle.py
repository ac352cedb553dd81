# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Workloads that stand still after their capture, and what ends that.

A migration keeps its source paused until the target has proved itself: then it is ended, else it goes on. The mark of
the capture (:mod:`_capture.mark`) tells of it for as long as it lasts.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace

from .._containerd import containers, task_removal, tasks
from .._containerd.client import Client
from .._core.errors import ConflictError
from .._host import run_lock
from . import mark as capture_mark, parked, recovery, survivors
from .mark import Mark, MarkFile
from .params import STOPPED, CaptureParams, CaptureResult


@dataclass(frozen=True)
class Plan:
    """What a run does; check mode returns ``result``."""

    result: CaptureResult
    #: The capture that has left the workload standing still, None where none has.
    mark: Mark | None = None
    #: The workload is to end; otherwise it goes on.
    ends: bool = False


def keeps_paused(client: Client, params: CaptureParams, mark: Mark) -> bool:
    """Whether the task is the one that the mark speaks of, and paused because somebody wanted it so."""
    if mark.phase != capture_mark.KEPT_PAUSED:
        return False
    task = recovery.marked_task(client, params.container_id, mark, params.access.proc)
    return task is not None and recovery.is_paused(task)


def refusal(params: CaptureParams, mark: Mark) -> ConflictError:
    """Whoever wants another capture has to say first what becomes of the workload that is kept paused."""
    return ConflictError(
        "capture_held",
        f"The capture {mark.name} keeps {params.container_id} paused.",
        "End that first: containerd_checkpoint with state: settled and leave: running or stopped.",
        details={"name": mark.name},
    )


def settled(client: Client, params: CaptureParams, check: bool) -> CaptureResult:
    """Have what a capture has left standing still go on or end, as ``params.leave`` says.

    A capture that was broken off has no image, so its workload goes on in any case. Raises ConflictError
    (``busy``, ``capture_busy``, ``container_not_ours``) and what :func:`_gpu.state.ensure` raises.
    """
    place = (params.marks_root, client.namespace, params.container_id)
    if check:
        return plan(client, params, capture_mark.peek(*place)).result
    with ExitStack() as stack:
        what = "containerd_checkpoint"
        stack.enter_context(run_lock.changing(client.namespace, params.container_id, what, client.busy_seconds))
        mark_file = stack.enter_context(capture_mark.locked(*place))
        planned = plan(client, params, mark_file.read())
        execute(client, params, mark_file, planned)
    return planned.result


def plan(client: Client, params: CaptureParams, mark: Mark | None) -> Plan:
    """What a run would do. Raises ConflictError ``container_not_ours``, ``workload_parked``."""
    result = CaptureResult()
    if mark is None:
        return Plan(result)
    if parked.is_parked(tasks.get(client, params.container_id), mark, params.access.proc):
        raise parked.refusal(params.container_id)
    ends = params.leave == STOPPED and keeps_paused(client, params, mark)
    if ends:
        container = containers.get(client, params.container_id)
        if container is not None:
            containers.require_ours(container, params.owner, params.force)
    result.changed = True
    result.before = {"task": "PAUSED"}
    result.after = {"task": "STOPPED" if ends else "RUNNING"}
    result.actions += (
        [f"end {params.container_id}, which the capture {mark.name} keeps paused"]
        if ends
        else recovery.describe(params, mark)
    )
    return Plan(result, mark, ends)


def execute(client: Client, params: CaptureParams, mark_file: MarkFile, planned: Plan) -> None:
    """Have the workload end, or go on."""
    if planned.mark is None:
        return
    if planned.ends:
        end_task(client, params.container_id, mark_file, planned.mark)
        recovery.remove_leftovers(client, planned.mark)
        mark_file.clear()
    else:
        result, mark = planned.result, planned.mark
        result.ended = recovery.recover(client, params, mark_file, mark)
        result.warnings += survivors.sentences(params.container_id, mark.pid, result.ended)


def end_task(client: Client, container_id: str, mark_file: MarkFile, mark: Mark) -> None:
    """The image is complete: the task goes, without having done anything more."""
    mark_file.write(replace(mark, phase=capture_mark.ENDING))
    tasks.kill(client, container_id, 9, everything=True)
    recovery.resume(client, container_id)
    task_removal.end(client, container_id, 0.0)
