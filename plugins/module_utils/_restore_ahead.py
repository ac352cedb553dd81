# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is made ready just before a workload's window, so that the window is short. Private."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.gpuops.restore.plugins.module_utils import (
    _huge_pages,
    _memory_hook,
    _memory_policy,
    _memory_split,
    _node,
    _paths,
    _prewarm,
    _staging,
    _task_step,
)
from ansible_collections.gpuops.restore.plugins.module_utils._client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._huge_pages import HugePages
from ansible_collections.gpuops.restore.plugins.module_utils._memory_split import NotSplitError, Split
from ansible_collections.gpuops.restore.plugins.module_utils._restore_demand import Demand
from ansible_collections.gpuops.restore.plugins.module_utils._restore_forecast import Forecast
from ansible_collections.gpuops.restore.plugins.module_utils._staging import Staged
from ansible_collections.gpuops.restore.plugins.module_utils._window_prediction import Prediction


@dataclass(frozen=True)
class Ahead:
    """``huge_pages`` is entered for the window; ``prewarm`` is done already; ``predicted``: how long it will take."""

    huge_pages: HugePages = field(default_factory=lambda: HugePages(_huge_pages.KEEP))
    prewarm: _prewarm.Report = field(default_factory=_prewarm.Report)
    predicted: Prediction | None = None
    #: The checkpoint in two parts, where several threads are to write its memory; else ``alone`` says why not.
    split: Split | None = None
    alone: str = "nothing is restored"

    def result(self) -> dict[str, Any]:
        """As results and receipts have it."""
        return {
            "huge_pages": self.huge_pages.report.result(),
            "prewarm": self.prewarm.result(),
            "predicted": self.predicted.result() if self.predicted else None,
            "parallel_memory": {"bytes": 0, "seconds": 0.0, "writers": 0, "skipped": self.alone},
        }

    def plainly(self, why: str) -> Ahead:
        """The same, but CRIU restores the memory."""
        return dataclasses.replace(self, split=None, alone=why)


def prepare(client: Client, demand: Demand, huge_pages: HugePages, forecast: Forecast) -> Ahead:
    """Have the staged files of one workload ready for CRIU. What cannot be made ready only costs time."""
    settings = demand.job.settings
    staged = _staging.find(settings.staging_dir, demand.key) if demand.key else None
    if staged is None:
        report = _prewarm.Report(skipped="nothing is staged")
        return Ahead(huge_pages, report, forecast.of(demand, report), alone=report.skipped)
    split, alone = _split(client, demand, staged)
    try:
        # Before the window is entered, and after the split: what that has copied is read, too.
        directories = [staged.directory, *([split.images] if split else [])]
        report = _prewarm.warm(directories, settings.prewarm, demand.memory)
    except OSError as error:
        report = _prewarm.Report(skipped=str(error))
    predicted = forecast.of(demand, report, beside=split is not None)
    return Ahead(huge_pages, report, predicted, split, alone)


def _split(client: Client, demand: Demand, staged: Staged) -> tuple[Split | None, str]:
    """The checkpoint in two parts, or why CRIU restores all of it."""
    job = demand.job
    refusal = _memory_policy.refusal(job.settings.parallel_memory, demand.memory, job.task.route == _task_step.STAGED)
    if refusal:
        return None, refusal
    criu = _node.find_program("criu", _node.daemon_environment(client)["PATH"])
    work = _paths.work_dir(job.settings.staging_dir, client.namespace, job.name)
    problem = _memory_hook.problem(criu.version, work)
    if problem:
        return None, problem
    try:
        return _memory_split.of(staged), ""
    except (NotSplitError, OSError) as error:
        return None, str(error)
