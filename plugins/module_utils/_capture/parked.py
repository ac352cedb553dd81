# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a task is parked, for whoever would do something else with it."""

from __future__ import annotations

from .._containerd.tasks import Task
from .._core.errors import ConflictError
from .._host import processes as host_processes
from . import mark as capture_mark
from .mark import PARKED, Mark


def is_parked(task: Task | None, mark: Mark | None, proc: str = "/proc") -> bool:
    """Whether the task is the one that the mark has parked, and still stands still."""
    return (
        task is not None
        and mark is not None
        and mark.phase == PARKED
        and task.status in ("PAUSED", "PAUSING")
        and task.pid == mark.pid
        and host_processes.start_time(task.pid, proc) == mark.start_time
    )


def refusal(container_id: str) -> ConflictError:
    """Whoever wants anything else of it has to bring it back first."""
    return ConflictError(
        "workload_parked",
        f"The workload {container_id} is parked: it is paused, and its GPU memory is in host memory.",
        "Bring it back first: containerd_park with state: resumed.",
    )


def refuse(namespace: str, task: Task, marks_root: str = "") -> None:
    """Raise ConflictError ``workload_parked`` for a task that is parked."""
    try:
        mark = capture_mark.peek(marks_root or capture_mark.default_root(), namespace, task.container_id)
    except ConflictError:
        # Somebody is at work on it, which is for the locks of runs to tell.
        return
    if is_parked(task, mark):
        raise refusal(task.container_id)
