# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import os
import random
import socket
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError
from ansible_collections.gpuops.restore.plugins.module_utils._streams import tree_extract, tree_tar
from ansible_collections.gpuops.restore.plugins.module_utils._streams.streams import ChunkSource
from ansible_collections.gpuops.restore.plugins.module_utils._streams.tar_reader import Limits
from ansible_collections.gpuops.restore.plugins.module_utils._streams.tree_tar import UnfitError
from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import END, entry

BOUNDS = Limits.of_tree(1 << 40)
Fact = tuple[Any, ...]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def packed(tree: Path) -> bytes:
    target = tree.parent / "packed.tar"
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        with opened(tree) as top:
            tree_tar.write(top, descriptor, BOUNDS)
    finally:
        os.close(descriptor)
    return target.read_bytes()


def unpacked(data: bytes, directory: Path, bounds: Any = BOUNDS, chunk: int = 1 << 16) -> None:
    directory.mkdir()
    with opened(directory) as top:
        chunks = (data[at : at + chunk] for at in range(0, len(data), chunk))
        tree_extract.extract(ChunkSource(chunks), top, bounds, "The tar")


def facts(tree: Path) -> dict[str, Fact]:
    found: dict[str, Fact] = {}
    for path in sorted(tree.rglob("*")):
        status = path.lstat()
        content: Any = os.readlink(path) if path.is_symlink() else None
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes() if status.st_size < 1 << 24 else status.st_size
        links = status.st_nlink if not stat.S_ISDIR(status.st_mode) else 0
        found[str(path.relative_to(tree))] = (
            *(status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, links),
            content,
        )
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "below" / "deep").mkdir(parents=True)
    (top / "file").write_bytes(random.Random(7).randbytes(200000))
    (top / "file").chmod(0o640)
    os.link(top / "file", top / "same")
    (top / "link").symlink_to("/nowhere/../else")
    os.mkfifo(top / "pipe", 0o600)
    (top / "below" / ("n" * 240)).write_text("long name", encoding="utf-8")
    (top / "\u00fcml\u00e4ut").touch()
    os.utime(top / "\u00fcml\u00e4ut", ns=(0, -1500000000))
    with open(top / "below" / "holes", "wb") as stream:
        stream.truncate(1 << 33)
        for at in (1 << 20, (1 << 32) + 5, (1 << 33) - 3):
            stream.seek(at)
            stream.write(b"abc")
    with open(top / "below" / "hole", "wb") as stream:
        stream.truncate(1 << 30)
    (top / "below").chmod(0o1770)
    return top


@pytest.mark.every_python
def test_all_of_a_tree_comes_back(tree: Path, tmp_path: Path) -> None:
    data = packed(tree)
    assert data == packed(tree), "the same tree gives the same bytes"
    # What is no data takes no room.
    assert len(data) < 400000
    for number, chunk in enumerate((1 << 20, 511)):
        copy = tmp_path / f"copy-{number}"
        unpacked(data, copy, chunk=chunk)
        assert facts(copy) == facts(tree)
        assert (copy / "file").stat().st_ino == (copy / "same").stat().st_ino
        assert (copy / "below" / "holes").stat().st_blocks < 2000
        with open(copy / "below" / "holes", "rb") as stream:
            for at in (1 << 20, (1 << 32) + 5, (1 << 33) - 3):
                stream.seek(at - 1)
                assert stream.read(4) == b"\0abc"
        assert packed(copy) == data


def test_others_read_it(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "made.tar").write_bytes(packed(tree))
    with tarfile.open(tmp_path / "made.tar") as archive:
        sizes = {member.name: member.size for member in archive.getmembers()}
    assert sizes["below/holes"] == 1 << 33 and sizes["file"] == 200000


def test_sockets_are_left_out(tree: Path, tmp_path: Path) -> None:
    before = packed(tree)
    mine = os.getcwd()
    os.chdir(tree)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket")
    finally:
        os.chdir(mine)
    assert packed(tree) == before


def test_what_does_not_fit_is_told(tree: Path) -> None:
    with opened(tree) as top:
        found = tree_tar.survey(top, BOUNDS)
        assert found.entries == 10
        assert 200000 < found.bytes < 500000
        (tree / "below" / "\n").touch()
        for step in (lambda: tree_tar.survey(top, BOUNDS), lambda: packed(tree)):
            with pytest.raises(UnfitError, match="not printable"):
                step()
        (tree / "below" / "\n").unlink()
        with pytest.raises(UnfitError, match="more than 2 entries"):
            tree_tar.survey(top, Limits(max_entries=8, whole_tree=True))


