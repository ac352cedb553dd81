# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All workloads of a node captured in one call, side by side as far as its memory and its disk allow.

Each is what a call of its own would do, with a channel, a mark and a roll-back of its own; one that fails does not
disturb the others. A signal that ends the run has all of them go on.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Callable

from .._containerd.client import Client
from .._core.errors import InputError, RestoreError, as_failure
from .._host import huge_pages as host_huge_pages, memory as host_memory
from . import capture, complete, host_room, room, settle, signals as capture_signals
from .params import CaptureParams, CaptureResult
from .preflight import Subject
from .signals import DeferredSignals

OpenClient = Callable[[], AbstractContextManager[Client]]

PRESENT, COMPLETED, SETTLED = "present", "completed", "settled"
#: Most of a capture waits for the driver, for CRIU and for the disk.
_PER_PROCESSOR = 4
#: How long a signal may wait for the main thread, in seconds.
_LOOK_SECONDS = 0.5


@dataclass
class Outcome:
    """What became of one workload; one of the two is there."""

    params: CaptureParams
    result: CaptureResult | None = None
    error: RestoreError | None = None


def carry_out(
    open_client: OpenClient, state: str, jobs: Sequence[CaptureParams], parallel: int, check: bool
) -> list[Outcome]:
    """Have all of them in the state, in the order of ``jobs``; ``parallel``: how many at once at most, 0 for what the
    node's processors suggest. Raises InputError ``workload_twice``."""
    _require_single(jobs)
    subjects: dict[str, Subject] = {}
    refused: dict[str, RestoreError] = {}
    budget = _Budget(None, None)
    if state == PRESENT and jobs:
        with open_client() as client:
            subjects = _examined(client, jobs)
            wanted = [(job, subjects[job.container_id].size) for job in _of(jobs, subjects)]
            takes = {job.container_id: _takes(client, job, subjects[job.container_id]) for job in _of(jobs, subjects)}
            memory = host_memory.available()
            refused = {
                **host_room.refusals([(job, takes[job.container_id].memory) for job in _of(jobs, subjects)], memory),
                **room.refusals(client, wanted),
            }
            budget = _Budget(room.available(jobs[0].staging_dir), memory)
    else:
        takes = {}
    vram = sum(subject.gpus.vram for subject in subjects.values())
    # The switch is the node's: one for all, which nobody puts back under another.
    pages = host_huge_pages.for_gpu_memory(jobs[0].huge_pages if jobs and not check else host_huge_pages.KEEP, vram)

    def one(job: CaptureParams, signals: DeferredSignals) -> Outcome:
        try:
            if job.container_id in refused:
                raise refused[job.container_id]
            with budget.admitted(takes.get(job.container_id, _Takes()) if not check else _Takes()):
                signals.raise_if_any()
                with open_client() as client, client.following(job.container_id):
                    return Outcome(job, _act(client, state, job, check, signals))
        except Exception as error:  # noqa: BLE001
            # What the others have done must still be told.
            return Outcome(job, error=as_failure(error))

    processors = os.cpu_count() or 1
    limit = parallel if parallel > 0 else _PER_PROCESSOR * processors
    concurrency = max(1.0, min(len(jobs), limit) / processors)
    with capture_signals.deferred("") as signals, pages as _switch:
        own = [
            (replace(job, huge_pages=host_huge_pages.KEEP, concurrency=concurrency), signals.of(job.container_id))
            for job in jobs
        ]
        if check or len(jobs) <= 1 or limit == 1:
            found = [one(*each) for each in own]
        else:
            with ThreadPoolExecutor(max_workers=min(limit, len(jobs))) as pool:
                work = [pool.submit(one, *each) for each in own]
                # Only this thread handles signals, and one that comes while it lies down to wait does not wake it.
                while wait(work, _LOOK_SECONDS).not_done:
                    pass
                found = [each.result() for each in work]
    for outcome in found:
        if outcome.result is not None and outcome.result.huge_pages:
            outcome.result.huge_pages = pages.report.result()
    return found


def _act(client: Client, state: str, job: CaptureParams, check: bool, signals: DeferredSignals) -> CaptureResult:
    if state == SETTLED:
        return settle.settled(client, job, check)
    if state == COMPLETED:
        return complete.completed(client, job, check)
    return capture.captured(client, job, check, signals)


def _require_single(jobs: Sequence[CaptureParams]) -> None:
    for what, names in (("container", [job.container_id for job in jobs]), ("name", [job.name for job in jobs])):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(
                "workload_twice",
                f"The {what} {twice[0]} stands more than once in workloads.",
                "Capture a container once in a call, and give each checkpoint a name of its own.",
            )


def _examined(client: Client, jobs: Sequence[CaptureParams]) -> dict[str, Subject]:
    """What is to be captured, as far as it can be told now; why it cannot is for each workload's own turn to say."""
    found = {}
    for job in jobs:
        with contextlib.suppress(RestoreError, OSError):
            subject = capture.foretold(client, job).subject
            if subject is not None:
                found[job.container_id] = subject
    return found


def _of(jobs: Sequence[CaptureParams], subjects: dict[str, Subject]) -> list[CaptureParams]:
    return [job for job in jobs if job.container_id in subjects]


@dataclass(frozen=True)
class _Takes:
    disk: room.OnDisk = room.OnDisk(0, 0)
    memory: host_room.InMemory = host_room.InMemory()


def _takes(client: Client, job: CaptureParams, subject: Subject) -> _Takes:
    disk = room.on_disk(client, job, subject.size)
    return _Takes(disk, host_room.taken(job, subject.gpus.vram, disk))


class _Budget:
    """Lets a capture begin when there is room for it beside those under way; None: nobody knows how much there is."""

    def __init__(self, disk: int | None, memory: int | None) -> None:
        self._disk, self._memory = disk, memory
        self._kept_on_disk = self._kept_in_memory = 0
        self._changed = threading.Condition()
        self._admitted: list[_Takes] = []

    @contextlib.contextmanager
    def admitted(self, takes: _Takes) -> Iterator[None]:
        """Wait for it; one that is alone never waits, since what it lacks nobody would give back."""
        with self._changed:
            self._changed.wait_for(lambda: not self._admitted or self._fits(takes))
            self._admitted.append(takes)
        try:
            yield
        finally:
            with self._changed:
                self._admitted.remove(takes)
                self._kept_on_disk += takes.disk.kept
                self._kept_in_memory += takes.memory.kept
                self._changed.notify_all()

    def _fits(self, takes: _Takes) -> bool:
        every = [*self._admitted, takes]
        disk = self._kept_on_disk + sum(one.disk.during for one in every)
        memory = self._kept_in_memory + sum(one.memory.during for one in every)
        return (self._disk is None or disk <= self._disk) and (self._memory is None or memory <= self._memory)
