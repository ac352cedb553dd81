# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs as people run them: each goes on equal to the bit after two captures and restores, or is refused untouched.

A program writes what each of its steps has given. It runs once undisturbed; then it is captured, ended and restored
twice on its way, and the two files are compared byte by byte. One that cannot come back has to be refused before
anything is touched, and to go on.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from gpuops_gpu import gpu
from gpuops_gpu.bench import Bench, Workload
from gpuops_gpu.report import Section
from gpuops_gpu.runner import StepError

STEPS = 120
PAUSE = 0.1


@dataclasses.dataclass(frozen=True)
class Program:
    """One of the section's programs.

    ``refused``: the failure code of its capture, empty for one that goes on. ``capture`` and ``restore``: options that
    it needs there. ``cards``: so many GPUs have to be there.
    """

    name: str
    file: str
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    capture: dict[str, Any] = dataclasses.field(default_factory=dict)
    restore: dict[str, Any] = dataclasses.field(default_factory=dict)
    refused: str = ""
    steps: int = STEPS
    cards: int = 1


PROGRAMS = (
    Program("loader-fork", "loader.py", ("--start-method", "fork")),
    # Their semaphores are deleted files that another name leads to.
    Program("loader-spawn", "loader.py", ("--start-method", "spawn")),
    Program("loader-forkserver", "loader.py", ("--start-method", "forkserver")),
    # Its client is in the container, too, so nobody has to be told of their connection.
    Program("server", "serve.py"),
    Program("generation", "generate.py"),
    Program("managed", "managed.py", refused="cuda_checkpoint_failed"),
    Program("compiled", "compiled.py"),
)


def programs(bench: Bench, section: Section) -> None:
    """All of them, one after another; one that fails does not keep the others from running."""
    if not bench.suspends:
        raise StepError("Captures need a driver, real or stand-in.")
    wanted = [one for one in PROGRAMS if not bench.settings.programs or one.name in bench.settings.programs]
    for program in wanted:
        inner = Section(program.name)
        if program.cards > len(gpu.device_nodes()):
            section.figures[f"{program.name}: not run"] = f"it needs {program.cards} GPUs"
            continue
        try:
            _program(bench, inner, program)
        except StepError as error:
            inner.check("it ran", False, str(error))
        section.add(program.name, inner)


def _program(bench: Bench, section: Section, program: Program) -> None:
    reference = _workload(bench, program, "undisturbed", 0.0)
    subject = _workload(bench, program, "captured", PAUSE)
    try:
        bench.start(reference)
        _await(bench, reference, program.steps + 1, 150)
        expected = _text(reference)
        if not program.refused:
            bench.suspend(Section("end"), reference)
        bench.engine.delete(reference.name)
        bench.start(subject)
        _await(bench, subject, program.steps // 4, 120)
        if program.refused:
            _refused(bench, section, program, subject)
        else:
            for which in (1, 2):
                _there_and_back(bench, section, program, subject, which)
                _await(bench, subject, program.steps * (which + 1) // 4, 60)
        _await(bench, subject, program.steps + 1, 90)
        found = _text(subject)
        section.check(
            "all steps equal those of an undisturbed run, to the bit", found == expected, _differ(found, expected)
        )
    finally:
        bench.take_away(subject)
        bench.take_away(reference)


def _workload(bench: Bench, program: Program, role: str, pause: float) -> Workload:
    """Of a program that is run twice, in a container of its own each time."""
    cpu = ["--cpu"] if bench.settings.rehearsal else []
    arguments = ["--steps", str(program.steps), "--pause", str(pause), *program.arguments, *cpu]
    return bench.workload(
        f"{program.name}-{role}",
        program.file,
        *arguments,
        parts=(),
        probe="beat.log",
        plain_python=True,
        environment=program.environment,
    )


def _there_and_back(bench: Bench, section: Section, program: Program, subject: Workload, which: int) -> None:
    """Captured and stopped, taken away, restored from the image."""
    options = {"container_id": subject.name, "name": subject.checkpoint, "leave": "stopped", "force": True}
    options |= {"gpu": "required", "staging_dir": str(bench.plays.state), **program.capture}
    answer, seconds = bench.plays.module("containerd_checkpoint", options, 150)
    section.figures[f"{subject.name}: capture {which}"] = answer
    if answer["failed"]:
        raise StepError(f"containerd_checkpoint could not capture {subject.name}: {answer.get('msg')}")
    section.phase(f"capture {which}: containerd_checkpoint", seconds)
    for name, value in answer["seconds"].items():
        section.phase(f"capture {which}: {name}", float(value))
    reached = _steps(subject)
    section.check(f"capture {which} was in the middle", 0 < reached < program.steps, f"at step {reached}")
    bench.engine.delete(subject.name)
    bench.check_gpu_free(section, f"after capture {which}")
    inner = Section("restore")
    play = bench.restore(inner, subject, **program.restore)
    section.add(f"restore {which}", inner)
    section.check(f"restore {which} by the playbook", play.changed > 0, f"changed={play.changed} in {play.seconds} s")


def _refused(bench: Bench, section: Section, program: Program, subject: Workload) -> None:
    """Refused before anything is touched: it goes on at once, and is not captured half."""
    options = {"container_id": subject.name, "name": subject.checkpoint, "force": True, "gpu": "required"}
    answer, _seconds = bench.plays.module("containerd_checkpoint", {**options, **program.capture}, 150)
    section.figures[f"{subject.name}: refusal"] = answer
    code = (answer.get("failure") or {}).get("code")
    section.check(f"its capture is refused ({program.refused})", code == program.refused, answer.get("msg"))
    before = _steps(subject)
    bench.await_true(subject, "it goes on", 30, lambda: _steps(subject) > before)


def _text(workload: Workload) -> str:
    return (workload.directory / "steps.txt").read_text(encoding="utf-8")


def _steps(workload: Workload) -> int:
    path = workload.directory / "steps.txt"
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


def _await(bench: Bench, workload: Workload, steps: int, seconds: float) -> None:
    bench.await_true(workload, f"step {steps}", seconds, lambda: _steps(workload) >= steps)


def _differ(found: str, expected: str) -> str:
    """The first line in which two runs differ."""
    for ours, theirs in zip(found.splitlines(), expected.splitlines()):
        if ours != theirs:
            return f"{ours[:200]} / {theirs[:200]}"
    return f"{len(found.splitlines())} and {len(expected.splitlines())} lines"
