# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError
from ansible_collections.gpuops.restore.plugins.module_utils._oci import image
from ansible_collections.gpuops.restore.plugins.module_utils._oci.image import Descriptor, Platform
from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import CONFIG, INDEX, LAYER, MANIFEST

pytestmark = pytest.mark.every_python

DIGEST = "sha256:" + "a" * 64
GOOD: dict[str, Any] = {"mediaType": LAYER, "digest": DIGEST, "size": 3}


def test_a_descriptor_is_its_type_digest_and_size() -> None:
    plain = Descriptor(LAYER, DIGEST, 3)
    full = Descriptor(LAYER, DIGEST, 3, {"a": "b"}, Platform("linux", "arm64"))
    assert full == plain and hash(full) == hash(plain)
    bare = full.bare()
    assert (bare, bare.annotations, bare.platform) == (plain, {}, None)
    assert plain != Descriptor(LAYER, DIGEST, 4)


@pytest.mark.parametrize(
    ("media_type", "index", "manifest"),
    [(INDEX, True, False), (MANIFEST, False, True), (CONFIG, False, False), (LAYER, False, False)],
)
def test_what_has_children(media_type: str, index: bool, manifest: bool) -> None:
    found = Descriptor(media_type, DIGEST, 3)
    assert (found.is_index, found.is_manifest, found.has_children) == (index, manifest, index or manifest)


def test_a_descriptor_of_json() -> None:
    more = {"annotations": {"a": "b"}, "platform": {"os": "linux", "architecture": "arm", "variant": "v7"}}
    found = image.read_descriptor({**GOOD, **more})
    assert (found.annotations, str(found.platform)) == ({"a": "b"}, "linux/arm/v7")
    assert image.read_descriptor({**GOOD, "size": 0}).size == 0
    assert image.read_descriptor({**GOOD, "size": 1 << 50}).size == 1 << 50


def test_a_manifest_names_its_config_first() -> None:
    config = {**GOOD, "mediaType": CONFIG}
    found = image.read_children(Descriptor(MANIFEST, DIGEST, 3), {"layers": [GOOD, GOOD], "config": config})
    assert [child.media_type for child in found] == [CONFIG, LAYER, LAYER]
    assert image.read_children(Descriptor(INDEX, DIGEST, 3), {}) == []


@pytest.mark.parametrize(
    ("media_type", "document", "words"),
    [
        (MANIFEST, {"layers": []}, "not an object"),
        (MANIFEST, {"config": GOOD, "manifests": []}, "at once"),
        (INDEX, {"mediaType": MANIFEST}, "its descriptor"),
        (INDEX, {"manifests": {}}, "not a list"),
        (INDEX, {"manifests": [{**GOOD, "digest": "sha256:/etc"}]}, "sha256:/etc"),
        (INDEX, {"manifests": [GOOD] * 10001}, "10000 blobs"),
        (INDEX, [], "not a JSON object"),
        (INDEX, {"manifests": [], "Manifests": [GOOD]}, "'Manifests'.*'manifests'"),
        (INDEX, {"manife\u017ft\u017f": [GOOD]}, "'manifests'"),
        (MANIFEST, {"config": GOOD, "layers": [], "LAYERS": [GOOD]}, "'LAYERS'"),
        (INDEX, {"manifests": [{**GOOD, "Digest": DIGEST}]}, "'Digest'"),
        (INDEX, {"manifests": [{**GOOD, "platform": {"os": "linux", "OS": "windows"}}]}, "'OS'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_message_names_the_document_and_what_is_wrong(media_type: str, document: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        image.children(Descriptor(media_type, DIGEST, 3), json.dumps(document).encode())
    assert DIGEST in caught.value.message
