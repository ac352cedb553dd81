# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Has a command of the operator make or take away a container's network.

For one that CRIU makes, as a program of its own that CRIU starts when the namespace is there and nothing in it
(:mod:`_container.network_command`), so it imports nothing of this collection.

Arguments: a file with the plan, the report to write, and the pid of a process in the namespace.
Plan: ``command`` with its arguments, and ``environment``, to which the namespace and what is to be done are added.
Report: ``made``, or why it has ``failed``, and then the exit status is 1.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from typing import Any

#: That it may take.
SECONDS = 60.0
#: Bytes of its output, the last, in a failure.
_TOLD = 1000
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NETNS, ACTION = "GPUOPS_RESTORE_NETNS", "GPUOPS_RESTORE_ACTION"
MAKE, REMOVE = "make", "remove"


class CommandError(Exception):
    """It has failed; the text says how, and what it says."""


def make(plan: dict[str, Any], namespace: str, seconds: float = SECONDS) -> None:
    """Have the network made; after a failure what was made is taken away again. Raises CommandError."""
    try:
        _run(plan, MAKE, namespace, seconds)
    except CommandError as error:
        problem = remove(plan, namespace, seconds)
        raise CommandError(f"{error}; {problem}" if problem else str(error)) from error


def remove(plan: dict[str, Any], namespace: str, seconds: float = SECONDS) -> str:
    """Have it taken away, by its path or, where the namespace is gone, without one; why not, or empty."""
    try:
        _run(plan, REMOVE, namespace, seconds)
    except CommandError as error:
        return f"with {ACTION}={REMOVE} {error}"
    return ""


def _run(plan: dict[str, Any], action: str, namespace: str, seconds: float) -> None:
    environment = {**plan["environment"], "PATH": _PATH, NETNS: namespace, ACTION: action}
    # A file, not a pipe, which what it leaves running would keep open.
    with tempfile.TemporaryFile() as output:
        try:
            # A step knows no AnsibleModule whose run_command it could use.
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                plan["command"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            # ValueError: no text for arguments.
            raise CommandError(str(error)) from error
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise CommandError(f"it did not end within {seconds:g} s{_said(output)}") from None
        if status:
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            raise CommandError(f"it ended with {how}{_said(output)}")


def _said(output: Any) -> str:
    output.seek(max(0, os.fstat(output.fileno()).st_size - _TOLD))
    text = " ".join(output.read().decode("utf-8", "replace").split())
    return f": {text}" if text else ""


def main() -> None:
    """Do it, and say how it went."""
    plan_path, report, pid = sys.argv[1:4]
    found: dict[str, Any]
    try:
        with open(plan_path, encoding="utf-8") as stream:
            plan = json.load(stream)
        make(plan, f"/proc/{pid}/ns/net")
        found = {"made": True}
    except (CommandError, OSError, ValueError) as error:
        found = {"failed": str(error)}
    with open(report, "w", encoding="utf-8") as stream:
        json.dump(found, stream)
    if "failed" in found:
        # CRIU ends the restore then.
        raise SystemExit(1)


if __name__ == "__main__":
    main()
