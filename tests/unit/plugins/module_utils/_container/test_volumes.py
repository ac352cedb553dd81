# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import volumes as memory_volumes
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint.volumes import MemoryVolume
from ansible_collections.gpuops.restore.plugins.module_utils._container import volumes
from ansible_collections.gpuops.restore.plugins.module_utils._container.volumes import Volume
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._host import memory as host_memory
from ansible_collections.gpuops.restore.plugins.module_utils._oci.image import Descriptor
from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import END, entry
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_state import Blob

AUTO = ("auto",)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Directories stand for file systems: a mark in each says that it is mounted."""

    def mount(volume: Volume) -> None:
        Path(volume.content).mkdir(parents=True)
        Path(volume.content, ".mounted").touch()

    def unmount(path: str) -> None:
        for inside in Path(path).iterdir():
            inside.unlink()

    monkeypatch.setattr(volumes, "_mount", mount)
    monkeypatch.setattr(volumes, "_unmount", unmount)
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path, ".mounted").exists())
    return str(tmp_path / "run" / "volumes")


@pytest.fixture
def recorded(fake: FakeContainerd) -> Callable[..., MemoryVolume]:
    """A volume whose one file holds the text."""

    def make(text: str, **changes: object) -> MemoryVolume:
        data = entry("file", text.encode()) + END
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        fake.state.blobs[digest] = Blob(data)
        found = MemoryVolume(
            Descriptor(memory_volumes.MEDIA_TYPE, digest, len(data)),
            "/dev/shm",
            "/pod/shm",
            4096,
            uid=os.getuid(),
            gid=os.getgid(),
        )
        return replace(found, **changes)  # type: ignore[arg-type]

    return make


def planned(
    root: str, name: str, *records: MemoryVolume, wish: tuple[str, ...] = AUTO, mapped: str = ""
) -> list[Volume]:
    return volumes.plan(records, wish, lambda source: source == mapped, root, "tests", name)


def text_of(volume: Volume) -> str:
    return Path(volume.content, "file").read_text(encoding="utf-8")


def refused(client: Client, planned_: list[Volume], name: str, fresh: bool = True) -> str:
    with pytest.raises(RestoreError) as caught:
        volumes.lay(client, planned_, name, fresh)
    return caught.value.code


def test_which_are_planned(root: str, recorded: Callable[..., MemoryVolume]) -> None:
    shm = recorded("a")
    cache = recorded("b", destination="/cache", source="/pod/cache", shared=("other",))
    mine, shared = planned(root, "train", shm, cache)
    assert mine.content == f"{root}/tests/train.0/content"
    (other,) = planned(root, "other", cache)
    assert shared.place == other.place != mine.place
    assert planned(root, "train", shm, cache, mapped="/pod/shm") == [shared]
    assert planned(root, "train", shm, cache, wish=("none",)) == []
    assert planned(root, "train", shm, cache, wish=("/cache",)) == [shared]
    with pytest.raises(RestoreError) as caught:
        planned(root, "train", shm, wish=("/cache",))
    assert caught.value.code == "memory_volume_unknown"


@pytest.mark.every_python
def test_filled_once_and_anew_after_a_task_has_run(
    client: Client, root: str, recorded: Callable[..., MemoryVolume]
) -> None:
    own = planned(root, "train", recorded("before"))
    assert volumes.needed(own) == 4096
    assert volumes.lay(client, own, "train", fresh=True) == own
    assert text_of(own[0]) == "before" and volumes.needed(own) == 0
    assert os.stat(own[0].content).st_mode & 0o7777 == 0o1777
    assert os.stat(own[0].place).st_mode & 0o777 == 0o700
    assert volumes.lay(client, own, "train", fresh=True) == []
    volumes.set_used(root, "tests", "train")
    Path(own[0].content, "file").write_text("after", encoding="utf-8")
    assert volumes.lay(client, own, "train", fresh=False) == [] and text_of(own[0]) == "after"
    assert volumes.missing(own, "train", fresh=True) == own
    assert volumes.lay(client, own, "train", fresh=True) == own and text_of(own[0]) == "before"
    volumes.release(root, "tests", "train")
    assert not os.path.exists(root)
    volumes.release(root, "tests", "train")


def test_what_a_killed_run_has_left_is_made_anew(
    client: Client, root: str, recorded: Callable[..., MemoryVolume]
) -> None:
    own = planned(root, "train", recorded("whole"))
    Path(own[0].content).mkdir(parents=True)
    for name in (".mounted", "file"):
        Path(own[0].content, name).write_text("half", encoding="utf-8")
    assert volumes.lay(client, own, "train", fresh=True) == own and text_of(own[0]) == "whole"


def test_content_that_is_not_whole_leaves_nothing(
    fake: FakeContainerd, client: Client, root: str, recorded: Callable[..., MemoryVolume]
) -> None:
    good, bad = recorded("good"), recorded("bad!", destination="/b", source="/b")
    fake.state.blobs[bad.digest] = Blob(entry("file", b"evil") + END)
    assert refused(client, planned(root, "train", good, bad), "train") == "digest_mismatch"
    assert not os.path.exists(root)
    outside = entry("../outside", b"x") + END
    digest = f"sha256:{hashlib.sha256(outside).hexdigest()}"
    fake.state.blobs[digest] = Blob(outside)
    hostile = replace(good, descriptor=Descriptor(memory_volumes.MEDIA_TYPE, digest, len(outside)))
    assert refused(client, planned(root, "train", hostile), "train") == "tar_unsafe_name"
    assert not os.path.exists(root)


def test_a_node_without_the_memory_is_left_alone(
    client: Client, root: str, recorded: Callable[..., MemoryVolume], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_memory, "available", lambda: 4095)
    assert refused(client, planned(root, "train", recorded("x")), "train") == "host_memory_short"
    assert not os.path.exists(root)


def test_two_share_one(client: Client, root: str, recorded: Callable[..., MemoryVolume]) -> None:
    first = planned(root, "first", recorded("same", shared=("second",), container="first"))
    second = planned(root, "second", recorded("same", shared=("first",), container="second"))
    volumes.lay(client, first, "first", fresh=True)
    Path(first[0].content, "more").touch()
    volumes.lay(client, second, "second", fresh=True)
    assert Path(second[0].content, "more").exists(), "it is joined as it is"
    assert (
        json.loads(Path(first[0].place, "state.json").read_text(encoding="utf-8"))["digest"] == first[0].record.digest
    )
    volumes.set_used(root, "tests", "first")
    # It may have altered what the other has; and it cannot have it anew.
    assert refused(client, first, "first") == "memory_volume_in_use"
    volumes.release(root, "tests", "first")
    assert Path(second[0].content, "file").exists()
    assert refused(client, first, "first") == "memory_volume_in_use"
    volumes.release(root, "tests", "second")
    assert not os.path.exists(root)


def test_what_cannot_be_joined(client: Client, root: str, recorded: Callable[..., MemoryVolume]) -> None:
    first = planned(root, "first", recorded("same", shared=("x",), container="a"))
    volumes.lay(client, first, "first", fresh=True)
    other_moment = planned(root, "second", recorded("later", shared=("x",), container="b"))
    assert refused(client, other_moment, "second") == "memory_volume_in_use"
    a_copy = planned(root, "copy", recorded("same", shared=("x",), container="a"))
    assert refused(client, a_copy, "copy") == "memory_volume_in_use"
    assert volumes.places(root, "tests", "copy") == [] and text_of(first[0]) == "same"


def test_those_that_are_all_made_anew_do_not_stand_in_each_others_way(
    client: Client, root: str, recorded: Callable[..., MemoryVolume]
) -> None:
    pair = {
        name: planned(root, name, recorded("same", shared=("first", "second"), container=name))
        for name in ("first", "second")
    }
    for name, own in pair.items():
        volumes.lay(client, own, name, fresh=True)
        volumes.set_used(root, "tests", name)
    volumes.release_used(root, "tests", list(pair))
    for name, own in pair.items():
        assert volumes.lay(client, own, name, fresh=True) == own
    volumes.release_used(root, "tests", list(pair))
    assert text_of(pair["first"][0]) == "same", "no task has run on it"
