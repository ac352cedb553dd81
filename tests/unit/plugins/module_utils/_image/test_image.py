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
from ansible_collections.gpuops.restore.plugins.module_utils._containerd import images
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core import files
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import (
    DeadlineError,
    InputError,
    NotFoundError,
    RestoreError,
    RpcError,
    UnimplementedError,
)
from ansible_collections.gpuops.restore.plugins.module_utils._image import (
    archive_import,
    cri as image_cri,
    image as image_steps,
    pull as image_pull,
    tree as image_tree,
)
from ansible_collections.gpuops.restore.plugins.module_utils._image.state import ImageParams
from ansible_collections.gpuops.restore.plugins.module_utils._oci import image as oci_image
from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import (
    CONFIG,
    CRIU,
    INDEX,
    LAYER,
    MANIFEST,
    Layout,
    digest,
    dump,
    tar,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import add_base, add_checkpoint, record
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

NAME = "example.test/app:1"
GC = "containerd.io/gc.ref.content"


def item(kind: str, number: int) -> oci_image.Descriptor:
    return oci_image.Descriptor(kind, f"sha256:{number:064x}", 1)


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


# --- labels against garbage collection


def test_labels_of_a_manifest_and_of_an_index() -> None:
    children = [item(CONFIG, 1), item(LAYER, 2), item(LAYER, 3), item(LAYER, 2)]
    assert image_tree.gc_labels(children, {}, manifest=True) == {
        f"{GC}.config": children[0].digest,
        f"{GC}.l.0": children[1].digest,
        f"{GC}.l.1": children[2].digest,
    }
    children = [item(CRIU, 1), item(MANIFEST, 2)]
    assert image_tree.gc_labels(children, {}, manifest=False) == {
        f"{GC}.0": children[0].digest,
        f"{GC}.m.1": children[1].digest,
    }


def test_labels_of_others_are_kept() -> None:
    children = [item(CONFIG, 1), item(LAYER, 2)]
    theirs = {f"{GC}.7": children[0].digest, f"{GC}.l.0": "sha256:else"}
    assert image_tree.gc_labels(children, theirs, manifest=True) == {f"{GC}.restore.1": children[1].digest}


# --- what is there


def survey(client: Client, name: str) -> image_tree.Tree:
    found = images.get(client, name)
    assert found is not None
    return image_tree.survey(client, found.target)


def test_survey_of_a_whole_image(fake: FakeContainerd, client: Client) -> None:
    base = add_base(fake.state)
    tree = survey(client, base.name)
    assert not tree.missing and not tree.missing_layers and not tree.is_checkpoint
    assert set(tree.unlabelled[base.digest].values()) == {
        base.document["config"]["digest"],
        *(layer["digest"] for layer in base.document["layers"]),
    }
    assert tree.size == sum(len(blob.data) for blob in fake.state.blobs.values())


@pytest.mark.parametrize(("part", "missing", "layers"), [("config", 1, 0), ("layer", 0, 1), ("manifest", 1, 0)])
def test_survey_misses(fake: FakeContainerd, client: Client, part: str, missing: int, layers: int) -> None:
    base = add_base(fake.state)
    parts = {
        "config": base.document["config"]["digest"],
        "layer": base.document["layers"][1]["digest"],
        "manifest": base.digest,
    }
    del fake.state.blobs[parts[part]]
    tree = survey(client, base.name)
    assert (len(tree.missing), len(tree.missing_layers)) == (missing, layers)


def test_survey_sees_a_wrong_size(fake: FakeContainerd, client: Client) -> None:
    base = add_base(fake.state)
    fake.state.blobs[base.document["layers"][0]["digest"]].data += b"!"
    assert [lacking.digest for lacking in survey(client, base.name).missing_layers] == [
        base.document["layers"][0]["digest"]
    ]


def test_checkpoint_is_whole_without_its_base_but_not_without_its_memory(fake: FakeContainerd, client: Client) -> None:
    base = add_base(fake.state)
    checkpoint = add_checkpoint(fake.state, base=base)
    for blob in (base.digest, base.document["config"]["digest"]):
        del fake.state.blobs[blob]
    tree = survey(client, checkpoint.name)
    assert tree.is_checkpoint and not tree.missing and not tree.missing_layers
    assert base.digest in tree.unlabelled[checkpoint.digest].values()
    del fake.state.blobs[checkpoint.parts[CRIU]]
    assert [lacking.digest for lacking in survey(client, checkpoint.name).missing] == [checkpoint.parts[CRIU]]


# --- which image of an archive


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


# --- the step


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


# --- beside CRI


def test_cri_records_go_with_the_last_name(fake: FakeContainerd, client: Client) -> None:
    base = add_base(fake.state, NAME)
    managed = {"io.cri-containerd.image": "managed"}
    record(fake.state, "sha256:" + 64 * "c", MANIFEST, fake.state.blobs[base.digest].data, managed)
    found = images.get(client, NAME)
    assert found is not None
    record(fake.state, "example.test/alias:1", MANIFEST, fake.state.blobs[base.digest].data)
    assert image_cri.references(client, found) == []
    del fake.state.images["example.test/alias:1"]
    assert image_cri.remove(client, found, ordinary=True) == [NAME, "sha256:" + 64 * "c"]
    assert not fake.state.images


# --- registries


def failure(kind: type[RpcError], text: str) -> RpcError:
    return kind("rpc_failed", text, outcome="unknown", rpc="Transfer/Transfer", details={"text": text})


@pytest.mark.parametrize(
    ("error", "code", "outcome"),
    [
        (failure(UnimplementedError, "unknown service"), "pull_unsupported", "terminal"),
        (failure(NotFoundError, "no such tag"), "pull_not_found", "terminal"),
        (failure(RpcError, "unexpected status: 401 Unauthorized"), "pull_denied", "terminal"),
        (failure(RpcError, "pull access denied, repository does not exist"), "pull_denied", "terminal"),
        (failure(RpcError, "dial tcp 10.0.0.1:443: connect: connection refused"), "pull_failed", "retryable"),
        (failure(RpcError, "unexpected status: 503 Service Unavailable"), "pull_failed", "retryable"),
        (failure(RpcError, "http: server gave HTTP response to HTTPS client"), "pull_failed", "terminal"),
        (failure(RpcError, "something new"), "pull_failed", "unknown"),
    ],
)
def test_why_a_pull_failed(error: RpcError, code: str, outcome: str) -> None:
    found = image_pull.explain(NAME, error)
    assert (found.code, found.outcome) == (code, outcome)
    assert NAME in found.message and found.remedy


def test_a_pull_in_doubt_is_not_explained_away() -> None:
    error = failure(DeadlineError, "took too long")
    assert image_pull.explain(NAME, error) is error


def test_an_expected_digest_is_asked_for() -> None:
    assert image_pull.reference(NAME, "") == NAME
    assert image_pull.reference(NAME, "sha256:1") == f"{NAME}@sha256:1"
    assert image_pull.reference(f"{NAME}@sha256:2", "sha256:1") == f"{NAME}@sha256:2"


def test_an_index_with_nothing_for_this_machine(fake: FakeContainerd, client: Client, tmp_path: Path) -> None:
    layout = Layout()
    child = {**image(layout), "platform": {"os": "plan9", "architecture": "none"}}
    layout.add(layout.blob(INDEX, dump({"schemaVersion": 2, "mediaType": INDEX, "manifests": [child]})), NAME)
    path = tmp_path / "other.tar"
    path.write_bytes(tar(layout.files()))
    with pytest.raises(InputError) as caught:
        image_steps.present(client, ImageParams(NAME, archive=str(path)), check=False)
    assert caught.value.code == "archive_no_platform" and fake.count("Content/Write") == 0
