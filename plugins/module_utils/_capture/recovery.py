# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A workload that a capture has stopped goes on again, and what was half made goes.

The same for a capture that failed and for one that was killed, whose mark the next run finds.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from typing import Any, Callable

from .._checkpoint import staging, staging_root
from .._containerd import containers, daemon, images, leases, network_locks, snapshots, task_removal, tasks
from .._containerd.client import Client
from .._containerd.tasks import Task
from .._core import state_dir
from .._core.errors import (
    RETRYABLE,
    TERMINAL,
    ConflictError,
    NodeError,
    NotFoundError,
    PreconditionError,
    RestoreError,
    RpcError,
)
from .._criu import dump_config
from .._gpu import state as gpu_state, transitions
from .._gpu.driver import QUERY, Driver
from .._gpu.processes import Scope
from .._host import cgroup, memory, processes as host_processes
from .._host.processes import Process
from .._probe import hook as probe_hook
from .._probe.hook import Hook
from . import survivors, unlinked_files
from .mark import ENDING, KEPT_PAUSED, PARKED, PARKING, Mark, MarkFile
from .params import CaptureParams

_POLL_SECONDS = 0.1
#: What the names of the programs have in them that work on a dump: CRIU and the runtimes that call it.
_DUMPING = ("criu", "runc", "crun", "youki", "container-runtime")


def marked_task(client: Client, container_id: str, mark: Mark, proc: str = "/proc") -> Task | None:
    """The task that the mark speaks of, None when that one has ended."""
    task = tasks.get(client, container_id)
    if task is None or task.pid != mark.pid or host_processes.start_time(mark.pid, proc) != mark.start_time:
        return None
    return task


def describe(params: CaptureParams, mark: Mark) -> list[str]:
    """What :func:`recover` does, for ``actions``."""
    hook = hook_of(params, mark)
    why = f"the capture {mark.name} keeps paused"
    if mark.phase == PARKED:
        why = "is parked"
    elif mark.phase == PARKING:
        why = "a run that was broken off may have left half parked"
    elif mark.phase != KEPT_PAUSED:
        why = f"a capture as {mark.name} that was broken off may have left paused"
    return [f"resume {params.container_id}, which {why}", *([hook.action()] if hook and mark.phase != ENDING else [])]


def recover(
    client: Client,
    params: CaptureParams,
    mark_file: MarkFile,
    mark: Mark,
    sleep: Callable[[float], None] = time.sleep,
) -> list[dict[str, Any]]:
    """Have the workload of a broken-off capture go on, take away what that one made, and clear the mark.

    The result has the processes that ended when they were to go on, as :func:`_capture.survivors.ended`.
    Raises ConflictError ``capture_busy`` when CRIU is still at it after the time that a dump may take, and what
    :func:`_gpu.state.ensure` raises; the mark stays in both cases. RestoreError ``hook_failed`` when all is done but
    ``after_capture``, which is not tried again.
    """
    container_id, access = params.container_id, params.access
    paused: dict[Process, str] = {}
    locked: NodeError | None = None
    hook = None
    if marked_task(client, container_id, mark, params.access.proc) is not None:
        hook = hook_of(params, mark)
        if mark.directory:
            await_dump(container_id, mark.directory, _dump_seconds(client, params, mark), params.access.proc)
        try:
            if mark.directory:
                unlinked_files.unlink(mark.pid, mark.links, params.access.proc)
                locked = unlock_network(client, mark.pid, params.access.proc)
        finally:
            # Its pause may have come after the run was killed.
            if is_paused(tasks.get(client, container_id)):
                paused = survivors.living(Scope(task_pid=mark.pid, proc=access.proc, cgroup_root=access.cgroup_root))
                resume(client, container_id)
        if mark.phase == ENDING:
            # Its image is complete, and SIGKILL may have been sent.
            task_removal.end(client, container_id, 0.0)
            paused, hook = {}, None
        elif mark.cuda:
            try:
                resume_cuda(client, replace(params.cuda(mark.cuda_state), vram=mark.vram))
            except RestoreError as error:
                # What the capture left paused has an image; one that was broken off has none.
                raise lost(container_id, error, mark.name if mark.phase == KEPT_PAUSED else "") from error
    if mark.directory:
        container = containers.get(client, container_id)
        config = dump_config.config_of(container.spec, container.labels) if container else None
        dump_config.remove_stale(config.path if config and config.ours else dump_config.NODE_CONFIG)
        remove_leftovers(client, mark)
    try:
        if hook is not None:
            probe_hook.run(client, hook)
    finally:
        mark_file.clear()
    if locked is not None:
        raise locked
    if not paused:
        return []
    sleep(survivors.MOMENT)
    return survivors.ended(paused, access.proc)


def hook_of(params: CaptureParams, mark: Mark) -> Hook | None:
    """What the workload is to be told when it goes on: as the capture had it, which may have told it to rest."""
    return Hook.from_options(probe_hook.AFTER_CAPTURE, mark.after, params.container_id, mark.staging_dir)


def _dump_seconds(client: Client, params: CaptureParams, mark: Mark) -> float:
    """How long a dump under way may still take."""
    try:
        pids = cgroup.tgids_of(mark.pid, params.access.proc, params.access.cgroup_root)
    except NodeError:
        # That it is not known how much memory there is must not keep the workload from going on.
        pids = [mark.pid]
    return params.dump_seconds(client, memory.own(pids, params.access.proc))


