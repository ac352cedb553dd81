# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd import images, leases
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError, RestoreError, RpcError
from ansible_collections.gpuops.restore.plugins.module_utils._image import unpack as image_unpack
from ansible_collections.gpuops.restore.plugins.module_utils._oci.image import host_platform
from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import INDEX, MANIFEST
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import (
    BASE_NAME,
    CRIU,
    Sample,
    add_base,
    descriptor,
    put,
    record,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

OTHER = "ppc64le" if host_platform().architecture != "ppc64le" else "amd64"


def resolve(client: Client, name: str = BASE_NAME) -> image_unpack.Rootfs:
    image = images.get(client, name)
    assert image is not None
    return image_unpack.rootfs(client, image.target, name)


def unpack(client: Client) -> bool:
    with leases.hold(client, None, "test"):
        return image_unpack.unpack(client, resolve(client), "overlayfs")


def child(fake: FakeContainerd, sample: Sample, architecture: str) -> dict[str, Any]:
    size = len(fake.state.blobs[sample.digest].data)
    platform = {"architecture": architecture, "os": "linux"}
    return {"mediaType": MANIFEST, "digest": sample.digest, "size": size, "platform": platform}


def test_chain_ids_are_as_the_oci_specification_says() -> None:
    first, second = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    chain = "sha256:" + hashlib.sha256(f"{first} {second}".encode()).hexdigest()
    assert image_unpack.chain_ids((first, second)) == [first, chain]
    assert image_unpack.chain_ids(()) == []


def test_layers_become_snapshots_one_upon_the_other(fake: FakeContainerd, client: Client) -> None:
    base = add_base(fake.state, unpacked=False)
    found = resolve(client)
    assert found.chain_id == base.chain_id
    assert not image_unpack.is_unpacked(client, found, "overlayfs")
    assert unpack(client) is True
    chain = image_unpack.chain_ids(found.diff_ids)
    first, second = (fake.state.snapshots[("overlayfs", name)] for name in chain)
    assert (first.kind, second.kind, second.parent) == (3, 3, chain[0])
    assert [first.layers, second.layers] == [[layer.digest] for layer in found.layers]
    assert len(fake.state.snapshots) == 2
    label = fake.state.blobs[base.parts["config"]].labels["containerd.io/gc.ref.snapshot.overlayfs"]
    assert label == base.chain_id
    assert image_unpack.is_unpacked(client, found, "overlayfs")


def test_a_second_time_changes_nothing(fake: FakeContainerd, client: Client) -> None:
    add_base(fake.state, unpacked=False)
    unpack(client)
    before = fake.state.listing()
    assert unpack(client) is False
    assert fake.state.listing() == before


def test_only_what_lacks_is_made(fake: FakeContainerd, client: Client) -> None:
    base = add_base(fake.state)
    del fake.state.snapshots[("overlayfs", base.chain_id)]
    assert unpack(client) is True
    assert fake.count("Diff/Apply") == 1


def test_another_diff_id_than_the_config_says(fake: FakeContainerd, client: Client) -> None:
    base = add_base(fake.state, unpacked=False)
    fake.state.diff_ids[base.document["layers"][1]["digest"]] = "sha256:" + "f" * 64
    before = fake.state.listing()
    with pytest.raises(InputError) as caught:
        unpack(client)
    assert caught.value.code == "diff_id"
    assert fake.state.listing() == before


@pytest.mark.parametrize("name", ["Snapshots/Prepare", "Diff/Apply", "Snapshots/Commit", "Content/Update"])
@pytest.mark.parametrize("after", [0, 1])
def test_a_failure_leaves_no_snapshot(fake: FakeContainerd, client: Client, name: str, after: int) -> None:
    add_base(fake.state, unpacked=False)
    before = fake.state.listing()
    fake.fail(name, "INTERNAL", after=0 if name == "Content/Update" else after)
    with pytest.raises(RpcError, match="made to fail"):
        unpack(client)
    assert fake.state.listing() == before


def test_somebody_else_unpacked_the_layer_meanwhile(fake: FakeContainerd, client: Client) -> None:
    base = add_base(fake.state, unpacked=False)
    both = add_base(type(fake.state)(), unpacked=True)
    assert both.chain_id == base.chain_id
    other = type(fake.state)()
    add_base(other, unpacked=True)

    def win(_context: Any) -> None:
        fake.state.snapshots.update(other.snapshots)

    fake.on("Diff/Apply", win, times=1)
    assert unpack(client) is True
    assert set(fake.state.snapshots) == set(other.snapshots)


def test_a_half_made_snapshot_that_cannot_be_removed_is_named(fake: FakeContainerd, client: Client) -> None:
    add_base(fake.state, unpacked=False)
    fake.fail("Diff/Apply")
    fake.fail("Snapshots/Remove")
    with pytest.raises(RestoreError) as caught:
        unpack(client)
    assert caught.value.code == "snapshot_left"
    assert "extract-" in caught.value.message


def test_an_index_is_resolved_to_this_machine(fake: FakeContainerd, client: Client) -> None:
    foreign = add_base(fake.state, name="foreign", text=b" foreign")
    ours = add_base(fake.state)
    inner = {"manifests": [child(fake, ours, host_platform().architecture)]}
    nested = descriptor(fake.state, INDEX, json.dumps(inner).encode())
    attestation = {**child(fake, foreign, "unknown"), "platform": {"architecture": "unknown", "os": "unknown"}}
    record(fake.state, "multi", INDEX, {"manifests": [attestation, child(fake, foreign, OTHER), nested]})
    assert resolve(client, "multi").manifest.digest == ours.digest


def test_an_image_for_other_machines_only(fake: FakeContainerd, client: Client) -> None:
    foreign = add_base(fake.state, name="foreign")
    record(fake.state, "multi", INDEX, {"manifests": [child(fake, foreign, OTHER)]})
    with pytest.raises(InputError) as caught:
        resolve(client, "multi")
    assert caught.value.code == "no_platform"
    assert OTHER in caught.value.message and host_platform().architecture in caught.value.message


@pytest.mark.parametrize("changes", [{"layers": []}, {"layers": None}])
def test_an_image_without_a_root_file_system(fake: FakeContainerd, client: Client, changes: Any) -> None:
    base = add_base(fake.state)
    record(fake.state, "odd", MANIFEST, {**base.document, **changes})
    with pytest.raises(InputError) as caught:
        resolve(client, "odd")
    assert caught.value.code == "not_an_image"


def test_a_media_type_that_is_no_image(fake: FakeContainerd, client: Client) -> None:
    record(fake.state, "odd", CRIU, {})
    with pytest.raises(InputError) as caught:
        resolve(client, "odd")
    assert caught.value.code == "not_an_image"


@pytest.mark.parametrize(
    "changes", [{"layers": 5}, {"layers": {"a": 1}}, {"layers": ["x"]}, {"config": None}, {"config": 5}]
)
def test_a_damaged_manifest(fake: FakeContainerd, client: Client, changes: Any) -> None:
    base = add_base(fake.state)
    record(fake.state, "odd", MANIFEST, {**base.document, **changes})
    with pytest.raises(InputError) as caught:
        resolve(client, "odd")
    assert caught.value.code == "document_invalid"


@pytest.mark.parametrize("config", [b"[]", b"{", b'{"rootfs": 5}', b'{"rootfs": {"diff_ids": 5}}', b'{"rootfs": []}'])
def test_a_damaged_config(fake: FakeContainerd, client: Client, config: bytes) -> None:
    base = add_base(fake.state)
    digest, size = put(fake.state, config)
    record(fake.state, "odd", MANIFEST, {**base.document, "config": {"digest": digest, "size": size}})
    with pytest.raises(InputError) as caught:
        resolve(client, "odd")
    assert caught.value.code in ("document_invalid", "not_an_image")


@pytest.mark.parametrize("manifests", [5, [{"digest": "sha256:" + "a" * 64, "size": 1, "platform": "linux"}], ["x"]])
def test_a_damaged_index(fake: FakeContainerd, client: Client, manifests: Any) -> None:
    record(fake.state, "odd", INDEX, {"manifests": manifests})
    with pytest.raises(InputError) as caught:
        resolve(client, "odd")
    assert caught.value.code == "document_invalid"
