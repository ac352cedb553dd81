# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import upperdir
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import written
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint.written import Entry, Record

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and trusted attributes need root")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    found = tmp_path / "upper"
    (found / "etc" / "deep").mkdir(parents=True)
    (found / "etc" / "deep" / "file").write_bytes(b"x" * 5000)
    (found / "etc" / "link").symlink_to("/nowhere")
    os.link(found / "etc" / "deep" / "file", found / "etc" / "hard")
    os.mkfifo(found / "pipe")
    os.chmod(found / "etc" / "deep" / "file", 0o4711)
    os.utime(found / "etc" / "deep" / "file", ns=(1, 123456789))
    os.utime(found / "etc", ns=(2, 987654321))
    return found


def copied(source: Path) -> Path:
    target = source.parent / "copy"
    target.mkdir()
    upperdir.copy(str(source), str(target), Record())
    return target


def noted(record: Record) -> list[Entry]:
    record.complete()
    return list(written.entries(record.chunks()))


def test_all_is_there_with_its_attributes(source: Path) -> None:
    target = copied(source)
    for path in [source, *source.rglob("*")]:
        there = target / path.relative_to(source)
        one, other = path.lstat(), there.lstat()
        assert (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid), path
        assert one.st_mtime_ns == other.st_mtime_ns, path
    assert (target / "etc" / "deep" / "file").read_bytes() == b"x" * 5000
    assert os.readlink(target / "etc" / "link") == "/nowhere"
    assert (target / "etc" / "hard").stat().st_ino == (target / "etc" / "deep" / "file").stat().st_ino


def test_holes_stay_holes(source: Path) -> None:
    with open(source / "sparse", "wb") as stream:
        stream.seek(100 << 20)
        stream.write(b"end")
        stream.truncate(200 << 20)
    there = copied(source) / "sparse"
    assert there.stat().st_size == 200 << 20
    assert there.stat().st_blocks * 512 < 10 << 20
    with open(there, "rb") as stream:
        stream.seek(100 << 20)
        assert stream.read(4) == b"end\0"


@root_only
def test_overlays_own_marks(source: Path) -> None:
    os.mknod(source / "removed", stat.S_IFCHR, os.makedev(0, 0))
    os.setxattr(source / "etc", "trusted.overlay.opaque", b"y")
    os.setxattr(source / "etc", "trusted.overlay.origin", b"somewhere")
    os.setxattr(source / "etc" / "deep" / "file", "user.note", b"kept")
    os.chown(source / "etc" / "link", 1, 2, follow_symlinks=False)
    target = copied(source)
    whiteout = (target / "removed").lstat()
    assert stat.S_ISCHR(whiteout.st_mode) and whiteout.st_rdev == 0
    assert os.listxattr(target / "etc") == ["trusted.overlay.opaque"]
    assert os.getxattr(target / "etc" / "deep" / "file", "user.note") == b"kept"
    assert (target / "etc" / "link").lstat().st_uid == 1
    os.setxattr(source / "etc" / "deep" / "file", "trusted.overlay.metacopy", b"")
    (source.parent / "second").mkdir()
    with pytest.raises(upperdir.NotCopiedError):
        upperdir.copy(str(source), str(source.parent / "second"), Record())


def test_the_size_counts_blocks(source: Path) -> None:
    before = upperdir.survey(str(source)).size
    (source / "more").write_bytes(b"x" * 100000)
    os.sync()
    assert upperdir.survey(str(source)).size >= before + 100000
    assert upperdir.survey(str(source / "nonexistent")) == upperdir.Survey()


def test_how_deep_files_lie(tmp_path: Path) -> None:
    """The square of it, for each; directories are files, too."""
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c" / "file").touch()
    assert upperdir.survey(str(tmp_path)).steps == 0 + 1 + 4 + 9


def test_what_cannot_be_copied_is_said(source: Path) -> None:
    (source.parent / "copy").mkdir()
    (source.parent / "copy" / "pipe").touch()
    with pytest.raises(upperdir.NotCopiedError):
        upperdir.copy(str(source), str(source.parent / "copy"), Record())


