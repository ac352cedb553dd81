# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much GPU memory a restore will need, and whether the GPUs have it."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RETRYABLE, NodeError
from ansible_collections.gpuops.restore.plugins.module_utils._gpu.nvml import Gpu, Reading
from ansible_collections.gpuops.restore.plugins.module_utils._gpu.vram import (
    Need,
    held,
    need,
    processes,
    require,
    visible,
)
from ansible_collections.gpuops.restore.tests.standin import standin

GIB = standin.GIB
GPU, OTHER, GONE = (standin.uuid(number) for number in (0, 1, 9))


def facts(*found: Any) -> dict[str, Any]:
    return {"version": 1, "gpu": {"processes": list(found)}}


def test_gpus_that_the_processes_could_see() -> None:
    assert visible({"gpu": {"visible": ["GPU-a", "GPU-b"]}}) == ("GPU-a", "GPU-b")
    for strange in ({}, {"gpu": None}, {"gpu": {"visible": "GPU-a"}}, {"gpu": {"visible": [1]}}):
        assert visible(strange) == ()


def recorded(**sizes: int) -> dict[str, Any]:
    return {"bytes": sum(sizes.values()), "gpus": sizes}


def free(*sizes: int | None) -> Reading:
    gpus = [Gpu(standin.uuid(index), index, "H1", 80 * GIB, size, True, False) for index, size in enumerate(sizes)]
    return Reading("580", 13000, tuple(gpus))


def short(needed: Need, reading: Reading, taken: dict[str, int] | None = None) -> NodeError:
    with pytest.raises(NodeError) as caught:
        require("train", needed, taken or {}, reading)
    assert (caught.value.code, caught.value.outcome) == ("vram_short", RETRYABLE)
    assert caught.value.details["workload"] == "train"
    return caught.value


def test_what_processes_held_is_added() -> None:
    known = facts(recorded(a=1, b=2), recorded(a=4))
    assert held({}, known) == {"a": 5, "b": 2}
    assert held({"c": 9}, known) == {"c": 9}, "what the operator gives wins"


@pytest.mark.parametrize(
    "strange",
    [
        {},
        {"gpu": None},
        {"gpu": []},
        {"gpu": {}},
        {"gpu": {"processes": 7}},
        {"gpu": {"processes": "all"}},
        facts(7),
        facts({"gpus": [1]}),
        facts({"gpus": "all"}),
        facts({"gpus": {"a": "much", "b": -1, "c": None}}),
    ],
)
def test_records_are_read_with_care(strange: dict[str, Any]) -> None:
    assert held({}, strange) == {}
    assert all(isinstance(process, dict) for process in processes(strange))


def test_a_record_wins_over_the_estimate_and_follows_the_map() -> None:
    assert need({GPU: 3, OTHER: 4}, {}, 99, {GPU: GONE}) == Need(7, {GONE: 3, OTHER: 4})
    assert need({}, {}, 99, {}) == Need(99, estimated=True)


def test_a_capture_that_found_no_process_needs_nothing() -> None:
    assert need({}, {"version": 1, "gpu": None}, 99, {}) == Need()
    assert need({}, {"version": 1}, 99, {}).estimated, "it did not look"
    assert need({}, facts({"bytes": None, "gpus": {}}), 99, {}).estimated, "NVML did not tell"


def test_each_gpu_has_to_have_its_part() -> None:
    needed = Need(12 * GIB, {GPU: 8 * GIB, OTHER: 4 * GIB})
    require("train", needed, {}, free(8 * GIB, 4 * GIB))
    error = short(needed, free(12 * GIB, 4 * GIB - 1))
    assert (error.details["gpu"], error.details["needed"], error.details["estimated"]) == (OTHER, 4 * GIB, False)
    assert "GPU 1" in error.message
    short(needed, free(12 * GIB, 12 * GIB), {GPU: 4 * GIB + 1})
    require("train", needed, {GPU: 4 * GIB}, free(12 * GIB, 4 * GIB))


def test_an_estimate_is_for_all_gpus_together() -> None:
    needed = Need(12 * GIB, estimated=True)
    require("train", needed, {}, free(6 * GIB, 6 * GIB))
    error = short(needed, free(6 * GIB, 6 * GIB), {"": 1})
    assert error.details["estimated"] is True
    assert "estimate" in error.message and "vram" in error.remedy
    assert "besides what other workloads" in error.message
    assert "besides" not in short(needed, free(GIB)).message


def test_a_gpu_that_is_not_here_may_be_any_of_those_that_are() -> None:
    needed = Need(12 * GIB, {GONE: 12 * GIB})
    require("train", needed, {}, free(6 * GIB, 6 * GIB))
    assert "held 12.0 GiB" in short(needed, free(6 * GIB, 5 * GIB)).message
    short(Need(GIB, {GPU: GIB}), free(12 * GIB), {GONE: 12 * GIB})


@pytest.mark.parametrize("reading", [Reading(reason="no NVML"), free(None), free(GIB, None)])
def test_what_is_not_told_is_not_judged(reading: Reading) -> None:
    require("train", Need(99 * GIB, estimated=True), {}, reading)
    require("train", Need(99 * GIB, {OTHER: 99 * GIB}), {}, reading)
