# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the process of a started task lives on, and why not."""

from __future__ import annotations

from .._containerd import tasks
from .._containerd.client import Client
from .._containerd.tasks import Task
from .._core.errors import RestoreError
from .._host import processes as host_processes
from . import stdio as container_stdio
from .task_params import TaskParams


def stays_alive(client: Client, params: TaskParams, pid: int, seconds: float) -> Task:
    """The process has to stay RUNNING for ``seconds`` more; the task as it is then. Raises ``process_died``."""
    status = tasks.wait(client, params.container_id, seconds) if seconds > 0 else None
    task = tasks.get(client, params.container_id)
    runs = status is None and task is not None and task.status == "RUNNING" and task.pid > 0
    # containerd 1.6 misses the end of a process that dies within milliseconds, and calls it RUNNING for ever.
    if task is not None and runs and host_processes.start_time(task.pid) is not None:
        return task
    code = status if status is not None else task.exit_status if task and task.status == "STOPPED" else None
    how = "an exit status that containerd did not learn" if code is None else f"exit status {code}"
    tail = container_stdio.tail(params.stderr) or container_stdio.tail(params.stdout)
    seen = "Its last output is in failure.details.output."
    hints = [seen if tail else "Give stdout or stderr a file to see its last output."]
    if params.checkpoint and code == 0:
        hints.append("A dump interrupts system calls, which ends a program that takes that for an error.")
    raise RestoreError(
        "process_died",
        f"The process of the container {params.container_id} (pid {pid}) ended within {params.alive_seconds:g} s after "
        f"the start, with {how}" + (f" (signal {code - 128})" if code and code > 128 else "") + ".",
        " ".join(hints),
        details={"exit_status": code, "output": tail},
    )
