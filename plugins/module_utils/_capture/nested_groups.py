# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes in control groups of their own below the container's, as an init system or a build tool makes them.

runc makes the container's group and CRIU leaves groups alone (``manage-cgroups=ignore``): they come back in that one.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from .._host import processes

#: As many are named in a sentence.
_NAMED = 5


def warnings(container_id: str, task_pid: int, pids: Sequence[int], proc: str = "/proc") -> list[str]:
    """One sentence, or none."""
    own = _places(task_pid, proc)
    found = {}
    for pid in pids:
        below = [place for place in (_below(own, _places(pid, proc))) if place]
        if below:
            found[pid] = below[0]
    if not found:
        return []
    names = [f"{pid} ({processes.command(pid, proc)}) in {place}" for pid, place in list(found.items())[:_NAMED]]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return [
        f"Processes of {container_id} are in control groups of their own below the container's: {', '.join(names)}"
        f"{more}. They come back in the container's, without these groups and their limits."
    ]


def _below(own: dict[str, str], others: dict[str, str]) -> list[str]:
    """Where a process is below the first one's place, in each hierarchy; empty where it is not."""
    found = []
    for controllers, place in others.items():
        base = own.get(controllers, "")
        if base not in ("", "/") and place.startswith(base + "/"):
            found.append(posixpath.relpath(place, base))
    return found


def _places(pid: int, proc: str) -> dict[str, str]:
    try:
        with open(f"{proc}/{pid}/cgroup", encoding="utf-8", errors="replace") as stream:
            lines = [line.rstrip("\n").split(":", 2) for line in stream]
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {words[1]: words[2] for words in lines if len(words) == 3}
