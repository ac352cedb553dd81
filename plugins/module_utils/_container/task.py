# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps that start a task from a checkpoint, stop it, or take it away."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._capture import parked
from .._checkpoint import differences, reader as checkpoint_reader, staged as staged_checkpoint
from .._checkpoint.reader import Checkpoint
from .._containerd import containers, daemon, extracted, leftovers, runtimes, snapshots, task_removal, tasks
from .._containerd.client import Client
from .._containerd.containers import Container
from .._containerd.tasks import Task
from .._core import labels, state_dir
from .._core.errors import UNKNOWN, InputError, NodeError, RestoreError, RpcError, combined
from .._criu import config as criu_config, dump_config
from .._criu.action_script import ActionScript
from .._diagnosis import failure as criu_failure
from .._gpu import devices, marks, teardown
from .._gpu.access import GpuAccess
from .._host import processes as host_processes, run_lock
from .._oci import spec_adapt, spec_namespaces
from .._parallel_memory import hook as memory_hook
from .._parallel_memory.split import Split
from . import (
    comparison as task_comparison,
    loopback as container_loopback,
    network as container_network,
    stdio as container_stdio,
    sysctls as container_sysctls,
    volumes as container_volumes,
)
from .comparison import Comparison

#: The task is restored from the staged files, or from the checkpoint's blob.
STAGED, DESCRIPTOR = "staged", "descriptor"


@dataclass(frozen=True)
class TaskParams:
    """The task that is wanted; see the documentation of ``containerd_task``. Times in seconds."""

    container_id: str
    #: Empty for an ordinary start from the image.
    checkpoint: str = ""
    route: str = STAGED
    staging_dir: str = state_dir.STATE_ROOT
    stdout: str = ""
    stderr: str = ""
    alive_seconds: float = 1.0
    grace_seconds: float = 10.0
    #: 0: as long as the size of the checkpoint allows.
    restore_timeout: float = 0.0
    owner: str = labels.DEFAULT_OWNER
    force: bool = False
    assume_prepared: bool = False
    gpu: teardown.Policy = field(default_factory=teardown.Policy)
    #: Kinds of differences that fail a restore.
    fail_on: tuple[str, ...] = ()
    #: Of the staged checkpoint, where its memory is to be written beside CRIU.
    split: Split | None = None

    @classmethod
    def from_options(cls, options: Mapping[str, Any], access: GpuAccess | None = None) -> TaskParams:
        """As a module's options have it; what some modules lack has its default. ``access``: one that is known."""
        return cls(
            container_id=options["container_id"],
            checkpoint=options["checkpoint"] or "",
            route=options.get("route") or STAGED,
            staging_dir=options["staging_dir"],
            stdout=options.get("stdout") or "",
            stderr=options.get("stderr") or "",
            alive_seconds=options["alive_seconds"],
            grace_seconds=options.get("grace_seconds", cls.grace_seconds),
            restore_timeout=float(options["restore_timeout"]),
            owner=options["owner"],
            force=options["force"],
            assume_prepared=options["assume_prepared"],
            fail_on=tuple((options.get("differences") or {}).get("fail_on") or ()),
            gpu=teardown.Policy(options.get("gpu") or devices.AUTO, access or GpuAccess.from_options(options)),
        )


@dataclass
class TaskResult:
    """What was, or in check mode would be, done."""

    changed: bool = False
    created: bool = False
    before: str = "absent"
    after: str = "absent"
    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    task: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    output_created: list[str] = field(default_factory=list)
    #: What the restored task has otherwise than the captured one had; None where that cannot be told.
    differences: list[dict[str, Any]] | None = None
    #: Why it cannot be told, or not all of it.
    not_compared: str = ""
    #: What the writer of a split checkpoint's memory reported.
    memory: dict[str, Any] = field(default_factory=dict)


