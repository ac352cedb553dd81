# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the base image of a checkpoint needs to be found; the operations that ask are tested in the other files."""

from __future__ import annotations

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd import images
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._oci.image import Descriptor
from ansible_collections.gpuops.restore.plugins.module_utils._transfer import base_image
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import (
    BASE_NAME,
    Sample,
    add_base,
    add_cri_reference,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd


@pytest.fixture
def base(fake: FakeContainerd) -> Sample:
    """On the node, whole, under its name."""
    return add_base(fake.state)


@pytest.fixture
def wanted(client: Client, base: Sample) -> Descriptor:
    found = images.get(client, BASE_NAME)
    assert found is not None
    return found.target


def test_one_that_has_a_name(client: Client, wanted: Descriptor) -> None:
    assert base_image.is_named(client, wanted.digest)
    assert base_image.plan(client, wanted, "example.test/other:1", "me", comes=True) == base_image.Plan()
    assert base_image.plan(client, None, BASE_NAME, "me", comes=False) == base_image.Plan()


def test_one_without_any(fake: FakeContainerd, client: Client, wanted: Descriptor) -> None:
    del fake.state.images[BASE_NAME]
    assert not base_image.is_named(client, wanted.digest)
    planned = base_image.plan(client, wanted, BASE_NAME, "me", comes=False)
    assert planned.image is not None and planned.image.target.digest == wanted.digest
    assert planned.image.labels == {"io.gpuops.restore/owner": "me"}
    assert base_image.plan(client, wanted, "", "me", comes=True) == base_image.Plan(), "nobody knows one"


@pytest.mark.parametrize(
    ("name", "private"),
    [
        ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause"),
        ("localhost:5000/team/app", "localhost:5000/team/app"),
        ("localhost:5000/team/app:1", "localhost:5000/team/app"),
        ("docker.io/library/app@sha256:" + 64 * "0", "docker.io/library/app"),
        ("docker.io/library/app:1@sha256:" + 64 * "0", "docker.io/library/app"),
        ("app", "app"),
        ("a b", "gpuops.restore/base"),
        ("../../x:1", "gpuops.restore/base"),
        ("app\n:1", "gpuops.restore/base"),
        (":1", "gpuops.restore/base"),
        ("@x", "gpuops.restore/base"),
    ],
)
def test_a_checkpoint_chooses_no_tag(
    fake: FakeContainerd, client: Client, wanted: Descriptor, name: str, private: str
) -> None:
    """Whoever asks for an image of that name next would get this one."""
    del fake.state.images[BASE_NAME]
    planned = base_image.plan(client, wanted, name, "me", comes=False)
    assert planned.image is not None and planned.image.name == f"{private}@{wanted.digest}"
    assert base_image.make(client, planned)
    assert name not in fake.state.images and base_image.is_named(client, wanted.digest)
    assert base_image.plan(client, wanted, name, "me", comes=False) == base_image.Plan()
    asked = base_image.plan(client, wanted, "example.test/asked:1", "me", comes=False, tag=True)
    assert asked == base_image.Plan(), "it has a name"


def test_a_tag_on_request(fake: FakeContainerd, client: Client, wanted: Descriptor) -> None:
    del fake.state.images[BASE_NAME]
    planned = base_image.plan(client, wanted, BASE_NAME, "me", comes=False, tag=True)
    assert planned.image is not None and planned.image.name == BASE_NAME


def test_one_that_is_not_there(fake: FakeContainerd, client: Client, base: Sample, wanted: Descriptor) -> None:
    del fake.state.images[BASE_NAME], fake.state.blobs[base.document["layers"][1]["digest"]]
    assert base_image.plan(client, wanted, BASE_NAME, "me", comes=False) == base_image.Plan(absent=True)
    assert base_image.plan(client, wanted, BASE_NAME, "me", comes=True).image is not None


def test_the_name_that_cri_gave_is_not_given_again(
    fake: FakeContainerd, client: Client, base: Sample, wanted: Descriptor
) -> None:
    """A checkpoint of 0.1.0 may have recorded it."""
    name = add_cri_reference(fake.state, base)
    del fake.state.images[BASE_NAME]
    assert not base_image.is_named(client, wanted.digest)
    assert base_image.plan(client, wanted, name, "me", comes=False) == base_image.Plan()


def test_a_name_that_stands_for_another(fake: FakeContainerd, client: Client, wanted: Descriptor) -> None:
    other = add_base(fake.state, text=b"another")
    planned = base_image.plan(client, wanted, BASE_NAME, "me", comes=True, tag=True)
    assert planned.image is None and not planned.actions
    assert other.digest in planned.warning and wanted.digest in planned.warning


def test_what_the_name_stands_for_is_protected(fake: FakeContainerd, client: Client, wanted: Descriptor) -> None:
    """A record keeps its target only; what is below it is kept by labels."""
    del fake.state.images[BASE_NAME]
    assert not any("gc.ref.content" in label for label in fake.state.blobs[wanted.digest].labels)
    planned = base_image.plan(client, wanted, BASE_NAME, "me", comes=False, tag=True)
    assert base_image.make(client, planned)
    assert fake.state.images[BASE_NAME].target.digest == wanted.digest
    assert sum("gc.ref.content" in label for label in fake.state.blobs[wanted.digest].labels) == 3
    assert not base_image.make(client, planned), "somebody was faster"


def test_one_that_was_made_goes_with_what_failed(fake: FakeContainerd, client: Client, wanted: Descriptor) -> None:
    planned = base_image.plan(client, wanted, "", "me", comes=False)
    with pytest.raises(KeyError), base_image.made(client, planned):
        raise KeyError
    assert BASE_NAME in fake.state.images
    del fake.state.images[BASE_NAME]
    planned = base_image.plan(client, wanted, BASE_NAME, "me", comes=False, tag=True)
    with pytest.raises(KeyError), base_image.made(client, planned):
        assert BASE_NAME in fake.state.images
        raise KeyError
    assert BASE_NAME not in fake.state.images
    with base_image.made(client, planned):
        pass
    with pytest.raises(KeyError), base_image.made(client, planned):
        raise KeyError
    assert BASE_NAME in fake.state.images, "it was not made by the call that failed"
