# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is left of a container after its making, or its removal, failed at any call."""

from __future__ import annotations

import copy
import os
import shutil
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import original
from ansible_collections.gpuops.restore.plugins.module_utils._container import (
    container as container_steps,
    netns as container_netns,
)
from ansible_collections.gpuops.restore.plugins.module_utils._container.params import ContainerParams
from ansible_collections.gpuops.restore.plugins.module_utils._containerd import containers
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core import labels, state_dir
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import NodeError, RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._criu import config as criu_config
from ansible_collections.gpuops.restore.tests.unit.helpers.capture_samples import RUNNING
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import (
    CHECKPOINT_NAME,
    add_base,
    add_checkpoint,
    spec,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_state import Task

KEY = ("overlayfs", "gpuops-restore-train")


def params(node: Node) -> ContainerParams:
    return ContainerParams(container_id="train", source=original.Source(CHECKPOINT_NAME), staging_dir=node.root)


def unpack_anew(fake: FakeContainerd) -> None:
    """The base image's layers are not there as snapshots: the build makes them."""
    fake.state.snapshots.clear()
    add_base(fake.state, unpacked=False)


def world(fake: FakeContainerd, node: Node) -> Any:
    return fake.state.listing(), sorted(os.walk(node.root))


def test_a_failure_of_any_call_leaves_nothing(fake: FakeContainerd, client: Client, node: Node) -> None:
    """Each call of a build in turn: also those that other steps have made before, such as the base image's layers."""
    unpack_anew(fake)
    fresh = copy.deepcopy(fake.state)
    before = world(fake, node)
    container_steps.present(client, params(node), False)
    calls = fake.names()
    assert {"Snapshots/Commit", "Content/Update", "Diff/Apply", "Snapshots/Update", "Containers/Create"} <= set(calls)
    for position, name in enumerate(calls):
        fake.heal()
        fake.state = copy.deepcopy(fresh)
        shutil.rmtree(node.root, ignore_errors=True)
        fake.fail_call(position)
        where = f"call {position}, {name}"
        if position == len(calls) - 1:
            # What is done stays done: the lease expires by itself.
            assert name == "Leases/Delete", where
            assert container_steps.present(client, params(node), False).created is True, where
        else:
            with pytest.raises(RestoreError, match="made to fail") as caught:
                container_steps.present(client, params(node), False)
            assert "left_behind" not in caught.value.details, where
            assert world(fake, node) == before, where
        fake.heal()
        container_steps.present(client, params(node), False)
        assert KEY in fake.state.snapshots and "train" in fake.state.containers, where
        assert container_steps.present(client, params(node), False).changed is False, where


@pytest.mark.parametrize("name", ["Containers/Create", "Snapshots/Prepare", "Snapshots/Update", "Leases/Create"])
def test_a_call_that_took_effect_without_an_answer_leaves_nothing(
    fake: FakeContainerd, client: Client, node: Node, name: str
) -> None:
    before = world(fake, node)
    carry_out = fake.state.handle

    def lose_the_answer(called: str, request: Any, leased: Any) -> Any:
        response = carry_out(called, request, leased)
        if called == name:
            fake.state.handle = carry_out  # type: ignore[method-assign]
            fake.drop_connections()
        return response

    fake.state.handle = lose_the_answer  # type: ignore[method-assign,assignment]
    with pytest.raises(RestoreError):
        container_steps.present(client, params(node), False)
    if name == "Leases/Create":
        # Nothing is under it; the next run takes it over, and it expires by itself.
        assert len(fake.state.leases) == 1
        fake.state.leases.clear()
    assert world(fake, node) == before


def test_a_lease_that_cannot_be_given_back_does_not_fail_what_is_done(
    fake: FakeContainerd, client: Client, node: Node
) -> None:
    fake.fail("Leases/Delete")
    assert container_steps.present(client, params(node), False).created is True
    assert len(fake.state.leases) == 1


def test_a_lease_that_cannot_be_given_back_does_not_hide_the_reason(
    fake: FakeContainerd, client: Client, node: Node
) -> None:
    fake.fail("Leases/Delete", text="no lease service")
    fake.fail("Diff/Apply", text="disk full")
    with pytest.raises(RestoreError, match="disk full") as caught:
        container_steps.present(client, params(node), False)
    assert "no lease service" in caught.value.details["left_behind"]


def test_what_cannot_be_undone_is_said_and_does_not_hide_the_reason(
    fake: FakeContainerd, client: Client, node: Node
) -> None:
    fake.fail("Containers/Create", text="disk full")
    fake.fail("Snapshots/Remove", text="device busy")
    with pytest.raises(RestoreError, match="disk full") as caught:
        container_steps.present(client, params(node), False)
    assert "device busy" in caught.value.details["left_behind"]
    assert not os.path.exists(node.root)


def test_a_container_that_appears_meanwhile_is_not_removed(fake: FakeContainerd, client: Client, node: Node) -> None:
    def win(_context: Any) -> None:
        fake.state.containers["train"] = fake.state.containers.pop("other")

    container_steps.present(
        client, ContainerParams("other", original.Source(CHECKPOINT_NAME), staging_dir=node.root), False
    )
    fake.on("Containers/Create", win, times=1)
    with pytest.raises(RestoreError) as caught:
        container_steps.present(client, params(node), False)
    assert caught.value.code == "already_exists"
    assert "train" in fake.state.containers
    assert KEY not in fake.state.snapshots


def test_a_criu_configuration_that_cannot_be_written(
    fake: FakeContainerd, client: Client, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: str, _text: str) -> bool:
        raise NodeError("criu_config_unwritable", "no space")

    monkeypatch.setattr(criu_config, "write", full)
    before = world(fake, node)
    with pytest.raises(NodeError, match="no space"):
        container_steps.present(client, params(node), False)
    assert world(fake, node) == before


def test_evidence_of_an_earlier_failure_stays(fake: FakeContainerd, client: Client, node: Node) -> None:
    work = os.path.join(node.root, "work", "tests", "train")
    os.makedirs(work)
    with open(os.path.join(work, "restore.log"), "w", encoding="utf-8") as stream:
        stream.write("Error: why\n")
    fake.fail("Containers/Create")
    with pytest.raises(RestoreError):
        container_steps.present(client, params(node), False)
    assert os.path.exists(os.path.join(work, "restore.log"))


def test_an_old_container_stays_while_its_replacement_can_still_fail_early(
    fake: FakeContainerd, client: Client, node: Node
) -> None:
    container_steps.present(client, params(node), False)
    fake.state.snapshots[KEY].labels[labels.USED] = "true"
    for key in list(fake.state.snapshots):
        if key != KEY:
            fake.state.snapshots.pop(key)
    add_base(fake.state, unpacked=False)
    before = world(fake, node)
    fake.fail("Diff/Apply")
    rebuild = ContainerParams("train", original.Source(CHECKPOINT_NAME), staging_dir=node.root, rebuild=True)
    with pytest.raises(RestoreError):
        container_steps.present(client, rebuild, False)
    assert world(fake, node) == before


# --- removal


def test_absent_removes_all_of_it(fake: FakeContainerd, client: Client, node: Node) -> None:
    before = world(fake, node)
    container_steps.present(client, params(node), False)
    predicted = container_steps.absent(client, "train", "gpuops.restore", False, node.root, True)
    done = container_steps.absent(client, "train", "gpuops.restore", False, node.root, False)
    assert predicted == done
    assert done.changed is True
    assert world(fake, node) == before
    assert container_steps.absent(client, "train", "gpuops.restore", False, node.root, False).changed is False


def test_absent_finds_the_snapshot_of_a_run_that_was_killed(fake: FakeContainerd, client: Client, node: Node) -> None:
    before = world(fake, node)
    container_steps.present(client, params(node), False)
    del fake.state.containers["train"]
    assert container_steps.absent(client, "train", "gpuops.restore", False, node.root, False).changed is True
    assert world(fake, node) == before


def test_absent_refuses_what_is_not_ours_and_what_runs(fake: FakeContainerd, client: Client, node: Node) -> None:
    container_steps.present(client, params(node), False)
    before = world(fake, node)
    for check in (True, False):
        with pytest.raises(RestoreError) as caught:
            container_steps.absent(client, "train", "somebody", False, node.root, check)
        assert caught.value.code == "container_not_ours"
    client.call("containerd.services.tasks.v1.Tasks/Create", container_id="train")
    client.call("containerd.services.tasks.v1.Tasks/Start", container_id="train")
    for check in (True, False):
        with pytest.raises(RestoreError) as caught:
            container_steps.absent(client, "train", "gpuops.restore", False, node.root, check)
        assert caught.value.code == "task_exists"
    del fake.state.tasks["train"]
    assert world(fake, node) == before


def test_a_removal_that_failed_anywhere_is_finished_by_the_next(
    fake: FakeContainerd, client: Client, node: Node
) -> None:
    before = world(fake, node)
    container_steps.present(client, params(node), False)
    made = copy.deepcopy(fake.state)
    fake.heal()
    remove(client, node)
    calls = fake.names()
    assert {"Containers/Delete", "Snapshots/Remove"} <= set(calls)
    for position, name in enumerate(calls):
        fake.heal()
        fake.state = copy.deepcopy(made)
        fake.fail_call(position)
        with pytest.raises(RestoreError, match="made to fail"):
            remove(client, node)
        remove(client, node)
        assert world(fake, node) == before, f"call {position}, {name}"


def remove(client: Client, node: Node) -> None:
    container_steps.absent(client, "train", "gpuops.restore", False, node.root, False)


# --- a network namespace of its own


@pytest.fixture
def netns(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The network namespaces of the node, without ``ip``."""
    there: set[str] = set()
    monkeypatch.setattr(container_netns, "make", there.add)
    monkeypatch.setattr(container_netns, "exists", there.__contains__)
    monkeypatch.setattr(container_netns, "remove", there.discard)
    return there


def pod_spec() -> dict[str, Any]:
    return spec(linux={"namespaces": [{"type": "pid"}, {"type": "network", "path": "/proc/4711/ns/net"}]})


def test_a_pods_container_gets_an_empty_network_namespace(
    fake: FakeContainerd, client: Client, node: Node, netns: set[str]
) -> None:
    add_checkpoint(fake.state, base=node.base, original=pod_spec())
    done = container_steps.present(client, params(node), False)
    assert netns == {"tests--train"}
    assert any("without any connection" in warning for warning in done.warnings)
    netns.clear()
    assert container_steps.present(client, params(node), True).changed is True
    assert container_steps.present(client, params(node), False).changed is True
    assert netns == {"tests--train"}
    container_steps.absent(client, "train", "gpuops.restore", False, node.root, False)
    assert netns == set()


def test_a_failing_create_takes_the_namespace_away_again(
    fake: FakeContainerd, client: Client, node: Node, netns: set[str]
) -> None:
    add_checkpoint(fake.state, base=node.base, original=pod_spec())
    fake.fail("Containers/Create")
    with pytest.raises(RestoreError):
        container_steps.present(client, params(node), False)
    assert netns == set()


def test_a_namespace_that_was_there_stays_after_a_failure(
    fake: FakeContainerd, client: Client, node: Node, netns: set[str]
) -> None:
    add_checkpoint(fake.state, base=node.base, original=pod_spec())
    netns.add("tests--train")
    fake.fail("Containers/Create")
    with pytest.raises(RestoreError):
        container_steps.present(client, params(node), False)
    assert netns == {"tests--train"}


def test_containers_of_one_name_in_two_namespaces_share_nothing_on_the_node(
    fake: FakeContainerd, client: Client, node: Node, netns: set[str]
) -> None:
    add_checkpoint(fake.state, base=node.base, original=pod_spec())
    groups = []
    for namespace in ("k8s.io", "tenant", "tests"):
        # The double of containerd has but one namespace, so the records come one after another.
        fake.state.containers.clear()
        fake.state.snapshots = {key: row for key, row in fake.state.snapshots.items() if key != KEY}
        with client.using_namespace(namespace):
            container_steps.present(client, params(node), False)
            found = containers.get(client, "train")
        assert found is not None
        groups.append(found.spec["linux"]["cgroupsPath"])
    assert groups == ["/gpuops-restore-train", "/gpuops-restore-tenant--train", "/gpuops-restore-tests--train"]
    assert netns == {"tests--train", "tenant--train", "train"}
    container_steps.absent(client, "train", "gpuops.restore", False, node.root, False)
    assert netns == {"tenant--train", "train"}


def in_the_plain_namespace(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    """Whether it has a container of the same name, for a double of containerd that has but one namespace."""
    ours = containers.get

    def get(found: Client, container_id: str) -> Any:
        if found.namespace == "k8s.io":
            return object() if there else None
        return ours(found, container_id)

    monkeypatch.setattr(containers, "get", get)


@pytest.mark.parametrize("shared", [False, True])
def test_what_an_earlier_release_named_stays_while_it_runs_and_is_found_at_its_end(
    fake: FakeContainerd,
    client: Client,
    node: Node,
    netns: set[str],
    monkeypatch: pytest.MonkeyPatch,
    shared: bool,
) -> None:
    """It named the things of all namespaces' containers alike; the container of ``k8s.io`` may have them, too."""
    add_checkpoint(fake.state, base=node.base, original=pod_spec())
    with monkeypatch.context() as earlier:
        earlier.setattr(state_dir, "node_name", lambda _namespace, container_id: container_id)
        container_steps.present(client, params(node), False)
    assert netns == {"train"}
    fake.state.tasks["train"] = Task(None, 77, RUNNING)
    assert container_steps.present(client, params(node), False).changed is False
    assert netns == {"train"}
    fake.state.tasks.clear()
    in_the_plain_namespace(monkeypatch, shared)
    predicted = container_steps.absent(client, "train", "gpuops.restore", False, node.root, True)
    done = container_steps.absent(client, "train", "gpuops.restore", False, node.root, False)
    assert predicted.actions == done.actions
    assert netns == ({"train"} if shared else set())


def test_what_an_earlier_release_named_is_named_anew_when_it_is_made_anew(
    fake: FakeContainerd, client: Client, node: Node, netns: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_checkpoint(fake.state, base=node.base, original=pod_spec())
    with monkeypatch.context() as earlier:
        earlier.setattr(state_dir, "node_name", lambda _namespace, container_id: container_id)
        container_steps.present(client, params(node), False)
    in_the_plain_namespace(monkeypatch, False)
    assert container_steps.present(client, params(node), False).created is True
    found = containers.get(client, "train")
    assert found is not None and found.spec["linux"]["cgroupsPath"] == "/gpuops-restore-tests--train"
    assert netns == {"tests--train"}
