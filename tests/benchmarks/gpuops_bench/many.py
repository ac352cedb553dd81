# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Eight workloads of one node: side by side against one after another, and with one among them that fails."""

from __future__ import annotations

from typing import Any

from gpuops_lab import workload
from gpuops_lab.config import LabError

from gpuops_bench.bench import WARM, Bench, say
from gpuops_bench.measure import Comparison, Sample, pairs, peaks

COUNT = 8
FAILING = 3
ONE_BY_ONE = "the same, one after another (parallel: 1)"
CTR = "ctr containers restore --rw --live, one after another"


def names(count: int) -> list[str]:
    return [f"many-{number}" for number in range(1, count + 1)]


def parameters(reference: str, count: int, parallel: int = 0) -> dict[str, Any]:
    """Options of containerd_restore."""
    workloads = [{"name": name, "checkpoint": reference, "gpu": "none"} for name in names(count)]
    return {"workloads": workloads, "parallel": parallel, "alive_seconds": 0, "keep_evidence": 0}


def run(bench: Bench) -> list[Comparison]:
    reference = bench.checkpoint_of(bench.many)
    name = f"{COUNT} x {bench.many} MiB {WARM}"
    say(name)

    def together() -> Sample:
        return _restore(bench, reference, 0)

    def one_by_one() -> Sample:
        return _restore(bench, reference, 1)

    def by_ctr() -> Sample:
        bench.prepare_cache(WARM, 2 * COUNT * bench.many)
        seconds = sum(
            bench.ctr("containers", "restore", "--rw", "--live", each, reference).seconds for each in names(COUNT)
        )
        _end(bench, names(COUNT))
        return Sample(seconds)

    def with_a_failure() -> Sample:
        return _restore(bench, reference, 0, failing=FAILING)

    alone = pairs(f"{name}, side by side", ONE_BY_ONE, bench.pairs, together, one_by_one, say)
    ctr = pairs(f"{name}, side by side, against ctr", CTR, bench.pairs, together, by_ctr, say)
    failing = pairs(f"{name}, one of them fails", "none of them fails", bench.pairs, with_a_failure, together, say)
    return [each for each in (alone, peaks(alone), ctr, failing) if each]


def _restore(bench: Bench, reference: str, parallel: int, failing: int | None = None) -> Sample:
    bench.prepare_cache(WARM, 2 * COUNT * bench.many)
    options = parameters(reference, COUNT, parallel)
    if failing is not None:
        options["workloads"][failing]["probe"] = {"command": ["/bin/sh", "-c", "exit 7"]}
    answer, sample = bench.module("containerd_restore", options, fails=failing is not None)
    ill = [name for name, found in answer["workloads"].items() if found["failure"]]
    expected = [] if failing is None else [names(COUNT)[failing]]
    running = sorted(set(names(COUNT)) - set(expected))
    if ill != expected or _tasks(bench) != running:
        raise LabError(f"Of {COUNT} workloads {ill} have failed, and {_tasks(bench)} run.")
    _end(bench, running)
    windows = [found["seconds"]["window"] for found in answer["workloads"].values() if not found["failure"]]
    longest = max(windows) if parallel == 0 else sum(windows)
    return Sample(sample.seconds, sample.peak, {"around": sample.seconds - longest, "windows": longest})


def _tasks(bench: Bench) -> list[str]:
    listed = workload.ctr(bench.node, workload.NAMESPACE, "tasks", "ls").splitlines()[1:]
    return sorted(line.split()[0] for line in listed if line.split()[0] in names(COUNT) and "RUNNING" in line)


def _end(bench: Bench, running: list[str]) -> None:
    """Each of them counts on; then they are taken away."""
    for each in running:
        reached = workload.await_count(bench.node, each, 1)
        workload.await_count(bench.node, each, reached + 1)
    for each in running:
        bench.remove(each)
