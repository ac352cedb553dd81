# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files into the page cache: only what it lacks, and only where there is memory."""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Iterator

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._host import memory as host_memory, page_cache

SIZE = 20 << 20


@pytest.fixture
def staged() -> Iterator[pathlib.Path]:
    # On a disk: a tmpfs, which /tmp may be, keeps everything in memory.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        directory = pathlib.Path(name)
        (directory / "pages-1.img").write_bytes(os.urandom(SIZE))
        (directory / "core-1.img").write_bytes(b"x" * 100)
        (directory / "empty.img").write_bytes(b"")
        (directory / "link").symlink_to("/dev/zero")
        yield directory


def chill(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def test_what_lies_there_is_not_read_again(staged: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(page_cache, "read", lambda path, pieces: read.extend(path for _piece in pieces))
    monkeypatch.setattr(page_cache, "missing", lambda path: [(0, 100)] if "core" in path else [])
    found = page_cache.warm([str(staged)], page_cache.AUTO, 0)
    assert found.bytes == SIZE + 100
    assert found.read == 100
    assert read == [str(staged / "core-1.img")]


def test_fresh_files_are_cached_and_chilled_ones_are_not(staged: pathlib.Path) -> None:
    path = staged / "pages-1.img"
    assert page_cache.missing(str(path)) == []
    chill(path)
    missing = page_cache.missing(str(path))
    assert missing and missing[0][0] == 0
    assert page_cache.warm([str(staged)], page_cache.ALWAYS, 0).read >= SIZE - (8 << 20)
    assert page_cache.missing(str(path)) == []


@pytest.mark.parametrize(("mode", "read"), [(page_cache.AUTO, 0), (page_cache.ALWAYS, SIZE)])
def test_without_memory_auto_reads_nothing_and_says_so(
    staged: pathlib.Path, monkeypatch: pytest.MonkeyPatch, mode: str, read: int
) -> None:
    monkeypatch.setattr(page_cache, "missing", lambda path: [(0, SIZE)] if "pages" in path else [])
    monkeypatch.setattr(host_memory, "available", lambda: SIZE + page_cache.RESERVE)
    found = page_cache.warm([str(staged)], mode, 1 << 30)
    assert found.read == read
    assert bool(found.skipped) == (read == 0)
    if found.skipped:
        assert "1.5 GiB of memory would be needed, 0.5 GiB are available" in found.skipped


def test_never_reads_nothing(staged: pathlib.Path) -> None:
    found = page_cache.warm([str(staged)], page_cache.NEVER, 0)
    assert (found.bytes, found.read, found.skipped) == (SIZE + 100, 0, "prewarm is never")
