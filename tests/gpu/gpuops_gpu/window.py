# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the window's start to running CUDA: ours against ctr and a CUDA restore process by process, pair by pair."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import statistics
import sys
import time
from collections.abc import Callable

from gpuops_gpu import criu_time
from gpuops_gpu.bench import Bench, Workload
from gpuops_gpu.report import Section
from gpuops_gpu.runner import StepError

PEER = pathlib.Path(__file__).with_name("peer_cuda.py")
GIB = 1 << 30
COLD, WARM = "cold", "warm"
#: What part of the peer's time the window takes at most: of one process, and of several.
BOUNDS = {1: 0.30, 2: 0.25}


def window(bench: Bench, section: Section) -> None:
    """Each amount of VRAM in one process, and spread over four; the largest come last, for time may run out."""
    if not bench.suspends:
        raise StepError("This needs a driver, real or stand-in.")
    for gib in bench.settings.window:
        for processes in bench.settings.spread:
            name = f"{processes} x {gib / processes:g} GiB" if processes > 1 else f"{gib:g} GiB"
            workload = bench.pattern(f"window-{gib:g}-{processes}", gib / processes, processes if processes > 1 else 0)
            try:
                _case(bench, section, workload, name, BOUNDS[min(processes, 2)])
            except StepError as error:
                section.check(f"{name} was measured", False, error)
            finally:
                bench.take_away(workload)


def _case(bench: Bench, section: Section, workload: Workload, name: str, bound: float) -> None:
    bench.start(workload)
    bench.await_ready(workload, 90)
    before = bench.digests(workload)
    need = int(workload.bytes * 3.3)
    free = shutil.disk_usage(bench.settings.base).free
    if free < need:
        raise StepError(f"{need / GIB:.0f} GiB of disk are needed, {free / GIB:.0f} are free.")
    seconds = prepare(bench, section, workload)
    for phase, value in seconds.items():
        section.phase(f"{name}: {phase}", value, workload.bytes)
    for cache in bench.settings.caches:
        _compare(bench, section, workload, f"{name}, {cache}", cache, before)
        ratio = section.figures[f"ratio {name}, {cache}"]["ratio"]
        # The stand-in moves no memory.
        if not bench.settings.rehearsal:
            wanted = f"at most {bound} of the peer's"
            section.check(f"{name}, {cache}: the window takes {wanted}", ratio <= bound, f"{ratio:.3f}")


def _compare(bench: Bench, section: Section, workload: Workload, name: str, cache: str, before: list[str]) -> None:
    """Pairs of restores, ours and the peer's, with what both read in the page cache or not."""
    ours: list[float] = []
    theirs: list[float] = []
    longest = 0.0
    for pair in range(bench.settings.pairs):
        begun = time.monotonic()
        if pair and bench.runner.left() < 1.3 * longest:
            bench.runner.log.write(f"{name}: no time for pair {pair + 1}", show=True)
            break
        sides: list[tuple[Callable[[Bench, Section, Workload, str], float], list[float]]]
        sides = [(_ours, ours), (_peer, theirs)]
        for run, times in sides if pair % 2 == 0 else sides[::-1]:
            _prepare_cache(bench, cache)
            with bench.watching(workload):
                times.append(run(bench, section, workload, f"{name}, pair {pair + 1}"))
            same = bench.digests(workload) == before
            section.check(f"{name}, pair {pair + 1}, {run.__name__.strip('_')}: the VRAM digest is the same", same)
            _away(bench, workload)
        longest = max(longest, time.monotonic() - begun)
    middle = [statistics.median(times) for times in (ours, theirs)]
    section.phase(f"{name}: ours, median of {len(ours)}", middle[0], workload.bytes)
    section.phase(f"{name}: ctr and CUDA one by one, median of {len(theirs)}", middle[1], workload.bytes)
    found = {"ratio": round(middle[0] / middle[1], 3), "ours": ours, "peer": theirs}
    section.figures[f"ratio {name}"] = found


def _prepare_cache(bench: Bench, cache: str) -> None:
    """What both sides read lies in the page cache, or none of it does."""
    blobs = bench.settings.base / "containerd/io.containerd.content.v1.content/blobs/sha256"
    paths = [path for place in (blobs, bench.plays.state) for path in place.rglob("*") if path.is_file()]
    for path in paths:
        # A blob that nothing names any more may be collected meanwhile.
        with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
            if cache == WARM:
                while stream.read(8 << 20):
                    pass
            else:
                # What has not been written yet cannot be dropped.
                os.fsync(stream.fileno())
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def prepare(bench: Bench, section: Section, workload: Workload) -> dict[str, float]:
    """Captured, ended and staged, which is what happens before a window."""
    answer, _ = bench.plays.module(
        "containerd_checkpoint",
        {
            "container_id": workload.name,
            "name": workload.checkpoint,
            "leave": "stopped",
            "force": True,
            "gpu": "required",
            "staging_dir": str(bench.plays.state),
            "keep_staged": True,
        },
        150,
    )
    if answer["failed"]:
        raise StepError(f"{workload.name} could not be captured: {answer.get('msg')}")
    bench.engine.delete(workload.name)
    section.figures[f"capture {workload.name}"] = {"seconds": answer["seconds"], "sizes": answer["sizes"]}
    found = answer["seconds"]
    return {f"capture, {name}": float(found[name]) for name in ("cuda_suspend", "dump", "upload") if name in found}


def _ours(bench: Bench, section: Section, workload: Workload, name: str) -> float:
    entry = {key: value for key, value in bench.entry(workload).items() if key != "probe"}
    arguments = {"workloads": [entry], "staging_dir": str(bench.plays.state), "alive_seconds": 0}
    answer, _ = bench.plays.module("containerd_restore", arguments, 120)
    if answer["failed"]:
        raise StepError(f"{workload.name} could not be restored: {answer.get('msg')}")
    receipt = bench.plays.receipt(workload.name)
    bench.check_as_it_was(section, workload, receipt)
    seconds = dict(receipt["seconds"])
    kept = {key: receipt.get(key) for key in ("seconds", "huge_pages", "prewarm", "parallel_memory")}
    criu = criu_time.longest(bench.plays.state / "work")
    section.figures[f"ours {name}"] = {**kept, "gpu": (receipt.get("gpu") or {}).get("seconds"), "criu": criu}
    return float(seconds["window"])


def _peer(bench: Bench, section: Section, workload: Workload, name: str) -> float:
    """containerd's own tool, then the driver for one process after the other."""
    begun = time.monotonic()
    bench.engine.ctr("containers", "restore", "--rw", "--live", workload.name, workload.checkpoint, seconds=150)
    restored = time.monotonic()
    for pid in bench.cuda_pids(workload):
        bench.runner.run([sys.executable, "-S", "-E", str(PEER), "restore", str(pid)], 60)
    ended = time.monotonic()
    figures = {"ctr": round(restored - begun, 3), "cuda": round(ended - restored, 3)}
    section.figures[f"peer {name}"] = figures
    return ended - begun


def _away(bench: Bench, workload: Workload) -> None:
    """A live CUDA process is suspended before it is ended."""
    for pid in bench.cuda_pids(workload):
        bench.runner.run([sys.executable, "-S", "-E", str(PEER), "suspend", str(pid)], 60)
    bench.engine.delete(workload.name)
    for name in ("work", "receipts"):
        shutil.rmtree(bench.plays.state / name, ignore_errors=True)
    # ctr leaves its copy of the memory images in containerd's TMPDIR, each time.
    for left in (bench.settings.base / "tmp").iterdir():
        shutil.rmtree(left, ignore_errors=True)
