# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import stage as stage_steps, staging
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core import files
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError, NodeError, RestoreError
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import (
    CHECKPOINT_NAME,
    CRIU,
    CRIU_FILES,
    add_checkpoint,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd


def key(node: Node) -> str:
    return node.checkpoint.digest.split(":", 1)[1]


def test_the_criu_images_are_staged_and_then_left_alone(fake: FakeContainerd, client: Client, node: Node) -> None:
    predicted = stage_steps.present(client, CHECKPOINT_NAME, node.root, None, True)
    assert not os.path.exists(node.root)
    done = stage_steps.present(client, CHECKPOINT_NAME, node.root, None, False)
    assert (predicted.changed, predicted.before, predicted.after) == (True, "absent", "staged")
    assert (done.changed, done.before, done.after) == (True, "absent", "staged")
    assert done.directory == f"{node.root}/{key(node)}/images"
    assert {name: Path(done.directory, name).read_bytes() for name in os.listdir(done.directory)} == CRIU_FILES
    total = sum(map(len, CRIU_FILES.values()))
    assert done.staged == {"digest": node.checkpoint.parts[CRIU], "bytes": total, "files": len(CRIU_FILES)}
    assert os.stat(node.root).st_mode & 0o777 == 0o700
    assert fake.state.leases == {}
    fake.heal()
    for check in (True, False):
        again = stage_steps.present(client, CHECKPOINT_NAME, node.root, None, check)
        assert (again.changed, again.before, again.staged) == (False, "staged", done.staged)
    assert "Content/Read" not in [name for name in fake.names() if name != "Content/Read"]


def test_what_is_staged_is_not_read_again(fake: FakeContainerd, client: Client, node: Node) -> None:
    stage_steps.present(client, CHECKPOINT_NAME, node.root, None, False)
    read = len(fake.seen)
    stage_steps.present(client, CHECKPOINT_NAME, node.root, None, False)
    again = [call for call in fake.seen[read:] if call.name == "Content/Read" and call.request.digest == _criu(node)]
    assert not again


@pytest.mark.parametrize("compressed", [False, True])
def test_the_time_allowed_and_the_lease_follow_from_the_size(
    fake: FakeContainerd, client: Client, node: Node, monkeypatch: pytest.MonkeyPatch, compressed: bool
) -> None:
    size = len(fake.state.blobs[_criu(node)].data)
    if compressed:
        # What it expands to has to be written as well; the disk bounds it.
        monkeypatch.setattr(files, "free_bytes", lambda _path: 1 << 40)
        monkeypatch.setattr(stage_steps, "compression", lambda _head: "zstd")
        size *= 1100
    client.rate = size / 1e6
    expires: list[datetime.datetime] = []
    fake.on("Content/Read", lambda _context: expires.extend(fake.state.expiries()))
    stage_steps.present(client, CHECKPOINT_NAME, node.root, None, False)
    assert fake.seconds("Content/Read")[-1] == pytest.approx(1e6, rel=0.05)
    left = (expires[-1] - datetime.datetime.now(datetime.timezone.utc)).total_seconds()
    assert left == pytest.approx(1e6 + 3600, abs=60)


def _criu(node: Node) -> str:
    return node.checkpoint.parts[CRIU]


def test_the_reading_is_done_under_a_lease(fake: FakeContainerd, client: Client, node: Node) -> None:
    fake.state.leases["mine"] = {}
    stage_steps.present(client, CHECKPOINT_NAME, node.root, "mine", False)
    leases = [call.metadata.get("containerd-lease") for call in fake.seen if call.name == "Content/Read"]
    assert leases[-1] == "mine" and list(fake.state.leases) == ["mine"]


def test_a_lease_that_is_not_there(fake: FakeContainerd, client: Client, node: Node) -> None:
    with pytest.raises(RestoreError) as caught:
        stage_steps.present(client, CHECKPOINT_NAME, node.root, "none", False)
    assert caught.value.code == "lease_absent"
    assert not os.path.exists(node.root)


@pytest.mark.parametrize("name", ["Content/Read", "Leases/Create", "Images/Get", "Content/Info"])
@pytest.mark.parametrize("status", ["INTERNAL", "UNAVAILABLE"])
def test_a_failing_call_leaves_nothing(
    fake: FakeContainerd, client: Client, node: Node, name: str, status: str
) -> None:
    before = fake.state.listing()
    # The first read is that of the index, the second that of the CRIU images.
    fake.fail(name, status, after=1 if name == "Content/Read" else 0)
    with pytest.raises(RestoreError, match="made to fail"):
        stage_steps.present(client, CHECKPOINT_NAME, node.root, None, False)
    assert not os.path.exists(node.root)
    assert fake.state.listing() == before


def test_a_connection_that_breaks_in_the_middle_leaves_nothing(
    fake: FakeContainerd, client: Client, node: Node
) -> None:
    fake.fail("Content/Read", "UNAVAILABLE", after=1)
    fake.on("Content/Read", lambda _context: fake.drop_connections(), times=1, after=1)
    with pytest.raises(RestoreError):
        stage_steps.present(client, CHECKPOINT_NAME, node.root, None, False)
    assert not os.path.exists(node.root)
    fake.heal()
    assert stage_steps.present(client, CHECKPOINT_NAME, node.root, None, False).changed is True


def test_tampered_images_are_refused(fake: FakeContainerd, client: Client, node: Node) -> None:
    blob = fake.state.blobs[_criu(node)]
    blob.data = blob.data.replace(b"pppp", b"pppq", 1)
    with pytest.raises(InputError) as caught:
        stage_steps.present(client, CHECKPOINT_NAME, node.root, None, False)
    assert caught.value.code == "digest_mismatch"
    assert not os.path.exists(node.root)


@pytest.mark.parametrize("check", [True, False])
def test_images_that_are_not_in_the_store(fake: FakeContainerd, client: Client, node: Node, check: bool) -> None:
    del fake.state.blobs[_criu(node)]
    with pytest.raises(InputError) as caught:
        stage_steps.present(client, CHECKPOINT_NAME, node.root, None, check)
    assert caught.value.code == "blob_missing"


@pytest.mark.parametrize("check", [True, False])
def test_images_of_another_size(fake: FakeContainerd, client: Client, node: Node, check: bool) -> None:
    fake.state.blobs[_criu(node)].data += b"more"
    with pytest.raises(InputError) as caught:
        stage_steps.present(client, CHECKPOINT_NAME, node.root, None, check)
    assert caught.value.code == "blob_truncated"


@pytest.mark.parametrize("check", [True, False])
def test_a_checkpoint_without_images(fake: FakeContainerd, client: Client, node: Node, check: bool) -> None:
    add_checkpoint(fake.state, base=node.base, without=(CRIU,))
    with pytest.raises(InputError) as caught:
        stage_steps.present(client, CHECKPOINT_NAME, node.root, None, check)
    assert caught.value.code == "checkpoint_without_criu"


@pytest.mark.parametrize("check", [True, False])
def test_a_full_file_system(client: Client, node: Node, monkeypatch: pytest.MonkeyPatch, check: bool) -> None:
    monkeypatch.setattr(files, "RESERVE", 1 << 60)
    monkeypatch.setattr(staging.stage, "__kwdefaults__", {**(staging.stage.__kwdefaults__ or {}), "reserve": 1 << 60})
    with pytest.raises(NodeError) as caught:
        stage_steps.present(client, CHECKPOINT_NAME, node.root, None, check)
    assert caught.value.code == "staging_no_space"


@pytest.mark.parametrize("check", [True, False])
def test_a_staging_directory_whose_parent_is_not_there(client: Client, node: Node, check: bool) -> None:
    with pytest.raises(NodeError) as caught:
        stage_steps.present(client, CHECKPOINT_NAME, f"{node.root}/none/deeper", None, check)
    assert caught.value.code == "staging_dir_missing"


def test_a_damaged_staging_is_made_anew(client: Client, node: Node) -> None:
    done = stage_steps.present(client, CHECKPOINT_NAME, node.root, None, False)
    Path(done.directory, "inventory.img").write_bytes(b"changed")
    assert stage_steps.present(client, CHECKPOINT_NAME, node.root, None, True).changed is True
    assert stage_steps.present(client, CHECKPOINT_NAME, node.root, None, False).changed is True
    assert Path(done.directory, "inventory.img").read_bytes() == CRIU_FILES["inventory.img"]


@pytest.mark.parametrize("state", ["present", "absent"])
def test_the_lease_of_a_run_that_was_killed_when_all_was_done(
    fake: FakeContainerd, client: Client, node: Node, state: str
) -> None:
    fake.fail("Leases/Delete", times=1)
    stage_steps.present(client, CHECKPOINT_NAME, node.root, None, False)
    assert len(fake.state.leases) == 1

    def again(check: bool) -> stage_steps.StageResult:
        if state == "present":
            return stage_steps.present(client, CHECKPOINT_NAME, node.root, None, check)
        return stage_steps.absent(client, key(node), node.root, check)

    predicted = again(True)
    assert len(fake.state.leases) == 1
    done = again(False)
    assert predicted == done and (done.changed, done.created) == (True, False)
    assert fake.state.leases == {}
    assert again(False).changed is False


# --- absent


def test_absent_removes_it_and_the_empty_root(client: Client, node: Node) -> None:
    stage_steps.present(client, CHECKPOINT_NAME, node.root, None, False)
    predicted = stage_steps.absent(client, key(node), node.root, True)
    assert os.path.exists(node.root)
    done = stage_steps.absent(client, key(node), node.root, False)
    assert predicted == done
    assert (done.changed, done.before, done.after) == (True, "staged", "absent")
    assert not os.path.exists(node.root)
    assert stage_steps.absent(client, key(node), node.root, False).changed is False


def test_absent_removes_what_a_killed_run_left(client: Client, node: Node) -> None:
    partial = os.path.join(node.root, f".{key(node)}.partial-1")
    os.makedirs(partial, mode=0o700)
    os.chmod(node.root, 0o700)
    assert stage_steps.absent(client, key(node), node.root, True).changed is True
    assert stage_steps.absent(client, key(node), node.root, False).changed is True
    assert not os.path.exists(partial)


def test_absent_leaves_other_checkpoints_alone(fake: FakeContainerd, client: Client, node: Node) -> None:
    stage_steps.present(client, CHECKPOINT_NAME, node.root, None, False)
    other = add_checkpoint(fake.state, name="other", base=node.base)
    kept = stage_steps.present(client, "other", node.root, None, False)
    stage_steps.absent(client, key(node), node.root, False)
    assert other.digest.endswith(os.path.basename(os.path.dirname(kept.directory)))
    assert os.path.isdir(kept.directory)


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("name", ["sha256:", "sha256:..", "sha256:../../etc", "sha256:" + "A" * 64])
def test_a_digest_that_is_none_never_becomes_a_path(client: Client, node: Node, name: str, check: bool) -> None:
    os.makedirs(node.root, mode=0o700)
    found = stage_steps.find_key(client, name)
    assert found is not None
    with pytest.raises(InputError) as caught:
        stage_steps.absent(client, found, node.root, check)
    assert caught.value.code == "staging_name_invalid"
    assert os.path.isdir(node.root)


def test_the_key_of_an_image_or_a_digest(client: Client, node: Node) -> None:
    assert stage_steps.find_key(client, CHECKPOINT_NAME) == key(node)
    assert stage_steps.find_key(client, node.checkpoint.digest) == key(node)
    assert stage_steps.find_key(client, "none") is None
