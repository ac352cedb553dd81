# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Nodes that a checkpoint is meant for, compared with what the processes have."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import targets
from ansible_collections.gpuops.restore.plugins.module_utils._capture.targets import Target

H100, A100 = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"


def info(*names: str, driver: str | None = "580.159.04") -> dict[str, Any]:
    """One process with memory on a GPU of each name."""
    held = [{"uuid": f"GPU-{number}", "name": name} for number, name in enumerate(names)]
    return {"driver": {"version": driver}, "processes": [{"pid": 41, "gpus": held}]}


def codes(found: dict[str, Any], *wanted: Target) -> list[str]:
    return [problem.code for problem in targets.problems("job", wanted, found)]


def test_a_target_that_has_everything() -> None:
    assert codes(info(H100, H100), Target("b", "580.159.04", (H100, H100, A100))) == []


def test_what_is_not_known_is_not_compared() -> None:
    assert codes(info(H100), Target("b")) == []
    assert codes(info(H100, driver=None), Target("b", "570.1", (H100,))) == []


def test_another_driver() -> None:
    (problem,) = targets.problems("job", [Target("b", "580.126.09", (H100,))], info(H100))
    assert problem.code == "target_driver_differs"
    assert "b has 580.126.09" in problem.message and "Give b the driver 580.159.04" in problem.remedy


@pytest.mark.parametrize("gpus", [(), (A100,), ("NVIDIA H100 PCIe",), ("H10",), (" ",)])
def test_another_chip(gpus: tuple[str, ...]) -> None:
    assert codes(info(H100), Target("b", gpus=gpus)) == ["target_gpu_lacking"]


@pytest.mark.parametrize("words", ["H100", "h100 80GB", " NVIDIA H100 "])
def test_words_of_a_name_will_do(words: str) -> None:
    assert codes(info(H100), Target("b", gpus=(words,))) == []


def test_too_few_of_them() -> None:
    (problem,) = targets.problems("job", [Target("b", gpus=("H100",))], info(H100, H100, A100))
    assert problem.details["lacking"] == {H100: 1, A100: 1}
    assert f"{A100}, {H100} (it has: H100)" in problem.message


def test_all_targets_are_told() -> None:
    assert codes(info(H100), Target("b", "1"), Target("c", gpus=())) == ["target_driver_differs", "target_gpu_lacking"]


def test_without_cuda_any_node_will_do() -> None:
    found = {"driver": {"version": None}, "processes": []}
    assert codes(found, Target("b", "580.1", ())) == []


def test_from_options() -> None:
    options = {"name": "b", "driver": None, "gpus": None}
    assert Target.from_options(options) == Target("b")
    assert Target.from_options({**options, "gpus": []}) == Target("b", gpus=())
