# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A further process in a running container."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import signal
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._containerd import messages, tasks
from .._containerd.client import Client
from .._core import state_dir
from .._core.errors import UNKNOWN, RestoreError, RpcError

#: The type URL under which containerd takes a process; the value is its JSON.
_PROCESS_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Process"
_OUTPUT_BYTES = 4096


@dataclass(frozen=True)
class Done:
    """How it ended: ``exit_status`` None: not in time, and killed; ``output`` the last of stdout and stderr."""

    exit_status: int | None
    output: str
    problem: str = ""


def process(spec: Mapping[str, Any], command: Sequence[str]) -> dict[str, Any]:
    """The container's own process (user, environment, directory, rights) with another command and no terminal."""
    found: dict[str, Any] = copy.deepcopy(dict(spec.get("process") or {}))
    for name in ("consoleSize", "commandLine"):
        found.pop(name, None)
    found.update(args=list(command), terminal=False)
    found.setdefault("cwd", "/")
    return found


def run(
    client: Client, container_id: str, spec: Mapping[str, Any], command: Sequence[str], seconds: float, root: str
) -> Done:
    """Run a command in the container and wait for its end. Its output lies in private files meanwhile, then nowhere.

    ``problem`` of the result says why it could not be started. Raises RpcError for calls that fail otherwise,
    RestoreError ``exec_unkillable``.
    """
    exec_id = f"gpuops-probe-{uuid.uuid4().hex[:12]}"
    wanted = messages.pack(_PROCESS_TYPE, json.dumps(process(spec, command)).encode())
    with _private_directory(root, client.namespace, container_id, exec_id) as directory:
        path = os.path.join(directory, "output")
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        stdio = tasks.Stdio(f"file://{path}", f"file://{path}")
        tasks.execute(client, container_id, exec_id, wanted, stdio)
        try:
            status, problem = _await(client, container_id, exec_id, seconds)
        finally:
            # Also waits until the shim has copied the output, which the end of the process does not: a moment before,
            # the last of it may be missing (containerd, runc shim, process/exec.go).
            tasks.delete_process(client, container_id, exec_id)
        return Done(status, _tail(path), problem)


def _await(client: Client, container_id: str, exec_id: str, seconds: float) -> tuple[int | None, str]:
    """Start it and wait: its exit status, None where it had to be killed, and why it could not be started."""
    try:
        tasks.start(client, container_id, client.timeout, exec_id)
    except RpcError as error:
        return None, str(error.details.get("text", error.message))
    status = tasks.wait(client, container_id, seconds, exec_id)
    if status is None:
        _kill(client, container_id, exec_id)
    return status, ""


def _kill(client: Client, container_id: str, exec_id: str) -> None:
    tasks.kill(client, container_id, signal.SIGKILL, everything=False, exec_id=exec_id)
    if tasks.wait(client, container_id, client.timeout, exec_id) is None:
        raise RestoreError(
            "exec_unkillable",
            f"The probe's process in {container_id} did not end within {client.timeout:g} s after SIGKILL.",
            "It hangs in the kernel (state D): look at it with ps and at dmesg.",
            outcome=UNKNOWN,
        )


@contextlib.contextmanager
def _private_directory(root: str, namespace: str, container_id: str, name: str) -> Iterator[str]:
    work = state_dir.work_dir(root, namespace, container_id)
    directory = os.path.join(work, name)
    state_dir.make_private(directory, root)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)
        state_dir.prune(work, root)


def _tail(path: str) -> str:
    with open(path, "rb") as stream:
        stream.seek(max(0, os.path.getsize(path) - _OUTPUT_BYTES))
        return stream.read().decode("utf-8", "replace")
