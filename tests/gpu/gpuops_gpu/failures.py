# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Failures that need a card: VRAM taken before the restore, VRAM that vanishes during it, a kill while suspended."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from gpuops_gpu import gpu
from gpuops_gpu.bench import Bench, Workload
from gpuops_gpu.plays import Play
from gpuops_gpu.rehearsal import TOTAL
from gpuops_gpu.report import Section
from gpuops_gpu.runner import Done, StepError

ABOUT_MEMORY = re.compile(r"VRAM|GPU memory|OUT_OF_MEMORY|out of memory", re.IGNORECASE)
WORKLOADS = pathlib.Path(__file__).resolve().parent.parent / "workloads"


class Hog:
    """Another program that takes the VRAM, at once or when ``trigger`` is called; it leaves ``leave`` bytes."""

    def __init__(self, bench: Bench, leave: int) -> None:
        self._bench = bench
        self._leave = leave
        self._file = bench.settings.base / "hog-trigger"
        self._file.unlink(missing_ok=True)
        self._process: subprocess.Popen[str] | None = None
        if bench.world is None:
            command = [sys.executable, WORKLOADS / "hog.py", "--leave", leave, "--trigger", self._file]
            self._process = bench.runner.start([str(part) for part in command])
            self._await("waiting", 30)

    @property
    def pids(self) -> list[int]:
        return [self._process.pid] if self._process else []

    def trigger(self) -> None:
        """Take the VRAM now; returns before it is taken."""
        if self._bench.world:
            self._bench.world.others(TOTAL - self._leave)
        self._file.touch()

    def hold(self) -> None:
        """Take the VRAM now, and wait until it is."""
        self.trigger()
        if self._process:
            self._await("holding", 30)

    def end(self) -> None:
        if self._bench.world:
            self._bench.world.others(0)
        if self._process:
            self._bench.runner.end(self._process)
            self._process.communicate()

    def _await(self, word: str, seconds: float) -> None:
        if self._process is None or self._process.stdout is None:
            raise StepError("the program that takes VRAM is not there")
        # It says a line at once, or it has ended, and then there is an end of file.
        line = self._process.stdout.readline()
        self._bench.runner.log.write(f"hog: {line}")
        if not line.startswith(word):
            self._bench.runner.end(self._process)
            raise StepError(f"The program that takes VRAM failed: {line}{self._process.communicate()[1][-800:]}")


def failures(bench: Bench, section: Section) -> None:
    """One small checkpoint, and all that can go wrong with it."""
    if not bench.suspends:
        raise StepError("These cases need a driver, real or stand-in.")
    workload = bench.pattern("failures", bench.settings.small)
    try:
        bench.start(workload)
        bench.await_ready(workload)
        digests = bench.digests(workload)
        bench.capture(section, workload)
        for case in (_refused, _vanished, _poisoned):
            _case(bench, section, functools.partial(case, bench, section, workload), case.__name__)
        bench.restore(section, workload)
        same = bench.digests(workload) == digests
        section.check("after all of them the unharmed checkpoint restores, with the same VRAM digest", same)
        _case(bench, section, functools.partial(_killed, bench, section, workload, digests), "_killed")
        bench.cleanup(section, workload)
    finally:
        bench.take_away(workload)


def _case(bench: Bench, section: Section, run: Callable[[], None], name: str) -> None:
    """A case that breaks off fails its section, and the next one is tried all the same."""
    try:
        run()
    except StepError as error:
        bench.runner.log.write(f"{name}: {error}", show=True)
        section.check(f"case {name.strip('_')} ran to its end", False, error)


