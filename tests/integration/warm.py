# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs modules inside a node, each in a child forked from this process, which has imported them before.

``warm.py MODULE...`` imports these modules, listens on SOCKET, and goes to the background; others are imported when
they are first asked for. A request is a line of JSON: ``module`` (a module of the collection, or a file beside this one
with a dot before its name), ``options``, and ``before``: file, function and arguments of what the child calls first, or
nothing. The answer is a line with the child's ``status`` as waitpid(2) has it, ``stdout`` and ``stderr``. It comes when
the child has ended, or was stopped. Requests are served side by side.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from typing import Any

from ansible_collections.gpuops.restore.plugins.module_utils._containerd import messages

SOCKET = "/run/gpuops-lab/warm.sock"
#: By this name listings know it, and leave it out.
NAME = "gpuops-warm"
_PACKAGE = "ansible_collections.gpuops.restore.plugins.modules"


def serve(names: list[str]) -> None:
    """Answer requests, for ever; what started this goes on once that can be asked."""
    for name in names:
        _module(name)
    messages.api()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(SOCKET)
    listener.listen(16)
    if os.fork():
        os._exit(0)
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nowhere, number)
    _be_called(NAME)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # A collection in a child would otherwise copy every page.
    gc.freeze()
    while True:
        connection, _address = listener.accept()
        with connection:
            # Whoever only looks whether this listens says nothing.
            if line := connection.makefile().readline():
                request = json.loads(line)
                # Here, so that the next child has it, too.
                module = _module(request["module"])
                if not os.fork():
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    connection.sendall(json.dumps(_answer(module, request)).encode() + b"\n")
                    os._exit(0)


def _module(name: str) -> Any:
    return importlib.import_module(name[1:] if name.startswith(".") else f"{_PACKAGE}.{name}")


def _answer(module: Any, request: dict[str, Any]) -> dict[str, Any]:
    # In memory: no pipe that somebody who outlives the module could hold, and no file for the listing.
    streams = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
    os.write(streams[0], json.dumps({"ANSIBLE_MODULE_ARGS": request["options"]}).encode())
    os.lseek(streams[0], 0, os.SEEK_SET)
    child = os.fork()
    if not child:
        _become(module, request["before"], streams)
    _pid, status = os.waitpid(child, os.WUNTRACED)
    texts = [os.pread(stream, os.fstat(stream).st_size, 0).decode(errors="replace") for stream in streams]
    return {"status": status, "stdout": texts[1], "stderr": texts[2]}


def _become(module: Any, before: list[Any] | None, streams: list[int]) -> None:
    """The child is the module from here on, and never returns."""
    status = 1
    try:
        os.setsid()
        _be_called("python3")
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        # This process's socket and connection, as no module has them.
        os.closerange(3, max(map(int, os.listdir("/proc/self/fd"))) + 1)
        # Ansible would take a word on the command line for a file with options.
        sys.argv = [module.__file__]
        if before:
            file, function, *arguments = before
            getattr(importlib.import_module(file), function)(*arguments)
        module.main()
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _be_called(name: str) -> None:
    with open("/proc/self/comm", "w", encoding="ascii") as file:
        file.write(name)


if __name__ == "__main__":
    serve(sys.argv[1:])
