# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Traces that containerd leaves outside its own records: shim processes, extracted checkpoints. Private."""

from __future__ import annotations

import os
import shutil
import time

from ansible_collections.gpuops.restore.plugins.module_utils import _node
from ansible_collections.gpuops.restore.plugins.module_utils._client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._errors import UNKNOWN, RestoreError

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
    give_up = time.monotonic() + _SECONDS
    while True:
        left = pids(namespace, container_id)
        if not left:
            return
        if time.monotonic() >= give_up:
            raise RestoreError(
                "shim_left",
                f"The shim of the container {container_id} (pid {', '.join(map(str, left))}) still runs "
                f"{_SECONDS:g} s after its task was deleted.",
                "Look at containerd's log; once the container is gone the shim may be killed.",
                outcome=UNKNOWN,
            )
        time.sleep(0.02)


def extracted_checkpoints(client: Client) -> frozenset[str]:
    """Directories into which containerd extracted checkpoints (``ctrd-checkpoint*``) on the descriptor route."""
    environment = _node.daemon_environment(client)
    roots = {environment.get("XDG_RUNTIME_DIR", ""), environment.get("TMPDIR", ""), "/tmp"}
    found: set[str] = set()
    for root in roots:
        base = f"/proc/{client.peer_pid()}/root{root}"
        if root and os.path.isdir(base):
            found.update(os.path.join(base, name) for name in os.listdir(base) if name.startswith("ctrd-checkpoint"))
    return frozenset(found)


def remove_extracted(client: Client, before: frozenset[str]) -> list[str]:
    """Remove the one directory that this restore left, a full copy of the process memory; returns warnings."""
    left = sorted(extracted_checkpoints(client) - before)
    if len(left) == 1:
        shutil.rmtree(left[0])
        return []
    # With several, some belong to restores that run beside this one.
    return [f"containerd left a copy of process memory in {path}; remove it." for path in left]
