# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Helper processes that are forked from a Python which has imported the drivers' bindings before.

That import is nearly all that a helper costs, and the unit tests start some two thousand of them. A helper is a process
of its own as before, with its own session, streams and environment; it runs what helper_process gives it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import IO, Any

from ansible_collections.gpuops.restore.plugins.module_utils._gpu import driver_worker, nvml_worker

#: The helpers that import bindings; others start as always.
WORKERS = ("driver_worker", "nvml_worker")
_SOURCES = tuple(str(module.__file__) for module in (driver_worker, nvml_worker))
#: What an interpreter, or its loader, reads at its start alone.
_AT_START = ("PYTHON", "LD_", "LC_", "LANG")
#: How many helpers are started as always before one is forked.
_PATIENCE = 2
_ZYGOTE = """
import builtins, ctypes, gc, importlib, io, json, os, queue, re, select, signal, socket, sys, threading, traceback

plain_compile, known = builtins.compile, {}

def compile_once(source, name, mode, *more, **named):
    # What helpers run is the same each time, and has been compiled in here.
    found = None if more or named else known.get((source, name, mode))
    return plain_compile(source, name, mode, *more, **named) if found is None else found

for path in sys.argv[2:]:
    with open(path, "rb") as stream:
        key = stream.read(), os.path.basename(path)[: -len(".py")], "exec"
    known[key] = plain_compile(*key)
builtins.compile = compile_once
for name in ("cuda.bindings.driver", "pynvml"):
    try:
        importlib.import_module(name)
    except ImportError:
        pass
asked = socket.socket(fileno=int(sys.argv[1]))
woken, wake = os.pipe()
os.set_blocking(wake, False)
signal.set_wakeup_fd(wake)
signal.signal(signal.SIGCHLD, lambda *_arguments: None)
# Where to say of a helper that it has ended, and how.
told = {}
gc.freeze()
while True:
    ready = select.select([asked, woken], [], [])[0]
    if woken in ready:
        os.read(woken, 4096)
        while told:
            helper, status = os.waitpid(-1, os.WNOHANG)
            if not helper:
                break
            os.write(told[helper], b"%20d" % status)
            os.close(told.pop(helper))
    if asked not in ready:
        continue
    data, descriptors, _flags, _address = socket.recv_fds(asked, 1 << 18, 4)
    if not data:
        os._exit(0)
    helper = os.fork()
    if not helper:
        break
    for descriptor in descriptors[:3]:
        os.close(descriptor)
    told[helper] = descriptors[3]
    os.write(told[helper], b"%20d" % helper)
signal.set_wakeup_fd(-1)
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
asked.close()
for descriptor in (woken, wake, *told.values()):
    os.close(descriptor)
os.setsid()
for number in range(3):
    os.dup2(descriptors[number], number)
for descriptor in descriptors:
    os.close(descriptor)
sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)
request = json.loads(data)
os.chdir("/")
os.environ.clear()
os.environ.update(request["environment"])
sys.argv = ["-c", *request["arguments"]]
status = 1
try:
    exec(request["code"], {"__name__": "__main__"})
    status = 0
except SystemExit as end:
    status = int(end.code or 0)
except BaseException:
    traceback.print_exc()
finally:
    # Taking an interpreter down costs more than forking it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
"""


class Forked:
    """As much of subprocess.Popen as helper_process needs."""

    def __init__(self, zygote: socket.socket, request: Mapping[str, Any], stderr: IO[bytes]) -> None:
        (read_in, write_in), (read_out, write_out), (self._ends, told) = os.pipe(), os.pipe(), os.pipe()
        socket.send_fds(zygote, [json.dumps(request).encode()], [read_in, write_out, stderr.fileno(), told])
        for descriptor in (read_in, write_out, told):
            os.close(descriptor)
        self.stdin = open(write_in, "wb", buffering=0)  # noqa: SIM115
        self.stdout = open(read_out, "rb", buffering=0)  # noqa: SIM115
        self.pid = int(os.read(self._ends, 20))
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, as subprocess has it. Raises TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._ends], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("helper", timeout or 0.0)
            self.returncode = os.waitstatus_to_exitcode(int(os.read(self._ends, 20)))
            os.close(self._ends)
        return self.returncode

    def poll(self) -> int | None:
        """The same, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def kill(self) -> None:
        """End it."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


class Subprocess:
    """The module subprocess, as helper_process sees it. Helpers are forked where that comes to the same.

    There is one Python for each environment, as far as it counts at the start, that was seen some times before.
    """

    def __init__(self) -> None:
        self._seen: Counter[tuple[str, ...]] = Counter()
        self._zygotes: dict[tuple[str, ...], tuple[socket.socket, subprocess.Popen[bytes]]] = {}
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)

    def Popen(self, command: Sequence[str], **options: Any) -> Any:  # noqa: N802
        """A helper's process."""
        zygote = self._zygote(options["env"]) if command[-1] in WORKERS else None
        if zygote is None:
            return subprocess.Popen(command, **options)
        python, dash_c, code, *arguments = command
        assert (python, dash_c, options["cwd"], options["start_new_session"]) == (sys.executable, "-c", "/", True)
        request = {"code": code, "arguments": arguments, "environment": dict(options["env"])}
        return Forked(zygote, request, options["stderr"])

    def close(self) -> None:
        """The Pythons that helpers were forked from go."""
        for zygote, process in self._zygotes.values():
            zygote.close()
            process.wait()

    def _zygote(self, environment: Mapping[str, str]) -> socket.socket | None:
        start = tuple(f"{name}={value}" for name, value in sorted(environment.items()) if name.startswith(_AT_START))
        with self._lock:
            self._seen[start] += 1
            if start not in self._zygotes and self._seen[start] > _PATIENCE:
                ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                command = [sys.executable, "-c", _ZYGOTE, str(its.fileno()), *_SOURCES]
                with its:
                    process = subprocess.Popen(
                        command, env=dict(environment), pass_fds=[its.fileno()], stdin=subprocess.DEVNULL
                    )
                self._zygotes[start] = ours, process
            return self._zygotes[start][0] if start in self._zygotes else None
