# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every JSON document of strangers is read by the one strict reader: the same faults in each kind of document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._archive.members import ArchiveFile
from ansible_collections.gpuops.restore.plugins.module_utils._archive.reader import open_archive
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import metadata, reader as checkpoint_reader
from ansible_collections.gpuops.restore.plugins.module_utils._containerd import containers, images
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.containers import SPEC_TYPE
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.messages import message, pack
from ansible_collections.gpuops.restore.plugins.module_utils._core import labels
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._image import tree, unpack
from ansible_collections.gpuops.restore.plugins.module_utils._oci.facts import Facts
from ansible_collections.gpuops.restore.plugins.module_utils._registry.credentials import Credentials
from ansible_collections.gpuops.restore.plugins.module_utils._streams.decompression import Expansion
from ansible_collections.gpuops.restore.plugins.module_utils._streams.tar_reader import Limits
from ansible_collections.gpuops.restore.plugins.module_utils._transfer import dump as transfer_dump, registry_manifest
from ansible_collections.gpuops.restore.tests.unit.helpers import dump_samples
from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import (
    INDEX,
    MANIFEST,
    Layout,
    digest,
    docker_files,
    dump,
    tar,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import (
    BASE_NAME,
    CHECKPOINT_NAME,
    CONFIG,
    add_base,
    add_checkpoint,
    descriptor,
    record,
    spec,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_registry import FakeRegistry, repository

#: What is put into an object of a good document. None of it stops Python's own parser.
FAULTS = {
    "a key twice": '"x": 1, "x": 1',
    "NaN": '"x": NaN',
    "infinity": '"x": -Infinity',
    "a number that is infinite": '"x": 1e999',
    "too deep": '"x": ' + "[" * 65 + "]" * 65,
}
TOO_LARGE = 9 << 20


@dataclass(frozen=True)
class Place:
    """Where documents lie."""

    fake: FakeContainerd
    client: Client
    registry: FakeRegistry
    path: Path


Spoil = Callable[[bytes], bytes]


def index(place: Place, spoil: Spoil) -> None:
    sample = add_checkpoint(place.fake.state)
    record(place.fake.state, CHECKPOINT_NAME, INDEX, spoil(dump(sample.document)))
    checkpoint_reader.load(place.client, CHECKPOINT_NAME)


def manifest(place: Place, spoil: Spoil) -> None:
    sample = add_base(place.fake.state)
    record(place.fake.state, BASE_NAME, MANIFEST, spoil(dump(sample.document)))
    resolve(place)


def manifest_surveyed(place: Place, spoil: Spoil) -> None:
    sample = add_base(place.fake.state)
    record(place.fake.state, BASE_NAME, MANIFEST, spoil(dump(sample.document)))
    found = images.get(place.client, BASE_NAME)
    assert found is not None
    tree.survey(place.client, found.target)


def image_config(place: Place, spoil: Spoil) -> None:
    sample = add_base(place.fake.state)
    good = place.fake.state.blobs[sample.parts["config"]].data
    config = descriptor(place.fake.state, "application/vnd.oci.image.config.v1+json", spoil(good))
    record(place.fake.state, BASE_NAME, MANIFEST, {**sample.document, "config": config})
    resolve(place)


def resolve(place: Place) -> None:
    found = images.get(place.client, BASE_NAME)
    assert found is not None
    unpack.rootfs(place.client, found.target, BASE_NAME)


def spec_of_a_checkpoint(place: Place, spoil: Spoil) -> None:
    packed = pack(SPEC_TYPE, spoil(dump(spec()))).SerializeToString()
    part = descriptor(place.fake.state, CONFIG, packed)
    record(place.fake.state, CHECKPOINT_NAME, INDEX, {"manifests": [part]})
    checkpoint_reader.spec(place.client, checkpoint_reader.load(place.client, CHECKPOINT_NAME))


def spec_of_a_container(place: Place, spoil: Spoil) -> None:
    kind = "containerd.services.containers.v1.Container"
    place.fake.state.containers["c1"] = message(kind, id="c1", spec=pack(SPEC_TYPE, spoil(dump(spec()))))
    containers.get(place.client, "c1")


def metadata_content(_place: Place, spoil: Spoil) -> None:
    metadata.parse(spoil(b'{"originalImage": "a:1"}').decode())


def metadata_file(place: Place, spoil: Spoil) -> None:
    path = place.path / "metadata.json"
    path.write_bytes(spoil(b'{"originalImage": "a:1"}'))
    metadata.load(str(path))


def registry_s_manifest(place: Place, spoil: Spoil) -> None:
    found = {"mediaType": MANIFEST, "artifactType": registry_manifest.ARTIFACT}
    layer = {"mediaType": registry_manifest.DOCUMENT, "digest": "sha256:" + 64 * "a", "size": 1}
    roles = {registry_manifest.ROLE: registry_manifest.INDEX_ROLE, registry_manifest.MEDIA_TYPE: INDEX}
    place.registry.manifests["1"] = spoil(dump({**found, "layers": [{**layer, "annotations": roles}]}))
    data = repository(place.registry, Credentials()).manifest()
    assert data is not None
    registry_manifest.read(data, "team/app:1")


def registry_s_token(place: Place, spoil: Spoil) -> None:
    place.registry.authorization = "Bearer t0ken"
    place.registry.challenge = f'Bearer realm="{place.registry.url}/token"'
    place.registry.answer("GET", "/token", 200, body=spoil(b'{"token": "t0ken"}'))
    repository(place.registry, Credentials()).manifest()


def archive_s_layout(place: Place, spoil: Spoil) -> None:
    files = Layout().files()
    read_archive(place, {**files, "oci-layout": spoil(files["oci-layout"])})


def archive_s_index(place: Place, spoil: Spoil) -> None:
    files = Layout().files()
    read_archive(place, {**files, "index.json": spoil(files["index.json"])})


def archive_s_manifest(place: Place, spoil: Spoil) -> None:
    layout = Layout()
    name = "blobs/sha256/" + str(layout.manifest(b"layer")["digest"])[7:]
    layout.add(layout.blob(MANIFEST, spoil(layout.blobs.pop(name))))
    read_archive(place, layout.files())


def docker_s_manifest(place: Place, spoil: Spoil) -> None:
    files = docker_files({"l": b"x"}, ["app:1"])
    read_archive(place, {**files, "manifest.json": spoil(files["manifest.json"])})


def docker_s_config(place: Place, spoil: Spoil) -> None:
    files = docker_files({"l": b"x"}, ["app:1"])
    read_archive(place, {**files, "config.json": spoil(files["config.json"])})


def read_archive(place: Place, files: Mapping[str, bytes]) -> None:
    path = place.path / "archive.tar"
    path.write_bytes(tar(dict(files)))
    with open_archive(str(path)) as archive:
        for image in archive.images:
            archive.graph(image)


def dump_s_spec(place: Place, spoil: Spoil) -> None:
    read_dump(place, spec_dump=spoil(dump(spec())))


def dump_s_config(place: Place, spoil: Spoil) -> None:
    read_dump(place, config_dump=spoil(dump(dump_samples.config(digest(b"x")))))


def read_dump(place: Place, **files: bytes) -> None:
    path = place.path / "dump.tar"
    path.write_bytes(dump_samples.archive(digest(b"x"), **files))
    file = ArchiveFile(str(path), Limits(), Expansion(), None)
    try:
        transfer_dump.from_archive(file, None)
    finally:
        file.close()


Kind = Callable[[Place, Spoil], None]
#: Reads a good document after ``spoil`` -> what the message has to name ('' for the document's digest), the code of a
#: fault, the code of too many bytes ('' where the bound is another's: gRPC's for a message of containerd).
KINDS: dict[Kind, tuple[str, str, str]] = {
    index: ("", "document_invalid", "blob_too_large"),
    manifest: ("", "document_invalid", "blob_too_large"),
    manifest_surveyed: ("", "manifest_invalid", "blob_too_large"),
    image_config: ("", "document_invalid", "blob_too_large"),
    spec_of_a_checkpoint: (CHECKPOINT_NAME, "spec_unreadable", "blob_too_large"),
    spec_of_a_container: ("container c1", "spec_unreadable", ""),
    metadata_content: ("The metadata", "metadata_not_json", "metadata_not_json"),
    metadata_file: ("metadata.json", "metadata_not_json", "metadata_not_json"),
    registry_s_manifest: ("team/app:1", "manifest_invalid", "manifest_too_large"),
    registry_s_token: ("/token", "registry_answer_invalid", "registry_answer_invalid"),
    archive_s_layout: ("oci-layout of", "manifest_invalid", "manifest_too_large"),
    archive_s_index: ("index.json of", "manifest_invalid", "manifest_too_large"),
    archive_s_manifest: ("", "manifest_invalid", "manifest_too_large"),
    docker_s_manifest: ("manifest.json of", "manifest_invalid", "manifest_too_large"),
    docker_s_config: ("config.json", "manifest_invalid", "manifest_too_large"),
    dump_s_spec: ("spec.dump of", "dump_invalid", "manifest_too_large"),
    dump_s_config: ("config.dump of", "dump_invalid", "manifest_too_large"),
}


def kind_name(value: Any) -> str:
    return value.__name__ if callable(value) else str(value)[:20]


@pytest.fixture
def place(fake: FakeContainerd, client: Client, registry: FakeRegistry, tmp_path: Path) -> Place:
    return Place(fake, client, registry, tmp_path)


@pytest.mark.parametrize("kind", KINDS, ids=kind_name)
def test_without_a_fault_it_is_read(kind: Kind, place: Place) -> None:
    kind(place, lambda good: good.replace(b"{", b'{"x": 1, ', 1))


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("kind", KINDS, ids=kind_name)
def test_a_fault_is_refused(kind: Kind, fault: str, place: Place) -> None:
    name, code, _too_large = KINDS[kind]
    spoilt = []

    def spoil(good: bytes) -> bytes:
        spoilt.append(good.replace(b"{", b"{" + fault.encode() + b", ", 1))
        return spoilt[0]

    with pytest.raises(RestoreError) as caught:
        kind(place, spoil)
    assert caught.value.code == code
    assert (name or digest(spoilt[0])) in caught.value.message and caught.value.remedy


@pytest.mark.parametrize("kind", [kind for kind, codes in KINDS.items() if codes[2]], ids=kind_name)
def test_too_many_bytes_are_refused(kind: Kind, place: Place) -> None:
    with pytest.raises(RestoreError) as caught:
        kind(place, lambda good: good + b" " * TOO_LARGE)
    assert caught.value.code == KINDS[kind][2]


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_facts_with_a_fault_count_as_not_recorded(fault: str, fake: FakeContainerd, client: Client) -> None:
    """No restore depends on them, so none fails for them."""
    for text, expected in (
        ('{"version": 1, "kernel": "6"}', Facts(kernel="6")),
        ('{"version": 1, "kernel": "6", ' + fault + "}", Facts()),
    ):
        sample = add_checkpoint(fake.state)
        annotations = {**sample.document["annotations"], labels.FACTS: text}
        record(fake.state, CHECKPOINT_NAME, INDEX, json.dumps({**sample.document, "annotations": annotations}).encode())
        assert checkpoint_reader.load(client, CHECKPOINT_NAME).facts == expected


def test_a_complaint_of_a_registry_with_a_fault_is_not_quoted(place: Place) -> None:
    for more, quoted in (("", True), (', "x": NaN', False)):
        body = '{"errors": [{"code": "DENIED", "message": "no such team"}]' + more + "}"
        place.registry.answer("GET", "/manifests/", 400, times=1, body=body.encode())
        with pytest.raises(RestoreError) as caught:
            repository(place.registry, Credentials()).manifest()
        assert ("no such team" in caught.value.message) is quoted
