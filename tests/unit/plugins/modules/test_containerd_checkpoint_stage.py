# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import CHECKPOINT_NAME, CRIU, CRIU_FILES

STAGE = "containerd_checkpoint_stage"


def test_staged_once_and_removed_by_name_or_digest(call: Call, node: Node) -> None:
    options = {"checkpoint": CHECKPOINT_NAME, "staging_dir": node.root}
    predicted = call(STAGE, True, **options)
    assert not os.path.exists(node.root)
    done = call(STAGE, **options)
    assert (predicted["changed"], predicted["created"], predicted["diff"]) == (True, True, done["diff"])
    assert sorted(os.listdir(done["directory"])) == sorted(CRIU_FILES)
    assert (done["staged"]["digest"], done["staged"]["files"]) == (node.checkpoint.parts[CRIU], len(CRIU_FILES))
    again = call(STAGE, **options)
    assert (again["changed"], again["created"], again["seconds"]) == (False, False, 0)
    gone = call(STAGE, state="absent", **{**options, "checkpoint": node.checkpoint.digest})
    assert gone["changed"] and not os.path.exists(done["directory"])
    assert call(STAGE, state="absent", **options)["changed"] is False


def test_without_an_image_the_digest_is_asked_for(call: Call, node: Node) -> None:
    options = {"checkpoint": "example.test/none:1", "staging_dir": node.root}
    found = call(STAGE, state="absent", **options)
    assert found["changed"] is False
    assert "give the digest instead" in found["warnings"][0]
    assert call(STAGE, **options)["failure"]["code"] == "checkpoint_absent"
    assert call(STAGE, True, assume_prepared=True, **options)["changed"] is True


def test_all_workloads_of_a_node_are_staged_in_one_call(call: Call, node: Node) -> None:
    there = {"container_id": "train", "checkpoint": CHECKPOINT_NAME}
    twin = {"container_id": "twin", "checkpoint": CHECKPOINT_NAME}
    absent = {"container_id": "serve", "checkpoint": "example.test/none:1"}
    predicted = call(STAGE, True, workloads=[there, twin], staging_dir=node.root)
    assert predicted["changed"] and not os.path.exists(node.root)
    assert [one["created"] for one in predicted["workloads"].values()] == [True, False]
    done = call(STAGE, workloads=[twin, absent, there], staging_dir=node.root)
    assert list(done["workloads"]) == ["twin", "serve", "train"] and done["failed"] and done["changed"]
    train, twins, serve = (done["workloads"][name] for name in ("train", "twin", "serve"))
    # What two of them have in common is staged once.
    assert (train["created"], twins["created"], train["directory"]) == (False, True, twins["directory"])
    assert sorted(os.listdir(train["directory"])) == sorted(CRIU_FILES)
    assert (train["failure"], serve["failure"]["code"]) == (None, "checkpoint_absent")
    assert "1 of 3 workload(s) failed. serve: " in done["msg"]
    again = call(STAGE, workloads=[there, twin], staging_dir=node.root)
    assert again["changed"] is False and "failed" not in again


def test_all_workloads_of_a_node_are_removed_in_one_call(call: Call, node: Node) -> None:
    there = {"container_id": "train", "checkpoint": CHECKPOINT_NAME}
    absent = {"container_id": "serve", "checkpoint": "example.test/none:1"}
    done = call(STAGE, workloads=[there], staging_dir=node.root)
    given = {"workloads": [absent, there], "staging_dir": node.root, "state": "absent"}
    assert call(STAGE, True, **given)["changed"] and os.path.exists(done["workloads"]["train"]["directory"])
    gone = call(STAGE, **given)
    assert {name: one["changed"] for name, one in gone["workloads"].items()} == {"serve": False, "train": True}
    assert not os.path.exists(node.root) and "give the digest instead" in gone["warnings"][0]
    assert call(STAGE, **given)["changed"] is False
