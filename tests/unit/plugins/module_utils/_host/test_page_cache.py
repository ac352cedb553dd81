# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the page cache lacks of a file, and that it has it afterwards, on kernels that know how and on others."""

from __future__ import annotations

import os
import pathlib
import re
import tempfile
from collections.abc import Iterator

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._host import page_cache

#: Not a multiple of anything.
SIZE = (20 << 20) + 12345


@pytest.fixture
def chilled() -> Iterator[str]:
    # On a disk: a tmpfs, which /tmp may be, keeps everything in memory.
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as stream:
        stream.write(os.urandom(SIZE))
        stream.flush()
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        yield stream.name


def covers(pieces: list[page_cache.Piece]) -> bool:
    return pieces[0][0] == 0 and pieces[-1][1] == SIZE and all(end - start <= 8 << 20 for start, end in pieces)


@pytest.mark.parametrize("how", ["large", "old kernel", "refused", "refused in the middle", "no huge pages"])
def test_all_of_it_is_there_afterwards(chilled: str, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    plainly: list[page_cache.Piece] = []
    original, advise = page_cache._read_plainly, page_cache._Mapping.advise

    def read_plainly(descriptor: int, pieces: list[page_cache.Piece]) -> None:
        plainly.extend(pieces)
        original(descriptor, pieces)

    def refuse(area: page_cache._Mapping, start: int, length: int, advice: int) -> bool:
        populates = advice == page_cache._MADV_POPULATE_READ
        if (how == "no huge pages" and not populates) or (populates and how == "refused"):
            return False
        return not (populates and start >= 8 << 20) and advise(area, start, length, advice)

    monkeypatch.setattr(page_cache, "_read_plainly", read_plainly)
    if how == "old kernel":
        monkeypatch.setattr(page_cache, "_kernel", lambda: (5, 17))
    elif how != "large":
        monkeypatch.setattr(page_cache._Mapping, "advise", refuse)
    pieces = page_cache.missing(chilled)
    assert covers(pieces)
    page_cache.read(chilled, pieces)
    assert page_cache.missing(chilled) == []
    assert len(plainly) == {"large": 0, "refused in the middle": 2}.get(how, 3)


def test_only_the_pieces_that_are_asked_for_are_read(chilled: str) -> None:
    page_cache.read(chilled, [(8 << 20, 16 << 20)])
    # The kernel may read on, but not back.
    assert page_cache.missing(chilled)[0] == (0, 8 << 20)
    assert (8 << 20, 16 << 20) not in page_cache.missing(chilled)


@pytest.mark.parametrize("cold", [True, False])
def test_kernels_without_a_count_look_at_each_page(chilled: str, monkeypatch: pytest.MonkeyPatch, cold: bool) -> None:
    if not cold:
        page_cache.read(chilled, page_cache.missing(chilled))
    else:
        page_cache.read(chilled, [(16 << 20, SIZE)])
    counted = page_cache.missing(chilled)
    # There is no such call.
    monkeypatch.setattr(page_cache, "_CACHESTAT", 100_000)
    assert page_cache.missing(chilled) == counted
    assert counted == ([(0, 8 << 20), (8 << 20, 16 << 20)] if cold else [])


def mapped_files() -> int:
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.findall(r"RssFile:\s+(\d+) kB", status)[0]) << 10


def test_what_is_cached_is_not_memory_of_the_process(chilled: str) -> None:
    before = mapped_files()
    page_cache.read(chilled, page_cache.missing(chilled))
    assert mapped_files() - before < 4 << 20


@pytest.mark.parametrize(
    ("release", "expected"), [("6.18.44-generic", (6, 18)), ("5.4.0", (5, 4)), ("6.6-rc1", (6, 6)), ("5.14+", (5, 14))]
)
def test_kernel_releases(monkeypatch: pytest.MonkeyPatch, release: str, expected: tuple[int, int]) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "node", release, "#1", "x86_64")))
    assert page_cache._kernel() == expected


def test_a_file_that_is_not_there() -> None:
    for call in (page_cache.missing, lambda path: page_cache.read(path, [(0, 1)])):
        with pytest.raises(FileNotFoundError):
            call("/var/tmp/none")
