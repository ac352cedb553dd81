# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts ``ddp`` and ``model`` of section ``node``: one job over all cards, in a process for each and in one for all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from gpuops_gpu import programs
from gpuops_gpu.bench import Bench
from gpuops_gpu.programs import NO_P2P, Program
from gpuops_gpu.report import Section
from gpuops_gpu.runner import StepError


def job(cards: int, *, peer_access: bool = False) -> Program:
    """DDP with a rank on each card; over files, or as NCCL likes it, which no driver before 610 brings back."""
    # Of NCCL's files in /dev/shm each pair of neighbours has its own.
    shm_mib = 512 * cards
    return Program(
        "node-p2p" if peer_access else "node-ddp",
        "ddp.py",
        ("--shm-mib", str(shm_mib), "--ranks", str(cards)),
        {} if peer_access else NO_P2P,
        refused="cuda_ipc" if peer_access else "",
        cards=cards,
        times=1,
        shm_mib=shm_mib,
        no_io_uring=True,
    )


def ddp(bench: Bench, section: Section, cards: int, _keep: Callable[[], None]) -> None:
    """Its steps equal those of an undisturbed run to the bit."""
    # Where there is no card, there are few processors.
    program = job(min(cards, 2) if bench.settings.rehearsal else cards)
    if bench.settings.rehearsal:
        # A distribution's PyTorch may be built without libuv, which torchrun asks for.
        arguments, environment = (*program.arguments, "--launcher", "own"), {**program.environment, "USE_LIBUV": "0"}
        program = dataclasses.replace(program, arguments=arguments, environment=environment)
    _carried_out(bench, section, program)


def model(bench: Bench, section: Section, cards: int, _keep: Callable[[], None]) -> None:
    """The same for a model whose layers lie on all cards of one process."""
    _carried_out(bench, section, Program("node-model", "many_cards.py", ("--cards", str(cards)), cards=cards, times=1))


def _carried_out(bench: Bench, section: Section, program: Program) -> None:
    if "torch" not in bench.python:
        raise StepError(f"{bench.python['executable']} has no PyTorch: {bench.python.get('no_torch')}")
    programs.carry_out(bench, section, program)
