# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import BASE_NAME, CHECKPOINT_NAME
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

PINNED = "io.cri-containerd.pinned"


def test_one_that_is_there_is_pinned_and_released(call: Call, fake: FakeContainerd, node: Node) -> None:
    predicted = call("containerd_image", True, name=BASE_NAME, pinned=True)
    assert PINNED not in fake.state.images[BASE_NAME].labels
    done = call("containerd_image", name=BASE_NAME, pinned=True)
    assert (predicted["changed"], predicted["actions"], predicted["diff"]) == (True, done["actions"], done["diff"])
    assert (done["created"], done["image"]["pinned"], done["image"]["unpacked"]) == (False, True, True)
    assert done["image"]["digest"] == node.base.digest
    assert call("containerd_image", name=BASE_NAME)["image"]["pinned"] is True
    assert call("containerd_image", name=BASE_NAME, pinned=False)["image"]["pinned"] is False


def test_removing_takes_force_where_it_is_not_ours(call: Call, fake: FakeContainerd, node: Node) -> None:
    gone = call("containerd_image", name=CHECKPOINT_NAME, state="absent", owner="me")
    assert gone["failure"]["code"] == "image_not_ours"
    done = call("containerd_image", name=CHECKPOINT_NAME, state="absent", owner="me", force=True)
    assert done["before"]["digest"].startswith("sha256:")
    assert done["changed"] and CHECKPOINT_NAME not in fake.state.images
    again = call("containerd_image", name=CHECKPOINT_NAME, state="absent")
    assert (again["changed"], again["before"]) == (False, {})


def test_never_pulled(call: Call, node: Node) -> None:
    assert call("containerd_image", name="example.test/none:1", pull="never")["failure"]["code"] == "image_absent"
    wrong = call("containerd_image", name=BASE_NAME, pull="never", digest="sha256:" + "0" * 64)
    assert wrong["failure"]["code"] == "image_other_digest"
