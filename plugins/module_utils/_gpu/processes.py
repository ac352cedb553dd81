# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which processes have CUDA state: those of a task's cgroup, or named ones, and the driver's answers.

NVML is no help: a checkpointed process is on no GPU and not in its list.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .._containerd import containers, tasks
from .._containerd.client import Client
from .._containerd.containers import require_ours
from .._core import labels
from .._core.errors import RETRYABLE, ConflictError, InputError, NodeError, RestoreError
from .._host import cgroup, processes as host_processes
from .._host.processes import Process
from . import driver as gpu_driver
from .driver import Driver

_AGAIN_SECONDS = 0.1


@dataclass(frozen=True)
class CudaProcess:
    """A process with CUDA, as the driver tells of it."""

    process: Process
    #: None where the driver does not tell, because of ``problem``.
    state: str | None
    #: The id of its restore thread.
    thread: int | None
    problem: str = ""


@dataclass(frozen=True)
class Scope:
    """Whose processes are meant."""

    #: The process of a task, whose cgroup holds all of them; 0 for ``pids``.
    task_pid: int = 0
    pids: tuple[int, ...] = ()
    proc: str = "/proc"
    cgroup_root: str = cgroup.ROOT

    @property
    def is_container(self) -> bool:
        """Whether processes may come and go without anybody naming them."""
        return self.task_pid > 0

    def processes(self) -> list[Process]:
        """Those that live now, ascending. Raises NodeError ``cgroup_of_process``."""
        if not self.is_container:
            return host_processes.identify(self.pids, self.proc)
        try:
            first = host_processes.identify(self._members(), self.proc)
            # Still in the cgroup after we know its start: no other process has taken the number in between.
            members = self._members()
        except NodeError as error:
            if error.code == "process_gone":
                return []
            raise
        return [process for process in first if process.pid in members]

    def refuse_frozen(self) -> None:
        """Raise ConflictError ``task_paused`` when a cgroup is frozen: CUDA's calls would hang for ever."""
        for process in self.processes():
            try:
                frozen = cgroup.is_frozen(process.pid, self.proc, self.cgroup_root)
            except NodeError:
                continue
            if frozen:
                raise ConflictError(
                    "task_paused",
                    f"The cgroup of process {process.pid} is frozen, so a call of the CUDA driver would not return.",
                    f"{tasks.RESUME}. Then run again.",
                    details={"pid": process.pid},
                )

    def _members(self) -> list[int]:
        return cgroup.tgids_of(self.task_pid, self.proc, self.cgroup_root)


def require_pids(pids: Iterable[int] | None) -> tuple[int, ...]:
    """The ids as an option has them. Raises InputError ``pid_invalid``."""
    found = tuple(pids or ())
    for pid in found:
        if pid <= 1:
            raise InputError("pid_invalid", f"{pid} is no process id to name here.", "Give host process ids.")
    return found


def scope_of_pids(pids: Sequence[int], proc: str = "/proc", cgroup_root: str = cgroup.ROOT) -> Scope:
    """Named processes. Raises InputError ``process_gone`` for one that does not live."""
    living = {process.pid for process in host_processes.identify(pids, proc)}
    for pid in pids:
        if pid not in living:
            raise InputError("process_gone", f"There is no process {pid} on this node.", "Name processes that live.")
    return Scope(pids=tuple(pids), proc=proc, cgroup_root=cgroup_root)


def scope_of_container(
    client: Client,
    container_id: str,
    owner: str | None = labels.DEFAULT_OWNER,
    force: bool = False,
    proc: str = "/proc",
    cgroup_root: str = cgroup.ROOT,
) -> Scope | None:
    """The task's processes; None when the task has ended, or was only created. ``owner`` None: whoever's it is.

    Raises InputError ``container_absent``, ``task_absent``, ConflictError ``container_not_ours``, ``task_paused``
    (only where an owner is given: looking at a paused task is no harm).
    """
    container = containers.get(client, container_id)
    if container is None:
        raise InputError(
            "container_absent",
            f"There is no container {container_id} in containerd's namespace {client.namespace}.",
            "Name one that exists, or give pids.",
        )
    task = tasks.get(client, container_id)
    if owner is not None:
        require_ours(container, owner, force)
    if task is None:
        raise InputError(
            "task_absent",
            f"The container {container_id} has no task, so it has no processes.",
            "Start it first with containerd_task.",
        )
    if owner is not None:
        tasks.refuse_paused(task)
    if task.status in ("STOPPED", "CREATED") or task.pid <= 0:
        return None
    return Scope(task_pid=task.pid, proc=proc, cgroup_root=cgroup_root)


def query_states(driver: Driver, processes: Sequence[Process], deadline: float) -> list[CudaProcess]:
    """Those of the processes that have CUDA, in their order. Raises RestoreError ``cuda_timeout``.

    Where the driver says neither that a process has CUDA nor that it has not, it is queried twice: the process may just
    have been ending.
    """
    answers = dict(_round(driver, processes, deadline))
    doubtful = [process for process in processes if _is_doubtful(answers[process.pid])]
    if doubtful:
        time.sleep(_AGAIN_SECONDS)
        answers.update(_round(driver, doubtful, deadline))
    found = []
    for process in processes:
        done = answers[process.pid]
        if done.gone or done.error == gpu_driver.NOT_INITIALIZED:
            continue
        problem = "" if done.error == 0 and done.state else f"{done.name} ({done.error})"
        found.append(CudaProcess(process, None if problem else done.state, done.thread, problem))
    return found


def _is_doubtful(done: gpu_driver.Done) -> bool:
    return not done.gone and done.error not in (0, gpu_driver.NOT_INITIALIZED)


def _round(driver: Driver, processes: Sequence[Process], deadline: float) -> dict[int, gpu_driver.Done]:
    found = driver.call(gpu_driver.QUERY, processes, deadline)
    if found.pending:
        pids = ", ".join(str(process.pid) for process in found.pending)
        raise RestoreError(
            "cuda_timeout",
            f"The CUDA driver {found.reason} when asked for the state of process {pids}.",
            "See whether the process is stopped, frozen or in state D; nothing was changed, so run again afterwards.",
            outcome=RETRYABLE,
            details={"operation": gpu_driver.QUERY, "pending": [process.pid for process in found.pending]},
        )
    return found.done
