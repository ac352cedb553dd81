# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the processes that were captured still live when the workload goes on.

A dump interrupts system calls. The kernel restarts most of them, but one that was sleeping in ``nanosleep`` gets EINTR
(CRIU: "Will restore PID with interrupted system call"), and a program that takes this for an error ends. Seen with
busybox' sleep and CRIU 4.1.1; ``ctr containers checkpoint`` ends it just as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._core.errors import NodeError
from .._gpu.processes import Scope
from .._host import processes as host_processes
from .._host.processes import Process

#: Seconds after which a process that takes an interruption for an error has ended.
MOMENT = 0.1
#: As many are named in a sentence.
_NAMED = 5


def living(scope: Scope) -> dict[Process, str]:
    """The processes that live now, with their names; none where nobody tells: that must keep nothing from going on."""
    try:
        return {process: host_processes.command(process.pid, scope.proc) for process in scope.processes()}
    except NodeError:
        return {}


def ended(before: Mapping[Process, str], proc: str = "/proc") -> list[dict[str, Any]]:
    """Those that have ended since: pid and command."""
    now = {process.pid: process for process in host_processes.identify([process.pid for process in before], proc)}
    return [
        {"pid": process.pid, "command": name} for process, name in before.items() if now.get(process.pid) != process
    ]


def sentences(container_id: str, task_pid: int, found: Sequence[Mapping[str, Any]]) -> list[str]:
    """What an operator has to hear, which is nothing where none has ended."""
    if not found:
        return []
    names = ", ".join(f"{process['pid']} ({process['command']})" for process in found[:_NAMED])
    names += f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    whole = any(process["pid"] == task_pid for process in found)
    what = (
        f"The task of {container_id} has ended since it was to go on: process {names}."
        if whole
        else f"Of the captured processes of {container_id}, {names} ended when they went on."
    )
    why = "A dump interrupts system calls, and a program that takes that for an error ends"
    return [f"{what} {why} (a sleep without a retry, as busybox has it)."]
