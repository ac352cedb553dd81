# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long the windows of one call will take, from what its workloads hold and what the node is known for."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

from .._checkpoint import staged as staged_checkpoint
from .._container.task_params import STAGED
from .._core.errors import RestoreError
from .._host import huge_pages, page_cache
from .._oci import depth
from .._parallel_memory import hook as memory_hook
from . import prediction, rates as restore_rates
from .demand import Demand
from .prediction import Prediction, Rates


class Forecast:
    """Predicts the window of each workload of one call.

    ``coming``: those that it will restore, at most ``at_once`` at a time.

    Where the node has restored nothing yet, it is measured for a moment; ``check``: also where little is restored.
    """

    def __init__(self, coming: Sequence[Demand], at_once: int, check: bool) -> None:
        enough = check or sum(demand.memory for demand in coming) >= huge_pages.WORTH_MEASURING
        self._measure = enough and bool(coming and coming[0].job.settings.rates_file)
        self._concurrency = prediction.concurrency(len(coming), at_once, os.cpu_count() or 1)
        self._at_once = max(1, min(len(coming), at_once))
        self._rates = Rates()
        if coming:
            settings = coming[0].job.settings
            self._rates = restore_rates.load(settings.rates_file, settings.staging_dir)
            if self._measure and not self._rates.samples and not self._rates.copy:
                self._rates = dataclasses.replace(self._rates, copy=restore_rates.copy_rate())

    def predict(
        self, demand: Demand, prewarmed: page_cache.Report | None = None, parallel_memory: bool | None = None
    ) -> Prediction | None:
        """The window of one workload; None where its checkpoint is not known, or where no staged files are used.

        ``prewarmed``: what was read ahead already; ``parallel_memory``: whether several threads write the memory, None
        where that is not known yet.
        """
        if demand.live or not demand.memory or demand.job.task.route != STAGED:
            return None
        if parallel_memory is None:
            parallel_memory = not self.memory_left_to_criu(demand)
        report, rates = (prewarmed, self._rates) if prewarmed else self._prewarm(demand)
        load = prediction.Load(
            # Staged or not, CRIU reads the same; a tar is about as long as its files.
            size=report.bytes or demand.memory,
            vram=demand.vram.total if demand.gpu_required else 0,
            uncached=report.uncached,
            prewarm=0 if prewarmed else report.read,
            volumes=demand.volume_bytes,
            concurrency=self._concurrency,
            writers=memory_hook.writers() if parallel_memory else 0,
            layout=depth.seconds(demand.facts.written_steps),
        )
        return prediction.predict(load, rates)

    def memory_left_to_criu(self, demand: Demand) -> str:
        """Why CRIU restores all of the workload's memory, empty where several threads write what is large of it."""
        staged = demand.job.task.route == STAGED
        return memory_hook.refusal(demand.job.settings.parallel_memory, demand.memory, staged, self._at_once)

    def _prewarm(self, demand: Demand) -> tuple[page_cache.Report, Rates]:
        """What reading ahead will do, and the disk's rate where that matters and nothing tells it."""
        settings = demand.job.settings
        try:
            staged = staged_checkpoint.find(settings.staging_dir, demand.key) if demand.key else None
            if staged is None:
                return page_cache.Report(), self._rates
            missing = page_cache.uncached_pieces(staged.directory)
            report = page_cache.predict([staged.directory], settings.prewarm, demand.memory, missing)
        except (OSError, RestoreError):
            # The workload's own steps say it.
            return page_cache.Report(), self._rates
        pieces = [(path, *piece) for path, found in missing.items() for piece in found]
        if self._measure and pieces and not self._rates.disk:
            longest = max(pieces, key=lambda piece: piece[2] - piece[1])
            self._rates = dataclasses.replace(self._rates, disk=restore_rates.disk_rate(*longest))
        return report, self._rates
