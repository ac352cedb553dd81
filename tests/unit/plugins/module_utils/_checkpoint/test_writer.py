# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import (
    reader as checkpoint_reader,
    staging,
    writer as checkpoint_writer,
)
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.messages import message, pack
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError
from ansible_collections.gpuops.restore.plugins.module_utils._oci.image import Descriptor
from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import MANIFEST
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import spec
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

NAME = "example.test/app:checkpoint"
FILES = {"pages-1.img": bytes(3 << 20) + b"end", "inventory.img": b"inventory", "descriptors.json": b"[]", "a.img": b""}


@pytest.fixture
def images(tmp_path: Path) -> str:
    directory = tmp_path / "criu"
    directory.mkdir()
    for name, data in FILES.items():
        (directory / name).write_bytes(data)
    return str(directory)


def criu_tar(client: Client, directory: str) -> Descriptor:
    """Streamed into the store, as a dump of another tool's is."""
    data = b"".join(checkpoint_writer.tar_chunks(directory))
    return checkpoint_writer.blob(client, data, checkpoint_reader.CRIU)


def parts(client: Client, images: str) -> checkpoint_writer.Parts:
    runc = pack("containerd.runc.v1.Options", message("containerd.runc.v1.Options", root="/x").SerializeToString())
    return checkpoint_writer.Parts(
        criu=criu_tar(client, images),
        config=checkpoint_writer.spec_blob(client, spec()),
        options=checkpoint_writer.options_blob(client),
        runtime_options=checkpoint_writer.runtime_options_blob(client, runc),
        writable_layer=checkpoint_writer.blob(client, b"layer", checkpoint_writer.LAYER),
        base=Descriptor(MANIFEST, "sha256:" + "0" * 64, 7),
        base_name="example.test/app:1",
        runtime="io.containerd.runc.v2",
        snapshotter="overlayfs",
        annotations={"io.gpuops.restore/facts": "{}"},
    )


