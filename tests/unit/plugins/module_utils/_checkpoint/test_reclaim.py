# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The disk that a dump gives back while it is packed, on the STAND-IN for containerd."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import (
    reclaim,
    writer as checkpoint_writer,
)
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import NodeError
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_state import tar_of

LARGE = 4 << 20
#: Names in their order; the large ones are not at a page's border of the tar.
SIZES = {
    "core-1.img": 700,
    "descriptors.json": 2,
    "inventory.img": 9,
    "pages-1.img": LARGE + 5,
    "pages-2.img": LARGE,
    "pstree.img": 30,
}
#: Seconds after which a test that waits for what does not come gives up.
LONG = 30.0


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reclaim, "LEAST", LARGE)
    monkeypatch.setattr(reclaim, "_PAUSE", 0.001)


@pytest.fixture
def images(tmp_path: Path) -> str:
    directory = tmp_path / "criu"
    directory.mkdir()
    for name, size in SIZES.items():
        (directory / name).write_bytes((name.encode() * size)[:size])
    return str(directory)


def disk(images: str) -> int:
    return sum(os.stat(os.path.join(images, name)).st_blocks * 512 for name in SIZES)


class SlowDaemon:
    """Has read all, and has so many bytes of its tar in the store by and by."""

    def __init__(self, fake: FakeContainerd, images: str, tar: bytes, parts: Sequence[float]) -> None:
        self._fake, self._images, self._tar, self._parts = fake, images, tar, parts
        #: What the dump has on the disk at each part.
        self.disk: list[int] = []
        fake.state.tars[images] = tar
        fake.on("Diff/Diff", self._pack)

    def _pack(self, _context: Any) -> None:
        ref = next(call.request.ref for call in self._fake.seen if call.name == "Diff/Diff")
        for part in self._parts:
            self._fake.state.ingests[ref] = self._tar[: int(len(self._tar) * part)]
            # Whoever looks has seen this part, and has done what follows from it, when the next look begins.
            before = self._fake.count("Content/Status")
            give_up = time.monotonic() + LONG
            while self._fake.count("Content/Status") < before + 2:
                assert time.monotonic() < give_up
                time.sleep(0.001)
            self.disk.append(disk(self._images))
        del self._fake.state.ingests[ref]


def test_what_is_packed_gives_its_disk_back(fake: FakeContainerd, client: Client, images: str) -> None:
    tar, before = tar_of(images), disk(images)
    daemon = SlowDaemon(fake, images, tar, (0.0, 0.5, 1.0))
    found = checkpoint_writer.packed_by_daemon(client, images, spent=True)
    assert found.digest == "sha256:" + hashlib.sha256(tar).hexdigest()
    nothing, half, rest = daemon.disk
    assert nothing == before
    assert before - LARGE - reclaim._PAGE <= half < before - LARGE // 2
    # What surely lies behind is less than what does by a few headers.
    assert rest < len(SIZES) * reclaim._HEADERS + 4 * reclaim._PAGE
    # Sizes stay, for whoever looks.
    assert {name: os.path.getsize(os.path.join(images, name)) for name in SIZES} == SIZES


def test_no_byte_is_freed_before_the_tar_has_it(fake: FakeContainerd, client: Client, images: str) -> None:
    tar = tar_of(images)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        begins = {member.name: member.offset_data for member in archive}
    end = begins["pages-1.img"] + 3 * reclaim._PAGE
    daemon = SlowDaemon(fake, images, tar, (end / len(tar),))
    kept = Path(images, "pages-1.img").read_bytes()
    checkpoint_writer.packed_by_daemon(client, images, spent=True)
    assert daemon.disk
    left = Path(images, "pages-1.img").read_bytes()
    assert left[3 * reclaim._PAGE :] == kept[3 * reclaim._PAGE :]


def test_a_dump_that_is_kept_stays_as_it_is(fake: FakeContainerd, client: Client, images: str) -> None:
    before = disk(images)
    checkpoint_writer.packed_by_daemon(client, images)
    assert disk(images) == before
    assert fake.count("Content/Status") == 0


def test_a_tar_in_another_order_is_no_checkpoint(fake: FakeContainerd, client: Client, images: str) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in sorted(SIZES, reverse=True):
            archive.add(os.path.join(images, name), name)
    SlowDaemon(fake, images, stream.getvalue(), (1.0,))
    with pytest.raises(NodeError) as caught:
        checkpoint_writer.packed_by_daemon(client, images, spent=True)
    assert caught.value.code == "dump_freed_too_early"
    assert "pages-1.img" in caught.value.message


def test_large_headers_are_no_checkpoint_either(
    fake: FakeContainerd, client: Client, images: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reclaim, "_HEADERS", 64)
    SlowDaemon(fake, images, tar_of(images), (1.0,))
    with pytest.raises(NodeError) as caught:
        checkpoint_writer.packed_by_daemon(client, images, spent=True)
    assert caught.value.code == "dump_freed_too_early"


@pytest.mark.parametrize("what", ["no holes", "no status"])
def test_where_it_cannot_be_done_nothing_is_freed(
    fake: FakeContainerd, client: Client, images: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def refuse(*_unused: object) -> None:
        raise OSError(95, "Operation not supported")

    tar, before = tar_of(images), disk(images)
    if what == "no holes":
        monkeypatch.setattr(reclaim, "punch", refuse)
        assert not reclaim.works_in(images)
    else:
        fake.fail("Content/Status", "UNIMPLEMENTED", "unknown method Status", times=1000)
    fake.state.tars[images] = tar
    fake.on("Diff/Diff", lambda _context: time.sleep(0.05))
    checkpoint_writer.packed_by_daemon(client, images, spent=True)
    assert disk(images) == before


def test_whether_a_file_system_can(tmp_path: Path) -> None:
    assert reclaim.works_in(str(tmp_path))
    assert reclaim.works_in(str(tmp_path / "not" / "there"))
    assert not os.listdir(tmp_path)
