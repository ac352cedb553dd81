# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import reader, volumes, writer
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint.volumes import MemoryVolume
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError
from ansible_collections.gpuops.restore.plugins.module_utils._oci.image import Descriptor
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import CHECKPOINT_NAME, add_checkpoint
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_state import Blob

VOLUME = MemoryVolume(
    Descriptor(volumes.MEDIA_TYPE, "sha256:" + "a" * 64, 2048),
    "/dev/shm",
    "/pod/shm",
    used=1024,
    size=1 << 20,
    inodes=77,
    mode=0o700,
    uid=5,
    gid=6,
    flags=("nosuid",),
    container="train",
    shared=("other",),
    paused=("other",),
    links=True,
)


def test_what_is_written_is_read_again() -> None:
    assert MemoryVolume.read(VOLUME.annotated()) == VOLUME
    poor = MemoryVolume(VOLUME.descriptor, "/x", "/y", 0)
    assert MemoryVolume.read(poor.annotated()) == poor


@pytest.mark.parametrize(
    "change",
    [
        {"destination": "relative"},
        {"destination": "/a/../b"},
        {"source": None},
        {"size": "5"},
        {"size": -1},
        {"uid": 1 << 32},
        {"mode": True},
        {"shared": "other"},
        {"flags": [1]},
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    document = {**json.loads(VOLUME.annotated().annotations[volumes.ANNOTATION]), **change}
    descriptor = replace(VOLUME.annotated(), annotations={volumes.ANNOTATION: json.dumps(document)})
    for broken in (
        descriptor,
        replace(descriptor, annotations={}),
        replace(descriptor, annotations={volumes.ANNOTATION: "["}),
    ):
        with pytest.raises(InputError) as caught:
            MemoryVolume.read(broken)
        assert caught.value.code == "memory_volume_invalid"


def test_flags_that_are_none_of_ours_are_passed_over() -> None:
    document = {**json.loads(VOLUME.annotated().annotations[volumes.ANNOTATION]), "flags": ["suid", "nodev"]}
    descriptor = replace(VOLUME.annotated(), annotations={volumes.ANNOTATION: json.dumps(document)})
    assert MemoryVolume.read(descriptor).flags == ("nodev",)


def test_a_checkpoint_has_them_in_its_index(fake: FakeContainerd, client: Client) -> None:
    add_checkpoint(fake.state)
    plain = reader.load(client, CHECKPOINT_NAME)
    assert plain.memory_volumes == ()
    assert plain.criu and plain.config and plain.options
    parts = writer.Parts(plain.criu, plain.config, plain.options, memory_volumes=(VOLUME,), runtime=plain.runtime)
    fake.state.blobs[VOLUME.digest] = Blob(b"")
    assert VOLUME.digest in writer.gc_labels(parts.children()).values()
    writer.index(client, "example.test/with-volume:1", parts)
    found = reader.load(client, "example.test/with-volume:1")
    assert found.memory_volumes == (VOLUME,)
    assert found.writable_layer is None


@pytest.mark.parametrize("wish", [("auto", "/x"), ("none", "auto"), ("x",), ("/a/",), ("/a/../b",)])
def test_wishes_that_make_no_sense(wish: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        volumes.check_wish(wish)
    assert caught.value.code == "memory_volumes_invalid"


def test_which_are_meant() -> None:
    for wish in (("auto",), ("none",), ("/a", "/b"), ()):
        volumes.check_wish(wish)
    assert volumes.chosen(("auto",), "/a", auto=True) and not volumes.chosen(("auto",), "/a", auto=False)
    assert volumes.chosen(("/a",), "/a", auto=False) and not volumes.chosen(("/a",), "/b", auto=True)
    assert not volumes.chosen(("none",), "/a", auto=True)
