# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import datetime
import json
import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import (
    metadata as checkpoint_metadata,
    original,
)
from ansible_collections.gpuops.restore.plugins.module_utils._container import container as container_steps
from ansible_collections.gpuops.restore.plugins.module_utils._container.params import ContainerParams
from ansible_collections.gpuops.restore.plugins.module_utils._container.policy import Policy
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.messages import message, pack
from ansible_collections.gpuops.restore.plugins.module_utils._core import labels as core_labels, state_dir
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import (
    ConflictError,
    InputError,
    NodeError,
    RestoreError,
)
from ansible_collections.gpuops.restore.plugins.module_utils._criu.config import CriuOptions
from ansible_collections.gpuops.restore.plugins.module_utils._oci.facts import Facts
from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import INDEX
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import (
    BASE_NAME,
    CHECKPOINT_NAME,
    CONFIG,
    CRIU,
    LAYER,
    RUNTIME_OPTIONS,
    Sample,
    add_base,
    add_checkpoint,
    descriptor,
    record,
    spec,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_state import Snapshot, Task

KEY = ("overlayfs", "gpuops-restore-train")
CREATED, RUNNING, STOPPED = 1, 2, 3
#: For checkpoints that nobody vouches for; the sample has no network namespace of its own.
HOST_NETWORK = Policy(host_namespaces=("network",))


def params(node: Node, **changes: Any) -> ContainerParams:
    """The container ``train`` from the sample checkpoint."""
    plain = ContainerParams(container_id="train", source=original.Source(CHECKPOINT_NAME), staging_dir=node.root)
    return dataclasses.replace(plain, **changes)


def files(root: str) -> dict[str, Any]:
    """All that lies below ``root``, with contents and modes."""
    found: dict[str, Any] = {}
    for directory, _names, names in os.walk(root):
        found[directory] = oct(os.stat(directory).st_mode & 0o777)
        for name in names:
            path = os.path.join(directory, name)
            found[path] = (oct(os.stat(path).st_mode & 0o777), Path(path).read_bytes())
    return found


def world(fake: FakeContainerd, node: Node) -> Any:
    """Everything that a step may change."""
    return fake.state.listing(), files(node.root)


def refusal(client: Client, wanted: ContainerParams) -> RestoreError:
    """The error of a run, which check mode has to predict."""
    found = []
    for check in (True, False):
        with pytest.raises(RestoreError) as caught:
            container_steps.present(client, wanted, check)
        found.append(caught.value)
    assert (found[0].code, found[0].message) == (found[1].code, found[1].message)
    return found[1]


def agree(client: Client, fake: FakeContainerd, node: Node, wanted: ContainerParams) -> container_steps.ContainerResult:
    """Check mode changes nothing and says what the run then does; the run's outcome."""
    before = world(fake, node)
    predicted = container_steps.present(client, wanted, True)
    assert world(fake, node) == before
    done = container_steps.present(client, wanted, False)
    assert dataclasses.asdict(predicted) == dataclasses.asdict(done)
    assert done.changed == (world(fake, node) != before)
    return done


# --- what is made


def test_a_container_with_a_fresh_snapshot_and_the_adapted_spec(
    fake: FakeContainerd, client: Client, node: Node
) -> None:
    done = agree(client, fake, node, params(node))
    assert (done.changed, done.created) == (True, True)
    record = fake.state.containers["train"]
    written = json.loads(record.spec.value)
    config = f"{node.root}/work/tests/train/criu.conf"
    assert written["annotations"]["org.criu.config"] == config
    assert written["linux"]["cgroupsPath"] != "/old"
    assert (record.image, record.snapshotter, record.snapshot_key) == (BASE_NAME, *KEY)
    assert record.runtime.name == "io.containerd.runc.v2"
    assert record.runtime.options.type_url == "containerd.runc.v1.Options"
    assert record.labels[core_labels.OWNER] == "gpuops.restore"
    assert record.labels[core_labels.CHECKPOINT] == node.checkpoint.digest
    snapshot = fake.state.snapshots[KEY]
    assert (snapshot.parent, snapshot.kind, snapshot.layers) == (node.base.chain_id, 2, [node.checkpoint.parts[LAYER]])
    assert snapshot.labels == {
        core_labels.OWNER: "gpuops.restore",
        core_labels.CHECKPOINT: node.checkpoint.digest,
        core_labels.CONTAINER: "train",
        core_labels.WRITABLE_LAYER: node.checkpoint.parts[LAYER],
    }
    assert fake.state.leases == {}
    assert files(node.root)[config][0] == "0o600"
    assert files(node.root)[os.path.dirname(config)] == "0o700"


def test_twice_changes_nothing(fake: FakeContainerd, client: Client, node: Node) -> None:
    agree(client, fake, node, params(node))
    done = agree(client, fake, node, params(node))
    assert (done.changed, done.created, done.actions) == (False, False, [])


def test_what_is_made_is_protected_by_a_lease_until_it_is_whole(
    fake: FakeContainerd, client: Client, node: Node
) -> None:
    container_steps.present(client, params(node), False)
    for name in ("Snapshots/Prepare", "Diff/Apply", "Containers/Create"):
        assert all(call.metadata.get("containerd-lease") for call in fake.seen if call.name == name)


def test_applying_the_layer_takes_as_long_as_its_size_allows(fake: FakeContainerd, client: Client, node: Node) -> None:
    expires: list[datetime.datetime] = []
    fake.on("Diff/Apply", lambda _context: expires.extend(fake.state.expiries()))
    client.rate = len(fake.state.blobs[node.checkpoint.parts[LAYER]].data) * 4 / 1e6
    container_steps.present(client, params(node), False)
    assert fake.seconds("Diff/Apply")[-1] == pytest.approx(1e6, rel=0.05)
    assert (expires[-1] - datetime.datetime.now(datetime.timezone.utc)).total_seconds() > 1e6


def test_a_given_lease_is_used_and_stays(fake: FakeContainerd, client: Client, node: Node) -> None:
    fake.state.leases["mine"] = {}
    agree(client, fake, node, params(node, lease="mine"))
    leases = {call.metadata.get("containerd-lease") for call in fake.seen if call.name == "Snapshots/Prepare"}
    assert leases == {"mine"}
    assert list(fake.state.leases) == ["mine"]


def test_a_checkpoint_without_a_writable_layer_is_warned_of(fake: FakeContainerd, client: Client, node: Node) -> None:
    add_checkpoint(fake.state, base=node.base, without=(LAYER,))
    done = agree(client, fake, node, params(node))
    assert any("no writable layer" in warning for warning in done.warnings)
    assert fake.state.snapshots[KEY].labels[core_labels.WRITABLE_LAYER] == "none"
    assert agree(client, fake, node, params(node)).changed is False


def test_metadata_wins_over_the_checkpoint(fake: FakeContainerd, client: Client, node: Node) -> None:
    other = add_base(fake.state, name="other", text=b" other")
    add_checkpoint(fake.state, layout="task")
    metadata = checkpoint_metadata.Metadata("other", "overlayfs", "old-snapshot", spec(hostname="from-metadata"))
    done = agree(client, fake, node, params(node, source=original.Source(CHECKPOINT_NAME, metadata)))
    record = fake.state.containers["train"]
    assert (record.image, record.snapshot_key, done.container["spec_source"]) == ("other", "old-snapshot", "metadata")
    assert json.loads(record.spec.value)["hostname"] == "from-metadata"
    assert fake.state.snapshots[("overlayfs", "old-snapshot")].parent == other.chain_id


def test_a_spec_that_nobody_recorded_is_generated(fake: FakeContainerd, client: Client, node: Node) -> None:
    add_checkpoint(fake.state, base=node.base, without=(CONFIG,))
    assert agree(client, fake, node, params(node)).container["spec_source"] == "generated"


def test_the_image_is_recorded_by_the_name_that_it_has_here(fake: FakeContainerd, client: Client, node: Node) -> None:
    """The recorded digest is there under another name than the recorded one."""
    fake.state.images["here"] = fake.state.images.pop(BASE_NAME)
    fake.state.images["here"].name = "here"
    for without in ((), (CONFIG,)):
        fake.state.containers.clear()
        add_checkpoint(fake.state, base=node.base, without=without)
        assert agree(client, fake, node, params(node)).container["image"] == "here"
        assert fake.state.containers["train"].image == "here"
    # A spec that is generated needs the image each time, so its name is known then, too.
    assert agree(client, fake, node, params(node)).container["image"] == "here"


def test_of_a_container_that_is_there_its_own_image_is_told(fake: FakeContainerd, client: Client, node: Node) -> None:
    """A container that is there needs no image any more: its checkpoint has the digest of its own."""
    agree(client, fake, node, params(node))
    fake.state.images.pop(BASE_NAME)
    assert agree(client, fake, node, params(node)).container["image"] == BASE_NAME
    given = params(node, source=original.Source(CHECKPOINT_NAME, image="mine"))
    assert agree(client, fake, node, given).container["image"] == BASE_NAME


def without_base_digest(fake: FakeContainerd) -> None:
    """The sample checkpoint as ``ctr tasks checkpoint`` writes it: it only names its base image."""
    add_checkpoint(fake.state, layout="task")


def test_a_changed_image_is_another_container(fake: FakeContainerd, client: Client, node: Node) -> None:
    without_base_digest(fake)
    two = add_base(fake.state, "example.test/app:2", text=b"other")
    agree(client, fake, node, params(node))
    assert agree(client, fake, node, params(node)).changed is False
    changed = params(node, source=original.Source(CHECKPOINT_NAME, image="example.test/app:2"))
    done = agree(client, fake, node, changed)
    assert (done.changed, done.created, done.container["image"]) == (True, True, "example.test/app:2")
    assert fake.state.snapshots[KEY].parent == two.chain_id
    assert fake.state.containers["train"].image == "example.test/app:2"
    assert agree(client, fake, node, changed).changed is False


def test_another_name_of_the_same_image_changes_nothing(fake: FakeContainerd, client: Client, node: Node) -> None:
    without_base_digest(fake)
    agree(client, fake, node, params(node))
    fake.state.images["example.test/again:1"] = fake.state.images[BASE_NAME]
    done = agree(
        client, fake, node, params(node, source=original.Source(CHECKPOINT_NAME, image="example.test/again:1"))
    )
    assert (done.changed, done.container["image"]) == (False, BASE_NAME)


def test_a_moved_name_is_another_image(fake: FakeContainerd, client: Client, node: Node) -> None:
    without_base_digest(fake)
    agree(client, fake, node, params(node))
    two = add_base(fake.state, BASE_NAME, text=b"other")
    fake.state.tasks["train"] = Task(None, 77, RUNNING)
    assert agree(client, fake, node, params(node)).changed is False
    del fake.state.tasks["train"]
    assert agree(client, fake, node, params(node)).changed is True
    assert fake.state.snapshots[KEY].parent == two.chain_id


def test_a_running_container_of_another_image_is_refused(fake: FakeContainerd, client: Client, node: Node) -> None:
    without_base_digest(fake)
    add_base(fake.state, "example.test/app:2", text=b"other")
    agree(client, fake, node, params(node))
    fake.state.tasks["train"] = Task(None, 77, RUNNING)
    changed = params(node, source=original.Source(CHECKPOINT_NAME, image="example.test/app:2"))
    error = refusal(client, changed)
    assert error.code == "container_in_use" and "image" in error.message


def test_the_program_of_a_checkpoint_is_not_run(fake: FakeContainerd, client: Client, node: Node) -> None:
    """Whoever made it would choose what runs as root on this node."""
    hostile = message("containerd.runc.v1.Options", binary_name="/srv/payload", root="/tmp/x", systemd_cgroup=True)
    sample = add_checkpoint(fake.state, base=node.base)
    packed = pack("containerd.runc.v1.Options", hostile.SerializeToString()).SerializeToString()
    part = descriptor(fake.state, RUNTIME_OPTIONS, packed)
    document = {**sample.document, "manifests": [*strip(sample, RUNTIME_OPTIONS), part]}
    record(fake.state, CHECKPOINT_NAME, INDEX, document)
    done = agree(client, fake, node, params(node, policy=HOST_NETWORK))
    written = fake.state.containers["train"].runtime.options.value
    assert b"payload" not in written and b"/tmp/x" not in written
    assert any("/srv/payload" in warning for warning in done.warnings)


@pytest.mark.parametrize("name", ["/srv/payload", "io.containerd.payload.v1"])
def test_the_shim_of_a_checkpoint_is_not_run(fake: FakeContainerd, client: Client, node: Node, name: str) -> None:
    sample = add_checkpoint(fake.state, base=node.base)
    notes = {**sample.document["annotations"], "io.containerd.checkpoint.runtime": name}
    record(fake.state, CHECKPOINT_NAME, INDEX, {**sample.document, "annotations": notes})
    before = world(fake, node)
    assert refusal(client, params(node, policy=HOST_NETWORK)).code == "runtime_refused"
    assert world(fake, node) == before


def strip(sample: Sample, media_type: str) -> list[dict[str, Any]]:
    """The parts of a checkpoint without those of one kind."""
    return [part for part in sample.document["manifests"] if part["mediaType"] != media_type]


def test_a_digest_pins_the_checkpoint(fake: FakeContainerd, client: Client, node: Node) -> None:
    pinned = params(node, source=original.Source(CHECKPOINT_NAME, digest=node.checkpoint.digest))
    assert agree(client, fake, node, pinned).created is True
    other = params(node, source=original.Source(CHECKPOINT_NAME, digest="sha256:" + 64 * "0"))
    error = refusal(client, other)
    assert error.code == "image_digest_mismatch" and node.checkpoint.digest in error.message
    assert refusal(client, params(node, source=original.Source(CHECKPOINT_NAME, digest="x"))).code == "digest_invalid"


def test_secrets_of_the_environment_are_not_in_the_diff(fake: FakeContainerd, client: Client, node: Node) -> None:
    done = container_steps.present(client, params(node), True)
    assert "hunter2" not in json.dumps(dataclasses.asdict(done))


def test_a_changed_wish_replaces_what_is_ours(fake: FakeContainerd, client: Client, node: Node) -> None:
    agree(client, fake, node, params(node))
    done = agree(client, fake, node, params(node, env={"A": "b"}))
    assert (done.changed, done.created) == (True, True)
    assert "A=b" in json.loads(fake.state.containers["train"].spec.value)["process"]["env"]


def test_a_lost_criu_configuration_is_written_again(fake: FakeContainerd, client: Client, node: Node) -> None:
    agree(client, fake, node, params(node))
    os.unlink(state_dir.criu_config(node.root, "tests", "train"))
    done = agree(client, fake, node, params(node))
    assert (done.changed, done.created) == (True, False)


def test_a_restore_does_as_the_dump_was_told_unless_it_is_told_otherwise(
    fake: FakeContainerd, client: Client, node: Node
) -> None:
    config = Path(state_dir.criu_config(node.root, "tests", "train"))

    def told() -> list[str]:
        return [line for line in config.read_text(encoding="utf-8").splitlines() if "=" not in line]

    facts = Facts(container="train", criu_options=("file-locks", "ghost-limit", "tcp-established"))
    sample = add_checkpoint(fake.state, base=node.base)
    notes = {**sample.document["annotations"], core_labels.FACTS: facts.render()}
    add_checkpoint(fake.state, base=node.base, annotations=notes)
    agree(client, fake, node, params(node))
    assert told() == ["tcp-established", "file-locks"]
    agree(client, fake, node, params(node, criu=CriuOptions(tcp="close", file_locks="false")))
    assert told() == ["tcp-close"]


def test_a_restored_container_keeps_the_labels_of_the_captured_one_under_names_of_ours(
    fake: FakeContainerd, client: Client, node: Node
) -> None:
    facts = Facts(container="train", labels={"team": "nlp", "long": "x" * 4070})
    sample = add_checkpoint(fake.state, base=node.base)
    notes = {**sample.document["annotations"], core_labels.FACTS: facts.render()}
    add_checkpoint(fake.state, base=node.base, annotations=notes)
    agree(client, fake, node, params(node))
    labels = fake.state.containers["train"].labels
    # containerd would refuse one of more than 4096 bytes, key included.
    assert {key: value for key, value in labels.items() if "team" in key or "long" in key} == {
        "io.gpuops.restore/origin/team": "nlp"
    }
    assert core_labels.given(dict(labels)) == {"team": "nlp"}


def test_a_lost_snapshot_is_made_again(fake: FakeContainerd, client: Client, node: Node) -> None:
    agree(client, fake, node, params(node))
    del fake.state.snapshots[KEY]
    assert agree(client, fake, node, params(node)).created is True


# --- killed half-way


@pytest.mark.parametrize("state", ["layer applied", "layer half applied", "used"])
def test_a_run_killed_between_snapshot_and_container_is_finished(
    fake: FakeContainerd, client: Client, node: Node, state: str
) -> None:
    layer = node.checkpoint.parts[LAYER]
    labels = {core_labels.OWNER: "gpuops.restore", core_labels.CHECKPOINT: node.checkpoint.digest}
    if state != "layer half applied":
        labels[core_labels.WRITABLE_LAYER] = layer
    if state == "used":
        labels[core_labels.USED] = "true"
    whole = state == "layer applied"
    fake.state.snapshots[KEY] = Snapshot(node.base.chain_id, 2, labels, [layer] if whole else ["other files"])
    agree(client, fake, node, params(node))
    assert fake.state.snapshots[KEY].layers == [layer]
    assert core_labels.USED not in fake.state.snapshots[KEY].labels
    assert fake.count("Diff/Apply") == (0 if whole else 1)
    assert "train" in fake.state.containers


def test_a_snapshot_of_another_checkpoint_of_ours_is_made_anew(
    fake: FakeContainerd, client: Client, node: Node
) -> None:
    layer = node.checkpoint.parts[LAYER]
    labels = {
        core_labels.OWNER: "gpuops.restore",
        core_labels.CHECKPOINT: "sha256:old",
        core_labels.WRITABLE_LAYER: layer,
    }
    fake.state.snapshots[KEY] = Snapshot(node.base.chain_id, 2, labels, ["old"])
    agree(client, fake, node, params(node))
    assert fake.state.snapshots[KEY].layers == [layer]


def test_the_lease_of_a_killed_run_is_taken_over(fake: FakeContainerd, client: Client, node: Node) -> None:
    fake.on("Containers/Create", lambda _context: fake.fail("Leases/Delete", times=1), times=1)
    container_steps.present(client, params(node), False)
    assert len(fake.state.leases) == 1
    fake.state.containers.clear()
    container_steps.present(client, params(node), False)
    assert fake.state.leases == {}


@pytest.mark.parametrize("state", ["present", "absent"])
def test_the_lease_of_a_run_that_was_killed_when_all_was_done(
    fake: FakeContainerd, client: Client, node: Node, state: str
) -> None:
    fake.on("Containers/Create", lambda _context: fake.fail("Leases/Delete", times=1), times=1)
    container_steps.present(client, params(node), False)

    def again(check: bool) -> container_steps.ContainerResult:
        if state == "present":
            return container_steps.present(client, params(node), check)
        return container_steps.absent(client, "train", "gpuops.restore", False, node.root, check)

    predicted = again(True)
    assert len(fake.state.leases) == 1
    done = again(False)
    assert predicted.actions == done.actions and done.actions[-1] == "drop the lease of a run that was killed"
    assert (done.changed, done.created) == (True, False)
    assert fake.state.leases == {}
    assert again(False).changed is False


# --- what is refused


def test_a_container_of_another_owner(fake: FakeContainerd, client: Client, node: Node) -> None:
    agree(client, fake, node, params(node, owner="somebody"))
    before = world(fake, node)
    error = refusal(client, params(node))
    assert isinstance(error, ConflictError) and error.code == "container_not_ours"
    assert "somebody" in error.message and "gpuops.restore" in error.message
    assert world(fake, node) == before
    assert agree(client, fake, node, params(node, force=True)).created is True


def test_a_container_that_the_collection_did_not_make(fake: FakeContainerd, client: Client, node: Node) -> None:
    agree(client, fake, node, params(node))
    fake.state.containers["train"].labels.clear()
    assert refusal(client, params(node)).code == "container_not_ours"


def test_a_container_from_another_checkpoint(fake: FakeContainerd, client: Client, node: Node) -> None:
    agree(client, fake, node, params(node))
    other = add_checkpoint(fake.state, name="other", base=node.base)
    wanted = params(node, source=original.Source("other"))
    error = refusal(client, wanted)
    assert error.code == "container_other_checkpoint"
    assert other.digest in error.message and node.checkpoint.digest in error.message
    assert agree(client, fake, node, dataclasses.replace(wanted, force=True)).created is True


@pytest.mark.parametrize("owner", ["somebody", None])
def test_a_snapshot_of_somebody_else(fake: FakeContainerd, client: Client, node: Node, owner: str | None) -> None:
    fake.state.snapshots[KEY] = Snapshot(node.base.chain_id, 2, {core_labels.OWNER: owner} if owner else {})
    before = world(fake, node)
    error = refusal(client, params(node))
    assert error.code == "snapshot_in_use"
    assert KEY[1] in error.message
    assert world(fake, node) == before


def test_two_containers_do_not_share_a_snapshot(fake: FakeContainerd, client: Client, node: Node) -> None:
    """As with one snapshotID in the metadata of two workloads: the second must not run on the first one's files."""
    agree(client, fake, node, params(node, snapshot_id="shared"))
    before = world(fake, node)
    error = refusal(client, params(node, container_id="second", snapshot_id="shared", force=True))
    assert (error.code, "train" in error.message) == ("snapshot_in_use", True)
    assert world(fake, node) == before


def test_a_refused_snapshot_does_not_cost_the_old_container(fake: FakeContainerd, client: Client, node: Node) -> None:
    agree(client, fake, node, params(node))
    fake.state.snapshots[("overlayfs", "theirs")] = Snapshot(node.base.chain_id, 2, {})
    before = world(fake, node)
    assert refusal(client, params(node, snapshot_id="theirs")).code == "snapshot_in_use"
    assert world(fake, node) == before


def test_a_running_container_is_not_replaced(fake: FakeContainerd, client: Client, node: Node) -> None:
    agree(client, fake, node, params(node))
    fake.state.tasks["train"] = Task(None, 77, RUNNING)
    before = fake.state.listing()
    error = refusal(client, params(node, env={"A": "b"}, force=True))
    assert error.code == "container_in_use" and "77" in error.message
    assert fake.state.listing() == before


def test_a_checkpoint_without_criu_images(fake: FakeContainerd, client: Client, node: Node) -> None:
    add_checkpoint(fake.state, base=node.base, without=(CRIU,))
    assert refusal(client, params(node)).code == "checkpoint_without_criu"


@pytest.mark.parametrize(("snapshotter", "words"), [("none", "does not exist"), ("zfs", "no zpool")])
def test_a_snapshotter_that_the_node_lacks(
    fake: FakeContainerd, client: Client, node: Node, snapshotter: str, words: str
) -> None:
    error = refusal(client, params(node, source=original.Source(CHECKPOINT_NAME, snapshotter=snapshotter)))
    assert error.code == "snapshotter_unknown"
    assert words in error.message and "overlayfs" in error.message


def test_a_runtime_that_the_node_lacks(client: Client, node: Node) -> None:
    (node.programs / "containerd-shim-runc-v2").unlink()
    assert refusal(client, params(node)).code == "runtime_absent"


def test_mount_sources_that_are_not_there_are_told_all_at_once(
    fake: FakeContainerd, client: Client, node: Node
) -> None:
    mounts = [{"destination": f"/{name}", "type": "bind", "source": f"/none/{name}"} for name in "ab"]
    add_checkpoint(fake.state, base=node.base, original=spec(mounts=mounts))
    error = refusal(client, params(node))
    assert isinstance(error, NodeError) and error.code == "mount_source_missing"
    assert "/none/a" in error.message and "/none/b" in error.message
    assert len(error.details["problems"]) == 2


def test_a_base_image_that_is_not_there(fake: FakeContainerd, client: Client, node: Node) -> None:
    del fake.state.images[BASE_NAME]
    error = refusal(client, params(node))
    assert isinstance(error, InputError) and error.code == "base_image_absent"
    predicted = container_steps.present(client, params(node, assume_prepared=True), True)
    assert predicted.changed is True
    with pytest.raises(InputError):
        container_steps.present(client, params(node, assume_prepared=True), False)


def test_a_writable_layer_that_is_not_in_the_store(fake: FakeContainerd, client: Client, node: Node) -> None:
    del fake.state.blobs[node.checkpoint.parts[LAYER]]
    assert refusal(client, params(node)).code == "blob_missing"


def test_a_writable_layer_that_was_tampered_with(fake: FakeContainerd, client: Client, node: Node) -> None:
    blob = fake.state.blobs[node.checkpoint.parts[LAYER]]
    blob.data = b"?" + blob.data[1:]
    before = world(fake, node)
    with pytest.raises(InputError) as caught:
        container_steps.present(client, params(node), False)
    assert caught.value.code == "blob_digest"
    assert world(fake, node) == before


# --- used snapshots


def use(fake: FakeContainerd) -> None:
    fake.state.snapshots[KEY].labels[core_labels.USED] = "true"
    fake.state.snapshots[KEY].layers.append("what the process wrote")


def test_a_used_snapshot_stays_unless_rebuilding_is_wished(fake: FakeContainerd, client: Client, node: Node) -> None:
    agree(client, fake, node, params(node))
    use(fake)
    assert agree(client, fake, node, params(node)).changed is False


@pytest.mark.parametrize("status", [None, STOPPED, CREATED], ids=["no task", "stopped", "created, never started"])
def test_a_used_snapshot_is_rebuilt_where_nothing_runs(
    fake: FakeContainerd, client: Client, node: Node, status: int | None
) -> None:
    agree(client, fake, node, params(node))
    use(fake)
    if status is not None:
        fake.state.tasks["train"] = Task(None, 0, status)
    done = agree(client, fake, node, params(node, rebuild=True))
    assert done.created is True
    assert fake.state.snapshots[KEY].layers == [node.checkpoint.parts[LAYER]]
    assert core_labels.USED not in fake.state.snapshots[KEY].labels
    assert fake.state.tasks == {}
    assert agree(client, fake, node, params(node, rebuild=True)).changed is False


def test_a_running_task_is_never_rebuilt(fake: FakeContainerd, client: Client, node: Node) -> None:
    agree(client, fake, node, params(node))
    use(fake)
    fake.state.tasks["train"] = Task(None, 77, RUNNING)
    assert agree(client, fake, node, params(node, rebuild=True)).changed is False
