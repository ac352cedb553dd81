# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the memory's part of a window depends on: who writes it, how its files got into the page cache, which pages.

Nothing is judged. The GPU memory stays in the restored process's host memory, which is what CRIU has to restore.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from gpuops_gpu import criu_time
from gpuops_gpu.bench import Bench, Workload
from gpuops_gpu.report import Section
from gpuops_gpu.runner import StepError
from gpuops_gpu.window import prepare

PIECE = 8 << 20


def ways(bench: Bench, section: Section) -> None:
    """One workload, captured once and restored in each way."""
    if not bench.suspends:
        raise StepError("This needs a driver, real or stand-in.")
    workload = bench.pattern("ways", bench.settings.gib)
    try:
        bench.start(workload)
        bench.await_ready(workload, 90)
        prepare(bench, section, workload)
        (images,) = (path for path in bench.plays.state.rglob("images") if path.is_dir())
        for name, kind in (
            ("small pages", "keep"),
            ("huge pages of its own", "auto"),
            ("the node's switched", "always"),
        ):
            beside = {"parallel_memory": "always", "huge_pages": kind}
            _restore(bench, section, workload, f"beside CRIU, {name}", contextlib.nullcontext(), **beside)
        never = {"prewarm": "never"}
        _restore(bench, section, workload, "as the dump left them", contextlib.nullcontext())
        _restore(bench, section, workload, "by prewarm", _read_by(images, None))
        _restore(bench, section, workload, "by plain reads", _read_by(images, _plain), **never)
        _restore(bench, section, workload, "by readahead", _read_by(images, _by_readahead), **never)
        _restore(bench, section, workload, "on a tmpfs of huge pages", _on_tmpfs(bench, images), **never)
        small = {**never, "huge_pages": "keep"}
        _restore(bench, section, workload, "by plain reads, small pages", _read_by(images, _plain), **small)
    finally:
        bench.take_away(workload)


def _restore(
    bench: Bench,
    section: Section,
    workload: Workload,
    name: str,
    ready: contextlib.AbstractContextManager[None],
    **options: str,
) -> None:
    entry = {**bench.entry(workload), "gpu": "none"}
    del entry["probe"]
    arguments = {
        "workloads": [entry],
        "staging_dir": str(bench.plays.state),
        "alive_seconds": 0,
        "parallel_memory": "never",
        **options,
    }
    with ready:
        answer, _ = bench.plays.module("containerd_restore", arguments, 120)
        try:
            if answer["failed"]:
                raise StepError(f"{workload.name} could not be restored: {answer.get('msg')}")
            receipt = bench.plays.receipt(workload.name)
            bench.check_as_it_was(section, workload, receipt)
            section.phase(f"{name}: start", float(receipt["seconds"]["start"]), workload.bytes)
            section.figures[name] = {
                **{key: receipt.get(key) for key in ("seconds", "huge_pages", "prewarm", "parallel_memory")},
                "criu": criu_time.longest(bench.plays.state / "work"),
                "pages": _pages(max(bench.engine.pids(workload.name))),
            }
        finally:
            # Its processes hold nothing on the GPU.
            bench.engine.delete(workload.name)
            for directory in ("work", "receipts"):
                shutil.rmtree(bench.plays.state / directory, ignore_errors=True)


def _pages(pid: int) -> dict[str, Any]:
    """KiB that the process holds, how much of it in huge pages, and its largest areas with the same two figures."""
    areas: list[dict[str, Any]] = []
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            areas.append({"area": " ".join([words[0], words[1], *words[5:]]), "rss": 0, "huge": 0})
        elif words[0] in ("Rss:", "AnonHugePages:"):
            areas[-1]["rss" if words[0] == "Rss:" else "huge"] = int(words[1])
    areas.sort(key=lambda area: -int(area["rss"]))
    total = {name: sum(int(area[name]) for area in areas) for name in ("rss", "huge")}
    return {**total, "areas": len(areas), "largest": areas[:8]}


@contextlib.contextmanager
def _read_by(images: pathlib.Path, read: Callable[[pathlib.Path], None] | None) -> Iterator[None]:
    """The files left the page cache, and came back by ``read``."""
    for path in images.iterdir():
        with path.open("rb") as stream:
            # What has not been written yet cannot be dropped.
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if read and path.stat().st_size:
            read(path)
    yield


def _plain(path: pathlib.Path) -> None:
    with path.open("rb", buffering=0) as stream:
        while stream.read(PIECE):
            pass


def _by_readahead(path: pathlib.Path) -> None:
    """The kernel reads ahead into single pages, not into large folios as :mod:`_host.page_cache` has it."""
    with path.open("rb", buffering=0) as stream:
        offset = 0
        while data := stream.read(PIECE):
            offset += len(data)
            os.posix_fadvise(stream.fileno(), offset, 2 * PIECE, os.POSIX_FADV_WILLNEED)


@contextlib.contextmanager
def _on_tmpfs(bench: Bench, images: pathlib.Path) -> Iterator[None]:
    """The files lie in memory, in huge pages, at the same place."""
    place = bench.settings.base / "ways"
    place.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        bench.runner.run(["mount", "-t", "tmpfs", "-o", "mode=700,huge=always,size=80%", "tmpfs", str(place)], 10)
        stack.callback(bench.runner.run, ["umount", str(place)], 20)
        bench.runner.run(["cp", "-a", f"{images}/.", str(place)], 120)
        bench.runner.run(["mount", "--bind", str(place), str(images)], 10)
        stack.callback(bench.runner.run, ["umount", str(images)], 20)
        yield
