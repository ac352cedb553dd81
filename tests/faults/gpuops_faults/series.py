# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Many faults of one generation: what is still to be struck, and who strikes it, on nodes side by side."""

from __future__ import annotations

import collections
import itertools
import os
import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent import futures
from typing import Callable

from gpuops_lab import node as lab_node

from gpuops_faults import ledger, strike
from gpuops_faults.ledger import Entry, Ledger
from gpuops_faults.steps import STEPS
from gpuops_faults.strike import Bench, Outcome

#: Step, fault, number of the call (1 is the first), and the call's name.
Point = tuple[str, str, int, str]


def points(calls: Mapping[str, Sequence[str]], faults: Sequence[str], every: int) -> list[Point]:
    """Each fault at every nth call of each step; those that need small disks last, for they need nodes of their own."""
    return [
        (step, fault, number, names[number - 1])
        for small in (False, True)
        for step, names in calls.items()
        for fault in faults
        if (fault == strike.FULL) == small
        for number in range(1, len(names) + 1, every)
    ]


def left(wanted: Collection[Point], entries: Collection[Entry], code: str, generation: str) -> list[Point]:
    """Those that this code was not struck at yet, or with which something was wrong."""
    final = ledger.latest(entries)
    done = {key[2:] for key, entry in final.items() if key[:2] == (code, generation) and not entry.wrong}
    return [point for point in wanted if point[:3] not in done]


class Series:
    """Strikes at the points of one generation until all are struck, or the time is over."""

    def __init__(
        self, generation: str, code: str, steps: Sequence[str], book: Ledger, is_over: Callable[[], bool]
    ) -> None:
        self._generation, self._code, self._book, self._is_over = generation, code, book, is_over
        self._steps = [STEPS[name] for name in steps]
        self._queue: collections.deque[Point] = collections.deque()
        self._lock = threading.Lock()
        self._names = itertools.count(1)
        #: Nodes that nobody strikes at now.
        self._free: list[Bench] = []

    def calls(self) -> Mapping[str, Sequence[str]]:
        """The names of the calls of each step."""
        bench = self._bench(small=False)
        self._free.append(bench)
        return bench.calls

    def strike(self, wanted: Sequence[Point], nodes: int) -> list[Entry]:
        """What came of the points that there was time for."""
        self._queue.extend(wanted)
        found: list[Entry] = []
        with futures.ThreadPoolExecutor(nodes) as pool:
            for each in [pool.submit(self._work, found) for _node in range(nodes)]:
                each.result()
        return found

    def close(self) -> None:
        """Take the nodes down that nobody has struck at."""
        for bench in self._free:
            lab_node.down(bench.node.name)

    def _work(self, found: list[Entry]) -> None:
        last: Outcome | None = None
        bench: Bench | None = None
        try:
            while (point := self._next()) is not None:
                step, fault, number, call = point
                small = fault == strike.FULL
                if bench is not None and (bench.small != small or (last and last.wrong)):
                    # What one fault has left is not the next one's.
                    self._gone(bench, last, found)
                    bench = None
                if bench is None:
                    bench, last = self._bench(small), None
                last = bench.strike(STEPS[step], fault, number, call)
                found.append(self._noted(last))
            if bench is not None:
                self._gone(bench, last, found)
        finally:
            if bench is not None:
                lab_node.down(bench.node.name)

    def _gone(self, bench: Bench, last: Outcome | None, found: list[Entry]) -> None:
        """ctr has the last word, on what came of all the faults together."""
        if last is not None and not last.wrong and (left := bench.left_in_the_end()):
            last.wrong = f"left in the end, by this fault or one before: {left[:8]}"
            found.append(self._noted(last))
        lab_node.down(bench.node.name)

    def _noted(self, outcome: Outcome) -> Entry:
        entry = self._book.add(self._code, self._generation, outcome)
        what = f"{outcome.step}, {outcome.fault} at call {outcome.number} ({outcome.call}): {outcome.first}"
        came = f"wrong: {outcome.wrong}" if outcome.wrong else "right"
        print(f"containerd {self._generation}, {what}, {came}; {sum(outcome.seconds.values()):.1f} s", flush=True)
        return entry

    def _next(self) -> Point | None:
        with self._lock:
            return self._queue.popleft() if self._queue and not self._is_over() else None

    def _bench(self, small: bool) -> Bench:
        with self._lock:
            if not small and self._free:
                return self._free.pop()
        (node,) = lab_node.up([f"faults-{os.getpid()}-{next(self._names)}"], self._generation)
        try:
            return Bench(node, small, self._steps)
        except BaseException:
            lab_node.down(node.name)
            raise
