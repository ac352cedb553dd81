# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fault at one of a module's calls to containerd, in the process that makes it.

A fault is ``none`` (only count), ``kill-before`` and ``kill-after`` (SIGKILL of the module around the call),
``daemon-before`` and ``daemon-after`` (SIGKILL of containerd around the call, which is started again at once),
``full-before`` (no byte is free any more, for containerd or for the module, from the call on), or ``stop-after`` (the
module stops there for ever). The names of the calls are appended to CALLS as they are made.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import signal
import socket
import threading
from typing import Any

from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client

CALLS = "/run/gpuops-lab/calls"
#: The file systems of containerd and of the collection.
DISKS = ("/var/lib/containerd", "/var/lib/gpuops-restore")
#: sys/mount.h
MS_REMOUNT = 32
CONTROL = "/run/gpuops-lab/control.sock"


def daemon(action: str) -> None:
    """Ask the node's init."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(CONTROL)
        connection.sendall(json.dumps({"action": action}).encode() + b"\n")
        connection.makefile().readline()


def fill(path: str) -> None:
    """Take all the room of a tmpfs, by making it as large as what is in it: nothing has to be written for that."""
    room = os.statvfs(path)
    used = (room.f_blocks - room.f_bfree) * room.f_frsize
    if not used:
        # A tmpfs of no size is one without a limit.
        with open(f"{path}/filler", "wb") as file:
            used = file.write(bytes(room.f_frsize))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(None, path.encode(), None, ctypes.c_ulong(MS_REMOUNT), f"size={used}".encode()):
        raise OSError(ctypes.get_errno(), "it cannot be made smaller", path)


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
        for path in DISKS:
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
        try:
            return original(self, stub, method, request, timeout)
        finally:
            # Whatever the answer was: that there is no such snapshot is one, too.
            if mine == number and moment == "after":
                strike(kind)

    Client._invoke = counted  # type: ignore[method-assign]
