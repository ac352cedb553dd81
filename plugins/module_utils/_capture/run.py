# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One capture, from the mark to the image.

The workload stands still for as long as memory and files must not change, and no longer: the driver is opened before,
and packing the dump into the content store comes after.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, Callable

from .._checkpoint import facts as checkpoint_facts, staging, task_state
from .._checkpoint.volumes import MemoryVolume
from .._checkpoint.written import Record
from .._containerd import containers, daemon, leases, tasks
from .._containerd.client import COMPRESSED, Client
from .._core import files, labels, state_dir, text
from .._core.errors import UNKNOWN, InputError, RestoreError
from .._gpu import devices, driver as gpu_driver, forks, state as gpu_state
from .._gpu.driver import Driver
from .._gpu.processes import Scope
from .._host import huge_pages, network_sysctls, processes as host_processes, task_worker
from .._host.processes import Process
from .._oci import spec_rights, spec_validate
from .._oci.facts import Facts
from .._oci.image import Descriptor
from .._probe import hook as probe_hook
from .._probe.hook import Hook
from . import (
    flush,
    layer as capture_layer,
    mark as capture_mark,
    needs,
    preflight,
    recovery,
    settle,
    store,
    survivors,
    volumes as memory_volumes,
)
from .dump import Dump
from .mark import Mark, MarkFile
from .params import PAUSED, RUNNING, STOPPED, CaptureParams, CaptureResult
from .preflight import Subject
from .signals import DeferredSignals

#: Annotation of CRI that names the pod's own container.
_SANDBOX_ID = "io.kubernetes.cri.sandbox-id"


