# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the window's start to running CUDA: ours against ctr and a CUDA restore process by process, pair by pair."""

from __future__ import annotations

import pathlib
import shutil
import statistics
import sys
import time
from collections.abc import Callable

from gpuops_gpu.bench import Bench, Workload
from gpuops_gpu.report import Section
from gpuops_gpu.runner import StepError

PEER = pathlib.Path(__file__).with_name("peer_cuda.py")
GIB = 1 << 30


def window(bench: Bench, section: Section) -> None:
    """One process with 8 and with 16 GiB of VRAM, and four processes that share 8."""
    if not bench.suspends:
        raise StepError("This needs a driver, real or stand-in.")
    settings = bench.settings
    cases = [(f"{gib:g} GiB", gib, 0, 0.30) for gib in settings.window]
    # Second, so that the largest comes last: time may run out.
    cases.insert(1, (f"4 x {settings.window[0] / 4:g} GiB", settings.window[0] / 4, 4, 0.25))
    for name, gib, processes, bound in cases:
        workload = bench.pattern(f"window-{name.split()[0]}-{processes}", gib, processes)
        try:
            _case(bench, section, workload, name, bound)
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
    seconds = _prepare(bench, section, workload)
    for phase, value in seconds.items():
        section.phase(f"{name}: {phase}", value, workload.bytes)
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
            with bench.watching(workload):
                times.append(run(bench, section, workload, f"{name}, pair {pair + 1}"))
            same = bench.digests(workload) == before
            section.check(f"{name}, pair {pair + 1}, {run.__name__.strip('_')}: the VRAM digest is the same", same)
            _away(bench, workload)
        longest = max(longest, time.monotonic() - begun)
    ratio = statistics.median(ours) / statistics.median(theirs)
    section.phase(f"{name}: ours, median of {len(ours)}", statistics.median(ours), workload.bytes)
    section.phase(
        f"{name}: ctr and CUDA one by one, median of {len(theirs)}", statistics.median(theirs), workload.bytes
    )
    section.figures[f"ratio {name}"] = {"ratio": round(ratio, 3), "ours": ours, "peer": theirs}
    # The stand-in moves no memory.
    if not bench.settings.rehearsal:
        section.check(f"{name}: the window takes at most {bound} of the peer's", ratio <= bound, f"{ratio:.3f}")


def _prepare(bench: Bench, section: Section, workload: Workload) -> dict[str, float]:
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
    seconds = dict(answer["workloads"][workload.name]["seconds"])
    gpu = answer["workloads"][workload.name]["gpu"] or {}
    section.figures[f"ours {name}"] = {
        "seconds": seconds,
        "gpu": gpu.get("seconds"),
        **{key: answer[key] for key in ("huge_pages", "prewarm") if key in answer},
    }
    return float(seconds["window"])


def _peer(bench: Bench, section: Section, workload: Workload, name: str) -> float:
    """containerd's own tool, then the driver for one process after the other."""
    blobs = bench.settings.base / "containerd/io.containerd.content.v1.content/blobs/sha256"
    bench.runner.run(["sh", "-c", f"cat {blobs}/* >/dev/null"], 90)
    begun = time.monotonic()
    bench.engine.ctr("containers", "restore", "--rw", "--live", workload.name, workload.checkpoint, seconds=150)
    restored = time.monotonic()
    for pid in _cuda_pids(bench, workload):
        bench.runner.run([sys.executable, "-S", "-E", str(PEER), "restore", str(pid)], 60)
    ended = time.monotonic()
    figures = {"ctr": round(restored - begun, 3), "cuda": round(ended - restored, 3)}
    section.figures[f"peer {name}"] = figures
    return ended - begun


def _cuda_pids(bench: Bench, workload: Workload) -> list[int]:
    """The processes with the GPU's memory: all but the parent that only waits for its four."""
    pids = sorted(bench.engine.pids(workload.name))
    return pids[1:] if len(workload.parts) > 1 else pids


def _away(bench: Bench, workload: Workload) -> None:
    """A live CUDA process is suspended before it is ended."""
    for pid in _cuda_pids(bench, workload):
        bench.runner.run([sys.executable, "-S", "-E", str(PEER), "suspend", str(pid)], 60)
    bench.engine.delete(workload.name)
    for name in ("work", "receipts"):
        shutil.rmtree(bench.plays.state / name, ignore_errors=True)
    # ctr leaves its copy of the memory images in containerd's TMPDIR, each time.
    for left in (bench.settings.base / "tmp").iterdir():
        shutil.rmtree(left, ignore_errors=True)
