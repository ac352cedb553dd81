# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All workloads of a node, side by side as far as its memory allows."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Callable

from .._container import volumes as container_volumes
from .._containerd.client import Client
from .._core.errors import RestoreError, as_failure, combined
from .._host import huge_pages as host_huge_pages, run_lock
from .._host.huge_pages import HugePages
from . import demand as restore_demand, gpu, preparation, rates, shared_volumes, workload
from .demand import Demand, Verdict
from .forecast import Forecast
from .params import Job
from .prediction import Prediction, Sample
from .result import Result

OpenClient = Callable[[], AbstractContextManager[Client]]

#: Most of a restore waits for the runtime, for the disk and for the process to show that it lives.
_PER_PROCESSOR = 4


def check_all(
    open_client: OpenClient, jobs: Sequence[Job], parallel: int = 0, check: bool = True
) -> tuple[Verdict, dict[str, Prediction | None]]:
    """Look whether the node has what all workloads need together, and how long each will take; nothing is touched.

    ``check``: somebody plans, so a node of which nothing is known is measured for a moment.
    """
    with open_client() as client:
        assessed = [restore_demand.assess(client, job) for job in jobs]
    demands, verdict = _judged(assessed, thorough=True)
    for demand in demands:
        verdict.warnings += shared_volumes.warnings(demand, demands)
    forecast = _forecast(demands, verdict, parallel, check)
    return verdict, {demand.job.name: forecast.predict(demand) for demand in demands}


def restore_all(open_client: OpenClient, jobs: Sequence[Job], parallel: int, check: bool) -> list[Result]:
    """Restore every workload; one that fails is rolled back and does not disturb the others. In the order of ``jobs``.

    ``parallel``: how many at once at most, 0 for what the node's processors suggest. Each has a channel of its own. A
    workload that another run is at work on fails with ``busy``.
    """
    with _Locks() as locks:
        with open_client() as client:
            busy = {} if check else locks.acquire(client, jobs)
            # Only now: another run may have done it meanwhile.
            demands = [restore_demand.assess(client, job) for job in jobs if job.name not in busy]
        found = {result.job.name: result for result in _restore(open_client, demands, parallel, check, locks)}
    return [found[job.name] if job.name in found else _failed(job, busy[job.name]) for job in jobs]


def _restore(
    open_client: OpenClient, demands: Sequence[Demand], parallel: int, check: bool, locks: _Locks
) -> list[Result]:
    # A run asks the driver in each workload's turn; only check mode has to predict what it will say.
    demands, verdict = _judged(demands, thorough=check)
    forecast = _forecast(demands, verdict, parallel, check)
    admission = _MemoryAdmission()
    huge_pages = _HugePagesChoice(demands)
    turns = shared_volumes.turns(demands)
    if not check and any(demand.volumes for demand in demands):
        with open_client() as client:
            _release_volumes(client, demands, verdict)

    def restore_one(demand: Demand) -> Result:
        errors = verdict.refused.get(demand.job.name)
        if errors:
            return _refused(demand.job, combined(errors))
        try:
            size = 0 if demand.live or check else demand.memory + demand.volume_bytes
            with contextlib.ExitStack() as stack:
                # Before room is taken, which the one that is waited for may need.
                for lock in turns.get(demand.job.name, ()):
                    stack.enter_context(lock)
                stack.enter_context(admission.admitted(size))
                client = stack.enter_context(open_client())
                stack.enter_context(client.following(demand.job.name))
                if demand.checkpoint and not check:
                    stack.enter_context(run_lock.kept(demand.checkpoint.digest, client.busy_seconds))
                # Where nothing is to be restored, nothing is made ready either.
                if demand.live or check:
                    prepared = preparation.Preparation(prediction=forecast.predict(demand))
                else:
                    client.track.phase("prepare")
                    prepared = preparation.prepare(client, demand, huge_pages.for_workload(demand), forecast)
                result = workload.restore(client, demand, verdict.reading, check, prepared)
                result.warnings[:0] = shared_volumes.warnings(demand, demands)
                return result
        except Exception as error:  # noqa: BLE001
            # No channel for this one, or its checkpoint is being removed; what the others have done must still be told.
            return _failed(demand.job, as_failure(error))
        finally:
            locks.release(demand.job.name)

    limit = _limit(parallel)
    if check or len(demands) <= 1 or limit == 1:
        found = [restore_one(demand) for demand in demands]
    else:
        with ThreadPoolExecutor(max_workers=min(limit, len(demands))) as pool:
            found = list(pool.map(restore_one, demands))
    if not check:
        _note_rates(found)
    return found