def started(client: Client, params: TaskParams, check: bool, checkpoint: Checkpoint | None = None) -> TaskResult:
    """Have the task run, from the checkpoint where one is given.

    ``checkpoint``: the one that ``params`` names, where it is read already.
    Raises InputError, ConflictError (``task_paused``, ``snapshot_used``, ``task_other_checkpoint``), NodeError and
    RestoreError (``criu_restore_failed``, ``memory_write_failed``, ``memory_unwritten``, ``process_died``). After a
    failure no task, shim or output file of this call is left; CRIU's log stays in the container's work directory.
    """
    result = TaskResult()
    if check and params.assume_prepared:
        # Neither the container nor the checkpoint has to be there yet.
        result.changed = result.created = True
        result.after = "RUNNING"
        result.actions.append(f"start the task of the container {params.container_id}, which would be new")
        return result
    if checkpoint is None and params.checkpoint:
        checkpoint = checkpoint_reader.load(client, params.checkpoint)
    container = containers.get(client, params.container_id)
    if container is None:
        raise _no_container(client, params.container_id)
    containers.require_ours(container, params.owner, params.force)
    if checkpoint is not None:
        known = checkpoint.digest_for(container.labels.get(labels.CHECKPOINT, ""))
        containers.require_same_checkpoint(container, known, force=False)
    present = tasks.get(client, params.container_id)
    result.before = present.status if present else "absent"
    work = state_dir.work_dir(params.staging_dir, client.namespace, params.container_id)
    if present is not None and present.status == "RUNNING":
        memory_hook.require_memory_written(params.container_id, work)
        result.after = present.status
        result.task = _result(present)
        return result
    if present is not None:
        parked.refuse(client.namespace, present)
        tasks.refuse_paused(present)
    if snapshots.stat(client, container.snapshotter, container.snapshot_key) is None:
        raise InputError(
            "snapshot_absent",
            f"The snapshot {container.snapshot_key} of the container {params.container_id} is gone.",
            "Make the container anew with containerd_container.",
        )
    if checkpoint is not None and containers.is_used(client, container):
        raise containers.used_snapshot(container)
    options, descriptor, hook, loopback, compared, network, sysctls = None, None, None, None, None, None, None
    staged_images = image_path = ""
    if checkpoint is not None:
        iptables = dump_config.locks_by_iptables(
            checkpoint.facts.criu_options, dump_config.config_of(container.spec, container.labels)
        )
        program = runtimes.program(container.runtime, container.runtime_options)
        lacking = daemon.restore_problems(daemon.daemon_environment(client)["PATH"], iptables, program)
        if lacking:
            raise combined(lacking)
        criu = checkpoint_reader.require_criu(checkpoint)
        config = state_dir.criu_config(params.staging_dir, client.namespace, params.container_id)
        has_config = _criu_config_of(container) == config
        scripts = has_config and not container_loopback.problem(client, work)
        network = container_network.of(
            params.container_id,
            client.namespace,
            container.spec,
            checkpoint.state,
            config,
            None if scripts else container_loopback.problem(client, work),
        )
        compared = Comparison(checkpoint.state, container.spec, config, work, scripts)
        sysctls = container_sysctls.script(checkpoint.state, container.spec, config, work) if scripts else None
        if has_config and container_loopback.is_down(container.spec, client.namespace, params.container_id):
            why = container_loopback.problem(client, work)
            if why:
                result.warnings.append(container_loopback.warning(params.container_id, why))
            else:
                loopback = container_loopback.Loopback(config, work)
        if params.route == DESCRIPTOR:
            checkpoint_reader.require_image(checkpoint)
            descriptor = criu
        else:
            image_path = staged_images = _staged_directory(params, checkpoint)
            if params.split is not None and has_config:
                image_path, hook = params.split.images, memory_hook.Hook(config, work, params.split)
            options = tasks.runc_options(container.runtime_options, image_path, work)
    _require_criu_config(container)
    terminal = bool(container.spec.get("process", {}).get("terminal"))
    stdin = os.path.join(work, "stdin") if checkpoint is not None else ""
    stdio = container_stdio.plan(params.stdout, params.stderr, terminal, stdin)
    result.warnings += stdio.warnings(staged_images)
    result.changed = result.created = True
    result.after = "RUNNING"
    result.actions.append("start the task" + (f" from the checkpoint {checkpoint.name}" if checkpoint else ""))
    if check:
        return result
    # Without a task too: a restore that was broken off may have left what stands in the way of another.
    task_removal.remove(client, params.container_id, 0.0)
    result.warnings += extracted.remove_abandoned(client, params.staging_dir, work)
    memory_hook.clear(work)
    container_loopback.clear(work)
    task_comparison.clear(work)
    container_sysctls.clear(work)
    container_network.clear(work)
    result.warnings += container_network.release(work)
    state_dir.make_private(work, params.staging_dir)
    root = spec_namespaces.mapped_root(container.spec)
    with contextlib.ExitStack() as stack:
        if checkpoint is not None:
            stack.enter_context(run_lock.kept(checkpoint.digest, client.busy_seconds))
        if root is not None and staged_images:
            _hand_over({staged_images, image_path}, root[1])
        result.output_created = stack.enter_context(container_stdio.prepared(stdio))
        _run(
            client,
            params,
            container,
            _Start(
                options,
                descriptor,
                stdio.task(),
                _seconds(client, params, checkpoint),
                checkpoint is not None,
                hook,
                loopback,
                sysctls,
                compared,
                network,
                criu_config.external_mounts(spec_adapt.external_mounts(container.spec)),
            ),
            result,
        )
    return result


