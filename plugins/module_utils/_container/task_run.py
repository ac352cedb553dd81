# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A task created, started and watched as it was planned; after a failure it is gone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from .._checkpoint import differences
from .._containerd import extracted, snapshots, task_removal, tasks
from .._containerd.client import Client
from .._containerd.containers import Container
from .._core import labels, state_dir
from .._core.errors import UNKNOWN, RestoreError, RpcError
from .._criu import dump_config
from .._diagnosis import failure as criu_failure
from .._oci import spec_adapt
from . import (
    comparison as task_comparison,
    loopback as container_loopback,
    network as container_network,
    task_alive,
    volumes as container_volumes,
)
from .comparison import Comparison
from .task_params import TaskParams, TaskResult, shown
from .task_plan import Plan


@dataclass(frozen=True)
class Start:
    """One start of a task."""

    plan: Plan
    stdio: tasks.Stdio
    #: That CRIU may take.
    seconds: float
    restoring: bool
    #: Lines of CRIU's configuration for mounts that runc does not make.
    external: Sequence[str]


def carry_out(client: Client, params: TaskParams, container: Container, start: Start, result: TaskResult) -> None:
    """Create, start, watch; whatever goes wrong, no task is left.

    Raises RestoreError ``criu_restore_failed``, ``memory_write_failed``, ``memory_unwritten``, ``process_died``,
    ``task_differs``.
    """
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
    if start.plan.descriptor is not None:
        extraction = extracted.Extraction(client, params.staging_dir, work, start.plan.descriptor.size)
    try:
        with extraction or contextlib.nullcontext():
            try:
                with contextlib.ExitStack() as stack:
                    if start.restoring:
                        stack.enter_context(
                            dump_config.config_of(container.spec, container.labels).for_restore(start.external)
                        )
                    maker = start.plan.network.script(work) if start.plan.network is not None else None
                    if start.plan.network is not None:
                        start.plan.network.make(work)
                    for script in (
                        start.plan.loopback,
                        start.plan.sysctls,
                        maker,
                        start.plan.hook,
                        start.plan.compared,
                    ):
                        if script is not None:
                            stack.enter_context(script)
                    with extraction.creating() if extraction else contextlib.nullcontext():
                        tasks.create(client, identifier, rootfs, start.stdio, start.plan.options, start.plan.descriptor)
                    created = time.monotonic()
                    pid = tasks.start(client, identifier, start.seconds)
            except RpcError as error:
                if not start.restoring:
                    raise
                if start.plan.hook is not None:
                    start.plan.hook.raise_failure(identifier)
                if start.plan.network is not None and maker is not None and "failed" in maker.report:
                    raise start.plan.network.failure(str(maker.report["failed"])) from error
                log = state_dir.restore_log(params.staging_dir, client.namespace, identifier)
                raise criu_failure.explain_restore(identifier, error, log) from error
        running = time.monotonic()
        if extraction is not None:
            result.warnings += extraction.warnings
        if start.plan.hook is not None:
            start.plan.hook.require_written(identifier)
            result.memory = start.plan.hook.report
        if start.plan.loopback is not None and start.plan.loopback.failed:
            result.warnings.append(container_loopback.warning(identifier, start.plan.loopback.failed))
        if start.plan.compared is not None:
            _compare(params, start.plan.compared, pid, result)
        task = task_alive.stays_alive(client, params, pid, params.alive_seconds)
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
    result.task = shown(task)


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
