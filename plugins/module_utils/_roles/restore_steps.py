# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role restore_node asks."""

from __future__ import annotations

from . import cleanup, images, lines, metadata, plan, problems, reading, restore, staging
from .steps import Steps

STEPS: Steps = {
    "metadata": lambda known: metadata.find_all(known["workloads"], known["places"]),
    "input_problems": lambda known: problems.of_input(known["workloads"], known["metadata"]),
    "readings": reading.asked,
    "found": lambda known: reading.found(known["found"], known["names"], known["answer"]),
    "arrived": lambda known: problems.of_one(known["name"], known["found"], known["workloads"], known["pull"]),
    "archives": lambda known: images.archives(known["workloads"], known["found"]),
    "problems": problems.collect,
    "base": lambda known: images.base_name(known["workload"], known["checkpoint"], known["metadata"]),
    "to_bring": staging.to_bring,
    "brought": staging.brought,
    "to_stage": staging.to_stage,
    "staged": staging.staged,
    "removed": lambda known: staging.removed(known["answer"], known["stages"]),
    "stage_failure": lambda known: staging.failure(known["result"], known["task"], known["arrived"]),
    "orphans": staging.orphans,
    "going": lambda known: restore.going(known["names"], known["failures"], known["problems"], bool(known["planning"])),
    "jobs": restore.jobs,
    "failures": lambda known: restore.failures(known["restored"], known["names"]),
    "receipts": lambda known: restore.receipts(known["restored"]),
    "plan": plan.entry,
    "cleanup": cleanup.choose,
    "problem_lines": lambda known: lines.of_problems(known["problems"]),
    "failure_lines": lambda known: lines.of_failures(known["failures"]),
}
