# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import park, park_batch
from ansible_collections.gpuops.restore.plugins.module_utils._capture.park import ParkParams, ParkResult
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError
from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

PARK = "containerd_park"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ParkParams, bool]]:
    """What the steps are asked for; they say that they have done it, but for ``lost``."""
    found: list[tuple[str, ParkParams, bool]] = []

    def step(name: str) -> Any:
        def act(_client: Any, params: ParkParams, check: bool, *_signals: Any) -> ParkResult:
            found.append((name, params, check))
            if params.container_id == "lost":
                raise InputError("container_absent", "There is none.", "Name another.")
            return ParkResult(True, before="RUNNING", after="PARKED", vram={"GPU-1": 7}, warnings=["Mind."])

        return act

    for name in ("parked", "resumed"):
        monkeypatch.setattr(park, name, step(name))
    monkeypatch.setattr(park_batch, "_require_memory", lambda *_given: None)
    return found


def test_one(call: Call, asked: list[tuple[str, ParkParams, bool]]) -> None:
    done = call(PARK, True, container_id="train", gpu="none", force=True)
    assert (done["changed"], done["vram"], done["warnings"]) == (True, {"GPU-1": 7}, ["Mind."])
    assert done["diff"] == {"before": {"state": "RUNNING"}, "after": {"state": "PARKED"}}
    ((name, params, check),) = asked
    assert (name, params.container_id, params.gpu, params.force, check) == ("parked", "train", "none", True, True)
    assert call(PARK, container_id="lost", state="resumed")["failure"]["code"] == "container_absent"
    assert asked[-1][0] == "resumed"


def test_several(call: Call, asked: list[tuple[str, ParkParams, bool]]) -> None:
    done = call(PARK, workloads=["train", "lost", "serve"])
    assert (done["failed"], done["changed"]) == (True, True)
    assert {name: (one["failure"] or {}).get("code") for name, one in done["workloads"].items()} == {
        "train": None,
        "lost": "container_absent",
        "serve": None,
    }
    assert sorted(params.container_id for _name, params, _check in asked) == ["lost", "serve", "train"]


def test_none(call: Call, asked: list[tuple[str, ParkParams, bool]]) -> None:
    done = call(PARK, workloads=[])
    assert (done["changed"], done["workloads"], asked) == (False, {}, [])


def test_what_is_not_there(call: Call, fake: FakeContainerd) -> None:
    for state in ("parked", "resumed"):
        assert call(PARK, container_id="train", state=state)["failure"]["code"] == "container_absent"
