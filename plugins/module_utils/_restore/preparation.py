# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is made ready just before a workload's window, so that the window is short."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from .._checkpoint import staged as staged_checkpoint
from .._checkpoint.staged import Staged
from .._containerd import daemon
from .._containerd.client import Client
from .._core import state_dir
from .._criu import action_script
from .._host import huge_pages as host_huge_pages, page_cache
from .._host.huge_pages import HugePages
from .._parallel_memory import split as memory_split
from .._parallel_memory.split import NotSplitError, Split
from .demand import Demand
from .forecast import Forecast
from .prediction import Prediction


@dataclass(frozen=True)
class Preparation:
    """What is ready for the window of one workload."""

    #: Entered for the window.
    huge_pages: HugePages = field(default_factory=lambda: HugePages(host_huge_pages.KEEP))
    #: Done already.
    prewarm: page_cache.Report = field(default_factory=page_cache.Report)
    prediction: Prediction | None = None
    #: The checkpoint in two parts, where several threads are to write its memory.
    split: Split | None = None
    #: Why it is not split.
    unsplit: str = "nothing is restored"

    def result(self) -> dict[str, Any]:
        """As results and receipts have it."""
        return {
            "huge_pages": self.huge_pages.report.result(),
            "prewarm": self.prewarm.result(),
            "predicted": self.prediction.result() if self.prediction else None,
            "parallel_memory": {"bytes": 0, "huge": 0, "seconds": 0.0, "writers": 0, "skipped": self.unsplit},
        }

    def without_split(self, why: str) -> Preparation:
        """The same, but CRIU restores all of the memory."""
        return dataclasses.replace(self, split=None, unsplit=why)


def prepare(client: Client, demand: Demand, huge_pages: HugePages, forecast: Forecast) -> Preparation:
    """Have the staged files of one workload ready for CRIU. What cannot be made ready only costs time."""
    settings = demand.job.settings
    staged = staged_checkpoint.find(settings.staging_dir, demand.key) if demand.key else None
    if staged is None:
        report = page_cache.Report(skipped="nothing is staged")
        return Preparation(huge_pages, report, forecast.predict(demand, report), unsplit=report.skipped)
    split, unsplit = _split(client, demand, staged, forecast.memory_left_to_criu(demand))
    try:
        # Before the window is entered, and after the split: what that has copied is read, too.
        directories = [staged.directory, *([split.images] if split else [])]
        report = page_cache.warm(directories, settings.prewarm, demand.memory)
    except OSError as error:
        report = page_cache.Report(skipped=str(error))
    prediction = forecast.predict(demand, report, parallel_memory=split is not None)
    return Preparation(huge_pages, report, prediction, split, unsplit)


def _split(client: Client, demand: Demand, staged: Staged, refusal: str) -> tuple[Split | None, str]:
    """The checkpoint in two parts, or why CRIU restores all of it."""
    job = demand.job
    if refusal:
        return None, refusal
    criu = daemon.find_program("criu", daemon.daemon_environment(client)["PATH"])
    work = state_dir.work_dir(job.settings.staging_dir, client.namespace, job.name)
    problem = action_script.problem(criu.version, work)
    if problem:
        return None, problem
    try:
        split = memory_split.split_checkpoint(staged)
        return dataclasses.replace(split, huge=job.settings.huge_pages != host_huge_pages.KEEP), ""
    except (NotSplitError, OSError) as error:
        return None, str(error)
