# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way of one workload: container, task, GPU memory, proof, receipt; and the way back."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Mapping
from typing import Any

from .._container import container as container_steps, task as task_steps
from .._container.params import TaskResult
from .._containerd.client import Client
from .._core import labels, state_dir, timestamp
from .._core.errors import RestoreError
from .._gpu import driver as gpu_driver, nvml, vram
from .._probe import probe as probes
from . import gpu, records
from .demand import Demand
from .params import Job
from .preparation import Preparation
from .result import Result, WorkloadFailure

CONTAINER, TASK, GPU, ALIVE, PROBE, RECEIPT = "container", "task", "gpu", "alive", "probe", "receipt"
#: Failures of the GPU's step that the end of the container's process may have caused.
_MAY_HAVE_DIED = frozenset({"no_cuda_process", "cuda_process_gone", "vram_not_back"})


def restore(
    client: Client, demand: Demand, reading: nvml.Reading | None, check: bool, preparation: Preparation | None = None
) -> Result:
    """Have the workload run from its checkpoint; after a failure nothing that this call made is left.

    ``reading``: the GPUs before the restore, where they were looked at; ``preparation``: what is ready for the window.
    Never raises RestoreError; it is in the result.
    """
    job = demand.job
    left = job.gpu.retries
    preparation = preparation or Preparation()
    result = _attempt(client, demand, reading, check, preparation)
    if result.failure and result.failure.code == "memory_write_failed" and not result.failure.left_behind:
        warnings = [
            *result.warnings,
            f"The restore of {job.name} was begun anew, by CRIU alone: {result.failure.msg}",
        ]
        preparation = preparation.without_split(result.failure.msg)
        result = _attempt(client, _anew(demand), reading, check, preparation)
        result.warnings[:0] = warnings
    while result.failure and left > 0 and _may_begin_anew(client, demand, result, result.failure, check):
        left -= 1
        if check:
            return _foretold(client, result)
        warnings = [*result.warnings, f"The restore of {job.name} was begun anew: {result.failure.msg}"]
        result = _attempt(client, _anew(demand), reading, check, preparation)
        result.warnings[:0] = warnings
    return result


def _anew(demand: Demand) -> Demand:
    # A failed attempt has used its snapshot, also where the container was there before.
    job = demand.job
    return dataclasses.replace(
        demand, job=dataclasses.replace(job, container=dataclasses.replace(job.container, rebuild=True))
    )


def _foretold(client: Client, failed: Result) -> Result:
    """In check mode: a task that a run which was killed has left is poisoned and would be replaced."""
    job = failed.job
    gone = task_steps.absent(client, job.task, check=True)
    again = f"restore {job.name} anew, since its process cannot get its GPU memory back"
    task = TaskResult(True, True, failed.task.before, "RUNNING", [*gone.actions, again])
    return Result(job, container=failed.container, task=task, warnings=failed.warnings, receipt_written=True)


def _attempt(
    client: Client, demand: Demand, reading: nvml.Reading | None, check: bool, preparation: Preparation
) -> Result:
    result = Result(demand.job, preparation=preparation.result())
    try:
        _go(client, demand, result, reading, check, preparation)
    except RestoreError as error:
        result.fail(error)
    except OSError as error:
        refused = f"The node's operating system refused: {error}."
        result.fail(RestoreError("io_error", refused, "Mend that, then run again."))
    if result.failure and not check:
        _keep_evidence(client, result, result.failure)
        _take_back(client, result)
    return result


def _go(
    client: Client, demand: Demand, result: Result, reading: nvml.Reading | None, check: bool, preparation: Preparation
) -> None:
    job = demand.job
    with preparation.huge_pages:
        result.preparation = preparation.result()
        begun = time.monotonic()
        running = _window(client, demand, result, check, preparation)
        result.seconds["window"] = round((result.gpu.reached_at or time.monotonic()) - begun, 3)
    if result.task.created and not check:
        with result.timed(ALIVE):
            left = job.task.alive_seconds - (time.monotonic() - running)
            task_steps.stays_alive(client, job.task, result.task.task["pid"], max(0.0, left))
    if job.probe is not None and not check:
        with result.timed(PROBE):
            result.probe = probes.probe(client, job.probe, check).result()
    with result.timed(RECEIPT):
        _receipt(client, job, result, reading, check)


