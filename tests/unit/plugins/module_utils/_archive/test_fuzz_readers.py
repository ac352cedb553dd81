# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever an archive holds, its readers read it or refuse it in a sentence: no other exception, no endless work.

``make fuzz`` runs more cases than are run here; see helpers/fuzzing.py.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import tarfile
from dataclasses import asdict
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._archive import existing, record as archive_record
from ansible_collections.gpuops.restore.plugins.module_utils._archive.members import ArchiveFile
from ansible_collections.gpuops.restore.plugins.module_utils._archive.reader import open_archive
from ansible_collections.gpuops.restore.plugins.module_utils._archive.tar_writer import Item
from ansible_collections.gpuops.restore.plugins.module_utils._streams.decompression import (
    Expansion,
    decompressed,
)
from ansible_collections.gpuops.restore.plugins.module_utils._streams.streams import ChunkSource
from ansible_collections.gpuops.restore.plugins.module_utils._streams.tar_extract import extract
from ansible_collections.gpuops.restore.plugins.module_utils._streams.tar_reader import Limits, members
from ansible_collections.gpuops.restore.plugins.module_utils._transfer import dump as transfer_dump
from ansible_collections.gpuops.restore.tests.unit.helpers import fuzzing
from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import (
    CRIU,
    END,
    INDEX,
    Layout,
    chunked,
    docker_files,
    dump,
    entry,
    tar,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.fuzzing import NAMES, Reader, changed, damaged, written

BOUND = 8 << 20
KINDS = [
    *(tarfile.REGTYPE, tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE),
    *(tarfile.FIFOTYPE, tarfile.CHRTYPE, b"x", b"L", b"g", b"S"),
]
ITEMS = [
    Item.from_bytes("oci-layout", b"{}"),
    Item.from_bytes("index.json", b"[]"),
    Item.from_bytes("blob", bytes(range(256)) * 30),
]


def odd_entry(rng: random.Random) -> bytes:
    """A header that is sound by its sum, and means ill."""
    info = tarfile.TarInfo(rng.choice(NAMES))
    info.type = rng.choice(KINDS)
    info.size = rng.choice((0, 0, 0, 0, 1, 511, 4000, 1 << 33, 1 << 62))
    info.linkname = rng.choice(NAMES)
    if rng.random() < 0.3:
        key = rng.choice(("path", "size", "linkpath", "GNU.sparse.size"))
        info.pax_headers = {key: rng.choice(("", "-1", "../x", "9" * 30))}
    try:
        head = info.tobuf(rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)))
    except (ValueError, UnicodeError):
        return rng.randbytes(512)
    return head + bytes(min(info.size, 4096) + -info.size % 512)


def odd_tar(rng: random.Random, files: dict[str, bytes]) -> bytes:
    entries = [entry(name, data) for name, data in files.items()]
    if rng.random() < 0.6:
        entries.insert(rng.randrange(len(entries) + 1), odd_entry(rng))
    if rng.random() < 0.2:
        rng.shuffle(entries)
    data = b"".join(entries) + END
    return damaged(rng, data) if rng.random() < 0.4 else data


