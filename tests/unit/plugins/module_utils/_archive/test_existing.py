# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A file is known for the whole archive of a checkpoint by its record unread, and without one by reading it."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._archive import existing, record as archive_record
from ansible_collections.gpuops.restore.plugins.module_utils._archive.record import Record
from ansible_collections.gpuops.restore.plugins.module_utils._archive.tar_writer import Item
from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import Layout, digest, tar
from ansible_collections.gpuops.restore.tests.unit.helpers.written_archives import (
    DIGEST,
    ITEMS,
    KINDS,
    record_of,
    tar_of,
    write,
)

YEAR_2001 = (10**18, 10**18)


def find(path: Path, items: list[Item] = ITEMS) -> Record | None:
    return existing.find_export(str(path), DIGEST, items)


def replaced(path: Path, data: bytes) -> None:
    """The file has other bytes, and a time that tells it, however fast this test is."""
    before = path.stat().st_mtime_ns
    path.write_bytes(data)
    os.utime(path, ns=(before + 10**9, before + 10**9))


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads the file fails."""

    def fail(*_args: Any) -> Any:
        raise AssertionError("the archive was read")

    monkeypatch.setattr(existing, "_has_members", fail)
    monkeypatch.setattr(archive_record, "measure", fail)


@pytest.mark.parametrize("kind", KINDS)
def test_by_its_record_without_reading_it(tmp_path: Path, unread: None, kind: str) -> None:
    path = tmp_path / "a"
    written = write(path, kind)
    assert find(path) == written
    path.chmod(0o644)
    moved = tmp_path / "b"
    path.rename(moved)
    record_of(path).rename(record_of(moved))
    assert find(moved) == written


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_known_by_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path, copy = tmp_path / "a", tmp_path / "b"
    written = write(path, kind)
    shutil.copyfile(path, copy)
    shutil.copyfile(record_of(path), record_of(copy))
    os.utime(copy, ns=YEAR_2001)
    monkeypatch.setattr(existing, "_has_members", lambda *_args: pytest.fail("it was decompressed"))
    found = find(copy)
    assert found is not None and found.matches(copy.stat()) and found != written
    assert (found.digest, found.members) == (written.digest, written.members)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recorded", [True, False], ids=["record", "no-record"])
def test_one_that_was_cut_off(tmp_path: Path, kind: str, recorded: bool) -> None:
    path = tmp_path / "a"
    write(path, kind)
    whole = path.read_bytes()
    if not recorded:
        record_of(path).unlink()
    for length in [*range(0, len(whole), 997), len(whole) - 1]:
        replaced(path, whole[:length])
        assert find(path) is None, length
    replaced(path, whole)
    assert find(path) is not None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recorded", [True, False], ids=["record", "no-record"])
def test_one_that_was_altered(tmp_path: Path, kind: str, recorded: bool) -> None:
    """By a single bit, wherever a member's bytes lie; its size is the same."""
    path = tmp_path / "a"
    write(path, kind)
    whole = path.read_bytes()
    if not recorded:
        record_of(path).unlink()
    at = whole.index(b"[][]") if kind == "none" else 60
    for where in (at, len(whole) // 2, len(whole) - 5000):
        changed = bytearray(whole)
        changed[where] ^= 1
        replaced(path, bytes(changed))
        assert find(path) is None, where
    for other in (whole[:3000] + whole[3001:], b"x" + whole[1:], b"", b"something else"):
        replaced(path, other)
        assert find(path) is None


@pytest.mark.parametrize("kind", KINDS)
def test_another_archive(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    write(path, kind)
    others = {
        "another": [Item.from_bytes("oci-layout", b"[]"), *ITEMS[1:]],
        "more": [*ITEMS, Item.from_bytes("more", b"")],
        "fewer": ITEMS[:-1],
        "order": [ITEMS[1], ITEMS[0], *ITEMS[2:]],
    }
    for recorded in (True, False):
        for name, items in others.items():
            assert find(path, items) is None, name
        if recorded:
            record_of(path).unlink()


def earlier(tar_bytes: bytes, kind: str) -> bytes:
    """As version 0.1.0 wrote it: in parts that stand alone, with gzip an empty member behind them, and no record."""
    parts = [tar_bytes[:4000], tar_bytes[4000:8000], tar_bytes[8000:]]
    if kind == "gzip":
        body = b"".join(gzip.compress(part, 1) for part in parts)
        sizes = len(tar_bytes).to_bytes(8, "little") + len(body).to_bytes(8, "little")
        head = bytes.fromhex("1f8b 08 04 00000000 00 ff 1400") + b"GR" + bytes.fromhex("1000")
        return body + head + sizes + bytes.fromhex("0300 00000000 00000000")
    if kind == "zstd":
        frames = [subprocess.run(["zstd", "-qc"], input=part, stdout=subprocess.PIPE, check=True) for part in parts]
        return b"".join(frame.stdout for frame in frames)
    return tar_bytes


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_of_an_earlier_version(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    write(path, kind)
    data = earlier(tar_of(path, kind), kind)
    record_of(path).unlink()
    path.write_bytes(data)
    found = find(path)
    assert found is not None and found.matches(path.stat())
    assert found.digest == digest(data)
    path.write_bytes(data[:-3000])
    assert find(path) is None


def test_an_archive_of_another_tool(tmp_path: Path) -> None:
    layout = Layout()
    index = layout.index(layout.manifest(b"layer" * 2000))
    layout.add(index, "x:1")
    path = tmp_path / "a.tar"
    whole = layout.tar()
    for data in (whole, gzip.compress(whole)):
        path.write_bytes(data)
        assert existing.holds(str(path), index["digest"])
        assert not existing.holds(str(path), DIGEST)
        path.write_bytes(data[: len(data) // 2])
        assert not existing.holds(str(path), index["digest"])
    changed = whole.replace(b"layerlayer", b"layerLayer", 1)
    assert len(changed) == len(whole)
    path.write_bytes(changed)
    assert not existing.holds(str(path), index["digest"])
    path.write_bytes(tar({"x": b"1"}))
    assert not existing.holds(str(path), index["digest"])


# --- the record


def damaged() -> dict[str, bytes]:
    good = {"version": 1, "checkpoint": DIGEST, "members": DIGEST, "digest": DIGEST, "size": 1, "mtime_ns": 2}
    found = {
        "empty": b"",
        "not-json": b"{",
        "a-list": b"[]",
        "twice": b'{"version": 1, "version": 1}',
        "nested": b"[" * 30000,
        "large": json.dumps(good).encode() + b" " * (1 << 17) + b"x",
        "another-version": json.dumps({**good, "version": 2}).encode(),
    }
    for key in good:
        found[f"no-{key}"] = json.dumps({name: value for name, value in good.items() if name != key}).encode()
        found[f"odd-{key}"] = json.dumps({**good, key: [] if key != "size" else "1"}).encode()
    return found


@pytest.mark.parametrize("case", damaged())
def test_a_record_that_says_nothing(tmp_path: Path, case: str) -> None:
    path = tmp_path / "a"
    written = write(path, "gzip")
    record_of(path).write_bytes(damaged()[case])
    if case != "large":  # of which the head is a record, though not of this file
        assert archive_record.read(str(path)) is None
    assert find(path) == written, "then the archive itself is read"


def test_a_record_that_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    written = write(path, "none")
    record = record_of(path)
    kept = tmp_path / "kept"
    record.rename(kept)
    for make in (lambda: record.symlink_to(kept), lambda: os.mkfifo(record)):
        make()
        assert archive_record.read(str(path)) is None
        assert find(path) == written
        record.unlink()
    record.mkdir()
    assert archive_record.read(str(path)) is None
    with pytest.raises(OSError):
        archive_record.write(str(path), written)
    assert sorted(os.listdir(tmp_path)) == ["a", "a.gpuops.json", "kept"]


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    record = Record(DIGEST, digest(b"1"), digest(b"2"), 1 << 40, 10**18)
    (tmp_path / ".a.gpuops.json.partial").write_bytes(b"left by a run that was killed")
    archive_record.write(path, record)
    assert archive_record.read(path) == record
    assert os.listdir(tmp_path) == ["a.gpuops.json"]
