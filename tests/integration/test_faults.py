# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Some of the faults of tests/faults: each kind, at some calls of a capture and of a restore."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import pytest
from gpuops_lab.config import Node

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "faults"))

from gpuops_faults.steps import STEPS  # noqa: E402
from gpuops_faults.strike import FAULTS, FULL, REBOOT, Bench  # noqa: E402


@pytest.fixture(scope="module")
def bench(node: Node) -> Iterator[Bench]:
    yield Bench(node, False, [STEPS["capture"], STEPS["restore"]])


#: FULL needs a node with small disks: test_full_disk.py has such.
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in (FULL, REBOOT)] + [REBOOT])
@pytest.mark.parametrize("step", ["capture", "restore"])
def test_one_more_run_finishes_and_nothing_is_left(bench: Bench, step: str, fault: str) -> None:
    calls = bench.calls[step]
    # Each fault at a call of its own, so that all of them together come to the beginning, the middle and the end.
    number = max(1, len(calls) * (FAULTS.index(fault) + 1) // (len(FAULTS) + 1))
    found = bench.strike(STEPS[step], fault, number, calls[number - 1])
    assert not found.wrong, found


def test_ctr_agrees_that_nothing_is_left(bench: Bench) -> None:
    assert bench.left_in_the_end() == []