def stopped(client: Client, params: TaskParams, check: bool) -> TaskResult:
    """Have no process run: TERM, ``grace_seconds``, then KILL. The ended task stays; none at all is fine too.

    What holds GPU memory is suspended first, and then killed (:mod:`_gpu.teardown`).
    """
    result = TaskResult()
    present = _owned_task(client, params)
    result.before = result.after = present.status if present else "absent"
    if present is None or present.status == "STOPPED":
        result.task = _result(present) if present else {}
        return result
    tasks.refuse_paused(present)
    result.changed, result.after = True, "STOPPED"
    grace = _suspend(client, params, result, check)
    result.actions.append(f"stop pid {present.pid}")
    if check:
        return result
    task_removal.end(client, params.container_id, grace)
    after = tasks.get(client, params.container_id)
    result.task = _result(after) if after else {}
    return result


def absent(client: Client, params: TaskParams, check: bool) -> TaskResult:
    """Have no task, also after a failed start: ended as in :func:`stopped`, deleted, and the shim gone."""
    result = TaskResult()
    present = _owned_task(client, params)
    result.before = present.status if present else "absent"
    left = leftovers.runc_state(client, params.container_id) if present is None else ""
    if present is None and not left:
        return result
    result.changed = True
    grace = _suspend(client, params, result, check) if present else 0.0
    result.actions.append(
        f"end and delete the task (pid {present.pid}, {present.status})"
        if present
        else f"remove {left}, which a restore that was broken off has left"
    )
    if not check:
        task_removal.remove(client, params.container_id, grace)
        work = state_dir.work_dir(params.staging_dir, client.namespace, params.container_id)
        result.warnings += extracted.remove_abandoned(client, params.staging_dir, work)
        result.warnings += container_network.release(work)
        marks.forget_gone(marks.default_root())
    return result


def _suspend(client: Client, params: TaskParams, result: TaskResult, check: bool) -> float:
    """Take GPU memory off the card first; the seconds of grace that are left for TERM.

    A process that is locked out of its GPU may wait for it when it hears TERM, so it gets none.
    """
    done = teardown.suspend(client, params.container_id, params.gpu, params.owner, params.force, check)
    result.actions.extend(done.actions)
    result.warnings.extend(done.warnings)
    return 0.0 if done.processes else params.grace_seconds


@dataclass(frozen=True)
class _Start:
    options: Any
    descriptor: Any
    stdio: tasks.Stdio
    #: That CRIU may take.
    seconds: float
    restoring: bool
    hook: memory_hook.Hook | None
    loopback: container_loopback.Loopback | None
    sysctls: ActionScript | None
    #: For a restore.
    compared: Comparison | None
    network: container_network.Network | None
    #: Lines of CRIU's configuration for mounts that runc does not make.
    external: Sequence[str]


