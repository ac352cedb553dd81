# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is made ready just before a workload's window, so that the window is short. Private."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ansible_collections.gpuops.restore.plugins.module_utils import _huge_pages, _prewarm, _staging
from ansible_collections.gpuops.restore.plugins.module_utils._huge_pages import HugePages
from ansible_collections.gpuops.restore.plugins.module_utils._restore_demand import Demand
from ansible_collections.gpuops.restore.plugins.module_utils._restore_forecast import Forecast
from ansible_collections.gpuops.restore.plugins.module_utils._window_prediction import Prediction


@dataclass(frozen=True)
class Ahead:
    """``huge_pages`` is entered for the window; ``prewarm`` is done already; ``predicted``: how long it will take."""

    huge_pages: HugePages = field(default_factory=lambda: HugePages(_huge_pages.KEEP))
    prewarm: _prewarm.Report = field(default_factory=_prewarm.Report)
    predicted: Prediction | None = None

    def result(self) -> dict[str, Any]:
        """As results and receipts have it."""
        return {
            "huge_pages": self.huge_pages.report.result(),
            "prewarm": self.prewarm.result(),
            "predicted": self.predicted.result() if self.predicted else None,
        }


def prepare(demand: Demand, huge_pages: HugePages, forecast: Forecast) -> Ahead:
    """Have the staged files of one workload in the page cache. What cannot be made ready only costs time."""
    report = _prewarmed(demand)
    return Ahead(huge_pages, report, forecast.of(demand, report))


def _prewarmed(demand: Demand) -> _prewarm.Report:
    settings = demand.job.settings
    staged = _staging.find(settings.staging_dir, demand.key) if demand.key else None
    if staged is None:
        return _prewarm.Report(skipped="nothing is staged")
    try:
        return _prewarm.warm(staged.directory, settings.prewarm, demand.memory)
    except OSError as error:
        return _prewarm.Report(skipped=str(error))
