# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a task ends and goes, shim included."""

from __future__ import annotations

import signal
import time

from .._core.errors import UNKNOWN, NotFoundError, RestoreError, RpcError
from . import leftovers, tasks
from .client import Client
from .tasks import Task

#: Seconds between two looks.
_AGAIN = 0.05


def is_live(task: Task | None) -> bool:
    """Whether a process of the container may run. A task that was only created, by a run that was killed, has none."""
    return task is not None and task.status not in ("STOPPED", "CREATED")


def end(client: Client, container_id: str, grace_seconds: float) -> None:
    """TERM, wait, KILL, wait. Raises RestoreError ``task_unkillable``."""
    try:
        if grace_seconds > 0:
            tasks.kill(client, container_id, signal.SIGTERM, everything=False)
            if tasks.wait(client, container_id, grace_seconds) is not None:
                # Further processes of the container may outlive the first one.
                tasks.kill(client, container_id, signal.SIGKILL, everything=True)
                return
        tasks.kill(client, container_id, signal.SIGKILL, everything=True)
        if tasks.wait(client, container_id, client.timeout) is not None:
            return
    except NotFoundError:
        return
    raise RestoreError(
        "task_unkillable",
        f"The task of the container {container_id} did not end within {client.timeout:g} s after SIGKILL.",
        "A process hangs in the kernel (state D): look at it with ps and at dmesg, then run again.",
        outcome=UNKNOWN,
    )


def remove(client: Client, container_id: str, grace_seconds: float) -> None:
    """End and delete the task if there is one; returns once its shim is gone, and what runc may have left.

    Raises RestoreError ``task_unkillable``, ``shim_left``, ``runc_state_left``.
    """
    task = tasks.get(client, container_id)
    if task is None:
        leftovers.end_orphaned_shims(client.namespace, container_id)
        leftovers.remove_runc_state(client, container_id)
        leftovers.criu_mounts(client, remove=True)
        return
    if task.status not in ("STOPPED", "CREATED") and task.pid > 0:
        end(client, container_id, 0.0 if task.status in ("PAUSED", "PAUSING") else grace_seconds)
    elif task.pid > 0 and task.status == "CREATED":
        end(client, container_id, 0.0)
    _delete(client, container_id)
    leftovers.require_shim_gone(client.namespace, container_id)
    leftovers.remove_runc_state(client, container_id)
    leftovers.criu_mounts(client, remove=True)


def _delete(client: Client, container_id: str) -> None:
    """Where containerd fails after CRIU is done, the processes of a task that it calls CREATED run, and it has no pid
    of them: so they are killed by their control group, until the daemon can delete it."""
    deadline = time.monotonic() + client.timeout
    while True:
        try:
            tasks.delete(client, container_id)
            return
        except RpcError as error:
            if "that is not stopped" not in str(error.details.get("text")) or time.monotonic() > deadline:
                raise
        tasks.kill(client, container_id, signal.SIGKILL, everything=True)
        time.sleep(_AGAIN)