class _Locks(contextlib.ExitStack):
    """The locks of the workloads, each released as soon as its workload is through."""

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[str, contextlib.ExitStack] = {}

    def acquire(self, client: Client, jobs: Sequence[Job]) -> dict[str, RestoreError]:
        """Lock all of them; those that other runs are still at work on when the time to wait is over."""
        busy: dict[str, RestoreError] = {}
        give_up = time.monotonic() + client.busy_seconds
        # In one order for all runs, or two of them would wait for each other.
        for job in sorted(jobs, key=lambda job: job.name):
            left = max(0.0, give_up - time.monotonic())
            held = self.enter_context(contextlib.ExitStack())
            try:
                held.enter_context(run_lock.changing(client.namespace, job.name, "containerd_restore", left))
            except RestoreError as error:
                busy[job.name] = error
            else:
                self._held[job.name] = held
        return busy

    def release(self, name: str) -> None:
        """The workload is through."""
        if name in self._held:
            self._held.pop(name).close()


def _judged(assessed: Sequence[Demand], thorough: bool) -> tuple[list[Demand], Verdict]:
    demands, refused = shared_volumes.agree(assessed)
    verdict = restore_demand.judge(demands, restore_demand.available_memory(), thorough)
    for name, error in refused.items():
        verdict.refuse(name, error)
    return demands, verdict


def _release_volumes(client: Client, demands: Sequence[Demand], verdict: Verdict) -> None:
    """What ended tasks of these workloads had in common is not for any of them when they are made anew."""
    ended = [demand for demand in demands if demand.volumes and not demand.live and demand.job.container.rebuild]
    names = [demand.job.name for demand in ended if demand.job.name not in verdict.refused]
    container_volumes.release_used(container_volumes.default_root(), client.namespace, names)


class _HugePagesChoice:
    """One switch for all workloads whose GPU memory comes back; it is for the others too where the operator says so."""

    def __init__(self, demands: Sequence[Demand]) -> None:
        mode = demands[0].job.settings.huge_pages if demands else host_huge_pages.KEEP
        size = sum(demand.memory for demand in demands if demand.gpu_required and not demand.live)
        self._for_gpus = host_huge_pages.for_gpu_memory(mode, size)
        self._for_others = HugePages(host_huge_pages.KEEP) if mode == host_huge_pages.AUTO else self._for_gpus

    def for_workload(self, demand: Demand) -> HugePages:
        return self._for_gpus if demand.gpu_required else self._for_others


def _limit(parallel: int) -> int:
    return parallel if parallel > 0 else _PER_PROCESSOR * (os.cpu_count() or 1)


def _forecast(demands: Sequence[Demand], verdict: Verdict, parallel: int, check: bool) -> Forecast:
    coming = [demand for demand in demands if not demand.live and demand.job.name not in verdict.refused]
    return Forecast(coming, _limit(parallel), check)


def _note_rates(found: Sequence[Result]) -> None:
    """What these restores took is what the next predictions rest on."""
    done = [result for result in found if result.task.created and not result.failure]
    samples = [Sample.from_receipt(result.receipt) for result in done]
    if done:
        rates.note(done[0].job.settings.rates_file, [one for one in samples if one is not None])


def _refused(job: Job, error: RestoreError) -> Result:
    # Whoever gets here has no preflight any more that would come before the window.
    return _failed(job, gpu.not_retryable(error), "preflight")


def _failed(job: Job, error: RestoreError, step: str = "") -> Result:
    result = Result(job, step=step)
    result.fail(error)
    return result


class _MemoryAdmission:
    """Lets a workload begin when the node has memory for it and for those that are being restored now."""

    def __init__(self, available: Callable[[], int | None] = restore_demand.available_memory) -> None:
        self._available = available
        self._changed = threading.Condition()
        self._admitted: list[int] = []

    @contextlib.contextmanager
    def admitted(self, size: int) -> Iterator[None]:
        """Wait for ``size`` bytes; one that is alone never waits, since what it lacks nobody would give back."""
        with self._changed:
            self._changed.wait_for(lambda: not self._admitted or self._fits(size))
            self._admitted.append(size)
        try:
            yield
        finally:
            with self._changed:
                self._admitted.remove(size)
                self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        free = self._available()
        return free is None or size + sum(self._admitted) <= free
