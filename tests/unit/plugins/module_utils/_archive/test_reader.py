# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._archive import reader as archive_reader
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError, NodeError, RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._oci.image import Platform
from ansible_collections.gpuops.restore.plugins.module_utils._streams.decompression import Expansion
from ansible_collections.gpuops.restore.plugins.module_utils._streams.tar_reader import Limits
from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import (
    CONFIG,
    CRIU,
    END,
    INDEX,
    LAYER,
    MANIFEST,
    Layout,
    descriptor,
    digest,
    docker_files,
    dump,
    entry,
    header,
    tar,
)

pytestmark = pytest.mark.every_python

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")
REF = "registry.example/app:1"
LAYER_DATA = random.Random(1).randbytes(100_000)


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout


PACKERS = [bytes, gzip.compress, zstd]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., archive_reader.Archive]:
    def opened(data: bytes, **options: Any) -> archive_reader.Archive:
        path = tmp_path / "archive.tar"
        path.write_bytes(data)
        return archive_reader.open_archive(str(path), **options)

    return opened


Make = Callable[..., archive_reader.Archive]


def content(archive: archive_reader.Archive, image: archive_reader.ArchiveImage, **options: Any) -> dict[str, bytes]:
    return {
        blob.digest: b"".join(chunks)
        for blob, chunks in archive.blobs(image, options.pop("platform", AMD64), **options)
    }


def code(call: Callable[[], Any]) -> str:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(RestoreError) as error:
        call()
    assert error.value.message and error.value.remedy
    assert set(os.listdir("/proc/self/fd")) <= before, "a file stayed open"
    return error.value.code


def read_all(make: Make, data: bytes) -> None:
    with make(data) as archive:
        for image in archive.images:
            content(archive, image)


def checkpoint(layout: Layout) -> dict[str, Any]:
    criu = layout.blob(CRIU, random.Random(2).randbytes(50_000))
    spec = layout.blob("application/vnd.containerd.container.checkpoint.config.v1+proto", b"spec")
    base = layout.manifest(LAYER_DATA, platform={"os": "linux", "architecture": "amd64"})
    return layout.index(base, criu, spec)


@pytest.mark.parametrize("pack", PACKERS)
def test_checkpoint_image(pack: Callable[[bytes], bytes], make: Make) -> None:
    layout = Layout()
    top = layout.add(checkpoint(layout), REF)
    layout.blobs["blobs/sha256/" + "0" * 64] = b"of nobody"
    with make(pack(layout.tar())) as archive:
        assert (archive.layout, archive.synthesized) == ("oci", [])
        image = archive.select()
        assert (image.name, image.descriptor.digest) == (REF, top["digest"])
        graph = archive.graph(image, AMD64)
        below = graph[top["digest"]]
        assert [item.media_type for item in below][:2] == [MANIFEST, CRIU]
        assert [item.media_type for item in graph[below[0].digest]] == [CONFIG, LAYER]
        blobs = content(archive, image)
    del layout.blobs["blobs/sha256/" + "0" * 64]
    assert blobs == {"sha256:" + name[-64:]: data for name, data in layout.blobs.items()}


@pytest.mark.parametrize("pack", PACKERS)
def test_blobs_that_the_caller_leaves_are_passed_over(pack: Callable[[bytes], bytes], make: Make) -> None:
    layout = Layout()
    layout.add(checkpoint(layout), REF)
    with make(pack(layout.tar())) as archive:
        seen = {
            blob.digest: b"".join(data)
            for number, (blob, data) in enumerate(archive.blobs(archive.select(), AMD64))
            if number % 2
        }
    assert all(digest(data) == name for name, data in seen.items()) and len(seen) == 3


