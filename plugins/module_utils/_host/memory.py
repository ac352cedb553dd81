# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether host memory has room for what a checkpoint takes off the GPUs.

All VRAM of a process goes into its own host memory, so the memory cgroups of its container count it, all levels up.
Facts: the kernel's cgroup-v2 document (``memory.max``, ``memory.current``, ``memory.stat``) and cgroup-v1's memory.txt.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from .._core.errors import RETRYABLE, NodeError
from .._core.text import gib
from . import cgroup


def require(needed: Mapping[int, int], proc: str = "/proc", cgroup_root: str = cgroup.ROOT) -> None:
    """Raise NodeError unless there is room for all of ``needed`` (bytes by pid) together.

    ``host_memory_short``: the node's own; ``container_memory_short``: a cgroup's limit, which would have the kernel
    kill the container.
    """
    total = sum(needed.values())
    free = available(proc)
    if free is not None and total > free:
        raise NodeError(
            "host_memory_short",
            f"The checkpoint brings {gib(total)} of VRAM into host memory, of which {gib(free)} are free.",
            "Free host memory, or checkpoint fewer processes at a time; nothing was touched.",
            outcome=RETRYABLE,
            details={"needed": total, "available": free},
        )
    below: dict[str, int] = {}
    for pid, size in needed.items():
        for directory in groups(pid, proc, cgroup_root):
            below[directory] = below.get(directory, 0) + size
    for directory, size in below.items():
        room = headroom(directory)
        if room is not None and size > room:
            raise NodeError(
                "container_memory_short",
                f"The checkpoint brings {gib(size)} of VRAM into the memory cgroup {directory}, whose limit leaves "
                f"{gib(room)}.",
                "Raise the container's memory limit by its VRAM; otherwise the kernel kills it. Nothing was touched.",
                details={"needed": size, "available": room, "cgroup": directory},
            )


def available(proc: str = "/proc") -> int | None:
    """Bytes that can be had without swapping (MemAvailable); None on kernels that do not tell."""
    with open(os.path.join(proc, "meminfo"), encoding="ascii") as stream:
        for line in stream:
            name, _colon, rest = line.partition(":")
            if name == "MemAvailable":
                return int(rest.split()[0]) * 1024
    return None


def resident(pid: int, proc: str = "/proc") -> int | None:
    """Bytes of memory of its own that a process has in RAM (not of files); None when it has ended.

    Of a checkpointed process this bounds its VRAM from above.
    """
    try:
        with open(os.path.join(proc, str(pid), "status"), encoding="utf-8", errors="replace") as stream:
            fields = dict(line.split(":", 1) for line in stream if ":" in line)
    except (FileNotFoundError, ProcessLookupError):
        return None
    sizes = [fields[name].split() for name in ("RssAnon", "RssShmem") if name in fields]
    return sum(int(size[0]) * 1024 for size in sizes)


def own(pids: Iterable[int], proc: str = "/proc") -> int:
    """Bytes that processes hold of their own, in RAM and swapped out; what several share counts for each."""
    return sum((resident(pid, proc) or 0) + _swapped(pid, proc) for pid in pids)


def headroom(directory: str) -> int | None:
    """Bytes that the group's own limit leaves, file pages counted as free; None without a limit."""
    current = _number(directory, "memory.current", "memory.usage_in_bytes")
    limit = _number(directory, "memory.max", "memory.limit_in_bytes")
    if current is None or limit is None:
        return None
    try:
        with open(os.path.join(directory, "memory.stat"), encoding="ascii") as stream:
            stat = {words[0]: int(words[1]) for words in map(str.split, stream) if len(words) == 2}
    except OSError:
        stat = {}
    prefix = "total_" if "total_inactive_file" in stat else ""
    files = stat.get(f"{prefix}inactive_file", 0) + stat.get(f"{prefix}active_file", 0)
    return max(0, limit - max(0, current - files))


def tightest(pids: Iterable[int], proc: str = "/proc", cgroup_root: str = cgroup.ROOT) -> int | None:
    """Bytes that the tightest limit over the processes leaves, of their container or above it; None without a limit."""
    rooms = [headroom(group) for group in {one for pid in pids for one in groups(pid, proc, cgroup_root)}]
    # Without a limit, cgroup v1 tells of more than there can be.
    return min((room for room in rooms if room is not None and room < 1 << 60), default=None)


def groups(pid: int, proc: str = "/proc", root: str = cgroup.ROOT) -> Iterator[str]:
    """The directories of the memory cgroups that count a process, from its own up to, without, the root."""
    try:
        with open(os.path.join(proc, str(pid), "cgroup"), encoding="utf-8") as stream:
            lines = stream.read().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return
    for line in lines:
        _number_, controllers, group = line.split(":", 2)
        if ".." in group.split("/") or (controllers and "memory" not in controllers.split(",")):
            continue
        top = os.path.join(root, controllers) if controllers else root
        parts = [part for part in group.split("/") if part]
        for length in range(len(parts), 0, -1):
            directory = os.path.join(top, *parts[:length])
            if os.path.isdir(directory):
                yield directory


def _swapped(pid: int, proc: str) -> int:
    try:
        with open(os.path.join(proc, str(pid), "status"), encoding="utf-8", errors="replace") as stream:
            return sum(int(line.split()[1]) * 1024 for line in stream if line.startswith("VmSwap:"))
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _number(directory: str, *names: str) -> int | None:
    for name in names:
        try:
            with open(os.path.join(directory, name), encoding="ascii") as stream:
                text = stream.read().strip()
        except OSError:
            continue
        return None if text == "max" else int(text)
    return None
