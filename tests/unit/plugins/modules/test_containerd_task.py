# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from typing import Any

import pytest

from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import CHECKPOINT_NAME
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

TASK = "containerd_task"


@pytest.fixture
def ready(call: Call, node: Node) -> dict[str, Any]:
    """What names a container that lacks only its task."""
    call("containerd_checkpoint_stage", checkpoint=CHECKPOINT_NAME, staging_dir=node.root)
    options = {"container_id": "train", "staging_dir": node.root}
    call("containerd_container", checkpoint=CHECKPOINT_NAME, **options)
    return {**options, "gpu": "none"}


def test_started_stopped_and_removed(call: Call, fake: FakeContainerd, ready: dict[str, Any], node: Node) -> None:
    output = os.path.join(node.root, "out.log")
    start = {**ready, "checkpoint": CHECKPOINT_NAME, "alive_seconds": 0.0, "stdout": output}
    predicted = call(TASK, True, **start)
    assert fake.state.tasks == {}
    done = call(TASK, **start)
    assert (predicted["changed"], predicted["actions"], predicted["diff"]) == (True, done["actions"], done["diff"])
    assert (done["created"], done["task"]["status"], done["output_created"]) == (True, "RUNNING", [output])
    assert fake.state.tasks["train"].request.stdout == f"file://{output}"
    assert call(TASK, **start)["changed"] is False
    stopped = call(TASK, state="stopped", grace_seconds=0, **ready)
    assert (stopped["changed"], stopped["task"]["status"], "seconds" in stopped) == (True, "STOPPED", False)
    gone = call(TASK, state="absent", **ready)
    assert (gone["changed"], gone["task"], fake.state.tasks) == (True, {}, {})
    dirty = call(TASK, **start)
    assert (dirty["failed"], dirty["failure"]["outcome"]) == (True, "terminal")


def test_another_owners_takes_force(call: Call, fake: FakeContainerd, ready: dict[str, Any]) -> None:
    theirs = {**ready, "owner": "me", "checkpoint": CHECKPOINT_NAME, "alive_seconds": 0.0}
    assert call(TASK, **theirs)["failure"]["code"] == "container_not_ours"
    assert fake.state.tasks == {}
    assert call(TASK, force=True, **theirs)["task"]["status"] == "RUNNING"


def test_a_container_to_come_is_taken_for_granted_if_told_so(call: Call, node: Node) -> None:
    options = {"container_id": "train", "checkpoint": CHECKPOINT_NAME, "staging_dir": node.root}
    assert call(TASK, True, **options)["failure"]["code"] == "container_absent"
    assert call(TASK, True, assume_prepared=True, **options)["changed"] is True
