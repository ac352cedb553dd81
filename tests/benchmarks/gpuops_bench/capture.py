# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Capture: how long the workload stands still, and how long until the image is complete."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import threading
import time
from collections.abc import Callable
from typing import Any

from gpuops_lab import workload

from gpuops_bench.bench import TICK_MS, Bench, say
from gpuops_bench.many import COUNT, ONE_BY_ONE, names
from gpuops_bench.measure import Comparison, Sample, pairs, peaks

PEER = "ctr containers checkpoint --task --rw --image"


def run(bench: Bench) -> list[Comparison]:
    found = []
    for mib in bench.sizes:
        still: dict[str, list[Sample]] = {"ours": [], "peer": []}

        # Every capture is of a new container: ctr's second one of the same container lacks its images on 1.6 and 1.7.
        def by_us(mib: int = mib, still: dict[str, list[Sample]] = still) -> Sample:
            parameters = {"container_id": "captured-o", "name": "gpuops.test/captured-o:1", "gpu": "none"}
            return _capture(bench, mib, "captured-o", lambda: _ours(bench, parameters), still["ours"])

        def by_ctr(mib: int = mib, still: dict[str, list[Sample]] = still) -> Sample:
            arguments = ["containers", "checkpoint", "--task", "--rw", "--image"]
            names = ["captured-c", "gpuops.test/captured-c:1"]
            return _capture(bench, mib, "captured-c", lambda: bench.ctr(*arguments, *names), still["peer"])

        outages: list[Sample] = []

        def by_ctr_and_left(
            mib: int = mib, by_ctr: Callable[[], Sample] = by_ctr, outages: list[Sample] = outages
        ) -> Sample:
            sample = by_ctr()
            outages.append(_leave(bench, mib))
            return sample

        name = f"capture {mib} MiB"
        say(name)
        whole = pairs(f"{name}, image complete", PEER, bench.pairs, by_us, by_ctr_and_left, say)
        found += [Comparison(f"{name}, standstill", PEER, still["ours"], still["peer"]), whole]
        found.append(Comparison(f"{name}, on the node, until it may end", PEER, outages, still["peer"]))
        memory = peaks(whole)
        if memory:
            found.append(memory)
    return [*found, _many(bench)]


def _ours(bench: Bench, parameters: dict[str, Any]) -> Sample:
    answer, sample = bench.module("containerd_checkpoint", parameters)
    return dataclasses.replace(sample, phases=answer["seconds"])


def _many(bench: Bench) -> Comparison:
    name = f"capture {COUNT} x {bench.many} MiB, images complete"
    say(name)
    together, one_by_one = (lambda: _capture_many(bench, 0)), (lambda: _capture_many(bench, 1))
    return pairs(name, ONE_BY_ONE, bench.pairs, together, one_by_one, say)


def _capture_many(bench: Bench, parallel: int) -> Sample:
    """All of them in one call."""
    identifiers = names(COUNT)
    references = [f"gpuops.test/{each}:1" for each in identifiers]
    for each in identifiers:
        bench.run_counter(each, bench.many, TICK_MS)
    bench.timed(["sync"])
    bench.back(2 * COUNT * bench.many)
    wanted = [{"container_id": each, "name": name, "gpu": "none"} for each, name in zip(identifiers, references)]
    try:
        begun = _busy()
        _answer, sample = bench.module("containerd_checkpoint", {"workloads": wanted, "parallel": parallel})
        # What all processors were at work: side by side cannot take less than that divided among them.
        sample = dataclasses.replace(sample, phases={"processors at work": round(_busy() - begun, 2)})
        for each in identifiers:
            workload.await_count(bench.node, each, workload.count(bench.node, each) + 1)
    finally:
        there = workload.ctr(bench.node, workload.NAMESPACE, "images", "ls", "-q").split()
        for each, name in zip(identifiers, references):
            bench.remove(each)
            if name in there:
                bench.remove_image(name)
    return sample


def _busy() -> float:
    """Seconds that the processors of this machine have been at work since it booted; proc(5), /proc/stat."""
    user, nice, system, _idle, _iowait, irq, softirq = map(int, pathlib.Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _capture(bench: Bench, mib: int, identifier: str, take: Callable[[], Sample], still: list[Sample]) -> Sample:
    bench.run_counter(identifier, mib, TICK_MS)
    bench.timed(["sync"])
    bench.back(2 * mib)
    try:
        with _Gaps(bench, identifier) as gaps:
            sample = take()
        still.append(Sample(gaps.longest))
        workload.await_count(bench.node, identifier, workload.count(bench.node, identifier) + 1)
    finally:
        bench.remove(identifier)
        if f"gpuops.test/{identifier}:1" in workload.ctr(bench.node, workload.NAMESPACE, "images", "ls", "-q").split():
            bench.remove_image(f"gpuops.test/{identifier}:1")
    return sample


def _leave(bench: Bench, mib: int) -> Sample:
    """Captured on the node and ended; from its pause until it could end."""
    identifier, name = "left-o", "gpuops.test/left-o:1"
    bench.run_counter(identifier, mib, TICK_MS)
    bench.timed(["sync"])
    bench.back(2 * mib)
    wanted = {"container_id": identifier, "name": name, "gpu": "none", "store": "node"}
    try:
        answer, _sample = bench.module("containerd_checkpoint", {**wanted, "leave": "stopped", "force": True})
    finally:
        bench.remove(identifier)
        bench.module("containerd_checkpoint_stage", {"checkpoint": name, "state": "absent", "keep_captured": False})
        if name in workload.ctr(bench.node, workload.NAMESPACE, "images", "ls", "-q").split():
            bench.remove_image(name)
    seconds = answer["seconds"]
    return Sample(seconds["standstill"], phases=seconds)


class _Gaps:
    """Watches the counter's own output from outside: the longest time in which it wrote nothing, in seconds."""

    def __init__(self, bench: Bench, identifier: str) -> None:
        self.longest = 0.0
        self._path = bench.node.inside(f"/var/log/{identifier}.log")
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> _Gaps:
        self._thread.start()
        return self

    def __exit__(self, *_unused: object) -> None:
        # One more number closes a gap that is still open.
        time.sleep(0.2)
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        size, since = self._path.stat().st_size, time.monotonic()
        while not self._end.is_set():
            found, now = self._path.stat().st_size, time.monotonic()
            if found != size:
                self.longest, size, since = max(self.longest, now - since), found, now
            time.sleep(0.001)
