# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs one module inside a node, with a fault at one of its calls to containerd.

``fault_at.py MODULE FAULT NUMBER``; options come on standard input, as for the module. FAULT is ``none`` (only count),
``kill-before`` and ``kill-after`` (SIGKILL of the module around the call), ``daemon-before`` and ``daemon-after``
(SIGKILL of containerd around the call, which is started again at once), ``full-before`` (no byte is free any more, for
containerd or for the module, from the call on), or ``stop-after`` (the module stops there for ever). The names of the
calls are appended to CALLS as they are made.
"""

from __future__ import annotations

import functools
import json
import os
import runpy
import signal
import socket
import sys
import threading
from typing import Any

from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client

CALLS = "/run/gpuops-lab/calls"
#: What takes all room, on the file systems of containerd and of the collection.
FILLERS = ("/var/lib/containerd/filler", "/var/lib/gpuops-restore/filler")
CONTROL = "/run/gpuops-lab/control.sock"


def daemon(action: str) -> None:
    """Ask the node's init."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(CONTROL)
        connection.sendall(json.dumps({"action": action}).encode() + b"\n")
        connection.makefile().readline()


def fill(path: str) -> None:
    """Take all the room that there is."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    room = os.fstatvfs(file)
    size = room.f_bavail * room.f_frsize
    if size:
        os.posix_fallocate(file, 0, size)
    os.close(file)


def strike(fault: str) -> None:
    """The fault itself."""
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif fault == "daemon":
        daemon("kill")
        daemon("start")
    elif fault == "full":
        for path in FILLERS:
            fill(path)


def arm(fault: str, number: int) -> None:
    """Count the calls of all clients, and strike at one."""
    original = Client._invoke
    lock = threading.Lock()
    kind, _dash, moment = fault.partition("-")
    seen = 0

    @functools.wraps(original)
    def counted(self: Client, stub: Any, method: Any, request: Any, timeout: float) -> Any:
        nonlocal seen
        with lock:
            seen += 1
            mine = seen
            with open(CALLS, "a", encoding="ascii") as file:
                file.write("/".join(part.rsplit(".", 1)[-1] for part in method.path.strip("/").split("/")) + "\n")
        if mine == number and moment == "before":
            strike(kind)
        answer = original(self, stub, method, request, timeout)
        if mine == number and moment == "after":
            strike(kind)
        return answer

    Client._invoke = counted  # type: ignore[method-assign]


if __name__ == "__main__":
    arm(sys.argv[2], int(sys.argv[3]))
    module = sys.argv[1]
    # Ansible would take a word on the command line for a file with options.
    del sys.argv[1:]
    runpy.run_module(f"ansible_collections.gpuops.restore.plugins.modules.{module}", run_name="__main__")
