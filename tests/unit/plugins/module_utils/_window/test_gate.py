# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._window import gate

CARD = {"uuid": "GPU-1", "name": "NVIDIA H100 80GB HBM3"}
BEFORE: dict[str, Any] = {"time": 1000, "driver": "580.159.04", "gpus": [CARD]}


def problems(gpu: bool = True, gpu_map: Any = None, **after: Any) -> list[str]:
    return gate.problems(BEFORE, {**BEFORE, **after}, gpu_map or {}, gpu)


def test_the_same_node_later() -> None:
    assert problems(time=5000) == []


def test_an_update_of_the_driver_is_refused_with_the_true_sentence() -> None:
    (line,) = problems(driver="590.10")
    assert "no checkpoint bridges an update of the driver" in line and "Install 580.159.04 again" in line
    assert "gpuops.restore.migrate" in line
    assert problems(gpu=False, driver="590.10") == []


@pytest.mark.parametrize(
    ("after", "part"),
    [
        ({"driver": "", "gpus": []}, "is not loaded"),
        ({"gpus": []}, "GPU-1 (NVIDIA H100 80GB HBM3) is not there any more; new ones: none"),
        ({"gpus": [{**CARD, "uuid": "GPU-2"}]}, "new ones: GPU-2"),
        ({"time": 900}, "clock is 100 s behind"),
    ],
)
def test_what_is_not_as_it_was(after: dict[str, Any], part: str) -> None:
    assert part in problems(**after)[0]


def test_a_map_leads_to_another_card_of_the_same_chip_only() -> None:
    same, other = {**CARD, "uuid": "GPU-2"}, {"uuid": "GPU-2", "name": "NVIDIA L40S"}
    assert problems(gpu_map={"GPU-1": "GPU-2"}, gpus=[same]) == []
    assert "cannot go there" in problems(gpu_map={"GPU-1": "GPU-2"}, gpus=[other])[0]
