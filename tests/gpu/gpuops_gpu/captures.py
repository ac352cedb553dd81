# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Captures of a live CUDA workload through the playbook: it goes on, twice; and after a dump that fails."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from gpuops_gpu.bench import Bench, Workload
from gpuops_gpu.plays import Play
from gpuops_gpu.report import Section
from gpuops_gpu.runner import StepError

# Has the kernel know a tracer of the process, as a debugger is one. CRIU cannot be another; nothing is stopped by it.
TRACER = (
    "import ctypes, os, sys\n"
    "libc = ctypes.CDLL(None, use_errno=True)\n"
    "if libc.ptrace(0x4206, int(sys.argv[1]), None, None):\n"
    "    sys.exit(os.strerror(ctypes.get_errno()))\n"
    "print('traced', flush=True)\n"
    "sys.stdin.read()\n"
)


def capture(bench: Bench, section: Section) -> None:
    """Captured twice while it runs, then a capture that fails, then restored from the second."""
    if not bench.suspends:
        raise StepError("Captures need a driver, real or stand-in.")
    workload = bench.pattern("capture", bench.settings.small)
    try:
        bench.start(workload)
        bench.await_ready(workload)
        before = bench.digests(workload)
        for which in ("first", "second"):
            play = _capture(bench, workload)
            if not play.ok:
                raise StepError(f"the {which} capture failed: {play.message}")
            section.phase(f"{which} capture: the whole playbook", play.seconds, workload.bytes)
            _goes_on(bench, section, workload, before, f"the {which} capture")
        with traced(bench.engine.pids(workload.name)[0]):
            play = _capture(bench, workload)
        section.check("a traced process is refused", not play.ok and "traced" in play.message, play.message)
        _goes_on(bench, section, workload, before, "the refusal")
        # Nothing that a preflight could see: an option that CRIU does not know.
        play = _capture(bench, workload, criu={"extra": ["unknown-option"]})
        section.figures["message of the dump that failed"] = play.message
        section.check("a dump that fails is reported", not play.ok and "CRIU" in play.message, play.message)
        _goes_on(bench, section, workload, before, "the dump that failed")
        _restored(bench, section, workload, before)
    finally:
        bench.take_away(workload)


def _capture(bench: Bench, workload: Workload, **more: Any) -> Play:
    entry = {"name": workload.name, "checkpoint": workload.checkpoint, "gpu": "required", "force": True, **more}
    return bench.plays.playbook("checkpoint", bench.entry(workload), 90, checkpoint_node_workloads=[entry])


def _goes_on(bench: Bench, section: Section, workload: Workload, before: list[str], after: str) -> None:
    counted = bench.count(workload)
    section.check(f"the VRAM digest is the same after {after}", bench.digests(workload) == before)
    going = bench.count(workload)
    section.check(f"the workload counts on after {after}", all(now > then for now, then in zip(going, counted)))


def _restored(bench: Bench, section: Section, workload: Workload, before: list[str]) -> None:
    """The second checkpoint is a whole one. A live CUDA process is suspended before it is ended."""
    bench.suspend(Section("end"), workload)
    bench.engine.delete(workload.name)
    play = bench.restore(section, workload)
    section.check("the playbook restores", play.changed > 0, f"changed={play.changed} in {play.seconds} s")
    section.check("with the same VRAM digest", bench.digests(workload) == before)
    recorded = section.figures[f"receipt {workload.name}"].get("gpu") or {}
    section.check("the receipt tells of the GPU", bool(recorded.get("processes")), recorded)
    bench.cleanup(section, workload)


@contextlib.contextmanager
def traced(pid: int) -> Iterator[None]:
    command = [sys.executable, "-c", TRACER, str(pid)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as tracer:
        try:
            if tracer.stdout is None or tracer.stdout.readline() != "traced\n":
                raise StepError(f"Process {pid} cannot be traced.")
            yield
        finally:
            if tracer.stdin:
                tracer.stdin.close()
            tracer.wait(10)
