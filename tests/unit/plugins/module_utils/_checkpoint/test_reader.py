# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import reader as checkpoint_reader
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.messages import message, pack
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import ConflictError, InputError
from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import INDEX, MANIFEST
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import (
    BASE_NAME,
    CHECKPOINT_NAME,
    CONFIG,
    CRIU,
    LAYER,
    OPTIONS,
    RUNTIME_OPTIONS,
    add_base,
    add_checkpoint,
    descriptor,
    record,
    spec,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

GOOD = {"mediaType": CRIU, "digest": "sha256:" + "a" * 64, "size": 3}


def test_the_layout_of_ctr_containers_checkpoint(fake: FakeContainerd, client: Client) -> None:
    base = add_base(fake.state)
    sample = add_checkpoint(fake.state, base=base)
    found = checkpoint_reader.load(client, CHECKPOINT_NAME)
    assert (found.layout, found.digest) == ("container", sample.digest)
    assert found.key == sample.digest[len("sha256:") :]
    assert (found.base_name, found.base.digest if found.base else "") == (BASE_NAME, base.digest)
    assert (found.runtime, found.snapshotter) == ("io.containerd.runc.v2", "overlayfs")
    parts = (found.criu, found.config, found.options, found.runtime_options, found.writable_layer)
    kinds = (CRIU, CONFIG, OPTIONS, RUNTIME_OPTIONS, LAYER)
    assert [part.digest if part else None for part in parts] == [sample.parts[kind] for kind in kinds]
    assert checkpoint_reader.require_criu(found).digest == sample.parts[CRIU]
    assert checkpoint_reader.spec(client, found) == spec()


def test_the_layout_of_ctr_tasks_checkpoint(fake: FakeContainerd, client: Client) -> None:
    add_checkpoint(fake.state, layout="task", without=(LAYER,))
    found = checkpoint_reader.load(client, CHECKPOINT_NAME)
    assert (found.layout, found.base_name, found.base) == ("task", BASE_NAME, None)
    assert (found.runtime, found.snapshotter) == ("io.containerd.runc.v2", "overlayfs")
    assert found.criu is not None and found.writable_layer is None and found.runtime_options is None
    assert checkpoint_reader.runtime_options(client, found) is None


def test_an_index_without_its_parts_is_read_and_says_what_it_lacks(fake: FakeContainerd, client: Client) -> None:
    """As the second ``ctr containers checkpoint`` of one container makes it on containerd 1.6 and 1.7."""
    add_checkpoint(fake.state, without=(CRIU, CONFIG, LAYER))
    found = checkpoint_reader.load(client, CHECKPOINT_NAME)
    assert (found.criu, found.config, found.writable_layer) == (None, None, None)
    assert checkpoint_reader.spec(client, found) is None
    with pytest.raises(InputError) as caught:
        checkpoint_reader.require_criu(found)
    assert caught.value.code == "checkpoint_without_criu"
    assert CHECKPOINT_NAME in caught.value.message and found.digest in caught.value.message


def test_runtime_options_wrapped_once_or_twice(fake: FakeContainerd, client: Client) -> None:
    options = message("containerd.runc.v1.Options", binary_name="r").SerializeToString()
    inner = pack("containerd.runc.v1.Options", options)
    for wrapped in (inner, pack("google.protobuf.Any", inner.SerializeToString())):
        child = descriptor(fake.state, RUNTIME_OPTIONS, wrapped.SerializeToString())
        record(fake.state, "c", INDEX, {"manifests": [child]})
        found = checkpoint_reader.runtime_options(client, checkpoint_reader.load(client, "c"))
        assert (found.type_url, found.value) == (inner.type_url, inner.value)


def test_empty_runtime_options_are_none(fake: FakeContainerd, client: Client) -> None:
    record(fake.state, "c", INDEX, {"manifests": [descriptor(fake.state, RUNTIME_OPTIONS, b"")]})
    assert checkpoint_reader.runtime_options(client, checkpoint_reader.load(client, "c")) is None


@pytest.mark.parametrize("data", [b"\xff\xff", pack("containerd.runc.v1.Options", b"\xff").SerializeToString()])
def test_damaged_runtime_options(fake: FakeContainerd, client: Client, data: bytes) -> None:
    record(fake.state, "c", INDEX, {"manifests": [descriptor(fake.state, RUNTIME_OPTIONS, data)]})
    with pytest.raises(InputError) as caught:
        checkpoint_reader.runtime_options(client, checkpoint_reader.load(client, "c"))
    assert caught.value.code == "runtime_options_unreadable"


@pytest.mark.parametrize("value", [None, b"", b"[]", b"{", b"[" * 100000, b"\xff"])
def test_a_damaged_spec(fake: FakeContainerd, client: Client, value: bytes | None) -> None:
    data = b"\xff\xff" if value is None else pack("x", value).SerializeToString()
    record(fake.state, "c", INDEX, {"manifests": [descriptor(fake.state, CONFIG, data)]})
    with pytest.raises(InputError) as caught:
        checkpoint_reader.spec(client, checkpoint_reader.load(client, "c"))
    assert caught.value.code == "spec_unreadable"


def test_no_such_image(client: Client) -> None:
    with pytest.raises(InputError) as caught:
        checkpoint_reader.load(client, "nothing")
    assert caught.value.code == "checkpoint_absent"
    assert "nothing" in caught.value.message and "tests" in caught.value.message


def test_an_ordinary_image_is_no_checkpoint(fake: FakeContainerd, client: Client) -> None:
    add_base(fake.state)
    with pytest.raises(InputError) as caught:
        checkpoint_reader.load(client, BASE_NAME)
    assert caught.value.code == "not_a_checkpoint"
    assert MANIFEST in caught.value.message


def test_an_ordinary_index_is_no_checkpoint(fake: FakeContainerd, client: Client) -> None:
    record(fake.state, "multi", INDEX, {"manifests": [{**GOOD, "mediaType": MANIFEST}]})
    with pytest.raises(InputError) as caught:
        checkpoint_reader.load(client, "multi")
    assert caught.value.code == "not_a_checkpoint"


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe\x00",
        b"[" * 100000,
        {"manifests": 5},
        {"manifests": {"a": 1}},
        {"manifests": "text"},
        {"manifests": [5]},
        {"manifests": [None]},
        {"manifests": [{}]},
        {"manifests": [{**GOOD, "digest": "md5:abc"}]},
        {"manifests": [{**GOOD, "digest": "sha256:../../etc"}]},
        {"manifests": [{**GOOD, "digest": 5}]},
        {"manifests": [{**GOOD, "size": "3"}]},
        {"manifests": [{**GOOD, "size": -1}]},
        {"manifests": [{**GOOD, "size": True}]},
        {"manifests": [{**GOOD, "size": 1.5}]},
        {"manifests": [{**GOOD, "size": 1 << 63}]},
        {"manifests": [{**GOOD, "size": 1 << 51}]},
        {"manifests": [{**GOOD, "mediaType": ""}]},
        {"manifests": [{**GOOD, "mediaType": 5}]},
        {"manifests": [{**GOOD, "digest": "sha256:" + "A" * 64}]},
        {"manifests": [{**GOOD, "platform": "linux"}]},
        {"manifests": [{**GOOD, "annotations": {"a": 1}}]},
        {"manifests": [GOOD], "mediaType": MANIFEST},
        {"manifests": [GOOD], "layers": [GOOD]},
        {"manifests": [{**GOOD, "annotations": "text"}]},
        {"manifests": [{**GOOD, "annotations": [1]}]},
        {"manifests": [GOOD], "annotations": ["a"]},
        {"manifests": [GOOD], "annotations": "text"},
    ],
    ids=lambda document: ascii(document if isinstance(document, bytes) else json.dumps(document))[:60],
)
def test_a_damaged_index(fake: FakeContainerd, client: Client, document: Any) -> None:
    record(fake.state, "damaged", INDEX, document)
    with pytest.raises(InputError) as caught:
        checkpoint_reader.load(client, "damaged")
    assert caught.value.code == "document_invalid"