def test_the_tar_is_sorted_plain_and_always_the_same(fake: FakeContainerd, client: Client, images: str) -> None:
    found = criu_tar(client, images)
    data = fake.state.blobs[found.digest].data
    assert (found.size, found.digest) == (len(data), "sha256:" + hashlib.sha256(data).hexdigest())
    assert fake.state.ingests == {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == sorted(FILES)
        assert {(member.mode, member.uid, member.mtime, member.type) for member in members} == {(0o600, 0, 0, b"0")}
        for member in members:
            stream = archive.extractfile(member)
            assert stream is not None and stream.read() == FILES[member.name]
    for name in FILES:
        os.utime(os.path.join(images, name), (5, 5))
    assert criu_tar(client, images).digest == found.digest


def test_what_is_written_can_be_staged(fake: FakeContainerd, client: Client, images: str, tmp_path: Path) -> None:
    found = criu_tar(client, images)
    data = fake.state.blobs[found.digest].data
    root = str(tmp_path / "staging")
    staged = staging.stage([data], expected_digest=found.digest, expected_size=found.size, root=root, name="a" * 64)
    assert staged.files == len(FILES)


def test_the_daemon_packs_the_same_files(fake: FakeContainerd, client: Client, images: str) -> None:
    found = checkpoint_writer.packed_by_daemon(client, images)
    assert found.media_type == checkpoint_reader.CRIU
    (call,) = fake.seen
    assert (call.name, call.request.media_type) == ("Diff/Diff", "application/vnd.oci.image.layer.v1.tar")
    assert (list(call.request.left), call.request.right[0].source) == ([], images)
    with tarfile.open(fileobj=io.BytesIO(fake.state.blobs[found.digest].data)) as archive:
        assert archive.getnames() == sorted(FILES)


@pytest.mark.parametrize("pack", [criu_tar, checkpoint_writer.packed_by_daemon])
@pytest.mark.parametrize("kind", ["link", "directory", "pipe"])
def test_only_regular_files_go_in(
    fake: FakeContainerd, client: Client, images: str, kind: str, pack: Callable[[Client, str], Descriptor]
) -> None:
    path = os.path.join(images, "b.img")
    if kind == "link":
        os.symlink("/etc/passwd", path)
    elif kind == "directory":
        os.mkdir(path)
    else:
        os.mkfifo(path)
    with pytest.raises(InputError) as caught:
        pack(client, images)
    assert caught.value.code == "criu_images_not_plain"
    assert (fake.state.blobs, fake.state.ingests) == ({}, {})


def test_half_a_dump_is_refused(fake: FakeContainerd, client: Client, images: str) -> None:
    os.unlink(os.path.join(images, "inventory.img"))
    with pytest.raises(InputError) as caught:
        criu_tar(client, images)
    assert caught.value.code == "criu_images_incomplete"
    assert fake.state.blobs == {}


def test_a_file_that_shrinks_meanwhile(client: Client, images: str) -> None:
    chunks = checkpoint_writer.tar_chunks(images)
    with pytest.raises(InputError) as caught:
        for chunk in chunks:
            if chunk[:11] == b"pages-1.img":
                os.truncate(os.path.join(images, "pages-1.img"), 10)
    assert caught.value.code == "criu_images_changed"


def test_a_large_file_has_its_size_in_the_header(tmp_path: Path) -> None:
    """ustar ends at 8 GiB; a sparse file stands for a large one."""
    for name in ("inventory.img", "descriptors.json"):
        (tmp_path / name).touch()
    size = (8 << 30) + 1
    with open(tmp_path / "big.img", "wb") as stream:
        stream.truncate(size)
    first = next(checkpoint_writer.tar_chunks(str(tmp_path)))
    assert tarfile.TarInfo.frombuf(first[:512], "utf-8", "strict").type == b"x"
    assert b"size=%d\n" % size in first


def test_the_image_reads_back(fake: FakeContainerd, client: Client, images: str) -> None:
    made = parts(client, images)
    digest = checkpoint_writer.index(client, NAME, made, {"x": "y"})
    found = checkpoint_reader.load(client, NAME)
    assert (found.digest, found.layout, found.base_name) == (digest, "container", "example.test/app:1")
    assert (found.runtime, found.snapshotter) == ("io.containerd.runc.v2", "overlayfs")
    pairs = [
        (found.criu, made.criu),
        (found.config, made.config),
        (found.options, made.options),
        (found.runtime_options, made.runtime_options),
        (found.writable_layer, made.writable_layer),
        (found.base, made.base),
    ]
    assert all(left is not None and right is not None and left.digest == right.digest for left, right in pairs)
    assert checkpoint_reader.spec(client, found) == spec()
    options = checkpoint_reader.runtime_options(client, found)
    assert options.type_url == "containerd.runc.v1.Options"
    assert dict(fake.state.images[NAME].labels) == {"x": "y"}


def test_every_child_has_a_gc_label(fake: FakeContainerd, client: Client, images: str) -> None:
    made = parts(client, images)
    digest = checkpoint_writer.index(client, NAME, made)
    labels = fake.state.blobs[digest].labels
    assert set(labels.values()) == {child.digest for child in made.children()}
    assert all(name.startswith("containerd.io/gc.ref.content.") for name in labels)
    document = json.loads(fake.state.blobs[digest].data)
    assert document["annotations"]["io.gpuops.restore/facts"] == "{}"
    assert "platform" not in document["manifests"][0], "the base image's own entry stays as it is"


def test_parts_may_lack(fake: FakeContainerd, client: Client, images: str) -> None:
    made = checkpoint_writer.Parts(
        criu=criu_tar(client, images),
        config=checkpoint_writer.spec_blob(client, spec()),
        options=checkpoint_writer.options_blob(client),
    )
    digest = checkpoint_writer.index(client, NAME, made)
    assert len(json.loads(fake.state.blobs[digest].data)["manifests"]) == 3
    assert checkpoint_writer.runtime_options_blob(client, None) is None


def test_a_record_of_that_name_is_moved(fake: FakeContainerd, client: Client, images: str) -> None:
    made = parts(client, images)
    first = checkpoint_writer.index(client, NAME, made)
    second = checkpoint_writer.index(client, NAME, _replace(made), {"new": "1"})
    assert first != second
    assert fake.state.images[NAME].target.digest == second
    assert dict(fake.state.images[NAME].labels) == {"new": "1"}


def _replace(made: checkpoint_writer.Parts) -> checkpoint_writer.Parts:
    return checkpoint_writer.Parts(**{**made.__dict__, "writable_layer": None})
