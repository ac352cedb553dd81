# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""containerd's task service: the process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._core.errors import ConflictError, DeadlineError, NotFoundError, RpcError
from .._oci.image import Descriptor
from . import messages
from .client import Client
from .images import descriptor_message

_SERVICE = "containerd.services.tasks.v1.Tasks"
_STATUS = {0: "UNKNOWN", 1: "CREATED", 2: "RUNNING", 3: "STOPPED", 4: "PAUSED", 5: "PAUSING"}


@dataclass(frozen=True)
class Task:
    """A task, or a further process in one."""

    container_id: str
    #: As the host sees it.
    pid: int
    #: CREATED, RUNNING, STOPPED, PAUSED, PAUSING or UNKNOWN.
    status: str
    exit_status: int
    stdout: str
    stderr: str
    terminal: bool


@dataclass(frozen=True)
class Stdio:
    """Where a task's output goes: containerd URIs (``file://``, ``binary://``), empty for /dev/null."""

    stdout: str = ""
    stderr: str = ""
    terminal: bool = False
    #: Path of a named pipe; empty for /dev/null.
    stdin: str = ""


def get(client: Client, container_id: str, exec_id: str = "") -> Task | None:
    """The task (or exec'ed process), None when there is none."""
    try:
        found = client.call(f"{_SERVICE}/Get", container_id=container_id, exec_id=exec_id).process
    except NotFoundError:
        return None
    return Task(
        container_id=container_id,
        pid=found.pid,
        status=_STATUS.get(found.status, "UNKNOWN"),
        exit_status=found.exit_status,
        stdout=found.stdout,
        stderr=found.stderr,
        terminal=found.terminal,
    )


def create(
    client: Client,
    container_id: str,
    rootfs: list[Any],
    stdio: Stdio,
    options: Any = None,
    checkpoint: Descriptor | None = None,
) -> int:
    """Create the task; CRIU does not run before :func:`start`. Returns the pid, 0 for one from a checkpoint."""
    fields: dict[str, Any] = {"container_id": container_id, "rootfs": rootfs, "terminal": stdio.terminal}
    fields.update(stdin=stdio.stdin, stdout=stdio.stdout, stderr=stdio.stderr)
    if options is not None:
        fields["options"] = options
    if checkpoint is not None:
        fields["checkpoint"] = descriptor_message(checkpoint)
    # containerd extracts the checkpoint's blob first: each byte is read and written.
    seconds = client.seconds_for(2 * checkpoint.size if checkpoint is not None else 0)
    return int(client.call(f"{_SERVICE}/Create", timeout=seconds, **fields).pid)


def start(client: Client, container_id: str, timeout: float, exec_id: str = "") -> int:
    """Start the task; for one from a checkpoint this is where CRIU runs. Returns the pid."""
    found = client.call(f"{_SERVICE}/Start", timeout=timeout, container_id=container_id, exec_id=exec_id)
    return int(found.pid)


def kill(client: Client, container_id: str, signal: int, everything: bool, exec_id: str = "") -> bool:
    """Send a signal, with ``everything`` to all processes of the task. False if there is nothing to signal."""
    try:
        client.call(f"{_SERVICE}/Kill", container_id=container_id, signal=signal, all=everything, exec_id=exec_id)
    except NotFoundError:
        return False
    return True


def wait(client: Client, container_id: str, seconds: float, exec_id: str = "") -> int | None:
    """The exit status once the process ends, None if it has not within ``seconds``. Raises NotFoundError."""
    try:
        found = client.call(f"{_SERVICE}/Wait", timeout=seconds, container_id=container_id, exec_id=exec_id)
    except DeadlineError:
        return None
    except RpcError as error:
        # The shim can notice the deadline before gRPC does; containerd passes that on without a status of its own.
        if "context deadline exceeded" in error.details["text"]:
            return None
        raise
    return int(found.exit_status)


def delete(client: Client, container_id: str) -> bool:
    """Delete an ended task and its shim. False if there was none."""
    try:
        client.call(f"{_SERVICE}/Delete", container_id=container_id, timeout=max(client.timeout, 120.0))
    except NotFoundError:
        return False
    return True


def pause(client: Client, container_id: str) -> None:
    """Freeze all processes of the task. Returns once they are frozen."""
    client.call(f"{_SERVICE}/Pause", container_id=container_id)


def resume(client: Client, container_id: str) -> None:
    """Thaw the task."""
    client.call(f"{_SERVICE}/Resume", container_id=container_id)


def checkpoint(client: Client, container_id: str, options: Any, timeout: float) -> None:
    """Have CRIU dump the task; ``options``: an Any of ``containerd.runc.v1.CheckpointOptions`` with an image path.

    With an image path the files go there and containerd writes nothing of its own.
    """
    client.call(f"{_SERVICE}/Checkpoint", timeout=timeout, container_id=container_id, options=options)


def execute(client: Client, container_id: str, exec_id: str, spec: Any, stdio: Stdio) -> None:
    """Register a further process in the task (``spec``: an Any with an OCI Process); :func:`start` runs it."""
    client.call(
        f"{_SERVICE}/Exec",
        container_id=container_id,
        exec_id=exec_id,
        spec=spec,
        stdout=stdio.stdout,
        stderr=stdio.stderr,
        terminal=stdio.terminal,
    )


def delete_process(client: Client, container_id: str, exec_id: str) -> None:
    """Delete an ended further process; nothing to do when it is gone."""
    try:
        client.call(f"{_SERVICE}/DeleteProcess", container_id=container_id, exec_id=exec_id)
    except NotFoundError:
        return


#: By who has paused it: resumed by hand, one whose CUDA processes are suspended would run without its GPU memory.
RESUME = (
    "Have it go on as it was paused: a parked one by containerd_park with state: resumed, a captured one by "
    "containerd_checkpoint with state: settled and leave: running, any other by ctr tasks resume"
)


def refuse_paused(task: Task) -> None:
    """Raise ConflictError ``task_paused`` for a task that is paused: nothing can be done to it but to end it."""
    if task.status in ("PAUSED", "PAUSING"):
        raise ConflictError(
            "task_paused",
            f"The task of the container {task.container_id} is paused (pid {task.pid}).",
            f"{RESUME}; or remove it (containerd_task with state: absent). Then run again.",
        )


def runc_options(present: Any, image_path: str, work_path: str) -> Any:
    """The task options that make runc restore from a directory.

    Non-empty task options replace the container's runtime options in the shim, so those (``present``, an Any of
    ``containerd.runc.v1.Options`` or None) are copied in first.
    """
    kind = "containerd.runc.v1.Options"
    options = messages.message(kind)
    if present is not None and present.type_url.rsplit("/", 1)[-1] == kind:
        options.ParseFromString(present.value)
    options.criu_image_path = image_path
    options.criu_work_path = work_path
    return messages.pack(kind, options.SerializeToString())