def _window(client: Client, demand: Demand, result: Result, check: bool, preparation: Preparation) -> float:
    """From nothing to a process with its GPU memory; when the process ran, as time.monotonic() tells."""
    job = demand.job
    facts = demand.original.checkpoint.facts if demand.original else {}
    with result.timed(CONTAINER):
        if demand.unreadable:
            result.container = container_steps.without_checkpoint(job.container, demand.unreadable, check)
        else:
            result.container = container_steps.present(client, job.container, check, demand.original)
        result.warnings += result.container.warnings
    concerned = gpu.concerned(job.gpu, result.container.spec_after, facts)
    with contextlib.ExitStack() as stack:
        driver = stack.enter_context(gpu.opening(job.gpu)) if concerned and not check else None
        with result.timed(TASK):
            # What this call would have made counts as made.
            params = dataclasses.replace(
                job.task, alive_seconds=0.0, assume_prepared=check and result.container.changed, split=preparation.split
            )
            checkpoint = demand.original.checkpoint if demand.original else None
            result.task = task_steps.started(client, params, check, checkpoint)
            result.warnings += result.task.warnings
            result.preparation["parallel_memory"].update(result.task.memory)
        running = time.monotonic()
        if concerned:
            with result.timed(GPU):
                _bring_gpu_back(client, job, result, facts, check, driver)
    return running


def _bring_gpu_back(
    client: Client, job: Job, result: Result, facts: Mapping[str, Any], check: bool, ahead: gpu_driver.Opening | None
) -> None:
    # Room was looked for before the window, unless the task is one that a run which was killed has left. Else only a
    # map needs to know which GPUs there were.
    known = bool(job.gpu.gpu_map) or not result.task.changed
    params = dataclasses.replace(
        job.gpu, vram=vram.at_checkpoint(job.gpu.vram, facts) if known else {}, visible=vram.visible(facts)
    )
    try:
        result.gpu = gpu.bring_back(
            client,
            job.name,
            params,
            (job.settings.owner, job.settings.force),
            gpu.expected(params, result.container.spec_after, facts),
            check,
            assume_prepared=check and result.task.changed,
            insist=gpu.certain(params, facts),
            ahead=ahead,
        )
        if result.gpu.changed and not check:
            result.gpu_seen = gpu.verify(result.gpu, job.name, params.policy)
    except RestoreError as error:
        if result.task.created and not check:
            if error.code in _MAY_HAVE_DIED:
                # Then its exit status and its last words say more.
                task_steps.stays_alive(client, job.task, result.task.task["pid"], 0.0)
            gpu.settled(error)
        raise
    result.warnings += result.gpu.warnings


def _receipt(client: Client, job: Job, result: Result, reading: nvml.Reading | None, check: bool) -> None:
    """Written when something was restored, or when a run that was killed did not get to it; else only read."""
    root = job.settings.staging_dir
    if not (result.container.changed or result.task.changed or result.gpu.changed):
        result.receipt = records.read_receipt(root, job.name)
        if result.receipt:
            return
    result.receipt_written = True
    if check:
        return
    result.receipt = _compose(client, job, result, reading)
    records.write_receipt(root, job.name, result.receipt)