def _run(client: Client, params: TaskParams, container: Container, start: _Start, result: TaskResult) -> None:
    """Create, start, watch; whatever goes wrong, no task is left."""
    identifier = params.container_id
    rootfs = snapshots.mounts(client, container.snapshotter, container.snapshot_key)
    label = spec_adapt.mount_label(container.spec)
    if label:
        for mount in rootfs:
            mount.options.append(f'context="{label}"')
    # Before the start, and kept after a failed one: from here on nobody can promise that the files are untouched.
    snapshots.set_labels(client, container.snapshotter, container.snapshot_key, {labels.USED: "true"})
    container_volumes.set_used(container_volumes.default_root(), client.namespace, identifier)
    begun = time.monotonic()
    work = state_dir.work_dir(params.staging_dir, client.namespace, identifier)
    extraction, maker = None, None
    if start.descriptor is not None:
        extraction = extracted.Extraction(client, params.staging_dir, work, start.descriptor.size)
    try:
        with extraction or contextlib.nullcontext():
            try:
                with contextlib.ExitStack() as stack:
                    if start.restoring:
                        stack.enter_context(
                            dump_config.config_of(container.spec, container.labels).for_restore(start.external)
                        )
                    maker = start.network.script(work) if start.network is not None else None
                    if start.network is not None:
                        start.network.make(work)
                    for script in (start.loopback, start.sysctls, maker, start.hook, start.compared):
                        if script is not None:
                            stack.enter_context(script)
                    with extraction.creating() if extraction else contextlib.nullcontext():
                        tasks.create(client, identifier, rootfs, start.stdio, start.options, start.descriptor)
                    created = time.monotonic()
                    pid = tasks.start(client, identifier, start.seconds)
            except RpcError as error:
                if not start.restoring:
                    raise
                if start.hook is not None:
                    start.hook.raise_failure(identifier)
                if start.network is not None and maker is not None and "failed" in maker.report:
                    raise start.network.failure(str(maker.report["failed"])) from error
                log = state_dir.restore_log(params.staging_dir, client.namespace, identifier)
                raise criu_failure.explain_restore(identifier, error, log) from error
        running = time.monotonic()
        if extraction is not None:
            result.warnings += extraction.warnings
        if start.hook is not None:
            start.hook.require_written(identifier)
            result.memory = start.hook.report
        if start.loopback is not None and start.loopback.failed:
            result.warnings.append(container_loopback.warning(identifier, start.loopback.failed))
        if start.compared is not None:
            _compare(params, start.compared, pid, result)
        task = stays_alive(client, params, pid, params.alive_seconds)
    except BaseException as error:
        if extraction is not None and isinstance(error, RestoreError):
            for warning in extraction.warnings:
                error.left_behind(warning)
        _remove_failed_task(client, identifier, error)
        for problem in container_network.release(work):
            _left_behind(error, problem)
        raise
    result.seconds = {
        "create": round(created - begun, 3),
        "start": round(running - created, 3),
        "alive": round(time.monotonic() - running, 3),
    }
    result.task = _result(task)


def _compare(params: TaskParams, compared: Comparison, pid: int, result: TaskResult) -> None:
    """What the task has is as it was, or it is said. Raises RestoreError ``task_differs``."""
    identifier = params.container_id
    result.warnings += compared.root_flags(identifier, pid)
    found, result.not_compared = compared.differences(pid)
    if found is None or result.not_compared:
        result.warnings += [result.not_compared] if params.fail_on else []
    if found is None:
        return
    refused = task_comparison.fails(found, params.fail_on)
    if refused:
        raise task_comparison.failure(identifier, refused)
    result.differences = differences.results(found)
    result.warnings += task_comparison.warnings(identifier, found)