@contextlib.contextmanager
def _hogging(bench: Bench, workload: Workload) -> Iterator[Hog]:
    hog = Hog(bench, workload.bytes // 2)
    try:
        yield hog
    finally:
        hog.end()
        bench.runner.await_true("the VRAM is free again", 30, lambda: gpu.used() - bench.base_used < (256 << 20), 0.2)


def says_why(message: str) -> bool:
    """Whether it is about too little memory on the GPU."""
    return bool(ABOUT_MEMORY.search(message)) and bool(re.search(r"free|OUT_OF_MEMORY|out of memory", message))


def _state(bench: Bench) -> dict[str, Any]:
    return {**bench.engine.listing(), "staged": bench.plays.staged()}


def _unchanged(bench: Bench, section: Section, name: str, before: dict[str, Any]) -> None:
    # containerd collects garbage a moment later.
    with contextlib.suppress(StepError):
        bench.runner.await_true("the rollback", 10, lambda: _state(bench) == before, 0.5)
    after = _state(bench)
    different = {kind: [before[kind], after[kind]] for kind in before if before[kind] != after[kind]}
    section.check(name, not different, different)


def _refused(bench: Bench, section: Section, workload: Workload) -> None:
    """The VRAM is taken before the playbook begins."""
    before = _state(bench)
    with _hogging(bench, workload) as hog:
        hog.hold()
        section.figures["free VRAM before the refused restore"] = gpu.free()
        play = bench.plays.playbook("restore", bench.entry(workload), 60)
        section.figures["message of the refusal"] = play.message
        refused = not play.ok and "nothing was changed" in play.message and says_why(play.message)
        section.check("with too little free VRAM the preflight refuses", refused, play.message)
        section.check("the refused run reports no change", play.changed == 0, play.changed)
        _unchanged(bench, section, "the refused run has touched nothing", before)
        bench.check_gpu_free(section, "after the refusal but the one that took the VRAM", hog.pids)


def _vanished(bench: Bench, section: Section, workload: Workload) -> None:
    """The VRAM is taken as soon as the playbook stages, which is after its preflight."""
    _taken(bench, section, workload, "while it stages", lambda name: True)


def _poisoned(bench: Bench, section: Section, workload: Workload) -> None:
    """The VRAM is taken when the container is made: too late for any look at it, so the driver itself fails."""
    play = _taken(bench, section, workload, "in the window", lambda name: name.startswith("work/"))
    said = "poisons" in play.message and "OUT_OF_MEMORY" in play.message
    section.check("the message tells of the poisoned process", said, play.message)


def _taken(bench: Bench, section: Section, workload: Workload, when: str, is_sign: Callable[[str], bool]) -> Play:
    before = _state(bench)
    with _hogging(bench, workload) as hog, bench.watching(workload):
        play = _play_with(bench, workload, hog, is_sign)
        section.figures[f"message when VRAM vanished {when}"] = play.message
        section.check(f"VRAM that vanishes {when} fails the restore", not play.ok, f"changed={play.changed}")
        begun = "nothing was changed" not in play.message
        section.check(f"its preflight passed, for the VRAM was free then ({when})", begun, play.message)
        section.check(f"its outcome is terminal ({when})", "terminal" in play.message, play.message)
        section.check(f"the message says why ({when})", says_why(play.message), play.message)
        _unchanged(bench, section, f"the rollback is complete ({when})", before)
        bench.check_gpu_free(section, f"but the one that took the VRAM after the rollback ({when})", hog.pids)
    return play


def _play_with(bench: Bench, workload: Workload, hog: Hog, is_sign: Callable[[str], bool]) -> Play:
    """Run the playbook; the hog takes the VRAM when a file that is a sign for it appears in the state directory."""
    before = set(bench.plays.staged())
    begun = time.monotonic()
    end = begun + bench.runner.limit(100)
    process = bench.plays.start("restore", bench.entry(workload))
    try:
        while process.poll() is None and not any(map(is_sign, set(bench.plays.staged()) - before)):
            if time.monotonic() > end:
                raise StepError("The playbook staged nothing in time.")
            time.sleep(0.02)
        hog.hold()
        bench.runner.log.write(f"the VRAM was taken {time.monotonic() - begun:.2f} s after the playbook's begin")
        output, errors = process.communicate(timeout=max(1.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise StepError("The playbook did not end in time.") from None
    finally:
        if process.poll() is None:
            bench.runner.end(process)
            process.communicate()
    bench.runner.log.write(output + errors)
    return bench.plays.result(Done(process.returncode, output, errors, round(time.monotonic() - begun, 3)))


def _killed(bench: Bench, section: Section, workload: Workload, digests: list[str]) -> None:
    """A live restored container is suspended, and its process is killed."""
    bench.suspend(Section("killed"), workload)
    for pid in bench.engine.pids(workload.name):
        os.kill(pid, signal.SIGKILL)
    bench.runner.await_true("the processes end", 20, lambda: not bench.engine.pids(workload.name), 0.2)
    bench.check_gpu_free(section, "after a kill while suspended")
    answer, seconds = bench.cuda("running", container_id=workload.name)
    section.figures["cuda_process after the kill"] = answer
    nothing = not answer.get("changed") and not answer.get("processes")
    section.check("cuda_process neither hangs on the killed one nor claims to have restored it", nothing, answer)
    section.phase("cuda_process on a killed one", seconds)
    # The playbook makes it anew from its checkpoint.
    play = bench.restore(section, workload)
    section.check("the playbook restores the killed one anew", play.changed > 0, f"changed={play.changed}")
    section.check("with the same VRAM digest", bench.digests(workload) == digests)
