# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd_image on a real containerd: archives of all kinds, damage, names, pins, checkpoints, memory."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

import in_node
import pytest
from gpuops_lab import image, workload
from gpuops_lab.config import Node
from gpuops_lab.node import output, run
from node_listing import listing, settled_difference

NAME = image.REFERENCE
CHECKPOINT = "gpuops.test/checkpoint:1"
PINNED = "io.cri-containerd.pinned=pinned"
RunModule = Callable[..., dict[str, Any]]
ExpectFailure = Callable[..., dict[str, Any]]
Unchanged = Callable[..., "contextlib.AbstractContextManager[None]"]


def put(node: Node, name: str, data: bytes) -> str:
    """A file in the node, where no listing looks."""
    path = f"/var/lib/gpuops-lab/{name}"
    target = node.inside(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return path


def archive_of(layer: bytes, name: str = NAME) -> bytes:
    """An archive with one image whose only layer has a file with these bytes."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as writer:
        entry = tarfile.TarInfo("data")
        entry.size = len(layer)
        writer.addfile(entry, io.BytesIO(layer))
    return image.image_archive(tar.getvalue(), name, image.architecture())


def members(archive: bytes) -> dict[str, bytes]:
    """Content of an archive's files by name."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as reader:
        return {entry.name: reader.extractfile(entry).read() for entry in reader if entry.isfile()}  # type: ignore[union-attr]


def packed(files: dict[str, bytes]) -> bytes:
    """A tar of these files."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as writer:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            writer.addfile(entry, io.BytesIO(data))
    return tar.getvalue()


def largest(files: dict[str, bytes]) -> str:
    return max(files, key=lambda name: len(files[name]))


def images(node: Node) -> str:
    return workload.ctr(node, "k8s.io", "images", "ls")


@pytest.fixture(scope="module")
def plain() -> bytes:
    """The workload image's archive."""
    return image.archive().read_bytes()


@pytest.fixture(scope="module", autouse=True)
def warm(node: Node, plain: bytes) -> None:
    """What containerd makes once and keeps is there before the first listing."""
    path = put(node, "warm.tar", plain)
    assert in_node.run_module(node, "containerd_image", {"name": NAME, "archive": path})["changed"]
    assert in_node.run_module(node, "containerd_image", {"name": NAME, "state": "absent"})["changed"]


@pytest.fixture
def cleaned(node: Node) -> Iterator[None]:
    """Whatever images a test leaves are removed."""
    yield
    for name in workload.ctr(node, "k8s.io", "images", "ls", "-q").split():
        run(node, ["ctr", "-n", "k8s.io", "images", "rm", "--sync", name])


@pytest.mark.parametrize("kind", ["plain", "gzip", "zstd"])
def test_archive(node: Node, plain: bytes, run_module: RunModule, unchanged: Unchanged, kind: str) -> None:
    if kind == "zstd":
        data = subprocess.run(["zstd", "-q", "-c"], input=plain, capture_output=True, check=True).stdout
    else:
        data = gzip.compress(plain, 1) if kind == "gzip" else plain
    params = {"name": NAME, "archive": put(node, f"image.{kind}", data)}
    with unchanged():
        with unchanged():
            predicted = run_module("containerd_image", params, check=True, diff=True)
        done = run_module("containerd_image", params, diff=True)
        for key in ("changed", "created", "actions", "diff"):
            assert predicted[key] == done[key], key
        assert done["changed"] and done["created"]
        assert done["image"]["unpacked"] and not done["image"]["pinned"] and done["image"]["owner"] == "gpuops.restore"
        again = run_module("containerd_image", params)
        assert not again["changed"] and again["image"] == done["image"]
        assert not run_module("containerd_image", params, check=True)["changed"]
        # It is whole: containerd's own client starts a container from it.
        assert "check" in workload.ctr(node, "k8s.io", "run", "--rm", NAME, "try", "/bin/echo", "check")
        gone = run_module("containerd_image", {"name": NAME, "state": "absent"}, diff=True)
        assert gone["changed"] and gone["diff"]["after"] == {}
        assert not run_module("containerd_image", {"name": NAME, "state": "absent"})["changed"]


def test_not_unpacked_until_asked(node: Node, plain: bytes, run_module: RunModule, unchanged: Unchanged) -> None:
    params = {"name": NAME, "archive": put(node, "plain.tar", plain)}
    with unchanged():
        assert run_module("containerd_image", {**params, "unpack": False})["image"]["unpacked"] is False
        assert not run_module("containerd_image", {**params, "unpack": False})["changed"]
        predicted = run_module("containerd_image", params, check=True, diff=True)
        done = run_module("containerd_image", params, diff=True)
        assert predicted["actions"] == done["actions"] == ["unpack it for overlayfs"]
        assert predicted["diff"] == done["diff"]
        native = run_module("containerd_image", {"name": NAME, "snapshotter": "native"})
        assert native["actions"] == ["unpack it for native"]
        run_module("containerd_image", {"name": NAME, "state": "absent"})


def test_pin(node: Node, plain: bytes, run_module: RunModule, cleaned: None) -> None:
    params = {"name": NAME, "archive": put(node, "plain.tar", plain), "pinned": True}
    assert run_module("containerd_image", params)["actions"][-1] == "pin it"
    assert not run_module("containerd_image", params)["changed"]
    assert PINNED in images(node)
    assert not run_module("containerd_image", {"name": NAME})["changed"]
    assert PINNED in images(node)
    assert run_module("containerd_image", {**params, "pinned": False})["actions"] == ["release its pin"]
    assert PINNED not in images(node)


def test_somebody_elses_image(
    node: Node, plain: bytes, run_module: RunModule, expect_failure: ExpectFailure, unchanged: Unchanged, cleaned: None
) -> None:
    path = put(node, "plain.tar", plain)
    workload.ctr(node, "k8s.io", "images", "import", path)
    assert not run_module("containerd_image", {"name": NAME, "archive": path})["changed"]
    assert "io.gpuops.restore/owner" not in images(node)
    with unchanged():
        expect_failure("containerd_image", {"name": NAME, "state": "absent"}, "image_not_ours")
        expect_failure("containerd_image", {"name": NAME, "state": "absent"}, "image_not_ours", check=True)
        assert run_module("containerd_image", {"name": NAME, "pinned": True})["changed"]
        assert run_module("containerd_image", {"name": NAME, "pinned": False})["changed"]
    workload.ctr(node, "k8s.io", "images", "label", NAME, "io.cri-containerd.pinned=pinned")
    expect_failure("containerd_image", {"name": NAME, "pinned": False}, "image_not_ours")
    assert run_module("containerd_image", {"name": NAME, "state": "absent", "force": True})["changed"]
    assert NAME not in images(node)


def test_another_digest(
    node: Node, plain: bytes, run_module: RunModule, expect_failure: ExpectFailure, unchanged: Unchanged, cleaned: None
) -> None:
    old = run_module("containerd_image", {"name": NAME, "archive": put(node, "plain.tar", plain)})["image"]["digest"]
    params = {"name": NAME, "archive": put(node, "other.tar", archive_of(b"other"))}
    with unchanged():
        failed = expect_failure("containerd_image", params, "image_other_digest")
        assert old in failed["msg"] and failed["failure"]["details"]["wanted"] in failed["msg"]
        expect_failure(
            "containerd_image", {"name": NAME, "state": "absent", "digest": "sha256:" + 64 * "0"}, "image_other_digest"
        )
        expect_failure("containerd_image", {**params, "digest": old, "name": NAME + "x"}, "archive_name_missing")
    moved = run_module("containerd_image", {**params, "force": True})
    assert moved["image"]["digest"] != old and not moved["created"]
    assert not run_module("containerd_image", {**params, "force": True})["changed"]


def test_expected_digest(
    node: Node, plain: bytes, run_module: RunModule, expect_failure: ExpectFailure, unchanged: Unchanged, cleaned: None
) -> None:
    params = {"name": NAME, "archive": put(node, "plain.tar", plain)}
    with unchanged():
        expect_failure("containerd_image", {**params, "digest": "sha256:" + 64 * "0"}, "image_digest_mismatch")
        expect_failure("containerd_image", {**params, "digest": "abc"}, "digest_invalid")
    digest = run_module("containerd_image", params)["image"]["digest"]
    run_module("containerd_image", {"name": NAME, "state": "absent"})
    other = run_module("containerd_image", {**params, "name": "gpuops.test/other:1", "digest": digest})
    assert other["image"]["digest"] == digest
    # With its digest known, the archive is not even needed any more.
    node.inside(params["archive"]).unlink()
    assert not run_module("containerd_image", {**params, "name": "gpuops.test/other:1", "digest": digest})["changed"]


def damaged(kind: str, plain: bytes) -> bytes:
    files = members(plain)
    layer = largest(files)
    if kind == "flipped":
        data = bytearray(files[layer])
        data[len(data) // 2] ^= 1
        return packed({**files, layer: bytes(data)})
    if kind == "missing":
        return packed({name: data for name, data in files.items() if name != layer})
    if kind == "short":
        return packed({**files, layer: files[layer][:-512]})
    if kind == "cut":
        return gzip.compress(plain, 1)[: len(plain) // 8]
    if kind == "diff_id":
        # The config names another diff id: only unpacking finds out.
        index = json.loads(files["index.json"])
        manifest_name = "blobs/sha256/" + index["manifests"][0]["digest"].split(":")[1]
        manifest = json.loads(files.pop(manifest_name))
        config_name = "blobs/sha256/" + manifest["config"]["digest"].split(":")[1]
        config = json.loads(files.pop(config_name))
        config["rootfs"]["diff_ids"] = ["sha256:" + 64 * "1"]
        for owner, document in ((manifest["config"], config), (index["manifests"][0], manifest)):
            data_of = json.dumps(document).encode()
            digest = hashlib.sha256(data_of).hexdigest()
            owner.update(digest=f"sha256:{digest}", size=len(data_of))
            files[f"blobs/sha256/{digest}"] = data_of
        return packed({**files, "index.json": json.dumps(index).encode()})
    raise KeyError(kind)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("flipped", "digest_mismatch"),
        ("missing", "blob_missing"),
        ("short", "blob_size_mismatch"),
        ("cut", "compression_truncated"),
        ("diff_id", "diff_id"),
    ],
)
def test_damaged_archive(
    node: Node, plain: bytes, expect_failure: ExpectFailure, unchanged: Unchanged, kind: str, code: str
) -> None:
    path = put(node, f"{kind}.tar", damaged(kind, plain))
    with unchanged():
        expect_failure("containerd_image", {"name": NAME, "archive": path}, code)


def test_bad_options(node: Node, plain: bytes, expect_failure: ExpectFailure, unchanged: Unchanged) -> None:
    path = put(node, "plain.tar", plain)
    with unchanged():
        expect_failure("containerd_image", {"name": NAME, "pull": "never"}, "image_absent")
        expect_failure("containerd_image", {"name": NAME, "pull": "never"}, "image_absent", check=True)
        expect_failure("containerd_image", {"name": NAME, "archive": "/nowhere.tar"}, "archive_missing")
        expect_failure(
            "containerd_image", {"name": NAME, "archive": path, "snapshotter": "zfsx"}, "snapshotter_unknown"
        )
        expect_failure("containerd_image", {"name": NAME, "archive": path, "lease": "none"}, "lease_absent")


def test_lost_content_is_mended(
    node: Node, plain: bytes, run_module: RunModule, expect_failure: ExpectFailure, cleaned: None
) -> None:
    params = {"name": NAME, "archive": put(node, "plain.tar", plain)}
    done = run_module("containerd_image", params)
    files = members(plain)
    layer = "sha256:" + largest(files).rsplit("/", 1)[1]
    workload.ctr(node, "k8s.io", "content", "rm", layer)
    # Unpacked, the layer is not needed; for another snapshotter it is.
    assert not run_module("containerd_image", params)["changed"]
    expect_failure("containerd_image", {"name": NAME, "snapshotter": "native", "pull": "never"}, "image_incomplete")
    mended = run_module("containerd_image", {**params, "snapshotter": "native"})
    assert mended["changed"] and not mended["created"] and mended["image"]["unpacked"]
    assert mended["image"]["digest"] == done["image"]["digest"]
    assert not run_module("containerd_image", {**params, "snapshotter": "native"})["changed"]


def test_lost_gc_labels_are_mended(node: Node, plain: bytes, run_module: RunModule, cleaned: None) -> None:
    params = {"name": NAME, "archive": put(node, "plain.tar", plain)}
    digest = run_module("containerd_image", params)["image"]["digest"]
    workload.ctr(node, "k8s.io", "content", "label", digest, "containerd.io/gc.ref.content.l.0=")
    done = run_module("containerd_image", params)
    assert done["actions"] == ["label 1 documents for garbage collection"]
    assert not run_module("containerd_image", params)["changed"]


def test_under_a_lease(
    node: Node, plain: bytes, run_module: RunModule, expect_failure: ExpectFailure, unchanged: Unchanged
) -> None:
    bad = put(node, "diff_id.tar", damaged("diff_id", plain))
    with unchanged():
        run_module("containerd_lease", {"id": "mine"})
        expect_failure("containerd_image", {"name": NAME, "archive": bad, "lease": "mine"}, "diff_id")
        run_module("containerd_lease", {"id": "mine", "state": "absent"})


def test_killed_half_way(node: Node, plain: bytes, run_module: RunModule, unchanged: Unchanged) -> None:
    """A run that is killed is finished by the next one, which takes over its lease."""
    path = put(node, "large.tar", archive_of(bytes(64 << 20)))
    params = {"name": NAME, "archive": path}
    with unchanged():
        in_node.killed(node, "containerd_image", params, "_streams.streams:Hasher.update", "#40")
        assert any("gpuops-restore-" in line for rows in listing(node).values() for line in rows), "nothing was begun"
        assert run_module("containerd_image", params)["image"]["unpacked"]
        assert not run_module("containerd_image", params)["changed"]
        run_module("containerd_image", {"name": NAME, "state": "absent"})


def test_checkpoint(node: Node, plain: bytes, run_module: RunModule, cleaned: None) -> None:
    """One that ctr made and exported, imported by us, restores with ctr; nothing of it is unpacked."""
    before = listing(node)
    workload.start(node, "original")
    reached = workload.await_count(node, "original", 5)
    workload.checkpoint(node, "original", CHECKPOINT)
    workload.delete(node, "original")
    path = "/var/lib/gpuops-lab/checkpoint.tar"
    output(node, ["ctr", "-n", "k8s.io", "images", "export", "--skip-manifest-json", path, CHECKPOINT])
    for name in workload.ctr(node, "k8s.io", "images", "ls", "-q").split():
        workload.ctr(node, "k8s.io", "images", "rm", "--sync", name)
    base = {"name": NAME, "archive": put(node, "plain.tar", plain)}
    params = {"name": CHECKPOINT, "archive": path}
    predicted = run_module("containerd_image", params, check=True, diff=True)
    done = run_module("containerd_image", params, diff=True)
    assert predicted["diff"] == done["diff"] and predicted["actions"] == done["actions"]
    assert done["image"]["checkpoint"] and done["image"]["unpacked"] is None
    assert not run_module("containerd_image", params)["changed"]
    run_module("containerd_image", base)
    workload.restore(node, "original", CHECKPOINT)
    assert workload.await_count(node, "original", reached + 1) > reached
    workload.delete(node, "original")
    for name in (CHECKPOINT, NAME):
        assert run_module("containerd_image", {"name": name, "state": "absent"})["changed"]
    lines = settled_difference(node, before, ("log", "tmp"))
    assert not lines, lines


def peak(node: Node, params: dict[str, Any]) -> int:
    """The module's peak resident memory in KiB."""
    code = (
        "import resource, runpy, sys\n"
        "try: runpy.run_path(sys.argv.pop(1), run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    library, package = in_node.LIBRARY, "ansible_collections/gpuops/restore/plugins"
    command = ["env", f"PYTHONPATH={library}", in_node.PYTHON, "-c", code]
    done = subprocess.run(
        [str(node.directory / "enter"), *command, f"{library}/{package}/modules/containerd_image.py"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": params}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["changed"], done.stdout
    return int(done.stderr.split()[-1])


def put_zeros(node: Node, mib: int) -> str:
    """An archive with a layer of that many MiB, written without ever being in memory here."""
    entry = tarfile.TarInfo("data")
    entry.size = mib << 20
    pieces = [entry.tobuf(tarfile.USTAR_FORMAT), *[bytes(1 << 20)] * mib, bytes(1024)]
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    # Made with an empty layer, then the real one is put in its place.
    files = members(image.image_archive(b"", NAME, image.architecture()))
    layer = f"sha256:{digest.hexdigest()}"
    index = json.loads(files["index.json"])
    manifest = json.loads(files["blobs/sha256/" + index["manifests"][0]["digest"].split(":")[1]])
    config = json.loads(files["blobs/sha256/" + manifest["config"]["digest"].split(":")[1]])
    config["rootfs"]["diff_ids"] = [layer]
    manifest["layers"][0].update(digest=layer, size=sum(map(len, pieces)))
    small = {"oci-layout": files["oci-layout"]}
    for owner, document in ((manifest["config"], config), (index["manifests"][0], manifest)):
        data = json.dumps(document).encode()
        owner.update(digest="sha256:" + hashlib.sha256(data).hexdigest(), size=len(data))
        small["blobs/sha256/" + owner["digest"].split(":")[1]] = data
    small["index.json"] = json.dumps(index).encode()
    path = put(node, "zeros.tar", b"")
    member = tarfile.TarInfo("blobs/sha256/" + layer.split(":")[1])
    member.size = sum(map(len, pieces))
    with open(node.inside(path), "wb") as writer:
        # The documents without the end of their tar, then the layer, a piece at a time.
        for name, data in small.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            writer.write(entry.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512))
        writer.write(member.tobuf(tarfile.USTAR_FORMAT))
        writer.writelines(pieces)
        writer.write(bytes(1024))
    return path


def test_memory_is_flat(node: Node, unchanged: Unchanged) -> None:
    """Sixteen times the content takes no more memory."""
    peaks = []
    for mib in (16, 256):
        path = put_zeros(node, mib)
        with unchanged():
            peaks.append(peak(node, {"name": NAME, "archive": path}))
            in_node.run_module(node, "containerd_image", {"name": NAME, "state": "absent"})
    print(f"peak memory in KiB for 16 and for 256 MiB: {peaks}")
    assert peaks[1] < peaks[0] + 24 * 1024, peaks