def test_an_index_that_is_not_in_the_store(fake: FakeContainerd, client: Client) -> None:
    sample = add_checkpoint(fake.state)
    del fake.state.blobs[sample.digest]
    with pytest.raises(InputError) as caught:
        checkpoint_reader.load(client, CHECKPOINT_NAME)
    assert caught.value.code == "blob_missing"


def test_an_index_that_was_tampered_with(fake: FakeContainerd, client: Client) -> None:
    sample = add_checkpoint(fake.state)
    blob = fake.state.blobs[sample.digest]
    blob.data = blob.data.replace(b"runc", b"evil")
    with pytest.raises(InputError) as caught:
        checkpoint_reader.load(client, CHECKPOINT_NAME)
    assert caught.value.code == "blob_digest"


# --- the base image


def test_the_base_image_by_name_and_digest(fake: FakeContainerd, client: Client) -> None:
    base = add_base(fake.state)
    add_checkpoint(fake.state, base=base)
    found = checkpoint_reader.base_image(client, checkpoint_reader.load(client, CHECKPOINT_NAME), "")
    assert (found.name, found.target.digest) == (BASE_NAME, base.digest)


def test_the_recorded_digest_under_another_name_will_do(fake: FakeContainerd, client: Client) -> None:
    base = add_base(fake.state)
    add_checkpoint(fake.state, base=base)
    fake.state.images["mirror.test/app:1"] = fake.state.images.pop(BASE_NAME)
    fake.state.images["mirror.test/app:1"].name = "mirror.test/app:1"
    found = checkpoint_reader.base_image(client, checkpoint_reader.load(client, CHECKPOINT_NAME), "")
    assert (found.name, found.target.digest) == ("mirror.test/app:1", base.digest)


