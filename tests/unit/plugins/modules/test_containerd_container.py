# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
from typing import Any

from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import BASE_NAME, CHECKPOINT_NAME
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

CONTAINER = "containerd_container"


def test_made_with_what_is_asked_for_and_removed(call: Call, fake: FakeContainerd, node: Node) -> None:
    options: dict[str, Any] = {
        "container_id": "train",
        "checkpoint": CHECKPOINT_NAME,
        "staging_dir": node.root,
        "snapshot_id": "mine",
        "env": {"SECRET": "hunter2", "PORT": 1},
        "cgroups_path": "/mine",
        "criu": {"tcp": "close", "extra": ["ghost-limit 8M"]},
        "owner": "me",
    }
    predicted = call(CONTAINER, True, **options)
    assert fake.state.containers == {}
    done = call(CONTAINER, **options)
    assert (predicted["changed"], predicted["actions"], predicted["diff"]) == (True, done["actions"], done["diff"])
    assert (done["container"]["id"], done["container"]["snapshot_key"]) == ("train", "mine")
    assert (done["container"]["image"], done["created"]) == (BASE_NAME, True)
    assert "hunter2" not in json.dumps(done)
    spec = json.loads(fake.state.containers["train"].spec.value)
    assert spec["linux"]["cgroupsPath"] == "/mine"
    assert {"SECRET=hunter2", "PORT=1"} <= set(spec["process"]["env"])
    assert fake.state.containers["train"].labels["io.gpuops.restore/owner"] == "me"
    with open(os.path.join(node.root, "work", "tests", "train", "criu.conf"), encoding="utf-8") as stream:
        written = stream.read()
    assert "tcp-close" in written and "ghost-limit=8M" in written
    again = call(CONTAINER, **options)
    assert (again["changed"], again["created"], again["diff"]) == (False, False, {})
    assert call(CONTAINER, container_id="train", state="absent")["failure"]["code"] == "container_not_ours"
    gone = call(CONTAINER, container_id="train", state="absent", owner="me", staging_dir=node.root)
    assert (gone["changed"], gone["diff"]) == (
        True,
        {"before": {"container": "present"}, "after": {"container": "absent"}},
    )
    assert fake.state.containers == {}


def test_what_stands_in_the_way_is_the_failure(call: Call, node: Node) -> None:
    options = {"container_id": "train", "staging_dir": node.root}
    assert call(CONTAINER, checkpoint="example.test/none:1", **options)["failure"]["code"] == "checkpoint_absent"
    foreign = call(CONTAINER, checkpoint=CHECKPOINT_NAME, criu={"extra": ["action-script /x"]}, **options)
    assert foreign["failure"]["outcome"] == "terminal"
    assert call(CONTAINER, True, checkpoint="example.test/none:1", assume_prepared=True, **options)["changed"] is True
