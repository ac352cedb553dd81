# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two GPUs of one host: memory comes back on the other card, and on both side by side."""

from __future__ import annotations

from typing import Any

from gpuops_gpu import gpu
from gpuops_gpu.bench import SLACK, Bench, Workload, phase_seconds
from gpuops_gpu.report import Section
from gpuops_gpu.runner import StepError


def several(bench: Bench, section: Section) -> None:
    """Needs two GPUs of the same kind, and both to itself."""
    cards = gpu.uuids() if bench.suspends else []
    if len(cards) < 2:
        raise StepError(f"This needs two GPUs, and there are {len(cards)}.")
    for run in (_moved, _alone, _side_by_side):
        # Each has phases of the same names.
        inner = Section(section.name)
        try:
            run(bench, inner, cards)
        finally:
            section.add(run.__name__.strip("_").replace("_", " "), inner)


def _moved(bench: Bench, section: Section, cards: list[str]) -> None:
    """A container that used the first card is restored onto the second, by a complete map only."""
    workload = bench.pattern("moved", bench.settings.small)
    try:
        bench.start(workload)
        bench.await_ready(workload)
        before = bench.digests(workload)
        bench.capture(section, workload)
        for what, wrong in _wrong_maps(bench, cards).items():
            play = bench.plays.playbook("restore", {**bench.entry(workload), "gpu_map": wrong}, 60)
            section.figures[f"message for {what}"] = play.message
            refused = not play.ok and play.changed == 0 and "nothing was changed" in play.message
            section.check(f"{what} is refused before anything is touched", refused, play.message)
        base = gpu.used(1)
        # Every card that the processes saw has to be in it, so the cards change places.
        turned = {**{uuid: uuid for uuid in cards}, cards[0]: cards[1], cards[1]: cards[0]}
        play = bench.restore(section, workload, gpu_map=turned)
        section.check("the playbook restores onto the other card", play.changed > 0, f"changed={play.changed}")
        section.check("the VRAM digest is that of before the checkpoint", bench.digests(workload) == before)
        held = gpu.used(1) - base
        section.check("the memory lies on the second card", held >= workload.bytes, f"{held} bytes more than before")
        bench.cleanup(section, workload)
    finally:
        bench.take_away(workload)


def _alone(bench: Bench, section: Section, cards: list[str]) -> None:
    """A container that sees one card of several, and not the first, comes back there."""
    workload = bench.pattern("alone", bench.settings.small)
    count = len(cards)
    workload.cards = (count - 1,)
    try:
        before = [gpu.used(index) for index in range(count)]
        bench.start(workload)
        bench.await_ready(workload)
        digests = bench.digests(workload)
        _lies_on(section, before, workload, "at first")
        bench.capture(section, workload)
        play = bench.restore(section, workload)
        section.check("the playbook restores the one that sees one card", play.changed > 0, f"changed={play.changed}")
        section.check("with the same VRAM digest, too", bench.digests(workload) == digests)
        _lies_on(section, before, workload, "again")
        bench.cleanup(section, workload)
    finally:
        bench.take_away(workload)


def _lies_on(section: Section, before: list[int], workload: Workload, when: str) -> None:
    """All of it on the card that the workload sees, nothing on the others."""
    more = [gpu.used(index) - size for index, size in enumerate(before)]
    seen = workload.cards[0]
    alone = more[seen] >= workload.bytes and all(size < SLACK for index, size in enumerate(more) if index != seen)
    section.check(f"the memory lies on the card that it sees {when}", alone, more)


def _wrong_maps(bench: Bench, cards: list[str]) -> dict[str, dict[str, str]]:
    nowhere = f"GPU-{'0' * 8}-0000-0000-0000-{'0' * 12}"
    wrong = {
        "a map that lacks the card that was used": {cards[1]: cards[0]},
        "a map that lacks a card that was only seen": {cards[0]: cards[1]},
        "a map onto a card that is not there": {cards[0]: nowhere, cards[1]: cards[0]},
        "two cards onto one": dict.fromkeys(cards, cards[0]),
    }
    if bench.world:
        # The stand-in has no device nodes, by which it is known what a container sees.
        del wrong["a map that lacks a card that was only seen"]
    return wrong


def _side_by_side(bench: Bench, section: Section, cards: list[str]) -> None:
    """One container with a process on each card: seconds of each, one after another and at once."""
    count = len(cards)
    workload = bench.pattern("both", bench.settings.part, count, "--spread")
    try:
        bench.start(workload)
        bench.await_ready(workload, 90)
        before = bench.digests(workload)
        pids = [int(one["pid"]) for one in _reach(bench, workload, "checkpointed")["processes"]]
        section.check("there is a process on each card", len(pids) == count, pids)
        alone = [phase_seconds(_reach(bench, workload, "running", pids=[pid]), "restore") for pid in pids]
        section.check("VRAM digests after restores one after another", bench.digests(workload) == before)
        _reach(bench, workload, "checkpointed")
        together = phase_seconds(_reach(bench, workload, "running"), "restore")
        section.check("VRAM digests after restores side by side", bench.digests(workload) == before)
        for number, seconds in enumerate(alone):
            section.phase(f"restore on card {number} alone", seconds, workload.bytes // count)
        section.phase(f"restore on {count} cards one after another", sum(alone), workload.bytes)
        section.phase(f"restore on {count} cards side by side", together, workload.bytes)
        section.figures["speed-up"] = round(sum(alone) / together, 2) if together else None
        bench.capture(section, workload)
        play = bench.restore(section, workload)
        section.check("the playbook restores both", play.changed > 0, f"changed={play.changed}")
        section.check("with the same VRAM digests", bench.digests(workload) == before)
        bench.cleanup(section, workload)
    finally:
        bench.take_away(workload)


def _reach(bench: Bench, workload: Workload, state: str, **target: Any) -> dict[str, Any]:
    answer, _ = bench.cuda(state, **(target or {"container_id": workload.name}))
    if answer["failed"]:
        raise StepError(f"cuda_process could not bring {workload.name} to {state}: {answer.get('msg')}")
    return answer
