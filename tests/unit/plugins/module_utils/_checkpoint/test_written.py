# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import written
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint.written import Entry, Record
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="mounts and trusted attributes need root")


DIRECTORY, FILE, LINK = 0o040755, 0o100644, 0o120777


def stat(mode: int, uid: int = 0, gid: int = 0) -> os.stat_result:
    return os.stat_result((mode, 1, 1, 1, uid, gid, 0, 0, 0, 0))


def entry(path: str, mode: int = FILE, attributes: Mapping[str, bytes] | None = None, name: str = "") -> Entry:
    return Entry(path, mode, os.geteuid(), os.getegid(), attributes or {}, name)


@pytest.mark.every_python
def test_a_record_says_all_of_it_again(tmp_path: Path) -> None:
    name = os.fsdecode(b"var/\xff %\n")
    made = Record(str(tmp_path))
    made.note("a/.wh.b", stat(DIRECTORY), {}, ".Wh.b")
    found = {
        "user.a": b"\0\xff",
        "security.capability": b"x",
        "trusted.overlay.origin": b"x",
        "user.overlay.opaque": b"y",
    }
    made.note(name, stat(FILE, 7, 8), found)
    made.note("", stat(DIRECTORY), {"system.posix_acl_default": b"d"})
    digest, size = made.complete()
    assert made.entries == 3 and (digest, size) == made.complete() and os.listdir(tmp_path) == []
    assert list(written.entries(made.chunks())) == [
        Entry("a/.wh.b", DIRECTORY, 0, 0, {}, ".Wh.b"),
        Entry(name, FILE, 7, 8, {"user.a": b"\0\xff"}, ""),
        Entry("", DIRECTORY, 0, 0, {"system.posix_acl_default": b"d"}, ""),
    ]


def test_more_files_take_no_more_memory(tmp_path: Path) -> None:
    def peak(files: int) -> int:
        tracemalloc.start()
        made = Record(str(tmp_path))
        for number in range(files):
            made.note(f"var/{number}", stat(FILE), {"user.a": b"value"})
        made.complete()
        assert sum(1 for _entry in written.entries(made.chunks())) == files
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return taken

    few = peak(500)
    assert peak(6000) < few + (1 << 17)


@pytest.mark.parametrize(
    "line",
    [
        ["../etc/passwd", FILE, 0, 0, {}, ""],
        ["/etc/passwd", FILE, 0, 0, {}, ""],
        ["a%2F..%2Fb", FILE, 0, 0, {}, ""],
        ["a", FILE, 0, 0, {"security.capability": ""}, ""],
        ["a", FILE, 0, 0, {"trusted.overlay.redirect": ""}, ""],
        ["a", FILE, 0, 0, {"user.a": "no base64!"}, ""],
        ["a", FILE, 0, 0, {"user.a": 1}, ""],
        ["a", FILE, 0, 0, [], ""],
        ["a", "644", 0, 0, {}, ""],
        ["a", FILE, -1, 0, {}, ""],
        ["a", FILE, 0, 1 << 32, {}, ""],
        ["a", FILE, 0, 0, {}, ".Wh.a"],
        ["../.wh.a", FILE, 0, 0, {}, ".Wh.a"],
        [".wh.a", FILE, 0, 0, {}, "../../etc/passwd"],
        [".wh.a", FILE, 0, 0, {}, ".."],
        [".wh.a", FILE, 0, 0, {}],
        {},
    ],
)
def test_a_strangers_record_is_refused(line: Any) -> None:
    with pytest.raises(InputError) as caught:
        list(written.entries([gzip.compress(json.dumps(line).encode())]))
    assert caught.value.code == "written_invalid"


# Without a time in them: workers of xdist compare the names of the tests, which have the data.
@pytest.mark.parametrize("data", [b"no gzip", gzip.compress(b"[", mtime=0)[:-9], gzip.compress(b"\xff\n", mtime=0)])
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(InputError) as caught:
        list(written.entries([data]))
    assert caught.value.code == "written_invalid"


def test_a_line_without_end_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        list(written.entries([gzip.compress(b'["' + b"a" * (9 << 20))]))
    assert caught.value.code == "written_invalid"


def snapshot(directory: Path) -> list[Any]:
    return [types.SimpleNamespace(type="bind", source=str(directory), options=["rbind", "rw"])]


@root_only
def test_names_and_attributes_are_laid(tmp_path: Path) -> None:
    (tmp_path / ".Wh.tree").mkdir()
    (tmp_path / ".Wh.tree" / ".Wh.file").write_text("x", encoding="ascii")
    (tmp_path / "link").symlink_to("/nowhere")
    os.utime(tmp_path, ns=(1, 2_000_000_000))
    found = [
        entry("link", LINK, {"trusted.l": b"l"}),
        entry(".wh.tree", DIRECTORY, name=".Wh.tree"),
        entry(".wh.tree/.wh.file", FILE, {"user.f": b"f"}, ".Wh.file"),
        entry("", DIRECTORY, {"user.top": b"t"}),
    ]
    assert written.lay(found, snapshot(tmp_path)) == []
    assert sorted(os.listdir(tmp_path)) == [".wh.tree", "link"] and os.listdir(tmp_path / ".wh.tree") == [".wh.file"]
    assert os.getxattr(tmp_path / "link", "trusted.l", follow_symlinks=False) == b"l"
    assert os.getxattr(tmp_path / ".wh.tree" / ".wh.file", "user.f") == b"f"
    assert os.getxattr(tmp_path, "user.top") == b"t"
    assert tmp_path.stat().st_mtime_ns == 2_000_000_000


@root_only
def test_owners_and_modes_are_given_back_and_what_lacks_is_told(tmp_path: Path) -> None:
    for name in ("file", "other", "link"):
        (tmp_path / name).touch()
    (tmp_path / "file").chmod(0o600)
    os.setxattr(tmp_path / "file", "security.capability", bytes.fromhex("0000000200040000000000000000000000000000"))
    found = [
        Entry("file", 0o100755, 7, 8, {}),
        entry("link", LINK),
        entry("gone"),
        entry("nowhere/gone"),
        entry("other"),
        entry("", DIRECTORY),
    ]
    unlike = written.lay(found, snapshot(tmp_path))
    now = (tmp_path / "file").stat()
    assert (now.st_mode, now.st_uid, now.st_gid) == (0o100755, 7, 8)
    assert "security.capability" in os.listxattr(tmp_path / "file")
    assert [one.message for one in unlike] == [
        "The file /link was a link and is a file.",
        "The file /gone is gone: a file.",
        "The file /nowhere/gone is gone: a file.",
    ]
    assert {one.kind for one in unlike} == {"files"}


@root_only
@pytest.mark.parametrize("path", ["out/file", "nowhere/file", "nothing"])
def test_no_link_leads_out_of_the_snapshot(tmp_path: Path, path: str) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "file").touch()
    (inside / "out").symlink_to("../outside")
    before = (outside / "file").stat()
    with pytest.raises(InputError) as caught:
        written.lay([entry(path, FILE, {"user.a": b"a"})], snapshot(inside))
    assert caught.value.code == "written_invalid"
    written.lay([Entry("out/file", 0o104755, 7, 8, {})], snapshot(inside))
    now = (outside / "file").stat()
    assert os.listxattr(outside / "file") == [] and (now.st_mode, now.st_uid) == (before.st_mode, before.st_uid)
