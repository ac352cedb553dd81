# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes that were forked of a CUDA process and inherited what the driver had mapped and opened there.

CUDA cannot be used in such a child, and the driver answers that it has no CUDA state. But its mappings of the driver's
device files and its descriptors stay: the parent's checkpoint closes the parent's alone, and CRIU refuses what is left
("handle_device_vma plugin failed"; NVIDIA's cuda-checkpoint, issues 4 and 28). DataLoader workers of PyTorch are such.
They are taken away by a helper process (:mod:`_gpu.forks_worker`), which nobody notices who does not use them.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .._core import state_dir
from .._core.errors import RETRYABLE, NodeError, RestoreError
from .._core.helper_process import Child, ChildEndedError
from .._host.processes import Process
from . import forks_worker

DETACH, REFUSE = "detach", "refuse"
CHOICES = (DETACH, REFUSE)
#: Device files of the driver: /dev/nvidia0, nvidiactl, nvidia-uvm, nvidia-caps/... .
DEVICES = "/dev/nvidia"
#: Seconds for one process to stop when it is asked to.
STOP_SECONDS = 5.0
#: Seconds that a helper may need beyond that: it never waits for long once a process has stopped.
_HELPER_SECONDS = 30.0
_MACHINE = "x86_64"


@dataclass(frozen=True)
class Fork:
    """A process without CUDA state that has a driver's device mapped or open."""

    process: Process
    #: Addresses, from and to.
    mappings: tuple[tuple[int, int], ...] = ()
    descriptors: tuple[int, ...] = ()

    def result(self) -> dict[str, Any]:
        """As modules return it."""
        return {
            "pid": self.process.pid,
            "mappings": len(self.mappings),
            "descriptors": len(self.descriptors),
        }


def find(processes: Iterable[Process], proc: str = "/proc") -> list[Fork]:
    """Those of the processes that have something of the driver's; the caller leaves out those with CUDA state."""
    found = []
    for process in processes:
        mappings = tuple(_mappings(process.pid, proc))
        descriptors = tuple(_descriptors(process.pid, proc))
        if mappings or descriptors:
            found.append(Fork(process, mappings, descriptors))
    return found


def problems(forks: Sequence[Fork], mode: str, container_id: str, proc: str = "/proc") -> list[NodeError]:
    """Why these processes keep a capture from being taken; nothing is touched."""
    if not forks:
        return []
    pids = ", ".join(str(fork.process.pid) for fork in forks)
    if mode == REFUSE:
        return [
            NodeError(
                "cuda_forks",
                f"Process {pids} of {container_id} was forked of a CUDA process and holds mappings or descriptors of "
                "the NVIDIA driver that it inherited, which CRIU does not take.",
                "Set cuda_forks to detach: they are taken away from it, and it cannot use them anyway.",
                details={"forks": [fork.result() for fork in forks]},
            )
        ]
    untouchable = {fork.process.pid: why for fork in forks for why in [_untouchable(fork.process.pid, proc)] if why}
    if not untouchable:
        return []
    reasons = "; ".join(f"process {pid}: {why}" for pid, why in untouchable.items())
    return [
        NodeError(
            "cuda_fork_untouchable",
            f"What processes of {container_id} inherited of the NVIDIA driver cannot be taken from them: {reasons}.",
            "End what traces them, or have the program start them by spawn or before it uses CUDA.",
            details={
                "forks": [fork.result() for fork in forks],
                "reasons": {str(k): v for k, v in untouchable.items()},
            },
        )
    ]


def detach(forks: Sequence[Fork], owners: Sequence[int], container_id: str, proc: str = "/proc") -> None:
    """Take away what these processes inherited, and look that it is gone. ``owners``: the CUDA processes.

    One that has ended meanwhile is no failure. Raises RestoreError ``cuda_fork_not_detached``.
    """
    reasons = _carry_out(forks, owners)
    left = {fork.process.pid: fork for fork in find([fork.process for fork in forks], proc)}
    if not left:
        return
    why = "; ".join(f"process {pid}: {reasons.get(pid) or 'it has them again'}" for pid in left)
    raise RestoreError(
        "cuda_fork_not_detached",
        f"What processes of {container_id} inherited of the NVIDIA driver could not be taken away from them: {why}.",
        "Run again; if it stays so, have the program start them by spawn or before it uses CUDA.",
        outcome=RETRYABLE,
        details={"forks": [fork.result() for fork in left.values()]},
    )


def _carry_out(forks: Sequence[Fork], owners: Sequence[int]) -> dict[int, str]:
    """What the helper says of each process; empty texts for those that it has dealt with."""
    child = Child(forks_worker, {"PATH": os.environ.get("PATH", os.defpath)})
    said: dict[int, str] = {}
    try:
        for fork in forks:
            child.send(
                {
                    "pid": fork.process.pid,
                    "start_time": fork.process.start_time,
                    "mappings": [list(part) for part in fork.mappings],
                    "descriptors": list(fork.descriptors),
                    "owners": list(owners),
                    "seconds": STOP_SECONDS,
                }
            )
            answer = child.receive(time.monotonic() + STOP_SECONDS + _HELPER_SECONDS)
            if answer is None:
                # Not killed: a process that it holds would go on without its registers put back.
                said[fork.process.pid] = "the helper process does not answer"
                return said
            said[fork.process.pid] = str(answer["error"])
    except ChildEndedError as error:
        said.update(
            {fork.process.pid: f"the helper process ended ({error})" for fork in forks if fork.process.pid not in said}
        )
    child.close()
    return said


def _untouchable(pid: int, proc: str) -> str:
    """Why a process cannot be traced, as far as that can be told without trying."""
    if platform.machine() != _MACHINE:
        return f"this is only known for {_MACHINE}, and the node is {platform.machine()}"
    # A kernel without Yama has no such file, and a process that has ended no status.
    if (state_dir.read_text(f"{proc}/sys/kernel/yama/ptrace_scope") or "").strip() == "3":
        return "the node allows nobody to trace a process (kernel.yama.ptrace_scope is 3)"
    status = state_dir.read_text(f"{proc}/{pid}/status") or ""
    tracer = next((line.split()[1] for line in status.splitlines() if line.startswith("TracerPid:")), "0")
    return f"process {tracer} traces it already" if tracer != "0" else ""


def _mappings(pid: int, proc: str) -> list[tuple[int, int]]:
    """Neighbouring ones as one. See proc_pid_maps(5)."""
    found: list[tuple[int, int]] = []
    try:
        with open(f"{proc}/{pid}/maps", encoding="utf-8", errors="replace") as stream:
            lines = [line.split(maxsplit=5) for line in stream]
    except OSError:
        return []
    for words in lines:
        if len(words) < 6 or not words[5].startswith(DEVICES):
            continue
        start, end = (int(text, 16) for text in words[0].split("-"))
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def _descriptors(pid: int, proc: str) -> list[int]:
    directory = f"{proc}/{pid}/fd"
    found = []
    try:
        for name in os.listdir(directory):
            try:
                if os.readlink(f"{directory}/{name}").startswith(DEVICES):
                    found.append(int(name))
            except FileNotFoundError:
                continue
    except OSError:
        return []
    return sorted(found)
