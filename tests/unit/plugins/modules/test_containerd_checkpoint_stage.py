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
