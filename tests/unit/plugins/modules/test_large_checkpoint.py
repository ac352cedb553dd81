# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A checkpoint of 200 GB is imported and staged, on a disk that moves 60 MB/s: the time limits follow from the size.

It is sparse: every byte goes through the readers, the verification and the writers, while holes are not read from the
disk. Two things stand in for what would take minutes: sha256 of 200 GB, and gRPC, whose part is a clock that passes by
the bytes that it is given, and that ends the call at its time limit.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd import content, messages
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import UNKNOWN, DeadlineError
from ansible_collections.gpuops.restore.plugins.module_utils._streams import streams
from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call
from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import (
    CRIU,
    END,
    INDEX,
    Layout,
    dump,
    entry,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import CONFIG, OPTIONS
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_state import Blob

# It takes a quarter of a minute of a processor.
pytestmark = pytest.mark.any_core
APPARENT = 200 * 10**9
#: Bytes a second of the disk.
DISK = 60e6
NAME = "example.test/large:1"
DIGEST = "sha256:" + "5a" * 32
ZEROS = bytes(1 << 20)


def _pages() -> bytes:
    info = tarfile.TarInfo("pages-1.img")
    info.size = APPARENT
    return info.tobuf(tarfile.PAX_FORMAT)


#: The CRIU tar up to its hole.
HEAD = entry("inventory.img", b"i" * 100) + entry("descriptors.json", b"[]") + _pages()
TOTAL = len(HEAD) + APPARENT + (-APPARENT % 512) + len(END)


class Hasher(streams.Hasher):
    """Hashes what is small; of what is not, it takes the digest for granted."""

    def __init__(self, threaded: bool = True) -> None:
        super().__init__(False)
        self._seen = 0

    def update(self, chunk: bytes) -> None:
        self._seen += len(chunk)
        if self._seen < 1 << 26:
            super().update(chunk)

    def close(self) -> str:
        return DIGEST[7:] if self._seen == TOTAL else super().close()


class Apparent(bytes):
    """The blob, as far as its size goes."""

    def __len__(self) -> int:
        return TOTAL


class Disk:
    """The daemon's part of the calls that move the blob; time passes by bytes."""

    def __init__(self, fake: FakeContainerd) -> None:
        self.fake = fake
        #: Limits of the calls, in seconds.
        self.limits: list[float] = []
        self._read, self._write = Client.server_stream, Client.bidi_stream

    def read(self, client: Client, path: str, /, timeout: float | None = None, **fields: Any) -> Iterator[Any]:
        if fields["digest"] != DIGEST:
            yield from self._read(client, path, timeout, **fields)
        elif fields.get("size"):
            yield SimpleNamespace(data=HEAD[: fields["size"]])
        else:
            for data in self._passing(blob(), timeout):
                yield SimpleNamespace(data=data)

    def write(self, client: Client, path: str, requests: Iterable[Any], timeout: float | None = None) -> Iterator[Any]:
        found = iter(requests)
        first = next(found)
        if first.expected != DIGEST:
            yield from self._write(client, path, itertools.chain([first], found), timeout)
            return
        sent = 0
        for data in self._passing((getattr(one, "data", b"") for one in itertools.chain([first], found)), timeout):
            sent += len(data)
        assert sent == TOTAL
        self.fake.state.blobs[DIGEST] = Blob(Apparent())

    def _passing(self, chunks: Iterable[bytes], timeout: float | None) -> Iterator[bytes]:
        assert timeout is not None
        self.limits.append(timeout)
        moved = 0
        for chunk in chunks:
            moved += len(chunk)
            if moved / DISK > timeout:
                raise DeadlineError("deadline_exceeded", "It took too long.", "Run again.", outcome=UNKNOWN)
            yield chunk


def blob() -> Iterator[bytes]:
    yield HEAD
    left = TOTAL - len(HEAD)
    while left:
        yield ZEROS if left >= len(ZEROS) else ZEROS[:left]
        left -= min(left, len(ZEROS))


@pytest.fixture
def disk(fake: FakeContainerd, monkeypatch: pytest.MonkeyPatch) -> Disk:
    found = Disk(fake)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1 << 40))
    monkeypatch.setattr(streams, "Hasher", Hasher)
    monkeypatch.setattr(Client, "server_stream", lambda *given, **fields: found.read(*given, **fields))
    monkeypatch.setattr(Client, "bidi_stream", lambda *given: found.write(*given))

    def cheaply(kind: str, **fields: Any) -> Any:
        return SimpleNamespace(**fields) if fields.get("expected") == DIGEST else real(kind, **fields)

    real = messages.message
    monkeypatch.setattr(content.messages, "message", cheaply)
    return found


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive of the checkpoint, 200 GB long, with a few KiB on the disk."""
    layout = Layout()
    parts = [layout.blob(CONFIG, b"spec"), layout.blob(OPTIONS, b"")]
    large = {"mediaType": CRIU, "digest": DIGEST, "size": TOTAL}
    index = layout.blob(INDEX, dump({"schemaVersion": 2, "mediaType": INDEX, "manifests": [large, *parts]}))
    layout.add(index, NAME)
    path = tmp_path / "large.tar"
    info = tarfile.TarInfo("blobs/sha256/" + DIGEST[7:])
    info.size = TOTAL
    with open(path, "wb") as stream:
        stream.write(b"".join(entry(name, data) for name, data in layout.files().items()))
        stream.write(info.tobuf(tarfile.PAX_FORMAT) + HEAD)
        hole = stream.tell()
        stream.truncate(hole + TOTAL - len(HEAD) + (-TOTAL % 512) + len(END))
    end = path.stat().st_size

    def pread(descriptor: int, count: int, at: int) -> bytes:
        """Holes are not read: that would fill the page cache."""
        if count == len(ZEROS) and hole <= at and at + count <= end and os.fstat(descriptor).st_size == end:
            return ZEROS
        return real(descriptor, count, at)

    real = os.pread
    monkeypatch.setattr(os, "pread", pread)
    return path


def test_200_gb_on_a_slow_disk(call: Call, disk: Disk, archive: Path, fake: FakeContainerd, tmp_path: Path) -> None:
    assert archive.stat().st_size > APPARENT and archive.stat().st_blocks * 512 < 1 << 20
    state = tmp_path / "state"
    wanted = {"operation": "import", "name": NAME, "path": str(archive), "base": "omit"}
    staging = {"checkpoint": NAME, "staging_dir": str(state)}

    # Half an hour is not enough, and after it nothing is there.
    found = call("containerd_checkpoint_archive", minimum_rate=200.0, **wanted)
    assert found["failure"]["code"] == "deadline_exceeded"
    assert NAME not in fake.state.images and not fake.state.leases
    assert call("containerd_checkpoint_archive", minimum_rate=50.0, **wanted)["changed"]

    found = call("containerd_checkpoint_stage", minimum_rate=200.0, **staging)
    assert found["failure"]["code"] == "deadline_exceeded"
    assert not state.exists() and not fake.state.leases
    done = call("containerd_checkpoint_stage", minimum_rate=50.0, **staging)

    assert disk.limits == [1800.0, TOTAL / 50e6, 1800.0, TOTAL / 50e6]
    pages = os.stat(os.path.join(done["directory"], "pages-1.img"))
    assert (pages.st_size, pages.st_blocks * 512 < 1 << 20) == (APPARENT, True)
    assert done["staged"]["bytes"] > APPARENT
    assert call("containerd_checkpoint_stage", minimum_rate=50.0, **staging)["changed"] is False
    assert hashlib.sha256(Path(done["directory"], "inventory.img").read_bytes()).hexdigest() == (
        hashlib.sha256(b"i" * 100).hexdigest()
    )
