# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The restore of one workload: container, task, GPU memory, proof, receipt; after a failure evidence and rollback."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator
from typing import Any

from .._container import comparison, container as container_steps, task as task_steps, task_alive, task_end
from .._container.task_params import TaskResult
from .._containerd.client import Client
from .._core import labels, state_dir, text
from .._core.errors import RestoreError, as_failure
from .._gpu import driver as gpu_driver, nvml, vram
from .._probe import hook as probe_hook, probe as probes
from .._probe.hook import AFTER_RESTORE
from .._probe.probe import ProbeResult
from . import gpu, records
from .demand import Demand
from .preparation import Preparation
from .result import Result, WorkloadFailure

VOLUMES, CONTAINER, TASK, GPU, ALIVE, PROBE, RECEIPT = (
    "volumes",
    "container",
    "task",
    "gpu",
    "alive",
    "probe",
    "receipt",
)
#: Failures of the GPU's step that the end of the container's process may have caused.
_MAY_HAVE_DIED = frozenset({"no_cuda_process", "cuda_process_gone", "vram_not_back"})


def restore(
    client: Client, demand: Demand, reading: nvml.Reading | None, check: bool, preparation: Preparation | None = None
) -> Result:
    """Have the workload run from its checkpoint; after a failure nothing that this call made is left.

    ``reading``: the GPUs before the restore, where they were looked at; ``preparation``: what is ready for the window.
    Never raises RestoreError; it is in the result.
    """
    preparation = preparation or Preparation()
    retries = demand.job.gpu.retries
    result = _Attempt(client, demand, reading, check, preparation).run()
    if result.failure and result.failure.code == "memory_write_failed" and not result.failure.left_behind:
        preparation = preparation.without_split(result.failure.msg)
        retry = _Attempt(client, _with_rebuild(demand), reading, check, preparation)
        result = retry.run_after(result, f"was begun anew, by CRIU alone: {result.failure.msg}")
    while result.failure and retries > 0 and _may_retry(client, demand, result, result.failure, check):
        retries -= 1
        if check:
            return _predicted_retry(client, result)
        retry = _Attempt(client, _with_rebuild(demand), reading, check, preparation)
        result = retry.run_after(result, f"was begun anew: {result.failure.msg}")
    return result


def _with_rebuild(demand: Demand) -> Demand:
    """For another attempt: the failed one has used its snapshot, also where the container was there before."""
    container = dataclasses.replace(demand.job.container, rebuild=True)
    return dataclasses.replace(demand, job=dataclasses.replace(demand.job, container=container))


def _may_retry(client: Client, demand: Demand, result: Result, failure: WorkloadFailure, check: bool) -> bool:
    """Whether the GPU refused, the GPUs have room now, and nothing of the failed attempt is left."""
    job, checkpoint = demand.job, demand.checkpoint
    codes = ("cuda_restore_failed",) if check else ("cuda_restore_failed", "vram_short")
    if failure.code not in codes or failure.left_behind or checkpoint is None:
        return False
    reading = job.gpu.policy.access.read_nvml()
    if reading.reason:
        return False
    try:
        known = vram.at_checkpoint(job.gpu.vram, checkpoint.facts)
        size = checkpoint.criu.size if checkpoint.criu else 0
        vram.require_room(job.name, vram.requirement(known, checkpoint.facts, size, job.gpu.gpu_map), {}, reading)
        if failure.code == "cuda_restore_failed" and not result.task.created:
            # A task that a run which was killed has left: its poisoned processes never come back.
            task_end.absent(client, dataclasses.replace(job.task, grace_seconds=0.0), check)
    except RestoreError:
        return False
    return True


def _predicted_retry(client: Client, failed: Result) -> Result:
    """In check mode: a task that a run which was killed has left is poisoned and would be replaced."""
    job = failed.job
    gone = task_end.absent(client, job.task, check=True)
    again = f"restore {job.name} anew, since its process cannot get its GPU memory back"
    task = TaskResult(True, True, failed.task.before, "RUNNING", [*gone.actions, again])
    return Result(job, container=failed.container, task=task, warnings=failed.warnings, receipt_written=True)


