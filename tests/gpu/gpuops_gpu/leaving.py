# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a workload stands still until it may end, with a checkpoint on the node and with an image; and the dump.

The image's way is the one from before checkpoints could live on the node: over when the image is complete. The dump is
compared with what plain threads write to the same place.
"""

from __future__ import annotations

import pathlib
import shutil
from typing import Any

from gpuops_gpu import places, plain_write
from gpuops_gpu.bench import Bench, Workload
from gpuops_gpu.dump_watch import DumpWatch
from gpuops_gpu.report import Section
from gpuops_gpu.runner import StepError

IMAGE, NODE = "image", "node"
#: What part of the image's time the node's way takes at most: of one process, and of several.
BOUNDS = {1: 0.38, 2: 0.35}
#: Disk in use at its most, of the memory that was dumped.
DISK = 1.1
GIB = 1 << 30


def leaving(bench: Bench, section: Section) -> None:
    """Each case both ways, then a dump to each kind of place."""
    if not bench.suspends:
        raise StepError("Captures need a driver, real or stand-in.")
    for processes, gib in bench.settings.leaving:
        name = f"{processes} x {gib:g} GiB" if processes > 1 else f"{gib:g} GiB"
        inner = Section(name)
        workload = bench.pattern(f"leaving-{processes}-{gib:g}", gib, processes if processes > 1 else 0)
        try:
            _both_ways(bench, inner, workload, BOUNDS[min(processes, 2)])
        except StepError as error:
            inner.check("it was measured", False, error)
        finally:
            bench.take_away(workload)
        section.add(name, inner)
    if bench.settings.dump:
        _places(bench, section)


def _both_ways(bench: Bench, section: Section, workload: Workload, bound: float) -> None:
    _begin(bench, workload, bench.plays.state.parent, 2.3)
    before = bench.digests(workload, 120)
    found = {}
    for store in (IMAGE, NODE):
        answer, used = _capture(bench, section, workload, bench.plays.state, store)
        seconds, memory = answer["seconds"], int(answer["sizes"]["criu"])
        section.phase(f"store: {store}: stands still until it may end", seconds["standstill"], workload.bytes)
        found[store] = seconds["standstill"]
        if store == IMAGE:
            found[store] = seconds["total"] - seconds["preflight"]
            section.phase(f"store: {store}: until its image is complete", found[store], workload.bytes)
        section.figures[f"disk {workload.name} {store}"] = {"bytes": used, "of_memory": round(used / memory, 3)}
        if store == NODE:
            detail = f"{used / memory:.3f}"
            section.check(f"at most {DISK} of the memory is on the disk", used <= DISK * memory, detail)
        _back(bench, section, workload, bench.plays.state)
        section.check(f"the VRAM digest is the same after store: {store}", bench.digests(workload, 120) == before)
        _forget(bench, workload, bench.plays.state)
    ratio = found[NODE] / found[IMAGE]
    section.figures[f"ratio {workload.name}"] = {"ratio": round(ratio, 3), **found}
    # The stand-in moves no memory.
    if not bench.settings.rehearsal:
        wanted = f"at most {bound} of the time of an image"
        section.check(f"a checkpoint on the node takes {wanted}", ratio <= bound, f"{ratio:.3f}")


def _places(bench: Bench, section: Section) -> None:
    """The dump phase against plain threads, to the disk and to both kinds of tmpfs; figures, no bound is asked for."""
    for name, options in places.KINDS.items():
        # What was restored from a place that goes away cannot be captured again, so each has one of its own.
        workload = bench.pattern("dump", bench.settings.dump)
        try:
            with places.place(bench, options, bench.settings.dump * 2 + 4) as place:
                _dumped(bench, section, workload, place, name, direct=not options)
                bench.take_away(workload)
        except StepError as error:
            section.check(f"a dump to {name} was measured", False, error)
        finally:
            bench.take_away(workload)


def _dumped(
    bench: Bench, section: Section, workload: Workload, place: pathlib.Path, name: str, *, direct: bool
) -> None:
    _begin(bench, workload, bench.settings.base, 1.2)
    plain = plain_write.rate(place / "plain", int(bench.settings.dump * GIB / 2), direct=direct)
    answer, _used = _capture(bench, section, workload, place / "state", NODE, name)
    size, seconds = int(answer["sizes"]["criu"]), float(answer["seconds"]["dump"])
    section.phase(f"dump to {name}", seconds, size)
    found = {"dump_gb_per_second": round(size / seconds / 1e9, 3), "plain_gb_per_second": round(plain / 1e9, 3)}
    section.figures[f"dump to {name}"] = {**found, "ratio": round(size / seconds / plain, 3)}
    _back(bench, section, workload, place / "state")
    same = bench.digests(workload) == bench.expected(workload)
    section.check(f"the VRAM digest is the same after a dump to {name}", same)


def _begin(bench: Bench, workload: Workload, place: pathlib.Path, copies: float) -> None:
    """It runs, and the disk has room for so many copies of its memory."""
    bench.start(workload)
    bench.await_ready(workload, 150)
    need, free = int(workload.bytes * copies), shutil.disk_usage(place).free
    if free < need:
        raise StepError(f"{need / GIB:.0f} GiB of disk are needed, {free / GIB:.0f} are free.")


def _capture(
    bench: Bench, section: Section, workload: Workload, place: pathlib.Path, store: str, where: str = ""
) -> tuple[dict[str, Any], int]:
    """(what the module answers, bytes of disk in use at most meanwhile); the container is gone afterwards."""
    arguments = {"container_id": workload.name, "name": workload.checkpoint, "leave": "stopped", "force": True}
    arguments |= {"gpu": "required", "staging_dir": str(place), "store": store}
    with DumpWatch(bench.settings.base, place) as watch:
        answer, _ = bench.plays.module("containerd_checkpoint", arguments, 240)
    if answer["failed"]:
        raise StepError(f"{workload.name} could not be captured: {answer.get('msg')}")
    kept = {key: answer[key] for key in ("seconds", "sizes", "predicted", "huge_pages")}
    section.figures[f"capture {workload.name} {store} {where}".strip()] = {**kept, "criu": watch.result()}
    for name, value in answer["seconds"].items():
        moves = name in ("cuda_suspend", "dump", "upload", "keep", "complete")
        section.phase(f"store: {store} {where}".strip() + f": {name}", float(value), workload.bytes if moves else 0)
    bench.engine.delete(workload.name)
    return answer, watch.used


def _back(bench: Bench, section: Section, workload: Workload, place: pathlib.Path) -> None:
    for module, given in (
        ("containerd_checkpoint_stage", {"checkpoint": workload.checkpoint}),
        ("containerd_restore", {"workloads": [_entry(bench, workload)], "alive_seconds": 0}),
    ):
        with bench.watching(workload):
            answer, _ = bench.plays.module(module, {**given, "staging_dir": str(place)}, 240)
        if answer["failed"]:
            raise StepError(f"{workload.name} could not be restored: {module}: {answer.get('msg')}")
    section.figures[f"restore {workload.name}"] = answer["workloads"][workload.name].get("seconds")


def _entry(bench: Bench, workload: Workload) -> dict[str, Any]:
    return {key: value for key, value in bench.entry(workload).items() if key != "probe"}


def _forget(bench: Bench, workload: Workload, place: pathlib.Path) -> None:
    """The next one begins with an empty disk; the workload runs on, with its CRIU configuration in ``place``."""
    arguments = {"checkpoint": workload.checkpoint, "state": "absent", "keep_captured": False}
    answer, _ = bench.plays.module("containerd_checkpoint_stage", {**arguments, "staging_dir": str(place)}, 60)
    if answer["failed"]:
        raise StepError(f"the checkpoint of {workload.name} could not be removed: {answer.get('msg')}")
    bench.engine.remove_image(workload.checkpoint)
