# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives are written whole or not at all, and one that was begun is gone on with, wherever it was cut off."""

from __future__ import annotations

import fcntl
import gzip
import io
import os
import random
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._archive import (
    compression,
    existing,
    writer as archive_writer,
)
from ansible_collections.gpuops.restore.plugins.module_utils._archive.tar_writer import Item, tar_size
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import ConflictError, InputError, NodeError

DIGEST = "sha256:" + 64 * "a"
SIZES = (0, 1, 511, 512, 513, 9000)
#: Random, so that the compressed parts are as large as the plain ones.
BLOBS = {f"blobs/{size}": random.Random(size).randbytes(size) for size in SIZES}
HEAD = [Item.of("oci-layout", b"{}"), Item.of("index.json", b"[]" * 200)]
ITEMS = [
    *HEAD,
    *(Item(name, len(data), Item.of(name, data).digest) for name, data in BLOBS.items()),
    Item.of("tail", b"x"),
]
KINDS = ["none", "gzip", "zstd"]


class Source:
    """Gives members away and remembers from which offsets."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def __call__(self, item: Item, offset: int) -> Iterable[bytes]:
        self.asked.append((item.name, offset))
        yield BLOBS[item.name][offset:]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "SEGMENT", 4000)
    monkeypatch.setattr(archive_writer, "_LOCK_SECONDS", 0.0)


def write(path: Path, kind: str, source: Source | None = None) -> archive_writer.Written:
    return archive_writer.write(str(path), DIGEST, ITEMS, source or Source(), kind)


def plain(path: Path, kind: str) -> bytes:
    data = path.read_bytes()
    if kind == "gzip":
        return gzip.decompress(data)
    if kind == "zstd":
        return subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout
    return data


def partial(path: Path) -> Path:
    return Path(archive_writer.partial_path(str(path), DIGEST))


@pytest.mark.parametrize("kind", KINDS)
def test_written_as_a_tar_that_everybody_reads(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.tar"
    written = write(path, kind)
    assert (written.kept, written.kept_bytes, written.size) == (0, 0, path.stat().st_size)
    assert path.stat().st_mode & 0o777 == 0o600
    data = plain(path, kind)
    assert len(data) == tar_size(ITEMS)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]
    assert {name: found[name] for name in BLOBS} == BLOBS
    assert list(found) == [item.name for item in ITEMS]
    assert os.listdir(tmp_path) == ["a.tar"]
    assert existing.kind(str(path)) == kind
    assert existing.is_ours(str(path), ITEMS, len(data))


@pytest.mark.parametrize("kind", KINDS)
def test_gone_on_with_wherever_it_was_cut_off(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.tar"
    write(path, kind)
    whole, expected = path.read_bytes(), plain(path, kind)
    path.unlink()
    lengths = range(0, len(whole) + 1, 1700 if kind == "zstd" else 97)
    kept = []
    for length in [*lengths, len(whole)]:
        partial(path).write_bytes(whole[:length])
        source = Source()
        written = write(path, kind, source)
        assert plain(path, kind) == expected, length
        assert existing.is_ours(str(path), ITEMS, len(expected))
        assert written.size == path.stat().st_size
        kept.append(written.kept_bytes)
        needed = {name for name, _offset in source.asked}
        assert not needed & {item.name for item in ITEMS[: written.kept]}, "what is there is not read again"
    assert kept == sorted(kept)
    assert kept[0] == 0 and kept[-1] == len(expected)
    assert all(length - count < 4100 for length, count in zip(lengths, kept)), "at most the last part is done again"
    assert kind != "none" or any(offset for _name, offset in source_of_cut(path, whole).asked), "within a member"


def source_of_cut(path: Path, whole: bytes) -> Source:
    source = Source()
    partial(path).write_bytes(whole[:-6000])
    write(path, "none", source)
    return source


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", [0, 100, 700, 5000, -3000])
def test_damage_in_what_was_there_is_written_anew(tmp_path: Path, kind: str, where: int) -> None:
    path = tmp_path / "a.tar"
    write(path, kind)
    whole, expected = bytearray(path.read_bytes()), plain(path, kind)
    whole[where] ^= 1
    for length in (len(whole), len(whole) - 1500):
        partial(path).write_bytes(whole[:length])
        write(path, kind)
        assert plain(path, kind) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_that_a_crash_left_are_written_anew(tmp_path: Path, kind: str) -> None:
    """In the middle of the large member: only its digest, at its end, can tell."""
    path = tmp_path / "a.tar"
    write(path, "none")
    expected = path.read_bytes()
    partial(path).write_bytes(expected[:9000] + bytes(1500))
    source = Source()
    assert write(path, kind, source).kept_bytes == 0
    assert plain(path, kind) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_of_one_is_not_taken_for_the_whole(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.tar"
    write(path, kind)
    whole = path.read_bytes()
    size = tar_size(ITEMS)
    for length in [*range(0, len(whole), 331), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert not existing.is_ours(str(path), ITEMS, size), length
    for other in (whole + b"x", whole[:3000] + whole[3001:], b"x" + whole[1:]):
        path.write_bytes(other)
        assert not existing.is_ours(str(path), ITEMS, size)
    path.write_bytes(whole)
    assert existing.is_ours(str(path), ITEMS, size)
    assert not existing.is_ours(str(path), [Item.of("oci-layout", b"[]"), *ITEMS[1:]], size)
    # Frames or members that are whole, one of them taken out.
    if kind != "none":
        ends = [edge for _piece, edge in _parts(path, kind) if edge]
        path.write_bytes(whole[: ends[0]] + whole[ends[1] :])
        assert not existing.is_ours(str(path), ITEMS, size)
        path.write_bytes(whole[: ends[-2]])
        assert not existing.is_ours(str(path), ITEMS, size)


def _parts(path: Path, kind: str) -> list[tuple[bytes, int]]:
    with open(path, "rb") as stream:
        if kind == "gzip":
            return list(compression._gzip_parts(stream.fileno()))
        return [(b"", end) for end, _size in compression._frames(stream.fileno(), path.stat().st_size)]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def failing(item: Item, offset: int) -> Iterable[bytes]:
        yield b"x"
        raise InputError("blob_missing", "It is gone.", "Get it.")

    for kind in KINDS:
        with pytest.raises(InputError, match="It is gone"):
            archive_writer.write(str(tmp_path / "a"), DIGEST, ITEMS, failing, kind)
        assert os.listdir(tmp_path) == []
    with pytest.raises(InputError) as caught:
        write(tmp_path / "none" / "a", "none")
    assert caught.value.code == "archive_directory_missing"


def test_zstd_that_fails_and_zstd_that_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "zstd"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'zstd: disk on fire.' >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    target = tmp_path / "out" / "a"
    target.parent.mkdir()
    for code in ("archive_write_failed", "zstd_missing"):
        with pytest.raises(NodeError) as caught:
            write(target, "zstd")
        assert caught.value.code == code
        assert os.listdir(target.parent) == []
        monkeypatch.setenv("PATH", "/nowhere")


def test_below_a_link_to_a_directory(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    write(tmp_path / "link" / "archive.tar", "none")
    assert os.listdir(tmp_path / "there") == ["archive.tar"]


def test_two_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with open(partial(path), "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ConflictError) as caught:
            write(path, "none")
        assert caught.value.code == "archive_busy"
        assert partial(path).exists()
    write(path, "none")


def test_a_file_of_somebody_else_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    path = tmp_path / "a"
    partial(path).symlink_to(victim)
    with pytest.raises(NodeError):
        write(path, "none")
    partial(path).unlink()
    os.link(victim, partial(path))
    with pytest.raises(ConflictError):
        write(path, "none")
    assert victim.read_text() == "mine"