def test_a_tag_that_moved_is_refused_with_both_digests(fake: FakeContainerd, client: Client) -> None:
    base = add_base(fake.state)
    add_checkpoint(fake.state, base=base)
    moved = add_base(fake.state, text=b" new")
    with pytest.raises(ConflictError) as caught:
        checkpoint_reader.base_image(client, checkpoint_reader.load(client, CHECKPOINT_NAME), "")
    assert caught.value.code == "base_image_moved"
    assert base.digest in caught.value.message and moved.digest in caught.value.message


def test_a_base_image_that_is_not_there(fake: FakeContainerd, client: Client) -> None:
    add_checkpoint(fake.state, base=add_base(fake.state))
    del fake.state.images[BASE_NAME]
    with pytest.raises(InputError) as caught:
        checkpoint_reader.base_image(client, checkpoint_reader.load(client, CHECKPOINT_NAME), "")
    assert caught.value.code == "base_image_absent"
    assert BASE_NAME in caught.value.message


def test_without_a_recorded_digest_the_name_decides(fake: FakeContainerd, client: Client) -> None:
    base = add_base(fake.state)
    add_checkpoint(fake.state, layout="task")
    found = checkpoint_reader.base_image(client, checkpoint_reader.load(client, CHECKPOINT_NAME), "")
    assert found.target.digest == base.digest


def test_a_name_that_is_given_wins(fake: FakeContainerd, client: Client) -> None:
    other = add_base(fake.state, name="other", text=b" other")
    add_checkpoint(fake.state, layout="task")
    found = checkpoint_reader.base_image(client, checkpoint_reader.load(client, CHECKPOINT_NAME), "other")
    assert (found.name, found.target.digest) == ("other", other.digest)


def test_nobody_says_which_base_image(fake: FakeContainerd, client: Client) -> None:
    add_checkpoint(fake.state, annotations={"io.containerd.checkpoint.runtime": "r"})
    with pytest.raises(InputError) as caught:
        checkpoint_reader.base_image(client, checkpoint_reader.load(client, CHECKPOINT_NAME), "")
    assert caught.value.code == "base_image_unknown"


def options(fake: FakeContainerd, client: Client, data: bytes) -> tuple[str, ...]:
    record(fake.state, "c", INDEX, {"manifests": [descriptor(fake.state, OPTIONS, data)]})
    return checkpoint_reader.dump_options(client, checkpoint_reader.load(client, "c"))


def test_what_others_keep_of_the_options_of_a_dump(fake: FakeContainerd, client: Client) -> None:
    kind = "containerd.runc.v1.CheckpointOptions"
    told = message(kind, open_tcp=True, external_unix_sockets=True).SerializeToString()
    assert options(fake, client, pack(kind, told).SerializeToString()) == ("tcp-established", "ext-unix-sk")
    assert options(fake, client, b"") == ()
    assert options(fake, client, pack("containerd.runc.v1.Options", told).SerializeToString()) == ()
    assert options(fake, client, b"x" * (1 << 17)) == (), "it is no such thing"


@pytest.mark.parametrize(
    "data", [b"\xff\xff", pack("containerd.runc.v1.CheckpointOptions", b"\xff").SerializeToString()]
)
def test_damaged_options_of_a_dump(fake: FakeContainerd, client: Client, data: bytes) -> None:
    with pytest.raises(InputError) as caught:
        options(fake, client, data)
    assert caught.value.code == "document_invalid"


@pytest.mark.parametrize(
    "mark",
    [
        "io.kubernetes.cri-o.annotations.checkpoint.name",
        "io.podman.annotations.checkpoint.name",
        "org.criu.checkpoint.container.name",
    ],
)
def test_an_image_of_another_tools_archive(fake: FakeContainerd, client: Client, mark: str) -> None:
    """By its manifest's annotations; the remedy names the layer, and an ordinary image is none."""
    config = {**GOOD, "mediaType": "application/vnd.oci.image.config.v1+json"}
    layer = {**GOOD, "mediaType": LAYER, "digest": "sha256:" + "b" * 64}
    document = {"config": config, "layers": [layer], "annotations": {mark: "counter"}}
    record(fake.state, "buildah", MANIFEST, document)
    with pytest.raises(InputError) as caught:
        checkpoint_reader.load(client, "buildah")
    assert caught.value.code == "checkpoint_of_another_tool"
    assert mark in caught.value.message
    assert f"--namespace tests content get {layer['digest']}" in caught.value.remedy
    record(fake.state, "ordinary", MANIFEST, {**document, "annotations": {"org.criu.other": "1"}})
    with pytest.raises(InputError) as caught:
        checkpoint_reader.load(client, "ordinary")
    assert caught.value.code == "not_a_checkpoint"