class _Attempt:
    """One attempt at the restore of a workload."""

    def __init__(
        self, client: Client, demand: Demand, reading: nvml.Reading | None, check: bool, preparation: Preparation
    ) -> None:
        self._client = client
        self._demand = demand
        self._job = demand.job
        self._reading = reading
        self._check = check
        self._preparation = preparation
        self._result = Result(demand.job, preparation=preparation.result())

    def run(self) -> Result:
        """Carry it out; what a failed one has made is removed again."""
        try:
            self._carry_out()
        except Exception as error:  # noqa: BLE001
            # Whatever it is, it is this workload's, and what was made is taken back.
            self._result.fail(as_failure(error))
        if self._result.failure and not self._check:
            self._keep_evidence(self._result.failure)
            self._roll_back()
        return self._result

    def run_after(self, failed: Result, why: str) -> Result:
        """The same, with a warning about the attempt before."""
        result = self.run()
        result.warnings[:0] = [*failed.warnings, f"The restore of {self._job.name} {why}"]
        return result

    def _carry_out(self) -> None:
        job, result = self._job, self._result
        if self._demand.original is not None and self._demand.volumes and not (self._check or self._demand.live):
            with self._timed(VOLUMES):
                container_steps.lay_volumes(self._client, job.container, self._demand.original)
        with self._preparation.huge_pages:
            result.preparation = self._preparation.result()
            begun = time.monotonic()
            prediction = self._preparation.prediction
            self._client.track.expect(prediction.seconds if prediction else None)
            running = self._window()
            self._client.track.expect(None)
            result.seconds["window"] = round((result.gpu.reached_at or time.monotonic()) - begun, 3)
        if result.task.created and not self._check:
            with self._timed(ALIVE):
                left = job.task.alive_seconds - (time.monotonic() - running)
                task_alive.stays_alive(self._client, job.task, result.task.task["pid"], max(0.0, left))
        self._tell()
        if job.probe is not None and not self._check:
            with self._timed(PROBE):
                result.probe = probes.probe(self._client, job.probe, self._check)
        with self._timed(RECEIPT):
            self._keep_receipt()

    @contextlib.contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        self._client.track.phase(step)
        with self._result.timed(step):
            yield

    def _tell(self) -> None:
        """Tell the workload that it goes on here: once for each restore, also where a run was killed before it did."""
        hook, result = self._job.after_restore, self._result
        if hook is None or not (result.task.created or os.path.exists(self._untold())):
            return
        result.hook_actions.append(hook.action())
        if self._check:
            result.after_restore = ProbeResult(hook.target.kind, None, "Not tried: it has an effect.")
            return
        with self._timed(AFTER_RESTORE):
            result.after_restore = probe_hook.run(self._client, hook)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._untold())

    def _untold(self) -> str:
        """A file that is there from the start of the task until the workload was told."""
        work = state_dir.work_dir(self._job.settings.staging_dir, self._client.namespace, self._job.name)
        return os.path.join(work, AFTER_RESTORE)

    def _window(self) -> float:
        """From nothing to a process with its GPU memory; when the process ran, as time.monotonic() tells."""
        job, result = self._job, self._result
        with self._timed(CONTAINER):
            self._make_container()
        needs_driver = gpu.needs_driver(job.gpu, result.container.spec_after, self._demand.facts)
        with contextlib.ExitStack() as stack:
            opening = stack.enter_context(gpu.open_driver(job.gpu)) if needs_driver and not self._check else None
            with self._timed(TASK):
                self._start_task()
            running = time.monotonic()
            if needs_driver:
                with self._timed(GPU):
                    self._restore_gpu_memory(opening)
        return running

    def _make_container(self) -> None:
        params, demand, result = self._job.container, self._demand, self._result
        if demand.unreadable:
            result.container = container_steps.without_checkpoint(params, demand.unreadable, self._check)
        else:
            result.container = container_steps.present(self._client, params, self._check, demand.original)
        result.warnings += result.container.warnings
        refused = comparison.fails(result.container.differences, self._job.task.fail_on)
        if refused:
            raise comparison.failure(self._job.name, refused)

    def _start_task(self) -> None:
        result = self._result
        params = dataclasses.replace(
            self._job.task,
            # Watched after the window.
            alive_seconds=0.0,
            # What this call would have made counts as made.
            assume_prepared=self._check and result.container.changed,
            split=self._preparation.split,
        )
        if self._job.after_restore is not None and not (self._check or self._demand.live):
            state_dir.make_private(os.path.dirname(self._untold()), self._job.settings.staging_dir)
            with open(self._untold(), "wb"):
                pass
        result.task = task_steps.started(self._client, params, self._check, self._demand.checkpoint)
        result.warnings += result.task.warnings
        result.preparation["parallel_memory"].update(result.task.memory)

    def _restore_gpu_memory(self, opening: gpu_driver.Opening | None) -> None:
        job, result, facts = self._job, self._result, self._demand.facts
        # Room was looked for before the window, unless the task is one that a run which was killed has left. Else only
        # a map needs to know which GPUs there were.
        known = bool(job.gpu.gpu_map) or not result.task.changed
        params = dataclasses.replace(
            job.gpu, vram=vram.at_checkpoint(job.gpu.vram, facts) if known else {}, visible=facts.visible_gpus
        )
        try:
            result.gpu = gpu.restore_memory(
                self._client,
                job.name,
                params,
                (job.settings.owner, job.settings.force),
                self._check,
                gpu_required=gpu.requires_gpu(params, result.container.spec_after, facts),
                processes_required=gpu.requires_processes(params, facts),
                predicted_task=self._check and result.task.changed,
                opening=opening,
            )
            if result.gpu.changed and not self._check:
                result.gpu_seen = gpu.verify(result.gpu, job.name, params.policy, facts)
        except RestoreError as error:
            if result.task.created and not self._check:
                if error.code in _MAY_HAVE_DIED:
                    # Then its exit status and its last words say more.
                    task_alive.stays_alive(self._client, job.task, result.task.task["pid"], 0.0)
                gpu.not_retryable(error)
            raise
        result.warnings += result.gpu.warnings

    def _keep_receipt(self) -> None:
        """Written when something was restored, or when a run that was killed did not get to it; else only read."""
        root, name, result = self._job.settings.staging_dir, self._job.name, self._result
        if not (result.container.changed or result.task.changed or result.gpu.changed):
            result.receipt = records.read_receipt(root, self._client.namespace, name)
            if result.receipt:
                return
        result.receipt_written = True
        if not self._check:
            result.receipt = _receipt(self._client.namespace, result, self._reading)
            records.write_receipt(root, self._client.namespace, name, result.receipt)

    def _keep_evidence(self, failure: WorkloadFailure) -> None:
        name, settings, result = self._job.name, self._job.settings, self._result
        if settings.keep_evidence <= 0:
            return
        work = state_dir.work_dir(settings.staging_dir, self._client.namespace, name)
        try:
            unique = state_dir.node_name(self._client.namespace, name)
            bundle = records.keep_evidence(
                settings.staging_dir, unique, settings.keep_evidence, work, result.task.output_created
            )
            # CRIU's log, which the failure names, is there from now on.
            result.failure = failure.with_evidence(work, bundle)
            records.write_failure(bundle, _evidence(result))
        except Exception as error:  # noqa: BLE001
            # The way back comes after it.
            result.warnings.append(f"The evidence of {name} could not be kept whole: {error}.")

    def _roll_back(self) -> None:
        """Remove what this attempt made: the task with its GPU memory, output files, container and snapshot."""
        client, job, settings, result = self._client, self._job, self._job.settings, self._result
        try:
            if result.task.created:
                gone = task_end.absent(client, dataclasses.replace(job.task, grace_seconds=0.0), check=False)
                result.warnings += gone.warnings
                for path in result.task.output_created:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(path)
            if result.container.created:
                container_steps.absent(
                    client, job.name, settings.owner, settings.force, settings.staging_dir, check=False
                )
            elif self._demand.volumes:
                container_steps.release_volumes(client, job.name)
        except Exception as error:  # noqa: BLE001
            self._note_left_behind(error.sentence() if isinstance(error, RestoreError) else str(error))

    def _note_left_behind(self, what: str) -> None:
        """The rollback has failed: say so everywhere, in the evidence too."""
        if self._result.failure:
            failure = self._result.failure = self._result.failure.with_left_behind(what)
            if failure.evidence:
                with contextlib.suppress(OSError):
                    records.write_failure(failure.evidence, _evidence(self._result))