def test_only_this_platform_has_to_be_there(make: Make) -> None:
    layout = Layout()
    arm = layout.manifest(b"arm", platform={"os": "linux", "architecture": "arm64", "variant": "v8"})
    amd = layout.manifest(b"amd", platform={"os": "linux", "architecture": "amd64"})
    top = layout.add(layout.index(arm, amd), REF)
    with make(layout.tar()) as archive:
        image = archive.select(REF)
        assert [item.digest for item in archive.graph(image, ARM64)[top["digest"]]] == [arm["digest"]]
    del layout.blobs["blobs/sha256/" + arm["digest"][7:]]
    with make(layout.tar()) as archive:
        image = archive.select(REF)
        assert [item.digest for item in archive.graph(image, AMD64)[top["digest"]]] == [amd["digest"]]
        assert digest(b"amd") in content(archive, image) and digest(b"arm") not in content(archive, image)
        assert code(lambda: archive.graph(image, ARM64)) == "blob_missing"
        assert code(lambda: archive.graph(image, Platform("linux", "s390x"))) == "archive_no_platform"


def test_missing_blobs(make: Make) -> None:
    layout = Layout()
    top = layout.add(checkpoint(layout), REF)
    del layout.blobs["blobs/sha256/" + digest(LAYER_DATA)[7:]]
    with make(layout.tar()) as archive:
        image = archive.select()
        assert code(lambda: next(archive.blobs(image, AMD64))) == "blob_missing"
        allowed = {digest(LAYER_DATA)}
        assert len(content(archive, image, allow_missing=allowed)) == 5
        assert LAYER not in [
            item.media_type for below in archive.graph(image, AMD64, allowed).values() for item in below
        ]
    del layout.blobs["blobs/sha256/" + top["digest"][7:]]
    with make(layout.tar()) as archive:
        assert code(lambda: archive.graph(archive.select(), AMD64)) == "blob_missing"


def test_foreign_layers_may_lack(make: Make) -> None:
    layout = Layout()
    foreign = descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar", b"elsewhere")
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": layout.blob(CONFIG, b"{}"),
        "layers": [foreign],
    }
    layout.add(layout.blob(MANIFEST, dump(body)), REF)
    with make(layout.tar()) as archive:
        assert len(content(archive, archive.select())) == 2


def test_names(make: Make) -> None:
    layout = Layout()
    for number in (1, 2):
        layout.add(layout.manifest(b"%d" % number), f"registry.example/app:{number}")
    layout.add(layout.manifest(b"3"), "docker.io/library/busybox:latest")
    with make(layout.tar()) as archive:
        assert archive.select("busybox").name == "docker.io/library/busybox:latest"
        assert archive.select("registry.example/app:2").name == "registry.example/app:2"
        assert code(archive.select) == "archive_name_ambiguous"
        with pytest.raises(InputError, match="app:1.*app:2") as error:
            archive.select("registry.example/app:9")
        assert error.value.code == "archive_name_missing"
    with make(Layout().tar()) as archive:
        assert code(archive.select) == "archive_name_missing"


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("a/b:1", "docker.io/a/b:1"),
        ("localhost/a", "localhost/a:latest"),
        ("host:5000/a", "host:5000/a:latest"),
        ("r.example/a@sha256:0", "r.example/a@sha256:0"),
    ],
)
def test_normalized_names(name: str, full: str) -> None:
    assert archive_reader.normalized_name(name) == full


@pytest.mark.parametrize("outer", PACKERS)
@pytest.mark.parametrize("inner", PACKERS)
def test_docker_archive(outer: Callable[[bytes], bytes], inner: Callable[[bytes], bytes], make: Make) -> None:
    plain = {"a/layer.tar": b"first" * 500, "b/layer.tar": LAYER_DATA}
    layers = {name: inner(data) for name, data in plain.items()}
    files = docker_files(layers, ["app:1", "app:2"], [digest(data) for data in plain.values()])
    with make(outer(tar(files))) as archive:
        assert archive.layout == "docker"
        assert [image.name for image in archive.images] == ["app:1", "app:2"]
        image = archive.select("docker.io/library/app:2")
        [(made, manifest)] = archive.synthesized
        assert made == image.descriptor and digest(manifest) == made.digest and len(manifest) == made.size
        document = json.loads(manifest)
        assert [item["digest"] for item in document["layers"]] == [digest(data) for data in layers.values()]
        blobs = content(archive, image)
        assert list(archive.graph(image, AMD64)) == [made.digest]
        assert [item.digest for item in archive.graph(image, AMD64)[made.digest]] == [
            item["digest"] for item in [document["config"], *document["layers"]]
        ]
    assert set(blobs.values()) == {files["config.json"], *layers.values()}
    assert all(digest(data) == name for name, data in blobs.items())
    kind = document["layers"][0]["mediaType"]
    assert kind.rpartition(".")[2] == {bytes: "tar", gzip.compress: "gzip", zstd: "zstd"}[inner]


