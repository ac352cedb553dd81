# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has to be right before a capture stops anything: all problems at once."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .._checkpoint import node_facts, staging, staging_root
from .._containerd import daemon, space
from .._containerd.client import Client
from .._containerd.containers import Container
from .._containerd.tasks import Task
from .._core import files
from .._core.errors import NodeError
from .._host import cgroup, mountinfo
from . import resources


@dataclass(frozen=True)
class CriuOptions:
    """What a dump may be asked of CRIU, beyond what it does by itself."""

    tcp_established: bool = False
    file_locks: bool = False
    ext_unix_sk: bool = False
    shell_job: bool = False
    empty_namespaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sizes:
    """Bytes that are known before: on the GPUs, which come into host memory, and written into the root file system."""

    vram: int = 0
    written: int = 0


@dataclass(frozen=True)
class Findings:
    """``problems`` is empty where the capture may begin; ``memory_bytes``: what the processes hold beside VRAM."""

    problems: tuple[NodeError, ...]
    memory_bytes: int


def examine(
    client: Client,
    container: Container,
    task: Task,
    options: CriuOptions,
    staging_dir: str,
    sizes: Sizes,
    proc: str = "/proc",
    cgroup_root: str = cgroup.ROOT,
) -> Findings:
    """Look at node and task; nothing is changed."""
    path = daemon.daemon_environment(client)["PATH"]
    problems = list(daemon.restore_problems(path))
    if not any(problem.code == "criu_missing" for problem in problems):
        problems += _criu_problems(path)
    pids = cgroup.tgids_of(task.pid, proc, cgroup_root)
    memory = node_facts.memory_bytes(pids, proc)
    problems += _resources(container, pids, options, proc)
    problems += _mounts(container, task, proc)
    problems += _room(client, staging_dir, memory + sizes.vram, sizes.written)
    return Findings(tuple(problems), memory)


def _criu_problems(path: str) -> list[NodeError]:
    """CRIU's own look at the kernel, ``criu check``; a process that ends well means that a dump can work."""
    try:
        # A step knows no AnsibleModule whose run_command it could use.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            [daemon.find_program("criu", path).path, "check"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
            env={"PATH": path},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        why = str(error)
    else:
        if done.returncode == 0:
            return []
        lines = [line for line in (done.stderr + done.stdout).splitlines() if "Error" in line] or [done.stderr]
        why = lines[0].strip()[-300:]
    return [
        NodeError(
            "criu_unusable",
            f"CRIU on this node does not pass its own check: {why or 'it ended without a word'}.",
            "Run criu check on the node; a newer CRIU or kernel is needed.",
        )
    ]


def _resources(container: Container, pids: Sequence[int], options: CriuOptions, proc: str) -> list[NodeError]:
    problems = []
    connections = [] if options.tcp_established else resources.tcp_connections(pids, proc)
    if connections:
        problems.append(
            NodeError(
                "tcp_connections",
                f"The processes of {container.id} hold {len(connections)} TCP connections, which CRIU does not take.",
                "Set criu.tcp_established, and have the restore keep or close them (criu.tcp); or close them first.",
                details={"connections": connections[:20]},
            )
        )
    locks = 0 if options.file_locks else resources.file_locks(pids, proc)
    if locks:
        problems.append(
            NodeError(
                "file_locks_held",
                f"The processes of {container.id} hold {locks} file locks, which CRIU does not take.",
                "Set criu.file_locks, here and for the restore.",
            )
        )
    if (container.spec.get("process") or {}).get("terminal") and not options.shell_job:
        problems.append(
            NodeError(
                "terminal_in_use",
                f"The container {container.id} has a terminal, and nobody holds its other end after a restore.",
                "Run the workload without a terminal, or set criu.shell_job to capture it all the same.",
            )
        )
    return problems


def _mounts(container: Container, task: Task, proc: str) -> list[NodeError]:
    mounts = mountinfo.parse(mountinfo.read(f"{proc}/{task.pid}/mountinfo"))
    found = resources.unnamed_mounts(mounts, container.spec)
    if not found:
        return []
    names = ", ".join(f"{mount.mount_point} ({mount.fstype})" for mount in found)
    return [
        NodeError(
            "mount_not_in_spec",
            f"The container {container.id} has mounts that its spec does not name, so CRIU cannot take them: {names}.",
            "Name each as a mount of its own in the spec, bind without rbind, or unmount it in the container.",
            details={"mounts": [mount.mount_point for mount in found]},
        )
    ]


def _room(client: Client, staging_dir: str, dump: int, written: int) -> list[NodeError]:
    """The dump lies in the staging directory and then once more in the content store, maybe on one file system.

    What was written is compressed there; a copy of it is only made where there is room.
    """
    problems: list[NodeError] = []
    staging_root.exists(staging_dir)
    free = files.free_bytes(staging_dir)
    store = space.content_store(client)
    shared = bool(store.path) and _device(staging_dir) == _device(store.path)
    needed = dump + written
    here = dump + (needed if shared else 0) + files.RESERVE
    if here > free:
        problems.append(staging.no_space(staging_dir, here, free))
    if not shared and store.free is not None and needed > store.free:
        problems.append(space.shortage(store, "The checkpoint has about", needed))
    return problems


def _device(path: str) -> Any:
    while path and not os.path.exists(path):
        path = os.path.dirname(path)
    return os.stat(path).st_dev if path else None
