# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several workloads at once, as a window has them: begun, captured in one call, restored in one call, asked."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from gpuops_gpu.bench import Bench, Workload
from gpuops_gpu.dump_watch import DumpWatch
from gpuops_gpu.report import Section
from gpuops_gpu.runner import StepError

Found = TypeVar("Found")
#: The end of the section comes before this one.
LONG = 600.0


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a module for several workloads: what it answered for each, and the seconds of the whole."""

    workloads: dict[str, dict[str, Any]]
    seconds: float
    #: Of a capture: bytes of disk in use at most, and what each CRIU did meanwhile.
    used: int = 0
    criu: list[dict[str, float]] = dataclasses.field(default_factory=list)

    def each(self, phase: str) -> list[float]:
        """Seconds of a phase, of each workload that has it."""
        return [float(one["seconds"][phase]) for one in self.workloads.values() if phase in (one.get("seconds") or {})]


def side_by_side(bench: Bench, work: Callable[[Workload], Found], workloads: Sequence[Workload]) -> list[Found]:
    """Each in a thread of its own, and all within the time that is left to this one."""
    left = bench.runner.limit(LONG)

    def one(workload: Workload) -> Found:
        with bench.runner.limited(left):
            return work(workload)

    with concurrent.futures.ThreadPoolExecutor(max(1, len(workloads))) as pool:
        return list(pool.map(one, workloads))


def one_per_card(bench: Bench, name: str, cards: int, gib: float) -> list[Workload]:
    """A container for each card, which sees no other; no two hold the same."""
    found = []
    for card in range(cards):
        workload = bench.pattern(f"{name}-{card}", gib, 0, "--seed", str(card + 1))
        workload.cards = (card,)
        found.append(workload)
    return found


def begin(bench: Bench, workloads: Sequence[Workload]) -> dict[str, list[str]]:
    """They run and have filled their VRAM; its digests, which are those of the pattern. Raises StepError."""
    for workload in workloads:
        bench.start(workload)
    side_by_side(bench, lambda one: bench.await_ready(one, LONG), workloads)
    found = digests(bench, workloads)
    wrong = [one.name for one in workloads if found[one.name] != bench.expected(one)]
    if wrong:
        raise StepError(f"The VRAM of {', '.join(wrong)} does not hold the pattern.")
    return found


def digests(bench: Bench, workloads: Sequence[Workload]) -> dict[str, list[str]]:
    found = side_by_side(bench, lambda one: bench.digests(one, LONG), workloads)
    return {one.name: digest for one, digest in zip(workloads, found)}


def capture(
    bench: Bench, workloads: Sequence[Workload], place: pathlib.Path, *, parallel: int = 0, check: bool = False
) -> Call:
    """All captured onto the node and stopped, in one call. Raises StepError when one of them is not."""
    answer, call = ask_capture(bench, workloads, place, parallel=parallel, check=check)
    if answer["failed"]:
        raise StepError(f"containerd_checkpoint: {answer.get('msg')}")
    return call


def ask_capture(
    bench: Bench, workloads: Sequence[Workload], place: pathlib.Path, *, parallel: int = 0, check: bool = False
) -> tuple[dict[str, Any], Call]:
    """The same; a refusal is an answer too. The originals were made with ctr and carry no owner, hence the force."""
    shared = {"leave": "stopped", "store": "node", "gpu": "required", "force": True}
    jobs = [{"container_id": one.name, "name": one.checkpoint, **shared} for one in workloads]
    arguments: dict[str, Any] = {"workloads": jobs, "staging_dir": str(place), "parallel": parallel}
    if check:
        arguments["_ansible_check_mode"] = True
    with DumpWatch(bench.settings.base, place) as watch:
        answer, seconds = bench.plays.module("containerd_checkpoint", arguments, LONG)
    return answer, Call(dict(answer.get("workloads") or {}), seconds, watch.used, watch.result())


def restore(
    bench: Bench,
    section: Section,
    workloads: Sequence[Workload],
    place: pathlib.Path,
    *,
    parallel: int = 0,
    gpu_map: dict[str, str] | None = None,
) -> Call:
    """All restored in one call, from what a capture has left stopped. Raises StepError when one of them is not."""
    for workload in workloads:
        bench.engine.delete(workload.name)
    entries = []
    for workload in workloads:
        entry = {key: value for key, value in bench.entry(workload).items() if key != "probe"}
        entries.append({**entry, **({"gpu_map": gpu_map} if gpu_map else {})})
    arguments = {"workloads": entries, "staging_dir": str(place), "alive_seconds": 0, "parallel": parallel}
    with watching(bench, workloads):
        answer, seconds = bench.plays.module("containerd_restore", arguments, LONG)
    if answer["failed"]:
        raise StepError(f"containerd_restore: {answer.get('msg')}")
    call = Call(dict(answer["workloads"]), seconds)
    unlike = {name: one["differences"] for name, one in call.workloads.items() if one.get("differences")}
    section.check("what the tasks have is what they had", not unlike, unlike)
    return call


@contextlib.contextmanager
def watching(bench: Bench, workloads: Sequence[Workload]) -> Iterator[None]:
    """In a rehearsal the stand-in is told of all that come back."""
    with contextlib.ExitStack() as stack:
        for workload in workloads:
            stack.enter_context(bench.watching(workload))
        yield


def forget(bench: Bench, workloads: Sequence[Workload], place: pathlib.Path) -> None:
    """Their checkpoints go, so that the next ones begin with an empty disk; they run on."""
    for workload in workloads:
        arguments = {"checkpoint": workload.checkpoint, "state": "absent", "keep_captured": False}
        answer, _ = bench.plays.module("containerd_checkpoint_stage", {**arguments, "staging_dir": str(place)}, 120)
        if answer["failed"]:
            raise StepError(f"the checkpoint of {workload.name} could not be removed: {answer.get('msg')}")
        bench.engine.remove_image(workload.checkpoint)


def take_away(bench: Bench, workloads: Sequence[Workload]) -> None:
    """At a part's end, whatever became of them. Raises nothing."""
    bench.suspend_live(workloads)
    for workload in workloads:
        bench.take_away(workload)