def packed(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.6:
        return data
    found = gzip.compress(data, 1)
    return damaged(rng, found) if rng.random() < 0.5 else found


def layout_files(rng: random.Random) -> dict[str, bytes]:
    """A checkpoint's archive, with one of its documents changed and all digests as they should then be."""
    layout = Layout()
    manifest = layout.manifest(b"layer" * 20)
    parts = [layout.blob(CRIU, tar({"inventory.img": b"x"})), layout.blob("text/plain", b"x"), manifest]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": parts, "annotations": {"a": "b"}}
    if rng.random() < 0.7:
        index = changed(rng, index)
    layout.add(layout.blob(INDEX, written(rng, index)), "x:1")
    if rng.random() < 0.3:
        layout.top = changed(rng, layout.top)
    files = {"oci-layout": dump({"imageLayoutVersion": "1.0.0"}), **layout.blobs}
    return {**files, "index.json": written(rng, {"schemaVersion": 2, "manifests": layout.top})}


def docker(rng: random.Random) -> dict[str, bytes]:
    files = docker_files({"a/layer.tar": tar({"x": b"1"})}, ["x:1"])
    name = rng.choice(("manifest.json", "config.json"))
    return {**files, name: written(rng, changed(rng, json.loads(files[name])))}


def read_archive(rng: random.Random, place: Path) -> None:
    files = docker(rng) if rng.random() < 0.3 else layout_files(rng)
    place.write_bytes(packed(rng, odd_tar(rng, files)))
    with open_archive(str(place), limits=Limits(max_total=BOUND), expansion=Expansion(BOUND)) as archive:
        for image in archive.images:
            archive.graph(image)
            for _descriptor, chunks in archive.blobs(image):
                if rng.random() < 0.8:
                    for _chunk in chunks:
                        continue


def read_dump(rng: random.Random, place: Path) -> None:
    config = {"rootfsImageName": "x:1", "rootfsImageRef": "x@sha256:" + 64 * "1", "rootfsImageID": 64 * "2"}
    spec = {"process": {"args": ["x"]}, "annotations": {"io.container.manager": "libpod"}}
    files = {
        "config.dump": written(rng, changed(rng, config)),
        "spec.dump": written(rng, changed(rng, spec)),
        "deleted.files": written(rng, changed(rng, ["/a/b", "c"])),
        "rootfs-diff.tar": packed(rng, odd_tar(rng, {"x": b"1"})),
        **{f"checkpoint/{name}": b"x" for name in ("inventory.img", "descriptors.json", "pages-1.img")},
    }
    place.write_bytes(packed(rng, odd_tar(rng, files)))
    file = ArchiveFile(str(place), Limits(max_total=BOUND), Expansion(BOUND), None)
    try:
        found = transfer_dump.from_archive(file, BOUND)
        for part in (found.criu, found.layer):
            if part is not None:
                assert sum(map(len, part.chunks())) == part.descriptor.size
    finally:
        file.close()


def read_tar(rng: random.Random, place: Path) -> None:
    data = odd_tar(rng, {"a": b"1" * 600, "d/b": b"2"})
    source = ChunkSource(chunked(data, rng.choice((1, 100, 512, 4096))))
    if rng.random() < 0.9:
        for member in members(source, Limits(max_total=BOUND), "It"):
            assert ".." not in member.name.split("/") and not member.name.startswith("/")
        return
    directory = place.parent / "extracted"
    directory.mkdir()
    try:
        extract(source, str(directory), Limits(max_total=BOUND), "It")
    finally:
        for path in sorted(directory.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        directory.rmdir()
        assert sorted(path.name for path in place.parent.iterdir()) in ([], [place.name])


def read_stream(rng: random.Random, _place: Path) -> None:
    data = damaged(rng, gzip.compress(rng.randbytes(300) + bytes(rng.choice((10, 100000))), 1))
    for _chunk in decompressed(chunked(data, 100), expansion=Expansion(BOUND), what="It"):
        continue


def read_existing(rng: random.Random, place: Path) -> None:
    """A file where an export would go, and the record beside it, either of them damaged."""
    whole = b"".join(item.header() + (item.data or b"") + bytes(-item.size % 512) for item in ITEMS) + END
    if rng.random() < 0.5:
        whole = gzip.compress(whole, 1)
    place.write_bytes(whole)
    with open(place, "rb") as stream:
        record = archive_record.measure(stream.fileno(), "sha256:" + 64 * "a", ITEMS)
    beside = Path(archive_record.record_path(str(place)))
    good = {"version": 1, **asdict(record)}
    text = written(rng, changed(rng, good)) if rng.random() < 0.5 else damaged(rng, dump(good))
    data = rng.choice((whole, damaged(rng, whole), b"\x28\xb5\x2f\xfd" + whole[: rng.randrange(100)]))
    place.write_bytes(data)
    os.utime(place, ns=(record.mtime_ns + 10**9, record.mtime_ns + 10**9))
    beside.write_bytes(text)
    try:
        found = existing.find_export(str(place), record.checkpoint, ITEMS)
    finally:
        beside.unlink()
    assert data != whole or found is not None, "it is whole, whatever the record says"
    if found is not None:
        with tarfile.open(place) as archive:
            contents = [archive.extractfile(member).read() for member in archive]  # type: ignore[union-attr]
        assert contents == [item.data for item in ITEMS]


def read_documents(rng: random.Random, _place: Path) -> None:
    document = changed(rng, {"rootfsImageName": "x", "rootfsImageRef": "y", "rootfsImage": "z", "rootfsImageID": "a"})
    if isinstance(document, dict):
        transfer_dump.read_origin(document)
        transfer_dump.storage_warnings(document, "It")
    layer = transfer_dump.whiteouts(changed(rng, ["/a/b", rng.choice(NAMES)]), "It") + END
    for member in members(ChunkSource([layer]), Limits(), "It"):
        assert member.name.rpartition("/")[2].startswith(".wh.")
    transfer_dump.read_object(damaged(rng, dump({"a": [1, {"b": None}]})), "It")


READERS: list[Reader] = [
    read_archive,
    read_dump,
    read_tar,
    read_stream,
    read_existing,
    read_documents,
]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_reads_it_or_refuses_it(reader: Reader, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused = fuzzing.refused(reader, tmp_path / "fuzzed", capsys)
    assert reader is read_existing or refused > 0, "nothing was refused: the cases are tame"
