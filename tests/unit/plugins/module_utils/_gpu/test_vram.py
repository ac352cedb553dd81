# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much GPU memory a restore will need, and whether the GPUs have it."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RETRYABLE, InputError, NodeError
from ansible_collections.gpuops.restore.plugins.module_utils._gpu.nvml import Gpu, Reading
from ansible_collections.gpuops.restore.plugins.module_utils._gpu.vram import (
    Requirement,
    at_checkpoint,
    require_room,
    requirement,
    sizes,
)
from ansible_collections.gpuops.restore.plugins.module_utils._oci.facts import Facts, GpuFacts, ProcessFacts
from ansible_collections.gpuops.restore.tests.standin import standin

GIB = standin.GIB
GPU, OTHER, GONE = (standin.uuid(number) for number in (0, 1, 9))


def facts(*processes: ProcessFacts) -> Facts:
    return Facts(gpu=GpuFacts(processes=processes), gpu_examined=True)


def free(*sizes: int | None) -> Reading:
    gpus = [Gpu(standin.uuid(index), index, "H1", 80 * GIB, size, True, False) for index, size in enumerate(sizes)]
    return Reading("580", 13000, tuple(gpus))


def short(needed: Requirement, reading: Reading, taken: dict[str, int] | None = None) -> NodeError:
    with pytest.raises(NodeError) as caught:
        require_room("train", needed, taken or {}, reading)
    assert (caught.value.code, caught.value.outcome) == ("vram_short", RETRYABLE)
    assert caught.value.details["workload"] == "train"
    return caught.value


def test_what_the_operator_gives_wins_over_the_record() -> None:
    known = facts(ProcessFacts(3, {"a": 1, "b": 2}), ProcessFacts(4, {"a": 4}))
    assert at_checkpoint({}, known) == {"a": 5, "b": 2}
    assert at_checkpoint({"c": 9}, known) == {"c": 9}
    assert at_checkpoint({}, Facts()) == {}


@pytest.mark.parametrize("wrong", ["12 GiB", None, [1]])
def test_sizes_are_numbers_or_texts_of_numbers(wrong: Any) -> None:
    assert sizes({"GPU-1": "12", "GPU-2": 7}) == {"GPU-1": 12, "GPU-2": 7}
    assert sizes(None) == {}
    with pytest.raises(InputError) as caught:
        sizes({"GPU-1": wrong})
    assert caught.value.code == "vram_invalid"


def test_a_record_wins_over_the_estimate_and_follows_the_map() -> None:
    assert requirement({GPU: 3, OTHER: 4}, Facts(), 99, {GPU: GONE}) == Requirement(7, {GONE: 3, OTHER: 4})
    assert requirement({}, Facts(), 99, {}) == Requirement(99, estimated=True)


def test_a_message_names_the_workload_the_gpu_and_both_sizes() -> None:
    found = short(Requirement(GIB, {GPU: GIB}), free(GIB // 2))
    assert found.message == (
        f"The GPU 0 ({GPU}) has 0.5 GiB of VRAM free, and the checkpoint of train held 1.0 GiB on it."
    )


def test_a_capture_that_found_no_process_needs_nothing() -> None:
    assert requirement({}, Facts(gpu_examined=True), 99, {}) == Requirement()
    assert requirement({}, Facts(kernel="6.1"), 99, {}).estimated, "it did not look"
    assert requirement({}, facts(ProcessFacts(None)), 99, {}).estimated, "NVML did not tell"


def test_each_gpu_has_to_have_its_part() -> None:
    needed = Requirement(12 * GIB, {GPU: 8 * GIB, OTHER: 4 * GIB})
    assert require_room("train", needed, {}, free(8 * GIB, 4 * GIB)) == []
    error = short(needed, free(12 * GIB, 4 * GIB - 1))
    assert (error.details["gpu"], error.details["needed"], error.details["estimated"]) == (OTHER, 4 * GIB, False)
    assert "GPU 1" in error.message
    short(needed, free(12 * GIB, 12 * GIB), {GPU: 4 * GIB + 1})
    assert require_room("train", needed, {GPU: 4 * GIB}, free(12 * GIB, 4 * GIB)) == []


def test_an_estimate_is_for_all_gpus_together() -> None:
    needed = Requirement(12 * GIB, estimated=True)
    assert require_room("train", needed, {}, free(6 * GIB, 6 * GIB)) == []
    error = short(needed, free(6 * GIB, 6 * GIB), {"": 1})
    assert error.details["estimated"] is True
    assert "estimate" in error.message and "vram" in error.remedy
    assert "besides what other workloads" in error.message
    assert "besides" not in short(needed, free(GIB)).message


def test_a_gpu_that_is_not_here_may_be_any_of_those_that_are() -> None:
    needed = Requirement(12 * GIB, {GONE: 12 * GIB})
    assert require_room("train", needed, {}, free(6 * GIB, 6 * GIB)) == []
    assert "held 12.0 GiB" in short(needed, free(6 * GIB, 5 * GIB)).message
    short(Requirement(GIB, {GPU: GIB}), free(12 * GIB), {GONE: 12 * GIB})


@pytest.mark.parametrize(
    ("reading", "gpu", "warnings"),
    [
        (Reading(reason="no NVML"), GPU, ["Whether the GPUs have room was not looked at: no NVML."]),
        (free(None), GPU, [f"The free memory of the GPU {GPU} is not known."]),
        (free(GIB, None), OTHER, [f"The free memory of the GPU {OTHER} is not known."]),
        (free(GIB, None), GONE, [f"The free memory of the GPU {OTHER} is not known."]),
    ],
)
def test_what_is_not_told_is_said_and_not_judged(reading: Reading, gpu: str, warnings: list[str]) -> None:
    assert require_room("train", Requirement(99 * GIB, {gpu: 99 * GIB}), {}, reading) == warnings
    assert require_room("train", Requirement(99 * GIB, estimated=True), {}, reading) == warnings


def test_a_gpu_that_does_not_tell_hides_no_other() -> None:
    needed = Requirement(3 * GIB, {GPU: GIB, OTHER: 2 * GIB})
    assert require_room("train", needed, {}, free(None, 2 * GIB)) == [f"The free memory of the GPU {GPU} is not known."]
    assert short(needed, free(None, GIB)).details["gpu"] == OTHER
    assert require_room("train", Requirement(GIB, {GPU: GIB}), {}, free(GIB, None)) == [], "the other is not needed"