def deep(directory: Path, levels: int, name: str) -> None:
    """Directories within each other, deeper than a path can be long, with a file at the end."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _level in range(levels):
            os.mkdir(name, dir_fd=descriptor)
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        os.close(os.open("end", os.O_WRONLY | os.O_CREAT, 0o640, dir_fd=descriptor))
    finally:
        os.close(descriptor)


@pytest.mark.every_python
def test_a_tree_as_deep_as_a_container_likes(source: Path) -> None:
    """More levels than Python has frames, more bytes than a path may have, more directories than can be open."""
    levels, name = 1500, "directory"
    deep(source / "etc", levels, name)
    found = upperdir.survey(str(source))
    assert found.longest == len("etc/") + levels * (len(name) + 1) + len("end")
    target = copied(source)
    assert upperdir.survey(str(target)).longest == found.longest
    assert (target / "etc" / "deep" / "file").read_bytes() == b"x" * 5000
    assert (target / "etc").stat().st_mtime_ns == (source / "etc").stat().st_mtime_ns
    descriptor = os.open(target / "etc", os.O_RDONLY | os.O_DIRECTORY)
    for _level in range(levels):
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    assert stat.S_IMODE(os.stat("end", dir_fd=descriptor).st_mode) == 0o640
    os.close(descriptor)
    for tree in (source, target):
        subprocess.run(["rm", "-rf", str(tree)], check=True)


def test_a_directory_that_moves_away_ends_the_look_and_no_more(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may do so while it runs."""
    (source / "a" / "b").mkdir(parents=True)
    plain = os.listdir

    def moving(descriptor: int) -> list[str]:
        names = plain(descriptor)
        if (source / "a" / "b").is_dir() and os.path.samestat(os.fstat(descriptor), (source / "a" / "b").stat()):
            (source / "a" / "b").rename(source / "moved")
        return names

    monkeypatch.setattr(upperdir.os, "listdir", moving)
    assert upperdir.survey(str(source)).size >= 0
    assert (source / "moved").is_dir()
    descriptors = len(plain("/proc/self/fd"))
    upperdir.survey(str(source))
    assert len(plain("/proc/self/fd")) == descriptors


def reserve(source: Path) -> None:
    """What a layer would take for deletions, one beside a name that would be the first choice in a copy."""
    (source / "etc" / ".wh.tree").mkdir()
    (source / "etc" / ".wh.tree" / ".wh.file").write_bytes(b"x")
    (source / "etc" / ".Wh.tree").write_bytes(b"in the way")
    os.link(source / "etc" / ".wh.tree" / ".wh.file", source / "zz")


@pytest.mark.every_python
def test_reserved_names_are_others_in_a_copy(source: Path) -> None:
    reserve(source)
    found = upperdir.survey(str(source))
    assert found.reserved == 2 and found.reserved_first.startswith("etc/.wh.tree")
    target = source.parent / "copy"
    target.mkdir()
    record = Record()
    upperdir.copy(str(source), str(target), record)
    names = [(one.path, one.name) for one in noted(record) if one.name]
    assert names == [("etc/.wh.tree", ".wH.tree"), ("etc/.wh.tree/.wh.file", ".Wh.file")]
    assert not [path for path in target.rglob("*") if path.name.startswith(".wh.")]
    assert (target / "etc" / ".wH.tree" / ".Wh.file").samefile(target / "zz")
    assert (target / "etc" / ".Wh.tree").read_bytes() == b"in the way"


@root_only
def test_attributes_are_noted_with_a_copy_and_without(source: Path) -> None:
    os.setxattr(source, "user.top", b"t")
    os.setxattr(source / "etc", "user.d", b"d")
    os.setxattr(source / "etc", "trusted.overlay.opaque", b"y")
    os.setxattr(source / "etc" / "deep" / "file", "security.capability", bytes.fromhex("0100000200040000" + "00" * 12))
    os.setxattr(source / "etc" / "link", "trusted.l", b"l", follow_symlinks=False)
    wanted = {"": {"user.top": b"t"}, "etc": {"user.d": b"d"}, "etc/link": {"trusted.l": b"l"}}
    (source.parent / "copy").mkdir()
    copy, every, some = Record(), Record(), Record()
    upperdir.copy(str(source), str(source.parent / "copy"), copy)
    upperdir.attributes(str(source), every, every=True)
    upperdir.attributes(str(source), some, every=False)
    found = noted(copy)
    assert {one.path: dict(one.attributes) for one in found if one.attributes} == wanted
    # A file with a second name is there once in a copy.
    assert {one.path: one for one in found}.items() <= {one.path: one for one in noted(every)}.items()
    assert {one.path: dict(one.attributes) for one in noted(some)} == wanted
    assert [one.mode for one in found if one.path in ("etc/deep/file", "etc/hard")] == [0o104711]
