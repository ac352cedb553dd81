# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore: the node's own work, without Ansible, from a staged directory."""

from __future__ import annotations

from gpuops_lab import workload

from gpuops_bench import ours
from gpuops_bench.bench import Bench, say
from gpuops_bench.measure import Comparison, Sample, pairs, peaks

PEER = "ctr containers restore --rw --live"


def run(bench: Bench) -> list[Comparison]:
    found = []
    for mib in bench.sizes:
        reference = bench.checkpoint_of(mib)
        for cache in bench.caches:
            name = f"restore {mib} MiB {cache}"
            say(name)

            def by_us(reference: str = reference, cache: str = cache, mib: int = mib) -> Sample:
                with bench.memory_of("restored-o", mib):
                    bench.prepare_cache(cache, mib)
                    sample = ours.ROUTES[bench.route](bench, "restored-o", reference)
                _prove(bench, "restored-o")
                return sample

            def by_ctr(reference: str = reference, cache: str = cache, mib: int = mib) -> Sample:
                with bench.memory_of("restored-c", mib):
                    bench.prepare_cache(cache, mib)
                    sample = bench.ctr("containers", "restore", "--rw", "--live", "restored-c", reference)
                _prove(bench, "restored-c")
                return sample

            compared = pairs(name, PEER, bench.pairs, by_us, by_ctr, say)
            found.append(compared)
            memory = peaks(compared)
            if memory:
                found.append(memory)
    return found


def _prove(bench: Bench, identifier: str) -> None:
    """It counts on; then it is taken away."""
    reached = workload.await_count(bench.node, identifier, 1)
    workload.await_count(bench.node, identifier, reached + 1)
    bench.remove(identifier)
