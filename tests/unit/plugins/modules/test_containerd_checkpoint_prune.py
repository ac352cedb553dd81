# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import CHECKPOINT_NAME
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

PRUNE = "containerd_checkpoint_prune"


def test_predicted_then_done_once(call: Call, fake: FakeContainerd, node: Node) -> None:
    options = {"staging_dir": node.root, "owner": "me"}
    image = fake.state.images[CHECKPOINT_NAME]
    image.labels.update({"io.gpuops.restore/owner": "me", "io.gpuops.restore/captured": image.target.digest})
    (kept,) = call(PRUNE, keep=1, **options)["kept"]
    assert (kept["name"], "newest" in kept["kept"]) == (CHECKPOINT_NAME, True)
    predicted = call(PRUNE, True, keep=0, **options)
    assert CHECKPOINT_NAME in fake.state.images
    done = call(PRUNE, keep=0, **options)
    assert predicted == done and done["changed"]
    assert [found["name"] for found in done["removed"]] == [CHECKPOINT_NAME]
    assert CHECKPOINT_NAME not in fake.state.images
    assert call(PRUNE, keep=0, **options)["changed"] is False


def test_rules_that_say_nothing(call: Call) -> None:
    with pytest.raises(ValueError, match="one of the following is required"):
        call(PRUNE)
    for rule in ({"keep": -1}, {"older_than": "soon"}):
        assert call(PRUNE, **rule)["failure"]["code"] == "retention_invalid"