def test_docker_layers_may_be_links_within_the_archive(make: Make) -> None:
    files = docker_files({"a/layer.tar": b"x" * 600, "b/layer.tar": b"x" * 600}, ["app:1"])
    for kind, link in ((b"2", "../a/layer.tar"), (b"1", "a/layer.tar")):
        data = b"".join(
            entry(name, kind=kind, link=link) if name == "b/layer.tar" else entry(name, body)
            for name, body in files.items()
        )
        with make(data + END) as archive:
            assert len(content(archive, archive.select())) == 2
            assert len(json.loads(archive.synthesized[0][1])["layers"]) == 2


@pytest.mark.parametrize("link", ["../../etc/passwd", "/etc/passwd", "nowhere", "a", "b/layer.tar"])
def test_links_to_anything_else(link: str, make: Make) -> None:
    files = docker_files({"a/layer.tar": b"x"}, ["app:1"])
    data = b"".join(entry(name, body) for name, body in files.items())
    assert code(lambda: make(data + entry("b/layer.tar", kind=b"2", link=link) + END)) == "archive_link"


def test_a_docker_layer_that_is_not_what_its_config_says(make: Make) -> None:
    files = docker_files({"layer.tar": b"x" * 600}, ["app:1"], [digest(b"y" * 600)])
    assert code(lambda: read_all(make, tar(files))) == "digest_mismatch"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (dump({}), "manifest_invalid"),
        (dump([1]), "manifest_invalid"),
        (dump([{"Config": 1}]), "manifest_invalid"),
        (dump([{"Config": "config.json", "Layers": [3]}]), "manifest_invalid"),
        (dump([{"Config": "../config.json"}]), "blob_missing"),
        (dump([{"Config": "config.json", "Layers": ["/etc/passwd"]}]), "blob_missing"),
        (dump([{"Config": "config.json", "Layers": []}]), "manifest_invalid"),
        (dump([{"Config": "config.json", "Layers": ["l"] * 10001}]), "too_many_blobs"),
        (b"[" * 100_000, "manifest_invalid"),
    ],
)
def test_bad_docker_manifests(change: bytes, expected: str, make: Make) -> None:
    files = {**docker_files({"l": b"x"}, ["app:1"]), "manifest.json": change}
    assert code(lambda: make(tar(files))) == expected


def test_oci_comes_before_docker(make: Make) -> None:
    layout = Layout()
    layout.add(layout.manifest(b"x"), REF)
    with make(tar({**docker_files({"l": b"x"}, ["app:1"]), **layout.files()})) as archive:
        assert [image.name for image in archive.images] == [REF]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "archive_unreadable"),
        (b"hello" * 1000, "archive_unreadable"),
        (gzip.compress(b"hello" * 1000, mtime=0), "archive_unreadable"),
        (tar({"x": b"y"}), "archive_layout_unknown"),
        (
            tar({"oci-layout": dump({"imageLayoutVersion": "2.0.0"}), "index.json": b"{}"}),
            "archive_layout_unknown",
        ),
        (entry("../x", b"y") + END, "tar_unsafe_name"),
        (entry("/x", b"y") + END, "tar_unsafe_name"),
        (entry("x", kind=b"3") + END, "tar_unsafe_type"),
        (entry("x") * 2 + END, "tar_duplicate_name"),
        (header("x", 5000) + b"y", "tar_truncated"),
        (tar({str(number): b"" for number in range(200)}), "tar_too_many_entries"),
    ],
)
def test_hostile_tars(data: bytes, expected: str, make: Make) -> None:
    assert code(lambda: make(data, limits=Limits(max_entries=100))) == expected