def stays_alive(client: Client, params: TaskParams, pid: int, seconds: float) -> Task:
    """The process has to stay RUNNING for ``seconds`` more; the task as it is then. Raises ``process_died``."""
    status = tasks.wait(client, params.container_id, seconds) if seconds > 0 else None
    task = tasks.get(client, params.container_id)
    runs = status is None and task is not None and task.status == "RUNNING" and task.pid > 0
    # containerd 1.6 misses the end of a process that dies within milliseconds, and calls it RUNNING for ever.
    if task is not None and runs and host_processes.start_time(task.pid) is not None:
        return task
    code = status if status is not None else task.exit_status if task and task.status == "STOPPED" else None
    how = "an exit status that containerd did not learn" if code is None else f"exit status {code}"
    tail = container_stdio.tail(params.stderr) or container_stdio.tail(params.stdout)
    seen = "Its last output is in failure.details.output."
    hints = [seen if tail else "Give stdout or stderr a file to see its last output."]
    if params.checkpoint and code == 0:
        hints.append("A dump interrupts system calls, which ends a program that takes that for an error.")
    raise RestoreError(
        "process_died",
        f"The process of the container {params.container_id} (pid {pid}) ended within {params.alive_seconds:g} s after "
        f"the start, with {how}" + (f" (signal {code - 128})" if code and code > 128 else "") + ".",
        " ".join(hints),
        details={"exit_status": code, "output": tail},
    )


def _remove_failed_task(client: Client, container_id: str, reason: BaseException) -> None:
    """Take the failed task away without hiding why it failed."""
    try:
        task_removal.remove(client, container_id, 0.0)
    except RestoreError as error:
        _left_behind(reason, f"the task of {container_id}: {error.message}")


def _left_behind(reason: BaseException, what: str) -> None:
    if isinstance(reason, RestoreError):
        reason.outcome = UNKNOWN
        reason.left_behind(what)


def _seconds(client: Client, params: TaskParams, checkpoint: Checkpoint | None) -> float:
    """How long the start may take: CRIU reads all memory."""
    criu = checkpoint.criu if checkpoint is not None else None
    return params.restore_timeout or client.seconds_for(criu.size if criu is not None else 0)


def _owned_task(client: Client, params: TaskParams) -> Task | None:
    container = containers.get(client, params.container_id)
    present = tasks.get(client, params.container_id)
    if container is not None and (present is not None or leftovers.runc_state(client, params.container_id)):
        containers.require_ours(container, params.owner, params.force)
    if present is not None:
        parked.refuse(client.namespace, present)
    return present


def _staged_directory(params: TaskParams, checkpoint: Checkpoint) -> str:
    staged = staged_checkpoint.find(params.staging_dir, checkpoint.key)
    if staged is not None:
        return staged.directory
    if checkpoint.on_node:
        raise checkpoint_reader.gone(checkpoint, params.staging_dir)
    raise InputError(
        "checkpoint_not_staged",
        f"The CRIU images of {checkpoint.name} ({checkpoint.digest}) are not staged below {params.staging_dir}.",
        "Run containerd_checkpoint_stage first, with the same staging_dir.",
    )


def _hand_over(directories: Iterable[str], group: int) -> None:
    """Let CRIU read its images once it is in the container's user namespace, where it is root for that alone.

    It opens them relative to their directory, some before its user is mapped, when it is the host's root without any
    capability ("Unable to open timens-0.img: Permission denied" if they are not root's), some after it ("tty-info.img",
    with CRIU 4.2.1; ctr's restore fails so, too): so they are root's still, and for the mapped group to read.
    The directories above stay root's alone, so that nobody else comes to them by a path.
    """
    for directory in directories:
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            os.chown(path, -1, group, follow_symlinks=False)
            os.chmod(path, 0o640)
        os.chown(directory, -1, group, follow_symlinks=False)
        os.chmod(directory, 0o750)


def _require_criu_config(container: Container) -> None:
    """A missing CRIU configuration file is silently ignored by CRIU, so it is asserted here."""
    path = _criu_config_of(container)
    if path and not os.path.isfile(path):
        raise NodeError(
            "criu_config_missing",
            f"The CRIU configuration {path} that the container {container.id} names does not exist.",
            "Run containerd_container again: it writes the file.",
        )


def _criu_config_of(container: Container) -> str:
    return str((container.spec.get("annotations") or {}).get("org.criu.config") or "")


def _no_container(client: Client, container_id: str) -> InputError:
    return InputError(
        "container_absent",
        f"There is no container {container_id} in containerd's namespace {client.namespace}.",
        "Make it first with containerd_container.",
    )


def _result(task: Task) -> dict[str, Any]:
    return {
        "id": task.container_id,
        "pid": task.pid,
        "status": task.status,
        "exit_status": task.exit_status if task.status == "STOPPED" else None,
    }
