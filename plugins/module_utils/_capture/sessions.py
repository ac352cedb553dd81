# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes that were started in a container from outside: by ``ctr tasks exec``, ``kubectl exec``, a probe's command.

CRIU dumps the tree below the container's first process. What was executed later has its parent outside, so it is in no
dump, and nobody misses it until somebody asks for it after a restore.
"""

from __future__ import annotations

from collections.abc import Sequence

from .._host import processes

#: As many are named in a sentence.
_NAMED = 5


def outside(task_pid: int, pids: Sequence[int], proc: str = "/proc") -> list[int]:
    """Those of a container's processes that do not descend from its first one; a process that has ended is none."""
    parents = {pid: _parent(pid, proc) for pid in pids}
    found = []
    for pid in pids:
        seen, at = {0}, pid
        while at != task_pid and at not in seen:
            seen.add(at)
            at = parents.get(at) or 0
        if at != task_pid and parents[pid] is not None:
            found.append(pid)
    return found


def warnings(container_id: str, task_pid: int, pids: Sequence[int], proc: str = "/proc") -> list[str]:
    """One sentence, or none."""
    found = outside(task_pid, pids, proc)
    if not found:
        return []
    names = ", ".join(f"{pid} ({processes.command(pid, proc)})" for pid in found[:_NAMED])
    names += f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return [
        f"Processes of {container_id} that were executed in it from outside (exec sessions, probes) are not in a "
        f"checkpoint, and end with the container: {names}."
    ]


def _parent(pid: int, proc: str) -> int | None:
    try:
        with open(f"{proc}/{pid}/status", encoding="utf-8", errors="replace") as stream:
            return next((int(line.split()[1]) for line in stream if line.startswith("PPid:")), 0)
    except (FileNotFoundError, ProcessLookupError):
        return None