@pytest.mark.parametrize("pack", PACKERS)
def test_truncated_archives(pack: Callable[[bytes], bytes], make: Make) -> None:
    layout = Layout()
    layout.add(checkpoint(layout), REF)
    data = pack(layout.tar().rstrip(b"\0"))
    for cut in (len(data) // 3, len(data) - 200):
        assert code(lambda: make(data[:cut])) in ("tar_truncated", "compression_truncated")  # noqa: B023


def test_no_file(tmp_path: Path) -> None:
    assert code(lambda: archive_reader.open_archive(str(tmp_path / "no"))) == "archive_missing"
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path):
        assert code(lambda: archive_reader.open_archive(str(path))) == "archive_unreadable"  # noqa: B023


def test_no_zstd(make: Make) -> None:
    assert code(lambda: make(zstd(b"x"), zstd_program="no-such-program")) == "zstd_missing"
    with pytest.raises(NodeError):
        make(zstd(b"x"), zstd_program="no-such-program")


@pytest.mark.parametrize("pack", PACKERS)
def test_damaged_blobs(pack: Callable[[bytes], bytes], make: Make) -> None:
    for kind, expected in ((LAYER, "digest_mismatch"), (MANIFEST, "digest_mismatch")):
        layout = Layout()
        top = layout.add(layout.manifest(LAYER_DATA), REF)
        name = "blobs/sha256/" + (digest(LAYER_DATA) if kind == LAYER else top["digest"])[7:]
        layout.blobs[name] = layout.blobs[name][:-1] + bytes([layout.blobs[name][-1] ^ 1])
        assert code(lambda: read_all(make, pack(layout.tar()))) == expected  # noqa: B023


def test_sizes_that_lie(make: Make) -> None:
    for change in (1, -1, 1 << 40):
        layout = Layout()
        item = layout.manifest(LAYER_DATA)
        layout.add({**item, "size": item["size"] + change}, REF)
        assert code(lambda: read_all(make, layout.tar())) == "blob_size_mismatch"  # noqa: B023


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"size": -1}, "descriptor_invalid"),
        ({"size": 1 << 62}, "descriptor_invalid"),
        ({"size": True}, "descriptor_invalid"),
        ({"size": "5"}, "descriptor_invalid"),
        ({"mediaType": ""}, "descriptor_invalid"),
        ({"mediaType": None}, "descriptor_invalid"),
        ({"annotations": [1]}, "descriptor_invalid"),
        ({"annotations": {"a": 1}}, "descriptor_invalid"),
        ({"platform": "linux"}, "descriptor_invalid"),
        ({"platform": {"os": 1}}, "descriptor_invalid"),
        ({"digest": "sha256:../../../etc/passwd"}, "digest_invalid"),
        ({"digest": "sha512:" + "0" * 128}, "digest_invalid"),
        ({"digest": 5}, "digest_invalid"),
        ({"mediaType": "application/vnd.docker.distribution.manifest.v1+json"}, "manifest_unsupported"),
    ],
)
def test_bad_descriptors(change: dict[str, Any], expected: str, make: Make) -> None:
    layout = Layout()
    layout.top.append({**layout.manifest(b"x"), **change})
    assert code(lambda: read_all(make, layout.tar())) == expected


@pytest.mark.parametrize(
    "document",
    [
        b"not json",
        b"[]",
        b'{"manifests": {}}',
        b'{"manifests": [], "manifests": []}',
        b'{"a": NaN}',
        b"\xff\xfe",
        b'{"a":' * 50_000,
        b'{"manifests": [{"size": ' + b"9" * 5000 + b"}]}",
    ],
)
def test_bad_documents(document: bytes, make: Make) -> None:
    files = {"oci-layout": dump({"imageLayoutVersion": "1.0.0"}), "index.json": document}
    assert code(lambda: make(tar(files))) in ("manifest_invalid", "descriptor_invalid")


