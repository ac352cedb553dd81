# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Traces that containerd leaves outside its own records: shim processes, extracted checkpoints."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time

from .._core.errors import RETRYABLE, UNKNOWN, NodeError, RestoreError
from . import daemon as containerd_daemon
from .client import Client

_SECONDS = 10.0


def pids(namespace: str, container_id: str, proc: str = "/proc") -> list[int]:
    """The shim processes of one container (``containerd-shim-... -namespace NS ... -id ID``)."""
    found = []
    for entry in os.listdir(proc):
        if not entry.isdigit():
            continue
        try:
            with open(f"{proc}/{entry}/cmdline", "rb") as stream:
                words = stream.read().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        if not os.path.basename(words[0]).startswith("containerd-shim"):
            continue
        options = dict(zip(words[1:], words[2:]))
        if options.get("-namespace") == namespace and options.get("-id") == container_id:
            found.append(int(entry))
    return found


def require_gone(namespace: str, container_id: str) -> None:
    """Wait for the shim to end. Raises RestoreError ``shim_left``."""
    left = _wait(namespace, container_id, _SECONDS)
    if left:
        raise RestoreError(
            "shim_left",
            f"The shim of the container {container_id} (pid {', '.join(map(str, left))}) still runs {_SECONDS:g} s "
            "after its task was deleted.",
            "Look at containerd's log; once the container is gone the shim may be killed.",
            outcome=UNKNOWN,
        )


def end_orphans(namespace: str, container_id: str) -> None:
    """End a shim whose task containerd does not know. Raises RestoreError ``shim_left``.

    containerd 2.1 leaves one when the client that creates a task is killed; it holds no process of the container yet,
    and containerd removes its directory as soon as the connection to it is gone.
    """
    for pid in _wait(namespace, container_id, 1.0):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    require_gone(namespace, container_id)


def _wait(namespace: str, container_id: str, seconds: float) -> list[int]:
    give_up = time.monotonic() + seconds
    while True:
        left = pids(namespace, container_id)
        if not left or time.monotonic() >= give_up:
            return left
        time.sleep(0.02)


def extracted_checkpoints(client: Client) -> frozenset[str]:
    """Directories into which containerd extracted checkpoints (``ctrd-checkpoint*``) on the descriptor route.

    Raises NodeError ``daemon_unavailable``.
    """
    environment = containerd_daemon.daemon_environment(client)
    roots = {environment.get("XDG_RUNTIME_DIR", ""), environment.get("TMPDIR", ""), "/tmp"}
    try:
        daemon = client.peer_pid()
    except OSError as error:
        raise NodeError(
            "daemon_unavailable",
            f"Nobody answers on the containerd socket {client.address}: {error.strerror or error}.",
            "Look at the state of the containerd service on this node and start it.",
            outcome=RETRYABLE,
        ) from error
    found: set[str] = set()
    for root in roots:
        base = f"/proc/{daemon}/root{root}"
        if root and os.path.isdir(base):
            found.update(os.path.join(base, name) for name in os.listdir(base) if name.startswith("ctrd-checkpoint"))
    return frozenset(found)


def remove_extracted(client: Client, before: frozenset[str]) -> list[str]:
    """Remove the one directory that this restore left, a full copy of the process memory; returns warnings."""
    try:
        found = extracted_checkpoints(client)
    except NodeError as error:
        # This runs on the way out of a failure, which says more than that the daemon is gone.
        return [f"Whether containerd left a copy of process memory (ctrd-checkpoint*) is not known: {error.message}"]
    # After a restart of the daemon the same directory has another process id in its path.
    known = {_inside(path) for path in before}
    left = sorted(path for path in found if _inside(path) not in known)
    if len(left) == 1:
        shutil.rmtree(left[0], ignore_errors=True)
        left = [path for path in left if os.path.isdir(path)]
    # With several, some belong to restores that run beside this one.
    return [f"containerd left a copy of process memory in {path}; remove it." for path in left]


def _inside(path: str) -> str:
    return path.split("/root", 1)[1]
