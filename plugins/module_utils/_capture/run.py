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
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from .._checkpoint import facts as checkpoint_facts, staging, writer as checkpoint_writer
from .._checkpoint.volumes import MemoryVolume
from .._containerd import daemon, leases, messages, tasks
from .._containerd.client import COMPRESSED, Client
from .._core import labels, state_dir, text
from .._core.errors import UNKNOWN, InputError, RestoreError, RpcError
from .._criu import dump_config, image_files
from .._diagnosis import failure as criu_failure
from .._gpu import devices, driver as gpu_driver, forks, state as gpu_state
from .._gpu.driver import Driver
from .._gpu.processes import Scope
from .._host import cgroup, huge_pages, processes as host_processes
from .._host.processes import Process
from .._oci import spec_rights, spec_validate
from .._oci.facts import Facts
from .._oci.image import Descriptor
from .._probe import hook as probe_hook
from .._probe.hook import Hook
from . import (
    layer as capture_layer,
    mark as capture_mark,
    mounts,
    needs,
    preflight,
    recovery,
    settle,
    survivors,
    unlinked_files,
    volumes as memory_volumes,
)
from .mark import Mark, MarkFile
from .needs import Found, Need
from .params import PAUSED, RUNNING, STOPPED, CaptureParams, CaptureResult
from .preflight import Subject
from .signals import DeferredSignals
from .unlinked_files import UnlinkedFile

