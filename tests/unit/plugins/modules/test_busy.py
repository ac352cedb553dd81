# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a module does while another run is at work: it says so, and touches nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import _READS
from ansible_collections.gpuops.restore.plugins.module_utils._host import run_lock
from ansible_collections.gpuops.restore.tests.unit.helpers import ansible_modules
from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import CHECKPOINT_NAME
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

ON_CONTAINERS: dict[str, tuple[str, dict[str, Any]]] = {
    "container": ("containerd_container", {"container_id": "train", "checkpoint": CHECKPOINT_NAME}),
    "no container": ("containerd_container", {"container_id": "train", "state": "absent"}),
    "task": ("containerd_task", {"container_id": "train", "checkpoint": CHECKPOINT_NAME}),
    "task stopped": ("containerd_task", {"container_id": "train", "state": "stopped"}),
    "no task": ("containerd_task", {"container_id": "train", "state": "absent"}),
    "capture": ("containerd_checkpoint", {"container_id": "train", "name": "a:1", "gpu": "none"}),
    "parked": ("containerd_park", {"container_id": "train", "gpu": "none"}),
    "resumed": ("containerd_park", {"container_id": "train", "state": "resumed"}),
    "settled": ("containerd_checkpoint", {"container_id": "train", "name": "a:1", "state": "settled"}),
}


@pytest.fixture
def untouched(fake: FakeContainerd, node: Node) -> Callable[[], None]:
    """Asserts that containerd was asked for nothing but how things are, and that nothing lies below the state root."""

    def look() -> None:
        assert {call.name for call in fake.seen if call.name.split("/")[1] not in _READS} == set()
        assert not os.path.exists(node.root)

    return look


@pytest.mark.parametrize("what", ON_CONTAINERS)
def test_one_run_at_a_time_for_a_container(call: Call, node: Node, untouched: Callable[[], None], what: str) -> None:
    module, options = ON_CONTAINERS[what]
    place = {"staging_dir": node.root} if "staging_dir" in ansible_modules.argument_spec(module) else {}
    options = {**options, **place, "busy_timeout": 0}
    with run_lock.changing("tests", "train", "another", 0.0):
        found = call(module, **options)
        assert (found["failed"], found["failure"]["code"], found["failure"]["outcome"]) == (True, "busy", "retryable")
        assert f"(another, pid {os.getpid()}, since 2" in found["msg"] and "the container train" in found["msg"]
        untouched()
        assert (call(module, True, **options).get("failure") or {}).get("code") != "busy", "check mode holds nobody up"
    assert (call(module, **options).get("failure") or {}).get("code") != "busy"


def test_the_workloads_that_nobody_is_at_work_on_are_restored(call: Call, fake: FakeContainerd, node: Node) -> None:
    call("containerd_checkpoint_stage", checkpoint=CHECKPOINT_NAME, staging_dir=node.root)
    workloads = [{"name": name, "checkpoint": CHECKPOINT_NAME, "gpu": "none"} for name in ("train", "serve")]
    options = {"workloads": workloads, "staging_dir": node.root, "busy_timeout": 0, "alive_seconds": 0}
    with run_lock.changing("tests", "train", "another", 0.0):
        found = call("containerd_restore", **options)
    assert found["failure"]["code"] == "busy" and found["failure"]["outcome"] == "retryable"
    assert list(found["workloads"]) == ["train", "serve"]
    assert found["workloads"]["train"]["failure"]["code"] == "busy"
    assert found["workloads"]["serve"]["failure"] is None
    assert set(fake.state.containers) == {"serve"}
    again = call("containerd_restore", **options)
    assert (again["workloads"]["train"]["changed"], again["workloads"]["serve"]["changed"]) == (True, False)


def test_what_somebody_restores_from_stays(call: Call, fake: FakeContainerd, node: Node) -> None:
    call("containerd_checkpoint_stage", checkpoint=CHECKPOINT_NAME, staging_dir=node.root)
    removals: list[tuple[str, dict[str, Any]]] = [
        ("containerd_checkpoint_stage", {"checkpoint": CHECKPOINT_NAME, "staging_dir": node.root}),
        ("containerd_image", {"name": CHECKPOINT_NAME, "force": True}),
    ]
    digest = fake.state.images[CHECKPOINT_NAME].target.digest
    for module, options in removals:
        with run_lock.kept(digest, 0.0):
            found = call(module, state="absent", busy_timeout=0, **options)
            assert (found["failure"]["code"], found["failure"]["outcome"]) == ("busy", "retryable")
            assert f"the image {digest}" in found["msg"]
            assert CHECKPOINT_NAME in fake.state.images
            assert module != "containerd_checkpoint_stage" or os.listdir(node.root)
        assert call(module, state="absent", busy_timeout=0, **options)["changed"] is True


def test_what_somebody_removes_is_not_restored_from(call: Call, fake: FakeContainerd, node: Node) -> None:
    call("containerd_checkpoint_stage", checkpoint=CHECKPOINT_NAME, staging_dir=node.root)
    workloads = [{"name": "train", "checkpoint": CHECKPOINT_NAME, "gpu": "none"}]
    with run_lock.removing(fake.state.images[CHECKPOINT_NAME].target.digest, 0.0):
        found = call("containerd_restore", workloads=workloads, staging_dir=node.root, busy_timeout=0)
        assert found["workloads"]["train"]["failure"]["code"] == "busy"
        assert fake.state.containers == {}
        for module, more in (("containerd_container", {}), ("containerd_task", {"alive_seconds": 0})):
            options = {"container_id": "train", "checkpoint": CHECKPOINT_NAME, "staging_dir": node.root, **more}
            assert call(module, busy_timeout=0, **options)["failure"]["code"] in ("busy", "container_absent")
    assert fake.state.containers == {}
