# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection's side. A way to restore is one function in ROUTES, so that another can be put beside it."""

from __future__ import annotations

from collections.abc import Callable

from gpuops_bench.bench import Bench
from gpuops_bench.measure import Sample


def restore_by_steps(bench: Bench, identifier: str, reference: str) -> Sample:
    """One module a step. The wait that proves that the process stays alive is no part of either side's time."""
    _answer, container = bench.module("containerd_container", {"container_id": identifier, "checkpoint": reference})
    parameters = {"container_id": identifier, "checkpoint": reference, "alive_seconds": 0}
    answer, task = bench.module("containerd_task", parameters)
    seconds = answer["seconds"]
    phases = {
        "container": container.seconds,
        "task: around": task.seconds - sum(seconds.values()),
        "task: create": seconds["create"],
        "task: start (CRIU)": seconds["start"],
    }
    return Sample(container.seconds + task.seconds, max(container.peak, task.peak), phases)


def restore_in_one(bench: Bench, identifier: str, reference: str) -> Sample:
    """The module that does a workload's whole window."""
    workload = {"name": identifier, "checkpoint": reference, "gpu": "none"}
    answer, sample = bench.module("containerd_restore", {"workloads": [workload], "alive_seconds": 0})
    seconds = answer["workloads"][identifier]["seconds"]
    named = {name: float(seconds[name]) for name in ("container", "task", "receipt") if seconds.get(name) is not None}
    return Sample(sample.seconds, sample.peak, {"around": sample.seconds - sum(named.values()), **named})


ROUTES: dict[str, Callable[[Bench, str, str], Sample]] = {"one": restore_in_one, "steps": restore_by_steps}