def pax(name: str, data: bytes = b"", **records: str) -> bytes:
    found = tarfile.TarInfo(name)
    found.size = len(data)
    found.pax_headers = {key.replace("__", "."): value for key, value in records.items()}
    return found.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (entry("../out", b"x"), "tar_unsafe_name"),
        (entry("/out", b"x"), "tar_unsafe_name"),
        (entry("a/../../out", b"x"), "tar_unsafe_name"),
        (entry("link", kind=tarfile.SYMTYPE, link="..") + entry("link/out", b"x"), "tar_unsafe_name"),
        (entry("file", b"x") + entry("file/out", b"x"), "tar_unsafe_name"),
        (entry("file", b"x") + entry("file", kind=tarfile.DIRTYPE), "tar_duplicate_name"),
        (entry("hard", kind=tarfile.LNKTYPE, link="../../etc/passwd"), "tar_unsafe_name"),
        (entry("hard", kind=tarfile.LNKTYPE, link="/etc/passwd"), "tar_unsafe_name"),
        (entry("hard", kind=tarfile.LNKTYPE, link="later") + entry("later", b"x"), "tar_unsafe_name"),
        (entry("d", kind=tarfile.DIRTYPE) + entry("hard", kind=tarfile.LNKTYPE, link="d"), "tar_unsafe_name"),
        (entry("device", kind=tarfile.CHRTYPE), "tar_unsafe_type"),
        (entry("device", kind=tarfile.BLKTYPE), "tar_unsafe_type"),
        (pax("f", b"abc", GNU__sparse__size="2", GNU__sparse__map="0,3"), "tar_header_invalid"),
        (pax("f", b"abc", GNU__sparse__size="9", GNU__sparse__map="0,2"), "tar_header_invalid"),
        (pax("f", b"abc", GNU__sparse__size="9", GNU__sparse__map="2,2,1,1"), "tar_header_invalid"),
        (pax("f", b"abc", GNU__sparse__size="9", GNU__sparse__map="0,3,"), None),
        (pax("f", b"abc", GNU__sparse__size="9", GNU__sparse__map="0"), "tar_header_invalid"),
        (pax("f", b"abc", GNU__sparse__size="-9", GNU__sparse__map="0,3"), "tar_header_invalid"),
        (pax("f", b"abc", GNU__sparse__map="0,3"), "tar_header_invalid"),
        (pax("f", b"abc", GNU__sparse__major="1", GNU__sparse__minor="0"), "tar_unsafe_type"),
        (pax("f", b"abc", uid="-1"), "tar_header_invalid"),
        (pax("f", b"abc", uid="4294967295"), "tar_header_invalid"),
        (pax("f", b"abc", mtime="soon"), "tar_header_invalid"),
        (entry("f", b"x" * 2000), "tar_too_large"),
    ],
)
def test_hostile_tars_stay_within_the_directory(tmp_path: Path, data: bytes, code: str | None) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    if code is None:
        unpacked(data + END, outside / "tree", Limits.of_tree(1024))
        assert (outside / "tree" / "f").read_bytes() == b"abc" + bytes(6)
        return
    with pytest.raises(InputError) as caught:
        unpacked(data + END, outside / "tree", Limits.of_tree(1024))
    assert caught.value.code == code
    assert [path.name for path in outside.iterdir()] == ["tree"]


def test_a_plain_tar_is_read_as_before(tmp_path: Path) -> None:
    bounds = Limits()
    for data, code in (
        (entry("pipe", kind=tarfile.FIFOTYPE), "tar_unsafe_type"),
        (pax("f", b"abc", GNU__sparse__size="9", GNU__sparse__map="0,3"), "tar_unsafe_type"),
    ):
        with pytest.raises(InputError) as caught:
            unpacked(data + END, tmp_path / f"{len(data)}", bounds)
        assert caught.value.code == code
    unpacked(pax("f", b"abc", uid="-1", mtime="soon") + END, tmp_path / "fine", bounds)
    assert (tmp_path / "fine" / "f").read_bytes() == b"abc"
