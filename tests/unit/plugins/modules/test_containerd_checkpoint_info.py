# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import BASE_NAME, CHECKPOINT_NAME

INFO = "containerd_checkpoint_info"


def test_what_it_holds_and_what_is_there(call: Call, node: Node) -> None:
    found = call(INFO, checkpoint=CHECKPOINT_NAME, staging_dir=node.root)
    assert (found["changed"], found["problems"]) == (False, [])
    assert found["checkpoint"]["digest"] == node.checkpoint.digest
    assert found["checkpoint"]["base_image"]["name"] == BASE_NAME
    named = call(INFO, checkpoint=CHECKPOINT_NAME, staging_dir=node.root, container_id="train")
    assert named["status"] == {"staged": False, "container": False, "task": "absent"}


def test_problems_do_not_fail_it(call: Call, node: Node) -> None:
    def codes(**options: Any) -> list[str]:
        found = call(INFO, staging_dir=node.root, container_id="train", **options)
        assert "failed" not in found
        return [problem["code"] for problem in found["problems"]]

    assert codes(checkpoint="example.test/none:1") == ["checkpoint_absent"]
    assert codes(checkpoint=CHECKPOINT_NAME, metadata_content="{") == ["metadata_not_json"]
    assert codes(checkpoint=CHECKPOINT_NAME, stdout="relative") == ["stdio_invalid"]
    assert codes(checkpoint=CHECKPOINT_NAME, snapshotter="zfs") == ["snapshotter_unknown"]


def test_what_is_there_of_others_is_told(call: Call, node: Node) -> None:
    options = {"checkpoint": CHECKPOINT_NAME, "staging_dir": node.root, "container_id": "train"}
    call("containerd_container", owner="me", **options)
    found = call(INFO, **options)
    assert (found["status"]["container"], [problem["code"] for problem in found["problems"]]) == (
        True,
        ["container_not_ours"],
    )
    assert call(INFO, force=True, **options)["problems"] == call(INFO, owner="me", **options)["problems"] == []


def test_all_workloads_of_a_node_are_asked_for_in_one_call(call: Call, node: Node) -> None:
    there = {"container_id": "train", "checkpoint": CHECKPOINT_NAME}
    absent = {"container_id": "serve", "checkpoint": "example.test/none:1"}
    elsewhere = {"container_id": "log", "checkpoint": CHECKPOINT_NAME, "snapshotter": "zfs"}
    found = call(INFO, staging_dir=node.root, workloads=[there, absent, elsewhere])
    assert found["changed"] is False and list(found["workloads"]) == ["train", "serve", "log"]
    alone = call(INFO, staging_dir=node.root, **there)
    assert found["workloads"]["train"] == {key: alone[key] for key in ("checkpoint", "problems", "status")}
    codes = {name: [one["code"] for one in told["problems"]] for name, told in found["workloads"].items()}
    assert codes == {"train": [], "serve": ["checkpoint_absent"], "log": ["snapshotter_unknown"]}


def test_a_workload_that_is_named_twice_is_refused(call: Call, node: Node) -> None:
    there = {"container_id": "train", "checkpoint": CHECKPOINT_NAME}
    assert call(INFO, staging_dir=node.root, workloads=[there, there])["failure"]["code"] == "workload_twice"
