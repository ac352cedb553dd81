# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images, on the test double of containerd: what is missing, what would be done, what is left after a failure."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._archive.reader import open_archive
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core import files
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError, RestoreError, RpcError
from ansible_collections.gpuops.restore.plugins.module_utils._image import archive_import, image as image_steps
from ansible_collections.gpuops.restore.plugins.module_utils._image.state import ImageParams
from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import (
    CONFIG,
    INDEX,
    LAYER,
    MANIFEST,
    Layout,
    digest,
    dump,
    tar,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import add_base
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

NAME = "example.test/app:1"
GC = "containerd.io/gc.ref.content"


def image(layout: Layout, text: bytes = b"layer") -> dict[str, Any]:
    """An image with one layer, for any machine."""
    config = layout.blob(CONFIG, dump({"rootfs": {"diff_ids": [digest(text)]}}))
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layout.blob(LAYER, text)]}
    return layout.blob(MANIFEST, dump(document))


def archive(tmp_path: Path, name: str | None = NAME, text: bytes = b"layer") -> str:
    layout = Layout()
    layout.add(image(layout, text), name)
    path = tmp_path / "image.tar"
    path.write_bytes(layout.tar())
    return str(path)


@pytest.mark.parametrize(
    ("inside", "wanted", "expected"),
    [
        (NAME, NAME, True),
        (None, NAME, True),
        ("001", NAME, True),
        ("example.test/other:1", NAME, False),
        ("docker.io/library/busybox:latest", "busybox", True),
    ],
)
def test_choose(tmp_path: Path, inside: str | None, wanted: str, expected: bool) -> None:
    with open_archive(archive(tmp_path, inside)) as opened:
        if expected:
            assert archive_import.choose(opened, wanted, "").descriptor == opened.images[0].descriptor
            return
        with pytest.raises(InputError) as caught:
            archive_import.choose(opened, wanted, "")
        assert caught.value.code == "archive_name_missing"
        known = opened.images[0].descriptor.digest
        assert archive_import.choose(opened, wanted, known).descriptor.digest == known


def test_import_check_run_again(fake: FakeContainerd, client: Client, tmp_path: Path) -> None:
    params = ImageParams(NAME, archive=archive(tmp_path), pinned=True)
    empty = fake.state.listing()
    predicted = image_steps.present(client, params, check=True)
    assert fake.state.listing() == empty
    done = image_steps.present(client, params, check=False)
    assert done.changed and done.created
    assert (predicted.changed, predicted.created, predicted.actions) == (done.changed, done.created, done.actions)
    assert (predicted.before, predicted.after) == (done.before, done.after)
    made = fake.state.images[NAME]
    assert made.labels["io.gpuops.restore/owner"] == "gpuops.restore"
    assert made.labels["io.cri-containerd.pinned"] == "pinned"
    labels = fake.state.blobs[made.target.digest].labels
    assert set(labels) == {f"{GC}.config", f"{GC}.l.0"}
    assert not fake.state.leases and not fake.state.ingests
    before = fake.state.listing()
    again = image_steps.present(client, params, check=False)
    assert not again.changed and again.image == done.image and fake.state.listing() == before


def test_the_record_comes_last(fake: FakeContainerd, client: Client, tmp_path: Path) -> None:
    image_steps.present(client, ImageParams(NAME, archive=archive(tmp_path)), check=False)
    names = fake.names()
    created = names.index("Images/Create")
    assert max(at for at, name in enumerate(names) if name == "Content/Write") < created
    assert max(at for at, name in enumerate(names) if name == "Snapshots/Commit") < created
    leases = {call.metadata.get("containerd-lease") for call in fake.seen if call.name == "Content/Write"}
    assert len(leases) == 1 and None not in leases


@pytest.mark.parametrize("method", ["Content/Write", "Diff/Apply", "Snapshots/Commit", "Images/Create"])
def test_a_failure_leaves_no_name(fake: FakeContainerd, client: Client, tmp_path: Path, method: str) -> None:
    fake.fail(method)
    with pytest.raises(RpcError):
        image_steps.present(client, ImageParams(NAME, archive=archive(tmp_path)), check=False)
    assert not fake.state.images and not fake.state.leases and not fake.state.ingests
    assert all(kind == 3 for _parent, kind, _labels, _layers in fake.state.listing()["snapshots"].values())


@pytest.mark.parametrize(
    ("method", "code"), [("Content/Write", "content_no_space"), ("Diff/Apply", "snapshots_no_space")]
)
def test_a_full_disk(fake: FakeContainerd, client: Client, tmp_path: Path, method: str, code: str) -> None:
    fake.fail(method, "UNKNOWN", "write /x: no space left on device")
    with pytest.raises(RestoreError) as caught:
        image_steps.present(client, ImageParams(NAME, archive=archive(tmp_path)), check=False)
    assert caught.value.code == code and caught.value.outcome == "retryable"


def test_no_space_is_seen_before(
    fake: FakeContainerd, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda _path: 10)
    with pytest.raises(RestoreError) as caught:
        image_steps.present(client, ImageParams(NAME, archive=archive(tmp_path)), check=True)
    assert caught.value.code == "content_no_space" and fake.count("Content/Write") == 0


def test_refusals(fake: FakeContainerd, client: Client, tmp_path: Path) -> None:
    base = add_base(fake.state, NAME)
    other = archive(tmp_path)
    before = copy.deepcopy(fake.state.listing())
    never = ImageParams("example.test/none:1", pull="never")
    for params, code in (
        (ImageParams(NAME, archive=other), "image_other_digest"),
        (
            ImageParams(NAME, archive=other, digest=base.digest.replace("sha256:", "sha256:0")[:71]),
            "image_digest_mismatch",
        ),
        (ImageParams(NAME, pull="never", digest="sha256:" + 64 * "0"), "image_other_digest"),
        (never, "image_absent"),
        (ImageParams(NAME, snapshotter="zfs"), "snapshotter_unknown"),
        (ImageParams(NAME, digest="md5:1"), "digest_invalid"),
    ):
        for check in (True, False):
            with pytest.raises(RestoreError) as caught:
                image_steps.present(client, params, check)
            assert caught.value.code == code
    with pytest.raises(RestoreError) as caught:
        image_steps.absent(client, ImageParams(NAME), check=False)
    assert caught.value.code == "image_not_ours"
    assert fake.state.listing() == before


def test_absent(fake: FakeContainerd, client: Client) -> None:
    add_base(fake.state, NAME)
    fake.state.images[NAME].labels["io.gpuops.restore/owner"] = "gpuops.restore"
    assert image_steps.absent(client, ImageParams(NAME), check=True).changed
    assert NAME in fake.state.images
    assert image_steps.absent(client, ImageParams(NAME), check=False).changed
    assert NAME not in fake.state.images
    assert not image_steps.absent(client, ImageParams(NAME), check=False).changed


def test_an_index_with_nothing_for_this_machine(fake: FakeContainerd, client: Client, tmp_path: Path) -> None:
    layout = Layout()
    child = {**image(layout), "platform": {"os": "plan9", "architecture": "none"}}
    layout.add(layout.blob(INDEX, dump({"schemaVersion": 2, "mediaType": INDEX, "manifests": [child]})), NAME)
    path = tmp_path / "other.tar"
    path.write_bytes(tar(layout.files()))
    with pytest.raises(InputError) as caught:
        image_steps.present(client, ImageParams(NAME, archive=str(path)), check=False)
    assert caught.value.code == "archive_no_platform" and fake.count("Content/Write") == 0
