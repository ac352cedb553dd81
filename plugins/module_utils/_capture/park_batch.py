# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All workloads of a node parked, or brought back, in one call, side by side.

What all bring into host memory together is looked at before the first is touched: what is parked stays there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from typing import Any, Callable

from .._containerd.client import Client
from .._core.errors import RETRYABLE, InputError, NodeError, RestoreError, as_failure
from .._core.text import gib
from .._gpu.access import GpuAccess
from .._host import memory as host_memory
from . import park, signals as capture_signals
from .park import ParkParams, ParkResult
from .signals import DeferredSignals

OpenClient = Callable[[], AbstractContextManager[Client]]

PARKED, RESUMED = "parked", "resumed"
#: Mostly they wait for the driver.
_AT_ONCE = 16
#: How long a signal may wait for the main thread, in seconds.
_LOOK_SECONDS = 0.5


@dataclass
class Outcome:
    """What became of one workload; one of the two is there."""

    params: ParkParams
    result: ParkResult | None = None
    error: RestoreError | None = None

    def answer(self) -> dict[str, Any]:
        """As the module returns it. Raises the error of one that has failed."""
        if self.error is not None:
            raise self.error
        done = self.result or ParkResult()
        told = {one.name: getattr(done, one.name) for one in fields(done)}
        for name in ("before", "after", "warnings"):
            del told[name]
        return {**told, "diff": {"before": {"state": done.before}, "after": {"state": done.after}}}


def jobs_of(options: Mapping[str, Any]) -> list[ParkParams]:
    """From the options of ``containerd_park``."""
    access = GpuAccess.from_options(options)
    names = [options["container_id"]] if options["workloads"] is None else options["workloads"]
    return [ParkParams(name, options["gpu"], options["owner"], options["force"], access=access) for name in names]


def answer(found: Sequence[Outcome]) -> dict[str, Any]:
    """That of all of them, by container id."""
    told: dict[str, dict[str, Any]] = {}
    diff: dict[str, dict[str, Any]] = {"before": {}, "after": {}}
    failed: dict[str, RestoreError] = {}
    for one in found:
        name = one.params.container_id
        if one.error is not None:
            failed[name] = one.error
            told[name] = {"changed": False, "msg": one.error.sentence(), "failure": one.error.failure().result()}
            continue
        told[name] = {**one.answer(), "failure": None}
        states = told[name].pop("diff")
        for when in ("before", "after"):
            diff[when][name] = states[when]
    every: dict[str, Any] = {"changed": any(one["changed"] for one in told.values()), "workloads": told, "diff": diff}
    if failed:
        every["failed"] = True
        every["failure"] = next(iter(failed.values())).failure().result()
        every["msg"] = f"{len(failed)} of {len(found)} workload(s) failed. " + " ".join(
            f"{name}: {error.sentence()}" for name, error in failed.items()
        )
    return every


def carry_out(open_client: OpenClient, state: str, jobs: Sequence[ParkParams], check: bool) -> list[Outcome]:
    """Have all of them in the state, in the order of ``jobs``. Raises InputError ``workload_twice``, NodeError
    ``host_memory_short``."""
    names = [job.container_id for job in jobs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            "workload_twice", f"The container {twice[0]} stands more than once in workloads.", "Name each of them once."
        )
    if state == PARKED and len(jobs) > 1:
        _require_memory(open_client, jobs)

    def one(job: ParkParams, signals: DeferredSignals) -> Outcome:
        try:
            with open_client() as client, client.following(job.container_id):
                if state == PARKED:
                    return Outcome(job, park.parked(client, job, check, signals))
                return Outcome(job, park.resumed(client, job, check))
        except Exception as error:  # noqa: BLE001
            # What the others have done must still be told.
            return Outcome(job, error=as_failure(error))

    with capture_signals.deferred("") as signals:
        if check or len(jobs) <= 1:
            return [one(job, signals) for job in jobs]
        with ThreadPoolExecutor(max_workers=min(_AT_ONCE, len(jobs))) as pool:
            work = [pool.submit(one, job, signals.of(job.container_id)) for job in jobs]
            # Only this thread handles signals, and one that comes while it lies down to wait does not wake it.
            while wait(work, _LOOK_SECONDS).not_done:
                pass
            return [each.result() for each in work]


def _require_memory(open_client: OpenClient, jobs: Sequence[ParkParams]) -> None:
    """Why one by itself cannot be parked is for its own turn to say."""
    needed = 0
    with open_client() as client:
        for job in jobs:
            with contextlib.suppress(RestoreError, OSError):
                subject = park.foretold(client, job)[1]
                needed += subject.gpus.vram if subject else 0
    free = host_memory.available(jobs[0].access.proc)
    if free is not None and needed > free:
        raise NodeError(
            "host_memory_short",
            f"{len(jobs)} workloads together bring {gib(needed)} of VRAM into host memory, of which {gib(free)} are "
            "free.",
            "Free host memory, or park fewer of them at a time; nothing was touched.",
            outcome=RETRYABLE,
            details={"needed": needed, "available": free},
        )
