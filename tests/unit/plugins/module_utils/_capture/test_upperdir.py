# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import upperdir

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
    upperdir.copy(str(source), str(target))
    return target


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
        upperdir.copy(str(source), str(source.parent / "second"))


def test_the_size_counts_blocks(source: Path) -> None:
    before = upperdir.size(str(source))
    (source / "more").write_bytes(b"x" * 100000)
    os.sync()
    assert upperdir.size(str(source)) >= before + 100000
    assert upperdir.size(str(source / "nonexistent")) == 0


def test_what_cannot_be_copied_is_said(source: Path) -> None:
    (source.parent / "copy").mkdir()
    (source.parent / "copy" / "pipe").touch()
    with pytest.raises(upperdir.NotCopiedError):
        upperdir.copy(str(source), str(source.parent / "copy"))
