# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd import images
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._image import tree as image_tree
from ansible_collections.gpuops.restore.plugins.module_utils._oci import image as oci_image
from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import CONFIG, CRIU, LAYER, MANIFEST
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import add_base, add_checkpoint
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

NAME = "example.test/app:1"
GC = "containerd.io/gc.ref.content"


def item(kind: str, number: int) -> oci_image.Descriptor:
    return oci_image.Descriptor(kind, f"sha256:{number:064x}", 1)


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