_CHECKPOINT_OPTIONS = "containerd.runc.v1.CheckpointOptions"


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
        self._examined(subject)
        #: What is dumped, with names.
        self._captured: dict[Process, str] = {}
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
        #: CRIU's links for deleted files, by their paths.
        self._linked: dict[str, UnlinkedFile] = {}
        #: While the task is paused.
        self._found = Found()
        #: What CRIU is told.
        self._needs: list[Need] = []
        self._purpose = f"capture {client.namespace} {params.container_id}"

    def _examined(self, subject: Subject) -> None:
        access = self._params.access
        self._subject = subject
        self._container = subject.container
        self._scope = Scope(task_pid=subject.task.pid, proc=access.proc, cgroup_root=access.cgroup_root)
        #: Where the CUDA processes were, and go back to.
        self._cuda_state = gpu_driver.LOCKED if subject.gpus.locked else gpu_driver.RUNNING
        #: Of the processes with CUDA state.
        self._cuda_pids = {int(entry["pid"]) for entry in subject.gpus.info["processes"]}

    def run(self) -> None:
        """Carry it out. After a failure the workload goes on, and nothing is left but what the error says."""
        mark = self._mark()
        # A reboot takes the mark away but not this.
        recovery.remove_directory(self._directory, self._params.staging_dir)
        self._mark_file.write(mark)
        try:
            mark = self._before(mark)
            with leases.hold(self._client, self._params.lease, self._purpose, self._lease_seconds()):
                try:
                    digest, criu = self._take_checkpoint(mark)
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
            self._finish(digest, criu)
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

    def _dump_seconds(self) -> float:
        """How long the dump may take: what is on the GPUs comes into the processes' own memory first."""
        return self._params.dump_seconds(self._client, self._subject.memory_bytes + self._subject.gpus.vram)

    def _lease_seconds(self) -> float:
        """How long the capture may take: the dump, and packing it and what was written into the store."""
        if self._params.lease_seconds:
            return float(self._params.lease_seconds)
        memory = self._subject.memory_bytes + self._subject.gpus.vram
        survey = capture_layer.written(self._client, self._container)
        written = survey.size if survey else 0
        return self._dump_seconds() + self._client.seconds_for(memory) + self._client.seconds_for(written * COMPRESSED)

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
            # Where the task stays paused until the image is complete, its files can be compared as they are.
            copy=copy if self._params.leave == RUNNING else "",
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

    def _take_checkpoint(self, mark: Mark) -> tuple[str, Descriptor]:
        client, params = self._client, self._params
        facts = self._facts()
        for directory in (self._images, self._work):
            state_dir.make_private(directory, params.staging_dir)
        sides = capture_layer.prepare(client, self._container, mark.view, mark.copy)
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
            with self._timed("dump"):
                self._taken_at = text.utc_now()
                self._dump()
            self._signals.raise_if_any()
            with self._timed("layer"), self._links(mark):
                layer = None if capture_layer.copy(sides) else capture_layer.write(client, sides, copied=False)
                self._pack_volumes()
            if params.leave == RUNNING:
                self._resume(begun)
        if self._resume_error is None:
            self._signals.raise_if_any()
        with self._timed("upload"):
            layer = layer or capture_layer.write(client, sides, copied=True)
            recovery.remove_snapshots(client, mark)
            return self._write_image(layer, memory_volumes.store(client, self._packed), facts)

    def _facts(self) -> Facts:
        path = daemon.daemon_environment(self._client)["PATH"]
        base = self._subject.base
        return replace(
            checkpoint_facts.node(path, self._container.runtime),
            container=self._params.container_id,
            memory_bytes=self._subject.memory_bytes,
            base_image=self._base_name(),
            base_image_digest=base.target.digest if base else None,
            gpu=checkpoint_facts.gpu(self._subject.gpus.info, self._params.access.proc),
            gpu_examined=True,
        )

    def _base_name(self) -> str:
        return self._subject.base.name if self._subject.base else self._container.image

    def _enlarge_pages(self, stack: ExitStack) -> None:
        """What leaves the GPUs has to find room in the processes' own memory first."""
        pages = stack.enter_context(huge_pages.for_gpu_memory(self._params.huge_pages, self._subject.gpus.vram))
        self._result.huge_pages = pages.report.result()

    def _suspend(self, stack: ExitStack) -> None:
        """The driver stays open for the way back, which would otherwise wait for its initialisation."""
        params = self._params
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

    def _dump(self) -> None:
        criu, container, access = self._params.criu, self._container, self._params.access
        tgids = cgroup.tgids_of(self._subject.task.pid, access.proc, access.cgroup_root)
        subject = self._subject
        kept = memory_volumes.devices(subject.memory_volumes)
        self._found = needs.look(container, subject.task.pid, tgids, access.proc, subject.root, kept)
        self._needs = needs.needs(self._found, criu)
        self._result.unlinked_files = [file.result() for file in self._found.unlinked]
        self._result.criu_options = [need.result() for need in self._needs]
        config = dump_config.config_of(container.spec, container.labels)
        if not config.writable:
            # What has to stand there does, or the preflight would have refused.
            self._call_criu()
            return
        with config.for_dump([*needs.lines(self._needs, criu), *mounts.external(self._subject.taken)]):
            self._call_criu()

    def _call_criu(self) -> None:
        params = self._params
        options = self._options(self._images, self._work)
        packed = messages.pack(_CHECKPOINT_OPTIONS, options.SerializeToString())
        begun = time.time()
        try:
            tasks.checkpoint(self._client, params.container_id, packed, self._dump_seconds())
        except RpcError as error:
            log = criu_failure.dump_log(self._container.spec, self._work, begun)
            raise criu_failure.explain_dump(params.container_id, error, log) from error

    @contextmanager
    def _links(self, mark: Mark) -> Iterator[None]:
        """CRIU's links for deleted files, which went with the end of the dump, are there while the layer is taken."""
        try:
            remaps = image_files.link_remaps(self._images)
        except (OSError, image_files.UnreadableError) as error:
            raise RestoreError(
                "link_remap_failed",
                f"The dump of {self._params.container_id} cannot be searched for deleted files: {error}.",
                "Look at the disk of staging_dir, then run again.",
            ) from error
        links = self._linked = unlinked_files.links_of_layer(remaps, self._found.unlinked)
        if not links:
            yield
            return
        self._mark_file.write(replace(mark, links=tuple(links)))
        with unlinked_files.linked(mark.pid, links, self._params.access.proc):
            yield
        self._mark_file.write(mark)

    def _options(self, images: str = "", work: str = "") -> Any:
        criu = self._params.criu
        told = {need.option for need in self._needs}
        return messages.message(
            _CHECKPOINT_OPTIONS,
            exit=False,
            open_tcp=needs.TCP_ESTABLISHED in told,
            external_unix_sockets=needs.EXT_UNIX_SK in told,
            terminal=criu.shell_job,
            file_locks=needs.FILE_LOCKS in told,
            empty_namespaces=list(criu.empty_namespaces),
            image_path=images,
            work_path=work,
        )

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
            self._client, self._container, pid, found, self._directory, self._linked, proc
        )
        if found:
            self._result.seconds["volumes"] = round(time.monotonic() - begun, 3)

    def _write_image(
        self, layer: Descriptor, volumes: tuple[MemoryVolume, ...], facts: Facts
    ) -> tuple[str, Descriptor]:
        client, container, base = self._client, self._container, self._subject.base
        told = needs.recorded(self._needs, container, self._params.criu)
        facts = replace(facts, taken_at=self._taken_at, criu_options=told, rights=_rights(container.spec))
        criu = checkpoint_writer.packed_by_daemon(client, self._images)
        parts = checkpoint_writer.Parts(
            criu=criu,
            config=checkpoint_writer.spec_blob(client, container.spec),
            # Without our paths, which mean nothing elsewhere.
            options=checkpoint_writer.options_blob(client, self._options()),
            runtime_options=checkpoint_writer.runtime_options_blob(client, container.runtime_options),
            writable_layer=layer,
            memory_volumes=volumes,
            base=base.target if base else None,
            base_name=self._base_name(),
            runtime=container.runtime,
            snapshotter=container.snapshotter,
            annotations={labels.FACTS: facts.render()},
        )
        if self._resume_error is None:
            self._signals.raise_if_any()
        own = {labels.OWNER: self._params.owner}
        digest = checkpoint_writer.index(client, self._params.name, parts, own, captured=True)
        self._result.digest = digest
        self._result.facts = facts
        self._result.memory_volumes = [volume.shown() for volume in volumes]
        in_memory = sum(volume.descriptor.size for volume in volumes)
        self._result.sizes = {"criu": criu.size, "writable_layer": layer.size, "memory_volumes": in_memory}
        if self._resume_error is not None:
            self._resume_error.details["checkpoint"] = {"name": self._params.name, "digest": digest}
            self._resume_error.remedy += f" The checkpoint {self._params.name} is complete."
        return digest, criu

    def _finish(self, digest: str, criu: Descriptor) -> None:
        """The directory becomes the staged one, or goes."""
        params = self._params
        if params.keep_staged:
            key = digest.split(":", 1)[1]
            staged = staging.adopt(self._images, digest=criu.digest, size=criu.size, root=params.staging_dir, name=key)
            self._result.staged = staged.directory
        recovery.remove_directory(self._directory, params.staging_dir)

    def _resume_after(self, error: BaseException, mark: Mark) -> None:
        """Have the workload go on after a failure; what cannot be done is noted, and left to the next run's mark."""
        try:
            if self._paused:
                # A CRIU that is still at it cannot be ended without harm to the processes that it holds.
                seconds = self._dump_seconds()
                recovery.await_dump(self._params.container_id, mark.directory, seconds, self._params.access.proc)
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
    def _timed(self, phase: str) -> Iterator[None]:
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