def _receipt(namespace: str, result: Result, reading: nvml.Reading | None) -> dict[str, Any]:
    job, container = result.job, result.container.container
    record = dict(job.record)
    seconds = {
        **record.pop("seconds", {}),
        **({VOLUMES: result.seconds[VOLUMES]} if VOLUMES in result.seconds else {}),
        CONTAINER: result.seconds[CONTAINER],
        "create": result.task.seconds.get("create", 0.0),
        "start": result.task.seconds.get("start", 0.0),
        GPU: result.seconds.get(GPU, 0.0),
        ALIVE: result.seconds.get(ALIVE, 0.0),
        **({AFTER_RESTORE: result.seconds[AFTER_RESTORE]} if AFTER_RESTORE in result.seconds else {}),
        PROBE: result.seconds.get(PROBE, 0.0),
    }
    base = record.pop("base_image", {})
    predicted = result.preparation.get("predicted")
    return {
        **job.settings.record,
        **record,
        "name": job.name,
        "outcome": "restored",
        "finished_at": text.utc_now(),
        "checkpoint": {"name": job.checkpoint, "digest": container["labels"].get(labels.CHECKPOINT, "")},
        "base_image": {"name": container["image"], "digest": base.get("digest", "")},
        "container": {
            "id": job.name,
            "namespace": namespace,
            **{key: container[key] for key in ("snapshotter", "snapshot_key", "spec_source")},
        },
        "pid": result.task.task.get("pid"),
        "output": list(dict.fromkeys(path for path in (job.task.stdout, job.task.stderr) if path)),
        "gpu": result.gpu.result(reading, result.gpu_seen) if result.gpu.processes else None,
        "probe": result.probe.result() if result.probe else None,
        "after_restore": result.after_restore.result() if result.after_restore else None,
        "differences": result.differences,
        "not_compared": result.task.not_compared,
        **result.preparation,
        # Side by side with others, so not their sum over workloads; window: until the GPU memory was back.
        "seconds": {
            **{name: float(value) for name, value in seconds.items()},
            "window": result.seconds["window"],
            **({"predicted": predicted["seconds"]} if predicted else {}),
            "total": round(sum(float(value) for value in seconds.values()), 3),
        },
    }


def _evidence(result: Result) -> dict[str, Any]:
    job = result.job
    return {
        **job.settings.record,
        "name": job.name,
        "failed_at": text.utc_now(),
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
