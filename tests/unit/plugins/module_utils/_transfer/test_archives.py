# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checkpoints as files, on the test double of containerd: predicted, done, done again, refused, failed half-way."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._archive import writer as archive_writer
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import reader as checkpoint_reader
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core import files as core_files
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._transfer import (
    convert as transfer_convert,
    export_archive,
    import_archive,
)
from ansible_collections.gpuops.restore.plugins.module_utils._transfer.common import TransferResult
from ansible_collections.gpuops.restore.tests.unit.helpers import dump_samples
from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import (
    END,
    INDEX,
    Layout,
    digest,
    dump,
    entry,
    tar,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import (
    BASE_NAME,
    CHECKPOINT_NAME,
    CRIU,
    add_base,
    add_cri_reference,
    spec,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

NAME = "example.test/converted:1"
Run = Callable[[bool], TransferResult]


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_files, "free_bytes", lambda _path: 1 << 40)


def exporting(client: Client, path: str, **more: Any) -> Run:
    return lambda check: export_archive.run(client, export_archive.ExportParams(CHECKPOINT_NAME, path, **more), check)


def importing(client: Client, path: str, name: str = CHECKPOINT_NAME, **more: Any) -> Run:
    params = import_archive.ImportParams(name, path, **{"tag_base": True, **more})
    return lambda check: import_archive.run(client, params, check)


def converting(client: Client, path: str, **more: Any) -> Run:
    params = transfer_convert.ConvertParams(NAME, path, **{"tag_base": True, **more})
    return lambda check: transfer_convert.run(client, params, check)


def thrice(run: Run) -> TransferResult:
    """Predicted, done, and then nothing to do."""
    predicted, done = run(True), run(False)
    for key in ("changed", "digest", "actions", "before", "after", "warnings"):
        assert getattr(predicted, key) == getattr(done, key), key
    assert done.changed
    for check in (True, False):
        again = run(check)
        assert (again.changed, again.actions, again.digest) == (False, [], done.digest)
    return done


def code_of(run: Run, check: bool = False) -> str:
    with pytest.raises(RestoreError) as caught:
        run(check)
    assert caught.value.message.endswith(".") and caught.value.remedy
    return caught.value.code


def empty(fake: FakeContainerd) -> None:
    for found in (fake.state.blobs, fake.state.images, fake.state.snapshots):
        found.clear()


# --- export and import


@pytest.mark.parametrize("ending", ["tar", "tgz", "tar.zst"])
def test_out_and_in(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, ending: str) -> None:
    path = str(tmp_path / f"a.{ending}")
    written = thrice(exporting(client, path))
    assert written.transferred["size"] == os.stat(path).st_size
    blobs, labels = {name: blob.data for name, blob in fake.state.blobs.items()}, dict(fake.state.images)
    empty(fake)
    done = thrice(importing(client, path))
    assert done.digest == node.checkpoint.digest
    assert {name: blob.data for name, blob in fake.state.blobs.items()} == blobs
    assert set(fake.state.images) == set(labels) == {CHECKPOINT_NAME, BASE_NAME}
    assert fake.state.images[BASE_NAME].target.digest == node.base.digest
    labels_of = [blob.labels for blob in fake.state.blobs.values()]
    kept = {value for found in labels_of for key, value in found.items() if "gc.ref.content" in key}
    assert kept | {done.digest} == set(blobs), "garbage collection would take something"
    assert fake.state.leases == {}


def private(node: Node) -> str:
    """The name of a base image that nobody asked a tag for."""
    return f"{BASE_NAME.rpartition(':')[0]}@{node.base.digest}"


def test_an_import_makes_no_tag_by_itself(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path) -> None:
    path = str(tmp_path / "a.tar")
    exporting(client, path)(False)
    empty(fake)
    thrice(importing(client, path, tag_base=False))
    assert set(fake.state.images) == {CHECKPOINT_NAME, private(node)}
    checkpoint = checkpoint_reader.load(client, CHECKPOINT_NAME)
    assert checkpoint_reader.base_image(client, checkpoint, "").name == private(node)


def test_a_conversion_makes_no_tag_by_itself(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path) -> None:
    path = dumped(tmp_path, node)
    add_cri_reference(fake.state, node.base)
    del fake.state.images[BASE_NAME]
    thrice(converting(client, path, tag_base=False))
    assert BASE_NAME not in fake.state.images and private(node) in fake.state.images
    assert checkpoint_reader.load(client, NAME).base_name == BASE_NAME, "for people it is called as before"


def test_as_the_ending_says(client: Client, node: Node, tmp_path: Path) -> None:
    for name, kind in {"a.tar": "none", "a.tar.gz": "gzip", "a.tgz": "gzip", "a.zst": "zstd", "a": "none"}.items():
        assert exporting(client, str(tmp_path / name))(False).transferred["compression"] == kind
    path = str(tmp_path / "a.tar")
    # Nothing is lost when it is packed in another way.
    assert thrice(exporting(client, path, compression="gzip")).before["compression"] == "none"
    assert Path(path).read_bytes().startswith(b"\x1f\x8b")


def test_without_the_base(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path) -> None:
    path = str(tmp_path / "a.tar")
    thrice(exporting(client, path, base="omit"))
    with tarfile.open(path) as archive:
        names = archive.getnames()
    assert f"blobs/sha256/{node.base.digest[7:]}" not in names
    assert f"blobs/sha256/{node.checkpoint.parts[CRIU][7:]}" in names
    empty(fake)
    done = thrice(importing(client, path))
    assert len(done.warnings) == 1 and "another way" in done.warnings[0]
    assert set(fake.state.images) == {CHECKPOINT_NAME}


def test_the_base_gets_its_name_only_where_nobody_has_it(
    fake: FakeContainerd, client: Client, node: Node, tmp_path: Path
) -> None:
    path = str(tmp_path / "a.tar")
    exporting(client, path)(False)
    empty(fake)
    other = add_base(fake.state, text=b"another")
    done = importing(client, path)(False)
    assert fake.state.images[BASE_NAME].target.digest == other.digest
    assert any("gets no name" in warning for warning in done.warnings)
    empty(fake)
    assert not any("name the base" in action for action in importing(client, path, base="omit")(False).actions)
    assert set(fake.state.images) == {CHECKPOINT_NAME}
    assert thrice(importing(client, path)).actions == [f"name the base image {BASE_NAME} ({node.base.digest})"]


def test_a_base_image_that_only_cri_has_a_record_of_gets_its_name(
    fake: FakeContainerd, client: Client, node: Node, tmp_path: Path
) -> None:
    path = str(tmp_path / "a.tar")
    exporting(client, path, base="omit")(False)
    add_cri_reference(fake.state, node.base)
    del fake.state.images[BASE_NAME]
    assert thrice(importing(client, path)).actions[-1] == f"name the base image {BASE_NAME} ({node.base.digest})"
    # CRI has the image unpacked, and its layers were discarded.
    del fake.state.images[BASE_NAME], fake.state.blobs[node.base.document["layers"][0]["digest"]]
    done = importing(client, path)(False)
    assert (done.changed, done.warnings) == (True, [])
    # A record that somebody else made under such a name is one.
    fake.state.images[node.base.parts["config"]].labels.clear()
    del fake.state.images[BASE_NAME]
    assert not importing(client, path)(False).changed


def test_what_is_not_whole_is_not_exported(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path) -> None:
    path = str(tmp_path / "a.tar")
    lost = fake.state.blobs.pop(node.base.document["layers"][0]["digest"])
    assert code_of(exporting(client, path), True) == code_of(exporting(client, path)) == "blob_missing"
    assert exporting(client, path, base="omit")(False).changed
    fake.state.blobs[node.base.document["layers"][0]["digest"]] = lost
    fake.state.blobs[node.checkpoint.parts[CRIU]].data = b"x" * len(fake.state.blobs[node.checkpoint.parts[CRIU]].data)
    assert code_of(exporting(client, path, force=True)) == "digest_mismatch"
    assert os.listdir(tmp_path / "") == ["a.tar"] or "a.tar" in os.listdir(tmp_path)
    assert not list(tmp_path.glob(".a*")), "something is left"


def test_a_digest_that_is_expected(client: Client, node: Node, tmp_path: Path) -> None:
    path, other = str(tmp_path / "a.tar"), "sha256:" + 64 * "1"
    assert code_of(exporting(client, path, digest=other), True) == "image_digest_mismatch"
    assert exporting(client, path, digest=node.checkpoint.digest)(False).changed
    assert code_of(importing(client, path, "x:1", digest=other)) == "image_digest_mismatch"
    assert code_of(importing(client, path, "x:1", digest="abc")) == "digest_invalid"
    assert importing(client, path, "x:1", digest=node.checkpoint.digest)(False).changed


def test_what_lies_there_already(client: Client, node: Node, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"precious")
    for check in (True, False):
        assert code_of(exporting(client, str(path)), check) == "archive_other_content"
    assert path.read_bytes() == b"precious"
    thrice(exporting(client, str(path), force=True))
    whole = path.read_bytes()
    path.write_bytes(whole[:-2000])
    assert code_of(exporting(client, str(path))) == "archive_other_content"
    path.unlink()
    path.mkdir()
    assert code_of(exporting(client, str(path), force=True)) == "archive_other_content"
    assert code_of(exporting(client, "/nowhere/a.tar"), True) == "archive_directory_missing"


def test_what_a_killed_export_left_goes(client: Client, node: Node, tmp_path: Path) -> None:
    path = str(tmp_path / "out" / "a.tar")
    partial = Path(archive_writer.partial_path(path))
    partial.parent.mkdir()
    partial.write_bytes(b"of a run that was killed")
    assert exporting(client, path)(True).changed
    assert partial.exists()
    done = exporting(client, path)(False)
    assert (done.transferred["kept"], sorted(os.listdir(partial.parent))) == (0, ["a.tar", "a.tar.gpuops.json"])
    partial.write_bytes(b"of a run that was killed")
    for check in (True, False):
        assert not exporting(client, path)(check).changed
        assert partial.exists() == check


@pytest.mark.parametrize("ending", ["tar", "tgz", "tar.zst"])
def test_a_whole_archive_without_its_record_is_left_alone(
    fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, ending: str
) -> None:
    """As version 0.1.0 left it, or a copy that came without; checked once, and then it has a record again."""
    path, record = tmp_path / f"a.{ending}", tmp_path / f"a.{ending}.gpuops.json"
    for base in ("include", "omit"):
        exporting(client, str(path), base=base, force=True)(False)
        whole, written = path.stat(), record.read_bytes()
        record.unlink()
        fake.seen.clear()
        for check in (True, False):
            assert not exporting(client, str(path), base=base)(check).changed
            assert record.exists() != check
        assert record.read_bytes() == written
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (whole.st_ino, whole.st_mtime_ns)
        assert not [
            call for call in fake.seen if call.name == "Content/Read" and node.checkpoint.parts[CRIU] in str(call)
        ]


@pytest.mark.parametrize("base", ["include", "omit"])
@pytest.mark.parametrize("ending", ["tar", "tgz", "tar.zst"])
def test_a_damaged_archive_is_noticed(client: Client, node: Node, tmp_path: Path, ending: str, base: str) -> None:
    """Cut off or altered: refused, since it may as well be another file by now; with force it is written anew."""
    path = tmp_path / f"a.{ending}"
    exporting(client, str(path), base=base)(False)
    whole = path.read_bytes()
    altered = bytearray(whole)
    altered[whole.index(b"pppp") if ending == "tar" else len(whole) // 2] ^= 1
    for damaged in (bytes(altered), whole[:-2000]):
        path.write_bytes(damaged)
        os.utime(path, (1, 1))
        for check in (True, False):
            assert code_of(exporting(client, str(path), base=base), check) == "archive_other_content"
        assert path.read_bytes() == damaged
        assert exporting(client, str(path), base=base, force=True)(True).changed
        assert exporting(client, str(path), base=base, force=True)(False).changed
        if ending != "tar.zst":
            assert path.read_bytes() == whole
        assert not exporting(client, str(path), base=base)(False).changed


def test_a_record_that_cannot_be_written_is_no_failure(client: Client, node: Node, tmp_path: Path) -> None:
    path, record = tmp_path / "a.tar", tmp_path / "a.tar.gpuops.json"
    exporting(client, str(path))(False)
    record.unlink()
    record.mkdir()
    assert not exporting(client, str(path))(False).changed


@pytest.mark.parametrize("call", ["Content/Read", "Content/Info", "Images/Get"])
def test_an_export_that_fails_leaves_nothing(
    fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, call: str
) -> None:
    for after in range(0, 8, 3):
        fake.heal()
        fake.fail(call, "INTERNAL", after=after)
        path = tmp_path / "out" / f"{after}.tar"
        path.parent.mkdir(exist_ok=True)
        try:
            exporting(client, str(path))(False)
        except RestoreError:
            assert os.listdir(path.parent) == []
        else:
            path.unlink()


@pytest.mark.parametrize("call", ["Content/Write", "Images/Create", "Leases/Create", "Content/Info"])
def test_an_import_that_fails_leaves_nothing(
    fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, call: str
) -> None:
    path = str(tmp_path / "a.tar")
    exporting(client, path)(False)
    empty(fake)
    before = fake.state.listing()
    failed = 0
    for after in range(0, 12, 2):
        fake.heal()
        fake.fail(call, "INTERNAL", after=after)
        try:
            importing(client, path)(False)
        except RestoreError:
            failed += 1
            assert fake.state.listing() == before, after
        else:
            empty(fake)
    assert failed


def test_an_image_that_is_no_checkpoint(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path) -> None:
    layout = Layout()
    layout.add(layout.index(layout.manifest(b"layer")), NAME)
    path = tmp_path / "a.tar"
    path.write_bytes(layout.tar())
    assert code_of(importing(client, str(path), NAME)) == "not_a_checkpoint"


@pytest.mark.parametrize("within_an_index", [True, False])
def test_an_image_that_buildah_made_of_an_archive(
    fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, within_an_index: bool
) -> None:
    """As buildah and podman save it: the remedy has the image come into containerd, and be converted there."""
    layout = Layout()
    made = layout.manifest(b"layer")
    plain = json.loads(layout.blobs["blobs/sha256/" + made["digest"][7:]])
    document = {**plain, "annotations": {"io.podman.annotations.checkpoint.name": "counter"}}
    manifest = layout.blob(made["mediaType"], json.dumps(document).encode())
    layout.add(layout.index(manifest) if within_an_index else manifest, NAME)
    path = tmp_path / "a.tar"
    path.write_bytes(layout.tar())
    with pytest.raises(RestoreError) as caught:
        importing(client, str(path), NAME)(False)
    assert caught.value.code == "checkpoint_of_another_tool"
    assert f"Have containerd_image import {path}, then run ctr" in caught.value.remedy
    assert f"content get {document['layers'][0]['digest']}" in caught.value.remedy


# --- conversion


def dumped(tmp_path: Path, node: Node, *extra: bytes, **files: bytes | None) -> str:
    path = tmp_path / "dump.tar"
    path.write_bytes(dump_samples.archive(node.base.digest, *extra, **files))
    return str(path)


def parts_of(fake: FakeContainerd, client: Client) -> tuple[dict[str, bytes], list[str], checkpoint_reader.Checkpoint]:
    """CRIU images by name, names in the layer, and the checkpoint, as they are in the store."""
    found = checkpoint_reader.load(client, NAME)
    criu = checkpoint_reader.require_criu(found)
    with tarfile.open(fileobj=io.BytesIO(fake.state.blobs[criu.digest].data)) as archive:
        images = {item.name: archive.extractfile(item).read() for item in archive}  # type: ignore[union-attr]
    names: list[str] = []
    if found.writable_layer is not None:
        layer = gzip.decompress(fake.state.blobs[found.writable_layer.digest].data)
        with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
            names = archive.getnames()
    return images, names, found


@pytest.mark.parametrize("packed", ["plain", "gzip"])
def test_an_archive_of_the_kubelet(
    fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, packed: str
) -> None:
    path = dumped(tmp_path, node, **{"rootfs-diff_tar": gzip.compress(dump_samples.DIFF)})
    if packed == "gzip":
        Path(path).write_bytes(gzip.compress(Path(path).read_bytes()))
    done = thrice(converting(client, path))
    assert (done.transferred["kind"], done.transferred["compression"]) == (
        "kubelet",
        "gzip" if packed == "gzip" else "none",
    )
    images, names, found = parts_of(fake, client)
    assert images == dump_samples.IMAGES and names == ["var/count"]
    assert found.base is not None and found.base.digest == node.base.digest and found.base_name == BASE_NAME
    assert checkpoint_reader.spec(client, found) == spec()
    assert (found.runtime, found.snapshotter, found.runtime_options) == ("io.containerd.runc.v2", "overlayfs", None)
    index = json.loads(fake.state.blobs[found.digest].data)
    assert index["annotations"]["io.gpuops.restore/converted-from"] == "kubelet"
    kept = set(fake.state.blobs[found.digest].labels.values())
    assert {child["digest"] for child in index["manifests"]} <= kept
    assert fake.state.leases == {}


def test_deleted_files_become_whiteouts(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path) -> None:
    path = dumped(tmp_path, node, deleted_files=dump(["/etc/motd", "bin/ls", "/etc/motd"]))
    converting(client, path)(False)
    assert parts_of(fake, client)[1] == ["etc/.wh.motd", "bin/.wh.ls", "var/count"]


def test_without_a_layer(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path) -> None:
    converting(client, dumped(tmp_path, node, **{"rootfs-diff_tar": None}))(False)
    assert parts_of(fake, client)[1:] == ([], checkpoint_reader.load(client, NAME))


def test_an_archive_of_podman(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path) -> None:
    config = {"rootfsImageID": node.base.parts["config"][7:], "rootfsImageName": BASE_NAME}
    document = spec(annotations={"io.container.manager": "libpod"})
    files: dict[str, bytes | None] = {
        "config_dump": dump(config),
        "spec_dump": dump(document),
        "devshm-checkpoint_tar": tar({"in-shm": b"x"}),
        "volumes/data_tar": tar({}),
    }
    done = thrice(converting(client, dumped(tmp_path, node, **files)))
    assert done.transferred["kind"] == "podman"
    told = " ".join(done.warnings)
    assert all(word in told for word in ("skip-file-rwx-check", "/dev/shm", "volumes/data.tar"))
    assert checkpoint_reader.load(client, NAME).memory_volumes == ()


def test_podmans_shm_becomes_a_memory_volume(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path) -> None:
    config = {"id": "a1", "rootfsImageID": node.base.parts["config"][7:], "rootfsImageName": BASE_NAME}
    mount = {"destination": "/dev/shm", "type": "bind", "source": "/var/lib/x/shm", "options": ["bind"]}
    files: dict[str, bytes | None] = {
        "config_dump": dump({**config, "shmSize": 65536000}),
        "spec_dump": dump(spec(mounts=[mount])),
        "devshm-checkpoint_tar": tar({"in-shm": b"x" * 5000}),
    }
    done = thrice(converting(client, dumped(tmp_path, node, **files)))
    assert "/dev/shm" not in " ".join(done.warnings)
    (volume,) = checkpoint_reader.load(client, NAME).memory_volumes
    assert (volume.destination, volume.source, volume.container) == ("/dev/shm", "/var/lib/x/shm", "a1")
    assert (volume.used, volume.size) == (8192, 65536000)
    assert fake.state.blobs[volume.digest].data == files["devshm-checkpoint_tar"]


def directory(tmp_path: Path) -> Path:
    path = tmp_path / "criu"
    path.mkdir()
    for name, data in dump_samples.IMAGES.items():
        (path / name).write_bytes(data)
    return path


def test_a_directory(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path) -> None:
    path, document, diff = directory(tmp_path), tmp_path / "spec.json", tmp_path / "diff.tar"
    document.write_text(json.dumps(spec()))
    diff.write_bytes(dump_samples.DIFF)
    params = {"spec": str(document), "image": BASE_NAME, "rootfs_diff": str(diff)}
    done = thrice(converting(client, str(path), **params, systemd_cgroup=True, snapshotter="native", runtime="r.v2"))
    images, names, found = parts_of(fake, client)
    assert images == dump_samples.IMAGES and names == ["var/count"]
    assert (found.runtime, found.snapshotter) == ("r.v2", "native")
    assert checkpoint_reader.runtime_options(client, found).type_url == "containerd.runc.v1.Options"
    metadata = tmp_path / "metadata.json"
    metadata.write_text(json.dumps({"originalImage": BASE_NAME, "ociSpec": spec(), "snapshotter": "native"}))
    other = converting(
        client, str(path), metadata=str(metadata), rootfs_diff=str(diff), systemd_cgroup=True, runtime="r.v2"
    )(False)
    assert (other.changed, other.digest) == (False, done.digest)
    assert code_of(converting(client, str(path), image=BASE_NAME)) == "convert_spec_missing"
    assert code_of(converting(client, str(path), spec=str(document))) == "base_image_unknown"
    assert code_of(converting(client, str(path), **{**params, "spec": "/nowhere"})) == "dump_invalid"
    assert code_of(converting(client, str(path), **{**params, "rootfs_diff": "/nowhere"})) == "archive_missing"
    bare = converting(client, str(path), **{**params, "rootfs_diff": ""}, force=True)(True)
    assert any("rootfs_diff" in text for text in bare.warnings)


@pytest.mark.parametrize("what", ["link", "pipe", "directory", "lacking"])
def test_a_directory_that_is_no_dump(client: Client, node: Node, tmp_path: Path, what: str) -> None:
    path, document = directory(tmp_path), tmp_path / "spec.json"
    document.write_text(json.dumps(spec()))
    code = "criu_images_not_plain"
    if what == "link":
        (path / "x.img").symlink_to("/etc/shadow")
    elif what == "pipe":
        os.mkfifo(path / "x.img")
    elif what == "directory":
        (path / "x.img").mkdir()
    else:
        (path / "inventory.img").unlink()
        code = "criu_images_incomplete"
    assert code_of(converting(client, str(path), spec=str(document), image=BASE_NAME)) == code


def test_the_base_image_has_to_be_the_recorded_one(
    fake: FakeContainerd, client: Client, node: Node, tmp_path: Path
) -> None:
    path = dumped(tmp_path, node, config_dump=dump(dump_samples.config("sha256:" + 64 * "1")))
    before = fake.state.listing()
    assert code_of(converting(client, path), True) == code_of(converting(client, path)) == "base_image_moved"
    assert fake.state.listing() == before
    assert converting(client, path, force=True)(True).changed
    assert converting(client, path, image=BASE_NAME)(True).changed
    named = converting(client, path, base="omit")(False)
    found = checkpoint_reader.load(client, NAME)
    assert named.changed and found.base is None and found.base_name == BASE_NAME


def test_the_recorded_image_under_another_name_will_do(
    fake: FakeContainerd, client: Client, node: Node, tmp_path: Path
) -> None:
    path = dumped(tmp_path, node)
    moved = fake.state.images.pop(BASE_NAME)
    moved.name = "other.test/same:1"
    fake.state.images[moved.name] = moved
    other = add_base(fake.state, text=b"moved on")
    assert fake.state.images[BASE_NAME].target.digest == other.digest
    converting(client, path)(False)
    found = checkpoint_reader.load(client, NAME)
    assert found.base is not None and found.base.digest == node.base.digest
    assert found.base_name == "other.test/same:1"
    del fake.state.images["other.test/same:1"], fake.state.images[BASE_NAME]
    assert code_of(converting(client, path)) == "base_image_absent"


def test_the_recorded_image_that_only_cri_has_a_record_of(
    fake: FakeContainerd, client: Client, node: Node, tmp_path: Path
) -> None:
    """What CRI calls it is no name to write into a checkpoint."""
    path = dumped(tmp_path, node)
    add_cri_reference(fake.state, node.base)
    del fake.state.images[BASE_NAME]
    done = thrice(converting(client, path))
    assert done.actions[-1] == f"name the base image {BASE_NAME} ({node.base.digest})"
    found = checkpoint_reader.load(client, NAME)
    assert found.base is not None and (found.base.digest, found.base_name) == (node.base.digest, BASE_NAME)
    assert fake.state.images[BASE_NAME].target.digest == node.base.digest
    # Somebody who names it so all the same.
    assert converting(client, path, image=node.base.parts["config"])(True).actions == []
    del fake.state.images[BASE_NAME]
    found = converting(client, path, image=node.base.parts["config"], force=True)(False)
    assert (found.warnings, checkpoint_reader.load(client, NAME).base_name) == ([], "")
    fake.state.images.pop(NAME)
    converting(client, path)(False)
    del fake.state.images[BASE_NAME]
    assert thrice(converting(client, path)).actions == [f"name the base image {BASE_NAME} ({node.base.digest})"]
    other = add_base(fake.state, text=b"moved on")
    taken = converting(client, path)(False)
    assert not taken.changed and "gets no name" in taken.warnings[0]
    assert fake.state.images[BASE_NAME].target.digest == other.digest


def test_another_image_of_that_name(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path) -> None:
    converting(client, dumped(tmp_path, node))(False)
    other = dumped(tmp_path, node, **{"rootfs-diff_tar": None})
    assert code_of(converting(client, other), True) == code_of(converting(client, other)) == "image_other_digest"
    moved = thrice(converting(client, other, force=True))
    assert len(moved.actions) == 2


@pytest.mark.parametrize("call", ["Content/Write", "Images/Create", "Leases/Create", "Content/Info"])
def test_a_conversion_that_fails_leaves_nothing(
    fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, call: str
) -> None:
    path = dumped(tmp_path, node)
    before = fake.state.listing()
    failed = 0
    for after in range(0, 8, 2):
        fake.heal()
        fake.fail(call, "INTERNAL", after=after)
        try:
            converting(client, path)(False)
        except RestoreError:
            failed += 1
            assert fake.state.listing() == before, after
        else:
            break
    assert failed


def test_no_room(client: Client, node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dumped(tmp_path, node)
    assert code_of(converting(client, path, max_bytes=1000)) == "tar_too_large"
    packed = tmp_path / "packed.tar.gz"
    packed.write_bytes(gzip.compress(Path(path).read_bytes()))
    assert code_of(converting(client, str(packed), max_bytes=1000)) == "archive_bomb"
    exported = str(tmp_path / "a.tar.gz")
    exporting(client, exported)(False)
    assert code_of(importing(client, exported, "x:1", max_bytes=1000)) == "archive_bomb"
    monkeypatch.setattr(core_files, "free_bytes", lambda _path: 9000)
    assert code_of(converting(client, path), True) == code_of(converting(client, path)) == "content_no_space"


HOSTILE: dict[str, tuple[dict[str, bytes | None], list[bytes], str]] = {
    "no-config": ({"config_dump": None}, [], "dump_invalid"),
    "no-spec": ({"spec_dump": None}, [], "dump_invalid"),
    "config-no-json": ({"config_dump": b"{"}, [], "dump_invalid"),
    "config-a-list": ({"config_dump": b"[]"}, [], "dump_invalid"),
    "config-nested": ({"config_dump": b"[" * 200000}, [], "dump_invalid"),
    "config-twice-a-key": ({"config_dump": b'{"a": 1, "a": 2}'}, [], "dump_invalid"),
    "config-large": ({"config_dump": b" " * (9 << 20)}, [], "manifest_too_large"),
    "spec-without-a-process": ({"spec_dump": b"{}"}, [], "spec_invalid"),
    "spec-of-lists": ({"spec_dump": b'{"process": [], "root": [], "mounts": {}, "linux": 7}'}, [], "spec_invalid"),
    "no-inventory": ({"checkpoint/inventory_img": None}, [], "criu_images_incomplete"),
    "no-descriptors": ({"checkpoint/descriptors_json": None}, [], "criu_images_incomplete"),
    "nested-images": ({}, [entry("checkpoint/a/b.img", b"x")], "dump_invalid"),
    "link-among-images": ({}, [entry("checkpoint/x", kind=tarfile.SYMTYPE, link="../config.dump")], "archive_link"),
    "hard-link-to-the-spec": (
        {"spec_dump": None},
        [entry("spec.dump", kind=tarfile.LNKTYPE, link="config.dump")],
        "archive_link",
    ),
    "link-out": ({}, [entry("x", kind=tarfile.SYMTYPE, link="/etc/shadow")], "archive_link"),
    "path-out": ({}, [entry("../x", b"x")], "tar_unsafe_name"),
    "absolute": ({}, [entry("/x", b"x")], "tar_unsafe_name"),
    "device": ({}, [entry("x", kind=tarfile.BLKTYPE)], "tar_unsafe_type"),
    "twice": ({}, [entry("config.dump", b"{}")], "tar_duplicate_name"),
    "deleted-out": ({"deleted_files": dump(["../../x"])}, [], "tar_unsafe_name"),
    "deleted-no-list": ({"deleted_files": dump({"a": 1})}, [], "dump_invalid"),
    "deleted-root": ({"deleted_files": dump(["/"])}, [], "tar_unsafe_name"),
    "deleted-whiteout": ({"deleted_files": dump(["etc/.wh.x"])}, [], "dump_invalid"),
    "deleted-not-unicode": ({"deleted_files": b'["\\ud800"]'}, [], "dump_invalid"),
    "deleted-many": ({"deleted_files": dump(["x"] * 70000)}, [], "dump_invalid"),
    "layer-out": ({"rootfs-diff_tar": entry("../x", b"x") + END}, [], "tar_unsafe_name"),
    "layer-no-tar": ({"rootfs-diff_tar": b"no tar at all " * 100}, [], "tar_not_a_tar"),
    "layer-cut-off": ({"rootfs-diff_tar": gzip.compress(dump_samples.DIFF)[:-20]}, [], "compression_truncated"),
    "layer-device": ({"rootfs-diff_tar": entry("null", kind=tarfile.CHRTYPE) + END}, [], "tar_unsafe_type"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_dump_is_refused_before_anything_is_created(
    fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, case: str
) -> None:
    files, extra, code = HOSTILE[case]
    path = Path(dumped(tmp_path, node, *extra, **files))
    before = fake.state.listing()
    fake.seen.clear()
    packed = tmp_path / "packed.gz"
    packed.write_bytes(gzip.compress(path.read_bytes(), 1))
    for check in (True, False):
        for which in (path, packed):
            assert code_of(converting(client, str(which)), check) == code
    writes = ("Write", "Create", "Update", "Delete")
    assert not [call.name for call in fake.seen if call.name.endswith(writes)]
    assert fake.state.listing() == before


def test_a_hostile_layout_is_refused_before_anything_is_created(
    fake: FakeContainerd, client: Client, node: Node, tmp_path: Path
) -> None:
    good = tmp_path / "good.tar"
    exporting(client, str(good))(False)
    with tarfile.open(good) as archive:
        files = {item.name: archive.extractfile(item).read() for item in archive}  # type: ignore[union-attr]
    empty(fake)
    before = fake.state.listing()
    fake.seen.clear()
    index = "blobs/sha256/" + node.checkpoint.digest[7:]

    def with_index(change: Callable[[dict[str, Any]], None]) -> dict[str, bytes]:
        document = json.loads(files[index])
        change(document)
        data = dump(document)
        top = json.loads(files["index.json"])
        top["manifests"][0].update(digest=digest(data), size=len(data))
        return {**files, "index.json": dump(top), f"blobs/sha256/{digest(data)[7:]}": data}

    def nested(levels: int) -> dict[str, bytes]:
        found = dict(files)
        child = json.loads(files["index.json"])["manifests"][0]
        for _level in range(levels):
            data = dump({"schemaVersion": 2, "mediaType": INDEX, "manifests": [child]})
            child = {"mediaType": INDEX, "digest": digest(data), "size": len(data)}
            found[f"blobs/sha256/{digest(data)[7:]}"] = data
        return {**found, "index.json": dump({"schemaVersion": 2, "manifests": [child]})}

    def first(document: dict[str, Any], **more: Any) -> None:
        document["manifests"][0].update(more)

    cases = {
        "blob_size_mismatch": with_index(lambda found: first(found, size=1 << 49)),
        "descriptor_invalid": with_index(lambda found: first(found, size=1 << 60)),
        "digest_invalid": with_index(lambda found: first(found, digest="sha256:../../etc/passwd")),
        "blob_missing": with_index(lambda found: first(found, digest="sha256:" + 64 * "0")),
        "manifest_invalid": {**files, "index.json": b"[" * 100000},
        "archive_too_deep": nested(6),
        "too_many_blobs": with_index(lambda found: found.update(manifests=found["manifests"][:1] * 10001)),
        "archive_layout_unknown": {name: data for name, data in files.items() if name != "oci-layout"},
        "digest_mismatch": {**files, index: files[index].replace(b"overlayfs", b"overlayfx")},
    }
    for code, made in cases.items():
        path = tmp_path / f"{code}.tar"
        path.write_bytes(tar(made))
        for check in (True, False):
            assert code_of(importing(client, str(path)), check) == code, code
    assert not [call.name for call in fake.seen if call.name.endswith(("Write", "Create", "Update", "Delete"))]
    assert fake.state.listing() == before


def test_bytes_that_are_not_those_of_their_digest(
    fake: FakeContainerd, client: Client, node: Node, tmp_path: Path
) -> None:
    """What streams is told only at its end: nothing of it stays."""
    path = tmp_path / "a.tar"
    exporting(client, str(path))(False)
    data = bytearray(path.read_bytes())
    data[data.index(b"pppp")] ^= 1
    path.write_bytes(data)
    empty(fake)
    before = fake.state.listing()
    assert code_of(importing(client, str(path))) == "digest_mismatch"
    assert fake.state.listing() == before


def test_a_layout_is_converted_by_importing_it(
    fake: FakeContainerd, client: Client, node: Node, tmp_path: Path
) -> None:
    path = str(tmp_path / "a.tar")
    exporting(client, path)(False)
    done = thrice(converting(client, path))
    assert (done.transferred["kind"], done.digest) == ("oci", node.checkpoint.digest)