def _compose(client: Client, job: Job, result: Result, reading: nvml.Reading | None) -> dict[str, Any]:
    container = result.container.container
    record = dict(job.record)
    seconds = {
        **record.pop("seconds", {}),
        CONTAINER: result.seconds[CONTAINER],
        "create": result.task.seconds.get("create", 0.0),
        "start": result.task.seconds.get("start", 0.0),
        GPU: result.seconds.get(GPU, 0.0),
        ALIVE: result.seconds.get(ALIVE, 0.0),
        PROBE: result.seconds.get(PROBE, 0.0),
    }
    base = record.pop("base_image", {})
    predicted = result.preparation.get("predicted")
    return {
        **job.settings.record,
        **record,
        "name": job.name,
        "outcome": "restored",
        "finished_at": timestamp.utc_now(),
        "checkpoint": {"name": job.checkpoint, "digest": container["labels"].get(labels.CHECKPOINT, "")},
        "base_image": {"name": container["image"], "digest": base.get("digest", "")},
        "container": {
            "id": job.name,
            "namespace": client.namespace,
            **{key: container[key] for key in ("snapshotter", "snapshot_key", "spec_source")},
        },
        "pid": result.task.task.get("pid"),
        "output": list(dict.fromkeys(path for path in (job.task.stdout, job.task.stderr) if path)),
        "gpu": result.gpu.result(reading, result.gpu_seen) if result.gpu.processes else None,
        "probe": result.probe,
        **result.preparation,
        # Side by side with others, so not their sum over workloads; window: until the GPU memory was back.
        "seconds": {
            **{name: float(value) for name, value in seconds.items()},
            "window": result.seconds["window"],
            **({"predicted": predicted["seconds"]} if predicted else {}),
            "total": round(sum(float(value) for value in seconds.values()), 3),
        },
    }


def _keep_evidence(client: Client, result: Result, failure: WorkloadFailure) -> None:
    job, settings = result.job, result.job.settings
    if settings.keep_evidence <= 0:
        return
    work = state_dir.work_dir(settings.staging_dir, client.namespace, job.name)
    try:
        bundle = records.keep_evidence(
            settings.staging_dir, job.name, settings.keep_evidence, work, result.task.output_created
        )
        # CRIU's log, which the failure names, is there from now on.
        result.failure = failure.with_evidence(work, bundle)
        records.write_failure(bundle, _evidence(result))
    except OSError as error:
        result.warnings.append(f"The evidence of {job.name} could not be kept whole: {error}.")


def _evidence(result: Result) -> dict[str, Any]:
    job = result.job
    return {
        **job.settings.record,
        "name": job.name,
        "failed_at": timestamp.utc_now(),
        "failure": result.failure.result() if result.failure else None,
        "workload": job.shown,
        "container": result.container.container,
        "container_actions": result.container.actions,
        "spec_changes": result.container.spec_changes,
        "spec": result.container.spec_after,
        "task": result.task.task,
        "gpu": result.gpu.result(),
        "seconds": result.seconds,
    }


def _take_back(client: Client, result: Result) -> None:
    """Remove what this call made: the task with its GPU memory, output files, container and snapshot."""
    job, settings = result.job, result.job.settings
    try:
        if result.task.created:
            gone = task_steps.absent(client, dataclasses.replace(job.task, grace_seconds=0.0), check=False)
            result.warnings += gone.warnings
            for path in result.task.output_created:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        if result.container.created:
            container_steps.absent(client, job.name, settings.owner, settings.force, settings.staging_dir, check=False)
    except (RestoreError, OSError) as error:
        if result.failure:
            result.failure = result.failure.with_left_behind(
                error.sentence() if isinstance(error, RestoreError) else str(error)
            )
            if result.failure.evidence:
                with contextlib.suppress(OSError):
                    records.write_failure(result.failure.evidence, _evidence(result))


def _may_begin_anew(client: Client, demand: Demand, result: Result, failure: WorkloadFailure, check: bool) -> bool:
    """Whether the GPU refused, the GPUs have room now, and nothing of the failed attempt is left."""
    job = demand.job
    codes = ("cuda_restore_failed",) if check else ("cuda_restore_failed", "vram_short")
    if failure.code not in codes or failure.left_behind or demand.original is None:
        return False
    reading = job.gpu.policy.access.read_nvml()
    if reading.reason:
        return False
    try:
        checkpoint = demand.original.checkpoint
        held = vram.at_checkpoint(job.gpu.vram, checkpoint.facts)
        size = checkpoint.criu.size if checkpoint.criu else 0
        vram.require_room(job.name, vram.requirement(held, checkpoint.facts, size, job.gpu.gpu_map), {}, reading)
        if failure.code == "cuda_restore_failed" and not result.task.created:
            # A task that a run which was killed has left: its poisoned processes never come back.
            task_steps.absent(client, dataclasses.replace(job.task, grace_seconds=0.0), check)
    except RestoreError:
        return False
    return True