@pytest.mark.parametrize(
    "change",
    [
        {"mediaType": MANIFEST},
        {"config": {}},
        {"layers": []},
        {"manifests": 5},
    ],
)
def test_indexes_that_are_something_else_too(change: dict[str, Any], make: Make) -> None:
    layout = Layout()
    layout.add(layout.blob(INDEX, dump({"mediaType": INDEX, "manifests": [], **change})), REF)
    assert code(lambda: read_all(make, layout.tar())) == "manifest_invalid"


def test_documents_are_bounded(make: Make) -> None:
    layout = Layout()
    layout.add(layout.blob(INDEX, b" " * (9 << 20)), REF)
    assert code(lambda: read_all(make, layout.tar())) == "manifest_too_large"
    layout.top = [{"x": "y" * (5 << 20)}]
    assert code(lambda: make(layout.tar())) == "manifest_too_large"


def test_nesting_is_bounded(make: Make) -> None:
    layout = Layout()
    item = layout.manifest(b"x")
    for depth in range(1, 6):
        item = layout.index(item)
        layout.top = [item]
        if depth <= 4:
            read_all(make, layout.tar())
        else:
            assert code(lambda: read_all(make, layout.tar())) == "archive_too_deep"


def test_documents_of_one_level_are_bounded_together(make: Make) -> None:
    layout = Layout()
    spaces = [b"{}" + b" " * (7 << 20) + b"\n" * number for number in range(5)]
    layout.add(layout.index(*(layout.blob(MANIFEST, data) for data in spaces)), REF)
    for pack in (bytes, gzip.compress):
        assert code(lambda: read_all(make, pack(layout.tar()))) == "manifest_too_large"  # noqa: B023


def test_a_config_named_twice(make: Make) -> None:
    files = docker_files({"l": b"x"}, ["app:1"])
    files["manifest.json"] = dump(json.loads(files["manifest.json"]) * 2)
    assert code(lambda: make(tar(files))) == "manifest_invalid"


def test_blobs_are_counted(make: Make) -> None:
    layout = Layout()
    layout.top = [descriptor(LAYER, b"x")] * 10001
    assert code(lambda: make(layout.tar())) == "too_many_blobs"
    layout = Layout()
    child = descriptor(LAYER, b"x")
    layout.add(layout.index(*[child] * 10001), REF)
    assert code(lambda: read_all(make, layout.tar())) == "too_many_blobs"
    layout = Layout()
    layout.blob(LAYER, b"x")
    halves = [layout.index(*[child] * 6000, annotations={"half": str(number)}) for number in (1, 2)]
    other = layout.index(*[child] * 6001)
    layout.add(layout.index(halves[0], other), REF)
    assert code(lambda: read_all(make, layout.tar())) == "too_many_blobs"


def test_bombs(make: Make) -> None:
    layout = Layout()
    layout.add(checkpoint(layout), REF)
    layout.blobs["blobs/sha256/" + "0" * 64] = bytes(70 << 20)
    data = layout.tar()
    packed = gzip.compress(data, 1)
    make(data).close()  # no bomb: it is as large as it looks
    assert code(lambda: make(packed)) == "archive_bomb"
    assert code(lambda: make(packed, expansion=Expansion(max_bytes=1 << 20))) == "archive_bomb"
    assert code(lambda: make(zstd(data), expansion=Expansion(max_ratio=20))) == "archive_bomb"


def test_closing_ends_an_unfinished_pass(make: Make) -> None:
    layout = Layout()
    layout.add(layout.manifest(random.Random(3).randbytes(4 << 20)), REF)
    before = set(os.listdir("/proc/self/fd"))
    archive = make(zstd(layout.tar()), zstd_program="zstd")
    blobs = archive.blobs(archive.select(), AMD64)
    for _descriptor, chunks in blobs:
        next(chunks)
        break
    archive.close()
    assert set(os.listdir("/proc/self/fd")) == before
    del blobs
