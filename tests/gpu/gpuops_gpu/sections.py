# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workloads that go through the whole chain: VRAM with a pattern, a training, four processes in one container."""

from __future__ import annotations

from typing import Any

from gpuops_gpu.bench import Bench, Workload, phase_seconds
from gpuops_gpu.report import Section
from gpuops_gpu.runner import StepError

# Sequential calls and calls side by side are compared; side by side has to take at most this part of the time.
RATIO = 0.5
TRAIN_PAUSE = 0.1


def pattern(bench: Bench, section: Section) -> None:
    """VRAM with a known pattern, and a count that goes on: through the playbook twice, then cleaned up."""
    workload = bench.pattern("pattern", bench.settings.gib)
    try:
        _through_the_playbook(bench, section, workload)
    finally:
        bench.take_away(workload)


def _through_the_playbook(bench: Bench, section: Section, workload: Workload) -> None:
    bench.start(workload)
    bench.await_ready(workload)
    before = bench.digests(workload)
    section.check("the VRAM holds the pattern", before == bench.expected(workload), before)
    # Of a workload with several processes ours, or the time would not suffice.
    bench.capture(section, workload, by_ctr=len(workload.parts) == 1)
    counted = bench.count(workload)
    bench.check_gpu_free(section, "between checkpoint and restore")
    play = bench.restore(section, workload)
    section.check("the playbook restores", play.changed > 0, f"changed={play.changed} in {play.seconds} s")
    after = bench.digests(workload)
    section.check("the VRAM digest is that of before the checkpoint", after == before, f"{before} {after}")
    going = bench.count(workload)
    goes_on = all(now > then for now, then in zip(going, counted))
    section.check("the count goes on", goes_on, f"{counted} at the checkpoint, {going} now")
    restart = [_begins_again(bench, workload, part) for part in workload.parts]
    section.check("no process began anew", not any(restart))
    _again(bench, section, workload)
    if bench.suspends:
        answer, _ = bench.cuda("running", container_id=workload.name)
        unchanged = not answer["failed"] and not answer.get("changed")
        section.check("cuda_process leaves a live one alone", unchanged, answer.get("msg", answer.get("changed")))
    section.check("the VRAM digest is still the same", bench.digests(workload) == before)
    bench.cleanup(section, workload)


def _begins_again(bench: Bench, workload: Workload, part: str) -> bool:
    """A process that was started instead of restored would count from 1 once more."""
    return (workload.part(part) / "count.log").read_text().split().count("1") > 1


def _again(bench: Bench, section: Section, workload: Workload) -> None:
    play = bench.plays.playbook("restore", bench.entry(workload), 90)
    section.phase("restore: the same playbook again", play.seconds)
    detail = f"changed={play.changed} {play.message}"
    section.check("the second run of the playbook changes nothing", play.ok and play.changed == 0, detail)


