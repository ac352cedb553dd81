# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The facts of this node, and of a task on it, that a checkpoint records."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .._containerd import daemon
from .._core.errors import NodeError
from .._host import cgroup, memory as host_memory
from . import facts

_CGROUPS = {cgroup.V1: "v1", cgroup.HYBRID: "hybrid", cgroup.UNIFIED: "v2"}


def node(path: str, runtime: str, cpuinfo: str = "/proc/cpuinfo") -> dict[str, Any]:
    """The node's part. ``path`` is the daemon's PATH; versions are empty where a program does not tell."""
    architecture = os.uname().machine
    return {
        "kernel": os.uname().release,
        "architecture": architecture,
        "cpu": cpu(architecture, cpuinfo),
        "runtime": {"name": runtime, "version": daemon.find_program("runc", path).version},
        "criu": daemon.find_program("criu", path).version,
        "cgroup": _cgroup_mode(),
    }


def cpu(architecture: str, cpuinfo: str = "/proc/cpuinfo") -> dict[str, Any]:
    """``model`` and ``features`` of the first CPU (proc_cpuinfo(5)); x86 calls them flags, arm64 Features."""
    model, flags = "", []
    with open(cpuinfo, encoding="utf-8", errors="replace") as stream:
        for line in stream:
            name, _colon, value = line.partition(":")
            name = name.strip()
            if name in ("model name", "CPU implementer") and not model:
                model = value.strip()
            elif name in ("flags", "Features"):
                flags = value.split()
            elif not line.strip():
                break
    return {"model": model, "features": facts.features(architecture, flags)}


def memory_bytes(pids: list[int], proc: str = "/proc") -> int:
    """Bytes that processes hold of their own, in RAM and swapped out; what several share counts for each."""
    return sum((host_memory.resident(pid, proc) or 0) + _swapped(pid, proc) for pid in pids)


def gpu(info: Mapping[str, Any]) -> dict[str, Any] | None:
    """The GPU's part, from what ``cuda_process_info`` found before the processes were suspended; None without any."""
    processes = info["processes"]
    if not processes:
        return None
    used = {gpu["uuid"]: gpu for process in processes for gpu in process["gpus"]}
    return {
        "driver": info["driver"]["version"],
        "cuda": info["driver"]["cuda"],
        "gpus": [{"uuid": gpu["uuid"], "index": gpu["index"], "name": gpu["name"]} for gpu in used.values()],
        # What a map onto other GPUs has to list.
        "visible": sorted({uuid for process in processes for uuid in process["visible"]}),
        "processes": [
            {"bytes": process["memory"], "gpus": {gpu["uuid"]: gpu["memory"] for gpu in process["gpus"]}}
            for process in processes
        ],
    }


def _swapped(pid: int, proc: str) -> int:
    try:
        with open(os.path.join(proc, str(pid), "status"), encoding="utf-8", errors="replace") as stream:
            return sum(int(line.split()[1]) * 1024 for line in stream if line.startswith("VmSwap:"))
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _cgroup_mode() -> str | None:
    try:
        return _CGROUPS[cgroup.mode()]
    except NodeError:
        return None
