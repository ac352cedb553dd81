# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checkpoints of all workloads of a node staged or removed in one call, side by side where the disk has room."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Callable

from .._containerd.client import Client
from .._core import files
from .._core.errors import InputError, RestoreError, as_failure
from . import reader, stage, staged as staged_checkpoint, staging
from .stage import StageResult

OpenClient = Callable[[], AbstractContextManager[Client]]


@dataclass(frozen=True)
class Job:
    """One workload's checkpoint; ``verify_key``: public SSH keys one of which has to have signed it."""

    container_id: str
    checkpoint: str
    verify_key: Sequence[str] = ()


@dataclass(frozen=True)
class Place:
    """Where the checkpoints are staged, and what holds for all of them; see :func:`stage.present`."""

    root: str
    lease: str | None = None
    check: bool = False
    assume_prepared: bool = False


@dataclass
class Outcome:
    """What became of one job; one of the two is there."""

    job: Job
    result: StageResult | None = None
    error: RestoreError | None = None


def present(open_client: OpenClient, jobs: Sequence[Job], place: Place, parallel: int = 0) -> list[Outcome]:
    """Stage all of them, in the order of ``jobs``; ``parallel``: how many at once at most, 0 for one a processor.

    What does not fit beside those before it is refused before anything is written. A checkpoint that several workloads
    have is staged once. Raises InputError ``workload_twice``.
    """
    _require_single(jobs)
    with open_client() as client:
        refused = _refusals(client, jobs, place.root)

    def one(mine: Sequence[Job]) -> list[Outcome]:
        with open_client() as client:
            outcomes = [_outcome(client, job, place, refused.get(job.checkpoint)) for job in mine]
        return _foretold(outcomes) if place.check else outcomes

    # By checkpoint, so that no two of them write the same files.
    groups = [[job for job in jobs if job.checkpoint == name] for name in dict.fromkeys(job.checkpoint for job in jobs)]
    limit = parallel if parallel > 0 else os.cpu_count() or 1
    if limit == 1 or len(groups) <= 1:
        found = [outcome for group in groups for outcome in one(group)]
    else:
        with ThreadPoolExecutor(max_workers=min(limit, len(groups))) as pool:
            found = [outcome for outcomes in pool.map(one, groups) for outcome in outcomes]
    order = {job.container_id: number for number, job in enumerate(jobs)}
    return sorted(found, key=lambda outcome: order[outcome.job.container_id])


def absent(client: Client, jobs: Sequence[Job], place: Place, keep_captured: bool) -> list[Outcome]:
    """Remove what is staged of all of them; one that another run is at work with stays alone.

    ``keep_captured``: see :func:`stage.absent`. Raises InputError ``workload_twice``.
    """
    _require_single(jobs)

    def one(job: Job) -> Outcome:
        try:
            return Outcome(job, stage.absent_by_name(client, job.checkpoint, place.root, place.check, keep_captured))
        except Exception as error:  # noqa: BLE001
            return Outcome(job, error=as_failure(error))

    return [one(job) for job in jobs]


def _foretold(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Of one checkpoint in check mode: the first makes what the others then find."""
    results = [one.result for one in outcomes if one.result is not None]
    for result in results[1:]:
        result.changed, result.created, result.before = False, False, result.after
    return list(outcomes)


def _outcome(client: Client, job: Job, place: Place, refused: RestoreError | None) -> Outcome:
    try:
        if refused is not None:
            raise refused
        with client.following(job.container_id):
            return Outcome(
                job,
                stage.present(
                    client, job.checkpoint, place.root, place.lease, place.check, place.assume_prepared, job.verify_key
                ),
            )
    except Exception as error:  # noqa: BLE001
        # What the others have done must still be told.
        return Outcome(job, error=as_failure(error))


def _refusals(client: Client, jobs: Sequence[Job], root: str) -> dict[str, RestoreError]:
    """By checkpoint: why it does not fit beside those before it. What cannot be told now is said in its own turn."""
    free = files.free_bytes(root)
    found: dict[str, RestoreError] = {}
    for name in dict.fromkeys(job.checkpoint for job in jobs):
        with contextlib.suppress(RestoreError, OSError):
            checkpoint = reader.load(client, name)
            criu = reader.require_criu(checkpoint)
            if checkpoint.on_node or staged_checkpoint.find(root, checkpoint.key) is not None:
                continue
            if criu.size + files.RESERVE > free:
                found[name] = staging.no_space(root, criu.size + files.RESERVE, free)
            else:
                free -= criu.size
    return found


def _require_single(jobs: Sequence[Job]) -> None:
    names = [job.container_id for job in jobs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            "workload_twice",
            f"The container {twice[0]} stands more than once in workloads.",
            "Give each workload a name of its own.",
        )