def training(bench: Bench, section: Section) -> None:
    """A PyTorch training, suspended half-way, against one that nobody disturbs."""
    if "torch" not in bench.python:
        raise StepError(f"{bench.python['executable']} has no PyTorch: {bench.python.get('no_torch')}")
    steps = bench.settings.steps
    cpu = ["--cpu"] if bench.settings.rehearsal else []
    shared: dict[str, Any] = {"parts": (), "probe": "beat.log", "plain_python": True}
    reference = bench.workload("reference", "train.py", "--steps", str(steps), *cpu, **shared)
    subject = bench.workload("training", "train.py", "--steps", str(steps), "--pause", str(TRAIN_PAUSE), *cpu, **shared)
    try:
        bench.start(reference)
        bench.start(subject)
        _await_steps(bench, subject, steps // 3)
        bench.await_ready(subject)
        reached = _steps(subject)
        bench.capture(section, subject)
        suspended_at = _steps(subject)
        inside = reached <= suspended_at < steps
        section.check("it was suspended in the middle", inside, f"at step {suspended_at} of {steps}")
        _await_steps(bench, reference, steps + 1)
        bench.engine.delete(reference.name)
        play = bench.restore(section, subject)
        section.check("the playbook restores", play.changed > 0, f"changed={play.changed} in {play.seconds} s")
        _again(bench, section, subject)
        _await_steps(bench, subject, steps + 1)
        ours, theirs = _losses(bench, subject), _losses(bench, reference)
        last = ours.decode().splitlines()[-2:]
        section.check("the losses equal those of an uninterrupted run, to the byte", ours == theirs, last)
        bench.cleanup(section, subject)
    finally:
        bench.take_away(subject)
        bench.engine.delete(reference.name)


def _steps(workload: Workload) -> int:
    """Lines in the file of losses; the last, of the parameters, counts as one."""
    path = workload.directory / "losses.txt"
    return len(set(path.read_text().splitlines())) if path.exists() else 0


def _losses(bench: Bench, workload: Workload) -> bytes:
    """The file as it is. In a rehearsal nothing is suspended, and what came after the dump comes once more."""
    content = (workload.directory / "losses.txt").read_bytes()
    return b"\n".join(dict.fromkeys(content.splitlines())) if bench.settings.rehearsal else content


def _await_steps(bench: Bench, workload: Workload, steps: int) -> None:
    bench.await_true(workload, f"step {steps}", 120, lambda: _steps(workload) >= steps)


def four(bench: Bench, section: Section) -> None:
    """Four processes in one container: timed one after another and side by side, then through the playbook."""
    if bench.suspends:
        timed = bench.pattern("four-timed", bench.settings.part, 4)
        try:
            _timed(bench, section, timed)
        finally:
            bench.take_away(timed)
    whole = bench.pattern("four", bench.settings.full_part, 4)
    try:
        # The phases of the timed ones have the same names.
        inner = Section("four")
        try:
            _through_the_playbook(bench, inner, whole)
        finally:
            section.add("playbook", inner)
    finally:
        bench.take_away(whole)


def _timed(bench: Bench, section: Section, workload: Workload) -> None:
    bench.start(workload)
    bench.await_ready(workload, 90)
    before = bench.digests(workload)
    answer, _ = _moved(bench, "checkpointed", container_id=workload.name)
    pids = [int(one["pid"]) for one in answer["processes"]]
    section.check("four CUDA processes are found in the container", len(pids) == 4, pids)
    side_by_side = {"checkpoint": phase_seconds(answer, "checkpoint")}
    one_by_one = {"restore": sum(_one(bench, "running", pid, "restore") for pid in pids)}
    section.check("VRAM digests after restores one after another", bench.digests(workload) == before)
    one_by_one["checkpoint"] = sum(_one(bench, "checkpointed", pid, "checkpoint") for pid in pids)
    answer, _ = _moved(bench, "running", container_id=workload.name)
    side_by_side["restore"] = phase_seconds(answer, "restore")
    section.check("VRAM digests after a restore side by side", bench.digests(workload) == before)
    for call in ("checkpoint", "restore"):
        section.phase(f"{call}, 4 processes one after another", one_by_one[call], workload.bytes)
        section.phase(f"{call}, 4 processes side by side", side_by_side[call], workload.bytes)
    ratio = side_by_side["restore"] / one_by_one["restore"] if one_by_one["restore"] else 1.0
    section.figures["restore ratio"] = round(ratio, 3)
    # The stand-in moves no memory.
    if not bench.settings.rehearsal:
        wanted = f"at most {RATIO} of the time of one after another"
        section.check(f"side by side they are restored in {wanted}", ratio <= RATIO, f"{ratio:.3f}")


def _moved(bench: Bench, state: str, **target: Any) -> tuple[dict[str, Any], float]:
    answer, seconds = bench.cuda(state, **target)
    if answer["failed"]:
        raise StepError(f"cuda_process could not bring {target} to {state}: {answer.get('msg')}")
    return answer, seconds


def _one(bench: Bench, state: str, pid: int, call: str) -> float:
    return phase_seconds(_moved(bench, state, pids=[pid])[0], call)
