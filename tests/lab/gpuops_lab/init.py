# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Process 1 of a node: reaps what is left to it and keeps containerd, as told over a socket.

Runs with the node's own Python; imports nothing of the lab. A request is one line of JSON
{"action": start|stop|kill|status}, the answer one line {"pid": 0 when it does not run, "error": ""}.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import time

CONTROL = "/run/gpuops-lab/control.sock"
LOG = "/var/log/containerd.log"
STOP_SECONDS = 20.0


class Init:
    """The node's only supervisor; containerd that dies by itself stays dead, as tests of faults want."""

    def __init__(self) -> None:
        self.containerd = 0

    def reap(self) -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.containerd:
                self.containerd = 0

    def act(self, action: str) -> str:
        """Returns what went wrong, or nothing."""
        if action == "start":
            return self._start()
        if action in ("stop", "kill"):
            return self._stop(signal.SIGTERM if action == "stop" else signal.SIGKILL)
        return "" if action == "status" else f"unknown action {action}"

    def _start(self) -> str:
        if self.containerd:
            return ""
        try:
            with open(LOG, "ab") as log:
                process = subprocess.Popen(
                    ["/usr/bin/containerd"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:
            return f"containerd did not start: {error}"
        self.containerd = process.pid
        process.returncode = 0  # reap() waits for it, not the Popen object
        return ""

    def _stop(self, number: signal.Signals) -> str:
        deadline = time.monotonic() + STOP_SECONDS
        if self.containerd:
            os.kill(self.containerd, number)
        while self.containerd and time.monotonic() < deadline:
            time.sleep(0.01)
            self.reap()
        return f"containerd did not end within {STOP_SECONDS:.0f} s" if self.containerd else ""

    def answer(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(5)
            try:
                request = json.loads(connection.makefile().readline())
                error = self.act(str(request["action"]))
                connection.sendall(json.dumps({"pid": self.containerd, "error": error}).encode() + b"\n")
            except (OSError, ValueError, KeyError, TypeError) as problem:
                print(f"init: bad request: {problem}", flush=True)

    def run(self) -> None:
        awake, alarm = socket.socketpair()
        awake.setblocking(False)
        alarm.setblocking(False)
        signal.set_wakeup_fd(alarm.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        control = socket.socket(socket.AF_UNIX)
        control.bind(CONTROL)
        os.chmod(CONTROL, 0o600)
        control.listen(16)
        control.setblocking(False)
        with selectors.DefaultSelector() as selector:
            selector.register(awake, selectors.EVENT_READ)
            selector.register(control, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select(timeout=5):
                    if key.fileobj is awake:
                        awake.recv(4096)
                    else:
                        self.answer(control.accept()[0])
                self.reap()


if __name__ == "__main__":
    Init().run()