class Capture:
    """One capture; ``result`` is filled as it goes on."""

    def __init__(
        self,
        client: Client,
        params: CaptureParams,
        subject: Subject,
        mark_file: MarkFile,
        result: CaptureResult,
        signals: DeferredSignals,
    ) -> None:
        self._client = client
        self._params = params
        self._mark_file = mark_file
        self._result = result
        self._signals = signals
        capture_root = os.path.join(params.staging_dir, "capture")
        self._directory = state_dir.capture_dir(capture_root, client.namespace, params.container_id)
        self._images = os.path.join(self._directory, "images")
        self._work = os.path.join(self._directory, "work")
        self._dump = Dump(client, params, subject, self._images, self._work)
        self._examined(subject)
        #: What is dumped, with names.
        self._captured: dict[Process, str] = {}
        #: What the processes have of the kernel.
        self._observed: dict[str, Any] = {}
        self._driver: Driver | None = None
        #: The workload is to be told that it goes on.
        self._after_due = params.after_capture is not None
        #: What this capture has done to the task and not taken back.
        self._paused = self._suspended = False
        #: CUDA processes may stay suspended, since their roll-back has failed.
        self._rollback_failed = False
        #: Why the CUDA processes did not come back after a dump that is complete.
        self._resume_error: RestoreError | None = None
        #: Seconds that the workload has stood still.
        self._standstill = 0.0
        self._taken_at = ""
        self._packed: list[memory_volumes.Packed] = []
        self._purpose = f"capture {client.namespace} {params.container_id}"

    def _examined(self, subject: Subject) -> None:
        access = self._params.access
        self._subject = self._dump.subject = subject
        self._container = subject.container
        self._scope = Scope(task_pid=subject.task.pid, proc=access.proc, cgroup_root=access.cgroup_root)
        #: Where the CUDA processes were, and go back to.
        self._cuda_state = gpu_driver.LOCKED if subject.gpus.locked else gpu_driver.RUNNING
        #: Of the processes with CUDA state.
        self._cuda_pids = {int(entry["pid"]) for entry in subject.gpus.info["processes"]}

    def run(self) -> None:
        """Carry it out. After a failure the workload goes on, and nothing is left but what the error says."""
        with self._dump.in_turn():
            self._run()

    def _run(self) -> None:
        mark = self._mark()
        # A reboot takes the mark away but not this.
        recovery.remove_directory(self._directory, self._params.staging_dir)
        self._mark_file.write(mark)
        try:
            mark = self._before(mark)
            with leases.hold(self._client, self._params.lease, self._purpose, self._lease_seconds()):
                try:
                    stored = self._take_checkpoint(mark)
                except BaseException as error:
                    self._resume_after(error, mark)
                    raise
            if self._params.leave == STOPPED:
                self._captured = {}
                settle.end_task(self._client, self._params.container_id, self._mark_file, mark)
                self._paused = self._suspended = self._after_due = False
            elif self._params.leave == PAUSED:
                # Whoever has it go on tells it, by the mark.
                self._after_due = False
                mark = replace(mark, phase=capture_mark.KEPT_PAUSED, lease="")
                self._mark_file.write(mark)
            self._finish(stored)
            if self._params.leave == RUNNING:
                found = survivors.ended(self._captured, self._params.access.proc)
                self._result.ended = [*self._result.ended, *found]
                self._result.warnings += self._ended_sentences(found)
            if self._resume_error is not None:
                raise self._resume_error
        except BaseException as error:
            if not (self._paused or self._suspended or self._rollback_failed):
                self._after_failure(error)
                self._clean_up(mark, error)
                self._note_ended(error)
            raise
        if self._params.leave != PAUSED:
            self._mark_file.clear()

    def _dump_bytes(self) -> int:
        """What is on the GPUs comes into the processes' own memory first."""
        return self._subject.memory_bytes + self._subject.gpus.vram

    def _lease_seconds(self) -> float:
        """How long the capture may take: the dump, and packing it and what was written into the store."""
        if self._params.lease_seconds:
            return float(self._params.lease_seconds)
        memory = self._dump_bytes()
        survey = capture_layer.written(self._client, self._container)
        written = survey.size if survey else 0
        return self._dump.seconds() + self._client.seconds_for(memory) + self._client.seconds_for(written * COMPRESSED)

    def _mark(self) -> Mark:
        view, copy = capture_layer.snapshot_keys(self._params.container_id)
        pid = self._subject.task.pid
        return Mark(
            pid=pid,
            start_time=host_processes.start_time(pid, self._params.access.proc) or 0,
            directory=self._directory,
            staging_dir=self._params.staging_dir,
            lease="" if self._params.lease else leases.own_id(self._purpose),
            snapshotter=self._container.snapshotter,
            view=view,
            # Where the task stays paused until the image is complete, its files can mostly be compared as they are.
            copy=copy if self._params.leave == RUNNING or self._subject.reserved else "",
            cuda=self._subject.gpus.suspend,
            locked=self._subject.gpus.locked,
            name=self._params.name,
            after=self._params.after_capture.options if self._params.after_capture else {},
        )

    def _before(self, mark: Mark) -> Mark:
        """Tell the workload that it is about to stand still, and look at it again: it may have given memory back."""
        hook = self._params.before_capture
        if hook is None:
            return mark
        self._run_hook(hook)
        self._signals.raise_if_any()
        self._examined(preflight.examine(self._client, self._params, self._container, self._subject.task))
        mark = self._mark()
        self._mark_file.write(mark)
        return mark

    def _after(self) -> None:
        """Tell the workload that it goes on; what fails is told when the image is complete."""
        hook, self._after_due = self._params.after_capture, False
        if hook is not None:
            try:
                self._run_hook(hook)
            except RestoreError as error:
                self._resume_error = error

    def _after_failure(self, error: BaseException) -> None:
        """The same where there is no image; it may have been told to rest, also by a command that failed."""
        hook, due, self._after_due = self._params.after_capture, self._after_due, False
        if hook is not None and due:
            try:
                self._run_hook(hook)
            except RestoreError as problem:
                _note_left_behind(error, f"{self._params.container_id} may still rest: {problem.message}")

    def _run_hook(self, hook: Hook) -> None:
        with self._timed(hook.name):
            self._result.hooks.append({"hook": hook.name, **probe_hook.run(self._client, hook).result()})

    def _take_checkpoint(self, mark: Mark) -> store.Stored:
        client, params = self._client, self._params
        facts = self._facts()
        for directory in (self._images, self._work):
            state_dir.make_private(directory, params.staging_dir)
        sides = capture_layer.prepare(client, self._container, mark.view, mark.copy)
        sysctls = self._sysctls()
        with ExitStack() as stack:
            if self._subject.gpus.suspend:
                self._enlarge_pages(stack)
                self._suspend(stack)
            if self._cuda_pids or self._subject.gpus.forks:
                self._detach_forks()
            self._signals.raise_if_any()
            begun = time.monotonic()
            with self._timed("pause"):
                self._paused = True
                tasks.pause(client, params.container_id)
                self._captured = survivors.living(self._scope)
                self._observed = task_worker.observe(self._subject.task.pid, self._params.access.proc, sysctls)
            with self._timed("dump", self._dump_bytes(), lambda: files.size_of(self._images)):
                self._taken_at = text.utc_now()
                with flush.flushing(self._images, params.staging_dir) if params.node_first else nullcontext():
                    self._dump.take(self._result)
            self._signals.raise_if_any()
            with self._timed("layer"), self._dump.links(mark, self._mark_file):
                layer, written = None, capture_layer.copy(sides, self._directory)
                if written is None:
                    written = capture_layer.uncopied(self._container, sides, self._directory)
                    layer = capture_layer.write(client, sides, copied=False)
                self._pack_volumes()
            if params.leave == RUNNING:
                self._resume(begun)
        if self._resume_error is None:
            self._signals.raise_if_any()
        with self._timed("keep" if params.node_first else "upload"):
            layer = layer or capture_layer.write(client, sides, copied=True)
            recovery.remove_snapshots(client, mark)
            stored = self._write(mark, layer, written, memory_volumes.store(client, self._packed), facts)
        if params.leave == STOPPED:
            # From here on it may end.
            self._result.seconds["standstill"] = round(self._standstill + time.monotonic() - begun, 3)
        return stored

    def _sysctls(self) -> list[str]:
        """Those that the spec sets, and those that somebody has set in another network namespace than the node's."""
        names = network_sysctls.changed(self._subject.task.pid, self._params.access.proc)
        return sorted({*task_state.sysctls(self._container.spec), *names})

    def _facts(self) -> Facts:
        path = daemon.daemon_environment(self._client)["PATH"]
        base = self._subject.base
        return replace(
            checkpoint_facts.node(path, self._container.runtime),
            container=self._params.container_id,
            labels=labels.given(*self._pod_labels(), self._container.labels),
            memory_bytes=self._subject.memory_bytes,
            written_steps=self._subject.written_steps,
            base_image=self._base_name(),
            base_image_digest=base.target.digest if base else None,
            gpu=checkpoint_facts.gpu(self._subject.gpus.info, self._params.access.proc),
            gpu_examined=True,
        )

    def _pod_labels(self) -> Iterator[Mapping[str, str]]:
        """CRI keeps them on the pod's own container."""
        sandbox = (self._container.spec.get("annotations") or {}).get(_SANDBOX_ID)
        pod = containers.get(self._client, sandbox) if sandbox else None
        if pod is not None:
            yield pod.labels

    def _base_name(self) -> str:
        return self._subject.base.name if self._subject.base else self._container.image

    def _enlarge_pages(self, stack: ExitStack) -> None:
        """What leaves the GPUs has to find room in the processes' own memory first."""
        pages = stack.enter_context(huge_pages.for_gpu_memory(self._params.huge_pages, self._subject.gpus.vram))
        self._result.huge_pages = pages.report.result()

    def _suspend(self, stack: ExitStack) -> None:
        """The driver stays open for the way back, which would otherwise wait for its initialisation."""
        params = self._params
        self._client.track.phase("cuda_suspend")
        deadline = time.monotonic() + params.access.cuda_timeout
        driver = stack.enter_context(params.access.open_driver(deadline))
        self._suspended = True
        try:
            done = gpu_state.ensure(self._client, params.cuda(), False, driver)
        except RestoreError as error:
            # It has rolled back by itself; where it could not, the next run may, by the mark.
            self._rollback_failed = not error.details.get("rolled_back", True)
            self._suspended = False
            if recovery.is_lost(error):
                raise recovery.lost(self._params.container_id, error) from error
            raise
        self._driver = driver
        self._cuda_pids |= {int(entry["pid"]) for entry in done.processes}
        self._result.lock_attempts = done.lock_attempts
        self._add_standstill(
            "cuda_suspend", sum(done.seconds.get(call, 0.0) for call in (gpu_driver.LOCK, gpu_driver.CHECKPOINT))
        )

    def _detach_forks(self) -> None:
        """Once the CUDA processes have left their GPUs: what is forked from then on inherits nothing of the driver."""
        access = self._params.access
        begun = time.monotonic()
        found = forks.find((one for one in self._scope.processes() if one.pid not in self._cuda_pids), access.proc)
        if found:
            forks.detach(found, sorted(self._cuda_pids), self._params.container_id, access.proc)
            self._result.detached = [fork.result() for fork in found]
            self._add_standstill("detach", time.monotonic() - begun)

    def _resume(self, begun: float) -> None:
        """The workload runs again; from here on nothing that fails concerns it."""
        with self._timed("resume"):
            recovery.resume(self._client, self._params.container_id)
            self._paused = False
        self._standstill += time.monotonic() - begun
        if self._suspended:
            self._resume_cuda()
        if not self._suspended:
            self._after()
        self._result.seconds["standstill"] = round(self._standstill, 3)

    def _resume_cuda(self) -> None:
        """What fails here is told when the image is complete: it may be all that is left of the workload."""
        try:
            took = recovery.resume_cuda(self._client, self._params.cuda(self._cuda_state), self._driver)
        except RestoreError as error:
            self._resume_error = recovery.lost(self._params.container_id, error, self._params.name)
            return
        finally:
            self._driver = None
        self._suspended = False
        self._add_standstill(
            "cuda_resume", sum(took.get(call, 0.0) for call in (gpu_driver.RESTORE, gpu_driver.UNLOCK))
        )

    def _add_standstill(self, phase: str, seconds: float) -> None:
        self._result.seconds[phase] = round(seconds, 3)
        self._standstill += seconds

    def _pack_volumes(self) -> None:
        begun = time.monotonic()
        found, proc = self._subject.memory_volumes, self._params.access.proc
        pid = self._subject.task.pid
        self._packed = memory_volumes.pack(
            self._client, self._container, pid, found, self._directory, self._dump.linked, proc
        )
        if found:
            self._result.seconds["volumes"] = round(time.monotonic() - begun, 3)

    def _write(
        self, mark: Mark, layer: Descriptor, written: Record, volumes: tuple[MemoryVolume, ...], facts: Facts
    ) -> store.Stored:
        client, params, container, base = self._client, self._params, self._container, self._subject.base
        told = needs.recorded(self._dump.needs, container, params.criu)
        taken = store.Taken(
            images=self._images,
            container=container,
            base=base.target if base else None,
            base_name=self._base_name(),
            layer=layer,
            written=written,
            volumes=volumes,
            options=self._dump.options(),
            facts=replace(facts, taken_at=self._taken_at, criu_options=told, rights=_rights(container.spec)),
            annotations=self._state(),
            # Of a workload that did not come back, it may be all that is left.
            spent=params.spends_dump and self._resume_error is None,
        )
        if params.node_first:
            stored = store.on_this_node(
                client, params, taken, self._ready, lambda key: self._mark_file.write(replace(mark, staged=key))
            )
        else:
            stored = store.image(client, params, taken, self._ready)
        self._result.digest = stored.digest
        self._result.facts = taken.facts
        self._result.warnings += stored.warnings
        self._result.memory_volumes = [volume.shown() for volume in volumes]
        in_memory = sum(volume.descriptor.size for volume in volumes)
        self._result.sizes = {"criu": stored.criu.size, "writable_layer": layer.size, "memory_volumes": in_memory}
        if self._resume_error is not None:
            self._resume_error.details["checkpoint"] = {"name": params.name, "digest": stored.digest}
            self._resume_error.remedy += f" The checkpoint {params.name} is complete."
        return stored

    def _state(self) -> dict[str, str]:
        """The annotation of what the processes had."""
        found = task_state.seen(self._observed)
        return {labels.STATE: found.render()} if found else {}

    def _ready(self) -> None:
        """Nobody has told this run to end; where the image may be all that is left of the workload, none may."""
        if self._resume_error is None:
            self._signals.raise_if_any()

    def _finish(self, stored: store.Stored) -> None:
        """The directory becomes the staged one, or goes."""
        params = self._params
        if params.node_first:
            self._result.staged = stored.staged
        elif params.keeps_staged:
            key, criu = stored.digest.split(":", 1)[1], stored.criu
            staged = staging.adopt(self._images, digest=criu.digest, size=criu.size, root=params.staging_dir, name=key)
            self._result.staged = staged.directory
        recovery.remove_directory(self._directory, params.staging_dir)

    def _resume_after(self, error: BaseException, mark: Mark) -> None:
        """Have the workload go on after a failure; what cannot be done is noted, and left to the next run's mark."""
        try:
            if self._paused:
                # A CRIU that is still at it cannot be ended without harm to the processes that it holds.
                seconds = self._dump.seconds()
                recovery.await_dump(self._params.container_id, mark.directory, seconds, self._params.access.proc)
                locked = recovery.unlock_network(self._client, mark.pid, self._params.access.proc)
                if locked is not None:
                    _note_left_behind(error, locked.sentence())
                recovery.resume(self._client, self._params.container_id)
                self._paused = False
            if self._suspended and self._resume_error is None:
                recovery.resume_cuda(self._client, self._params.cuda(self._cuda_state))
                self._suspended = False
        except RestoreError as problem:
            if recovery.is_lost(problem):
                _note_lost(error, recovery.lost(self._params.container_id, problem))
                # The mark stays, so that the next run says it, too; a half-made dump is of no use to anybody.
                recovery.remove_leftovers(self._client, mark)
                return
            _note_left_behind(error, f"the task of {self._params.container_id} may stand still: {problem.message}")

    def _clean_up(self, mark: Mark, error: BaseException) -> None:
        try:
            recovery.remove_snapshots(self._client, mark)
            recovery.remove_directory(mark.directory, mark.staging_dir)
        except (RestoreError, OSError) as problem:
            _note_left_behind(error, f"{mark.directory}: {problem}")
            return
        self._mark_file.clear()

    def _note_ended(self, error: BaseException) -> None:
        """The workload goes on, but for what did not outlive the attempt."""
        found = survivors.ended(self._captured, self._params.access.proc)
        if found and isinstance(error, RestoreError):
            error.details["ended"] = found
            error.message = " ".join([error.message, *self._ended_sentences(found)])

    def _ended_sentences(self, found: list[dict[str, Any]]) -> list[str]:
        return survivors.sentences(self._params.container_id, self._subject.task.pid, found)

    @contextmanager
    def _timed(self, phase: str, total: int = 0, measure: Callable[[], int] | None = None) -> Iterator[None]:
        self._client.track.phase(phase, total, measure)
        begun = time.monotonic()
        yield
        self._result.seconds[phase] = round(time.monotonic() - begun, 3)


def _rights(spec: Mapping[str, Any]) -> tuple[str, ...] | None:
    """What the container has of the host, which a restore may have again where this checkpoint is known."""
    try:
        spec_validate.check(spec)
    except InputError:
        return None
    known = spec_rights.Known(gpu_numbers=devices.numbers())
    return tuple(map(str, spec_rights.rights(spec, known)))


def _note_lost(error: BaseException, lost: RestoreError) -> None:
    """What the operator has to know first is not why there is no checkpoint."""
    if isinstance(error, RestoreError):
        error.message = f"{lost.message} No checkpoint was taken: {error.message}"
        error.remedy = lost.remedy
        error.details["lost"] = True
        error.outcome = lost.outcome


def _note_left_behind(error: BaseException, what: str) -> None:
    if isinstance(error, RestoreError):
        error.left_behind(what)
        error.outcome = UNKNOWN
