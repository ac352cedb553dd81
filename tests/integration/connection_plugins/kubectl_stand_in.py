# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for the connection kubernetes.core.kubectl, for tests without Kubernetes.

As that one, it has the host's ``ansible_shell_executable`` run all commands in a container, and copies files by ``dd``
in it. In place of ``kubectl exec`` it calls the program that ``ansible_kubectl_stand_in`` names.
"""

from __future__ import annotations

import shlex
import subprocess
from typing import IO, Any

from ansible.errors import AnsibleError
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: kubectl_stand_in
short_description: Executes in the agent's container of a lab node
description: A stand-in for kubernetes.core.kubectl.
author: the gpuops.restore contributors
options:
  program:
    description: Runs its arguments in the container.
    required: true
    vars:
      - name: ansible_kubectl_stand_in
"""


class Connection(ConnectionBase):  # type: ignore[misc, unused-ignore]
    """One process for each command, as with kubectl."""

    transport = "kubectl_stand_in"
    has_pipelining = True

    def _connect(self) -> Connection:
        self._connected = True
        return self

    def _run(self, command: str, **streams: Any) -> subprocess.CompletedProcess[bytes]:
        argv = [self.get_option("program"), self._play_context.executable, "-c", command]
        return subprocess.run(argv, stderr=subprocess.PIPE, check=False, **streams)

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        """Status, output and errors of the command."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        done = self._run(cmd, input=in_data or b"", stdout=subprocess.PIPE)
        return done.returncode, done.stdout, done.stderr

    def put_file(self, in_path: str, out_path: str) -> None:
        """Copy a file there."""
        super().put_file(in_path, out_path)
        with open(in_path, "rb") as source:
            self._copy(f"dd of={shlex.quote(out_path)} bs=65536", stdin=source, stdout=subprocess.DEVNULL)

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Copy a file from there."""
        super().fetch_file(in_path, out_path)
        with open(out_path, "wb") as target:
            self._copy(f"dd if={shlex.quote(in_path)} bs=65536", stdin=subprocess.DEVNULL, stdout=target)

    def _copy(self, command: str, stdin: IO[bytes] | int, stdout: IO[bytes] | int) -> None:
        done = self._run(command, stdin=stdin, stdout=stdout)
        if done.returncode:
            raise AnsibleError(f"{command}: {done.stderr.decode(errors='replace')}")

    def close(self) -> None:
        """There is nothing to close."""
        self._connected = False