def resume(
    client: Client,
    container_id: str,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    proc: str = "/proc",
) -> None:
    """Resume the task, if it still is there and paused."""
    try:
        tasks.resume(client, container_id)
    except (NotFoundError, PreconditionError):
        # It ended, or went on by another's hand.
        return
    except RpcError as error:
        # One that has just been killed is not paused for runc, but still is for a moment in containerd's records.
        thawed = "not paused" in str(error.details.get("text"))
        give_up = clock() + (client.timeout if thawed else 0.0)
        while True:
            task = tasks.get(client, container_id)
            if task is None or not is_paused(task) or (thawed and _paused_anew(client, task, proc)):
                return
            if clock() >= give_up:
                raise
            sleep(_POLL_SECONDS)


def _paused_anew(client: Client, task: Task, proc: str) -> bool:
    """A CRIU that is killed thaws what it dumps: runc then has a container that runs, containerd one that is paused,
    and neither resumes it. Frozen once more, it is resumed like any other."""
    try:
        if not cgroup.freeze(task.pid, proc):
            return False
        tasks.resume(client, task.container_id)
    except (NodeError, OSError, RpcError):
        # It has ended meanwhile, or is looked at once more.
        return False
    return True


def unlock_network(client: Client, pid: int, proc: str = "/proc") -> NodeError | None:
    """Give a task back the network that a CRIU which was killed has locked; why that cannot be done."""
    try:
        network_locks.release(pid, daemon.daemon_environment(client)["PATH"], proc)
    except NodeError as error:
        return error
    return None


def is_paused(task: Task | None) -> bool:
    """Whether the task stands still."""
    return task is not None and task.status in ("PAUSED", "PAUSING")


def resume_cuda(client: Client, params: gpu_state.StateParams, driver: Driver | None = None) -> dict[str, float]:
    """Give the CUDA processes their memory back and unlock them; seconds by call.

    ``driver`` was opened before. Should it have ended meanwhile, nothing was begun with it, and another one does it.
    """
    if driver is not None:
        try:
            return gpu_state.ensure(client, params, False, driver).seconds
        except RestoreError as error:
            if error.details.get("operation") != QUERY:
                raise
    return gpu_state.ensure(client, params, False).seconds


def is_lost(error: RestoreError) -> bool:
    """Whether CUDA processes cannot get their memory back any more, and with them the workload cannot go on."""
    return error.code in transitions.LOST or bool(error.details.get("lost"))


def lost(container_id: str, error: RestoreError, checkpoint: str = "") -> RestoreError:
    """The same error, said for what it is where the workload is lost. ``checkpoint``: a complete one of it, if any."""
    if not is_lost(error):
        return error
    if not checkpoint:
        remedy = "Remove the task; start it anew, or restore it from an earlier checkpoint."
    elif transitions.NOT_SUPPORTED in error.message:
        remedy = f"Remove the task and start it anew: this driver cannot restore the checkpoint {checkpoint} either."
    else:
        remedy = f"Remove the task, and restore it from the checkpoint {checkpoint}."
    return RestoreError(
        error.code,
        f"The workload {container_id} is lost: {error.message}",
        remedy,
        outcome=TERMINAL,
        details={**error.details, "lost": True},
    )


def remove_leftovers(client: Client, mark: Mark) -> None:
    """Remove directory, snapshots and lease of a capture."""
    if mark.lease:
        leases.delete(client, mark.lease)
    remove_snapshots(client, mark)
    remove_directory(mark.directory, mark.staging_dir)
    if mark.staged:
        found = images.get(client, mark.name)
        if found is None or found.target.digest != f"sha256:{mark.staged}":
            # Without its record it is no checkpoint.
            staging.remove(mark.staging_dir, mark.staged)
            staging_root.remove_root_if_empty(mark.staging_dir)


def remove_snapshots(client: Client, mark: Mark) -> None:
    """Remove the snapshots of a capture."""
    for key in (mark.view, mark.copy):
        if key:
            snapshots.remove(client, mark.snapshotter, key)


def remove_directory(directory: str, staging_dir: str) -> None:
    """Remove a half-made dump, and the directories above it as far as they are empty."""
    if os.path.lexists(directory):
        shutil.rmtree(directory)
    state_dir.prune(os.path.dirname(directory), staging_dir)


def await_dump(
    container_id: str,
    directory: str,
    seconds: float,
    proc: str = "/proc",
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until no CRIU works in the directory: one whose client was killed finishes all the same, and were the task
    resumed before, it would freeze it again at its end.

    Raises ConflictError ``capture_busy`` when ``seconds`` are over.
    """
    give_up = clock() + seconds
    while True:
        pids = working_in(directory, proc)
        if not pids:
            return
        if clock() >= give_up:
            raise ConflictError(
                "capture_busy",
                f"CRIU (pid {', '.join(map(str, pids))}) still dumps {container_id}, for a run that was broken off.",
                "Wait until it has ended, then run again.",
                outcome=RETRYABLE,
            )
        sleep(_POLL_SECONDS)


def working_in(directory: str, proc: str) -> list[int]:
    """CRIU, by what it has open there, and the runtime, which is told of the directory before CRIU starts.

    Both root's, on the host: whoever else reads our log, or names the directory, keeps nobody waiting.
    """
    found = []
    for entry in os.listdir(proc):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            links = [os.readlink(f"{proc}/{entry}/fd/{name}") for name in os.listdir(f"{proc}/{entry}/fd")]
            with open(f"{proc}/{entry}/cmdline", encoding="utf-8", errors="replace") as stream:
                links += stream.read().split("\0")
        except OSError:
            continue
        if not any(link == directory or link.startswith(directory + "/") for link in links):
            continue
        program = host_processes.root_program(int(entry), proc)
        if any(word in program for word in _DUMPING):
            found.append(int(entry))
    return found
