# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A staged checkpoint in two parts, which together are the checkpoint."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint.staged import Staged
from ansible_collections.gpuops.restore.plugins.module_utils._core import files as core_files
from ansible_collections.gpuops.restore.plugins.module_utils._parallel_memory import split as memory_split
from ansible_collections.gpuops.restore.plugins.module_utils._parallel_memory.split import NotSplitError, Split
from ansible_collections.gpuops.restore.tests.unit.helpers.criu_samples import (
    FILE,
    HUGETLB,
    IN_PARENT,
    LAZY,
    MIB,
    PAGE,
    PRESENT,
    PRIVATE,
    READ,
    STACK,
    UNKNOWN_FIELD,
    Process,
    Vma,
    dump,
    dump_inventory,
    memory,
)

HEAP, BIG, BIG2, LIBRARY, STACK_AT = 0x10000000, 0x7F0000000000, 0x7F1000000000, 0x7F2000000000, 0x7FFF00000000
PLAIN = [
    Vma(HEAP, 8 * MIB),
    Vma(BIG, 16 * MIB),
    Vma(LIBRARY, 8 * MIB, status=FILE),
    Vma(STACK_AT, 8 * MIB, flags=PRIVATE | 0x100, status=STACK),
]
RUNS = [
    (HEAP, 3 * PAGE, PRESENT),
    # As CRIU has it: one entry a MiB.
    *[(BIG + number * MIB, MIB, LAZY) for number in range(12)],
    (LIBRARY, 2 * MIB, PRESENT),
    (STACK_AT, 2 * PAGE, PRESENT),
]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "entry" / "images").mkdir(parents=True)
    return tmp_path / "entry" / "images"


def staged(images: Path, digest: str = "sha256:one") -> Staged:
    return Staged(str(images), digest, 0, 0, False)


def plan(split: Split) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(split.plan).read_text(encoding="utf-8"))
    return found


def written(split: Split, pid: int) -> dict[int, bytes]:
    """What the plan has for a process: the beginning of each page by its address."""
    found: dict[int, bytes] = {}
    for process in plan(split)["processes"]:
        data = Path(process["file"]).read_bytes()
        for address, offset, length in process["pieces"] if process["pid"] == pid else []:
            for at in range(0, length, PAGE):
                assert address + at not in found
                found[address + at] = data[offset + at : offset + at + 16]
    return found


def whole(images: Path, split: Split, pid: int) -> set[int]:
    """Both parts are the dump, no page twice; the addresses that are written beside CRIU."""
    parts = memory(Path(split.images), pid), written(split, pid)
    assert not set(parts[0]) & set(parts[1])
    assert {**parts[0], **parts[1]} == memory(images, pid)
    return set(parts[1])


def test_large_pieces_of_plain_memory_are_left_out_and_planned(images: Path) -> None:
    dump(images, Process(1, 0, PLAIN, RUNS))
    split = memory_split.split_checkpoint(staged(images))
    assert whole(images, split, 1) == set(range(BIG, BIG + 12 * MIB, PAGE))
    assert split.bytes == plan(split)["bytes"] == 12 * MIB
    assert [process["pieces"] for process in plan(split)["processes"]] == [[[BIG, 3 * PAGE, 12 * MIB]]], "in one piece"
    # What is not divided is the same file.
    for name in ("core-1.img", "mm-1.img", "pstree.img", "inventory.img"):
        assert os.path.samefile(images / name, os.path.join(split.images, name))
    assert {path.name for path in images.iterdir()} == set(os.listdir(split.images))
    assert os.stat(split.images).st_mode & 0o777 == 0o700
    assert os.stat(os.path.join(split.images, "pages-1.img")).st_mode & 0o777 == 0o600


@pytest.mark.parametrize("sockets", [False, True])
def test_the_network_is_not_locked_for_processes_without_sockets(images: Path, sockets: bool) -> None:
    """Four runs of iptables, which take a fifth of what CRIU takes for a small process."""
    dump(images, Process(1, 0, PLAIN, RUNS))
    dump_inventory(images, sockets=sockets)
    split = memory_split.split_checkpoint(staged(images))
    found = Path(split.images, "inventory.img").read_bytes()
    expected = (
        (images / "inventory.img").read_bytes() if sockets else b"\x16\x31\x31\x58\x09\0\0\0\x58\x02" + UNKNOWN_FIELD
    )
    assert sorted(found) == sorted(expected) and found[:8] == expected[:8]
    assert os.path.samefile(images / "inventory.img", os.path.join(split.images, "inventory.img")) is sockets
    assert {path.name for path in images.iterdir()} == set(os.listdir(split.images))


@pytest.mark.parametrize(
    "vma",
    [
        Vma(BIG2, 8 * MIB, status=FILE),
        Vma(BIG2, 8 * MIB, status=STACK),
        Vma(BIG2, 8 * MIB, prot=READ),
        Vma(BIG2, 8 * MIB, flags=HUGETLB),
        Vma(BIG2, 8 * MIB, flags=PRIVATE | 0x100),
    ],
)
def test_what_is_not_plain_stays_with_criu(images: Path, vma: Vma) -> None:
    dump(images, Process(1, 0, [Vma(BIG, 16 * MIB), vma], [(BIG, 16 * MIB, PRESENT), (BIG2, 4 * MIB, PRESENT)]))
    split = memory_split.split_checkpoint(staged(images))
    assert whole(images, split, 1) == set(range(BIG, BIG + 16 * MIB, PAGE))


def test_a_run_over_several_areas_is_cut_at_their_borders(images: Path) -> None:
    vmas = [Vma(BIG, 8 * MIB), Vma(BIG + 8 * MIB, 3 * MIB, prot=READ), Vma(BIG + 11 * MIB, 8 * MIB)]
    dump(images, Process(1, 0, vmas, [(BIG + MIB, 17 * MIB, PRESENT)]))
    split = memory_split.split_checkpoint(staged(images))
    expected = {*range(BIG + MIB, BIG + 8 * MIB, PAGE), *range(BIG + 11 * MIB, BIG + 18 * MIB, PAGE)}
    assert whole(images, split, 1) == expected


def test_what_may_be_shared_with_a_parent_stays_with_criu(images: Path) -> None:
    own, shared = Vma(BIG, 8 * MIB), Vma(BIG2, 2 * MIB)
    runs = [(BIG, 8 * MIB, PRESENT), (BIG2, 2 * MIB, PRESENT)]
    dump(
        images,
        Process(1, 0, [shared], [(BIG2, 2 * MIB, PRESENT)]),
        Process(2, 1, [own, shared], runs),
        # Siblings' areas begin at the same address, and share nothing.
        Process(3, 1, [own], runs[:1]),
    )
    split = memory_split.split_checkpoint(staged(images))
    assert whole(images, split, 1) == set()
    assert whole(images, split, 2) == whole(images, split, 3) == set(range(BIG, BIG + 8 * MIB, PAGE))


def test_an_incremental_dump_stays_with_criu(images: Path) -> None:
    big = [Vma(BIG, 8 * MIB)]
    dump(
        images,
        Process(1, 0, big, [(BIG, MIB, IN_PARENT), (BIG + MIB, 4 * MIB, PRESENT)]),
        Process(2, 0, big, [(BIG, 8 * MIB, PRESENT)]),
    )
    split = memory_split.split_checkpoint(staged(images))
    assert [process["pid"] for process in plan(split)["processes"]] == [2]
    assert os.path.samefile(images / "pages-1.img", os.path.join(split.images, "pages-1.img"))


@pytest.mark.parametrize(
    ("runs", "surplus"),
    [
        # Pages that nothing accounts for; entries that have no page here although the sum is right.
        ([(BIG, 8 * MIB, PRESENT)], PAGE),
        ([(BIG, MIB, IN_PARENT), (BIG + MIB, 4 * MIB, PRESENT)], MIB),
    ],
)
def test_pages_that_are_not_where_the_pagemap_has_them_stay_with_criu(
    images: Path, runs: list[tuple[int, int, int]], surplus: int
) -> None:
    dump(
        images,
        Process(1, 0, [Vma(BIG, 8 * MIB)], runs),
        Process(2, 0, [Vma(BIG, 8 * MIB)], [(BIG, 8 * MIB, PRESENT)]),
    )
    pages = images / "pages-1.img"
    os.truncate(pages, pages.stat().st_size + surplus)
    split = memory_split.split_checkpoint(staged(images))
    assert [process["pid"] for process in plan(split)["processes"]] == [2]
    assert os.path.samefile(pages, os.path.join(split.images, "pages-1.img"))


def test_it_is_made_once_and_anew_for_another_checkpoint(images: Path) -> None:
    dump(images, Process(1, 0, PLAIN, RUNS))
    first = os.stat(memory_split.split_checkpoint(staged(images)).plan)
    assert os.stat(memory_split.split_checkpoint(staged(images)).plan) == first
    assert plan(memory_split.split_checkpoint(staged(images, "sha256:two")))["digest"] == "sha256:two"
    # A run that was killed has left half of it.
    (images.parent / ".memory.partial" / "images").mkdir(parents=True)
    (images.parent / "memory" / "plan.json").write_text('{"format"', encoding="utf-8")
    split = memory_split.split_checkpoint(staged(images))
    assert whole(images, split, 1)
    assert sorted(os.listdir(images.parent)) == ["images", "memory"]


def test_several_at_a_time_get_the_same(images: Path) -> None:
    dump(images, Process(1, 0, PLAIN, RUNS))
    found: list[Split] = []
    threads = [
        threading.Thread(target=lambda: found.append(memory_split.split_checkpoint(staged(images)))) for _n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1
    assert whole(images, found[0], 1)


def test_scattered_memory_is_not_split(images: Path) -> None:
    runs = [(BIG + number * 2 * MIB, MIB // 2, PRESENT) for number in range(32)]
    dump(images, Process(1, 0, [Vma(BIG, 128 * MIB)], [*runs, (BIG + 100 * MIB, 2 * MIB, PRESENT)]))
    with pytest.raises(NotSplitError, match="16 MiB of the memory lie in small pieces, 2 MiB in large ones"):
        memory_split.split_checkpoint(staged(images))
    assert os.listdir(images.parent) == ["images"]


def test_a_pagemap_that_is_too_long_is_not_read(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dump(images, Process(1, 0, PLAIN, RUNS))
    monkeypatch.setattr(memory_split, "_LONGEST_PAGEMAP", 20)
    with pytest.raises(NotSplitError, match="scattered over too many pieces"):
        memory_split.split_checkpoint(staged(images))


def test_without_room_nothing_is_copied(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dump(images, Process(1, 0, PLAIN, RUNS))
    monkeypatch.setattr(core_files, "free_bytes", lambda _path: core_files.RESERVE)
    with pytest.raises(NotSplitError, match="no room for a copy of 2 MiB"):
        memory_split.split_checkpoint(staged(images))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("pstree.img", b"\0" * 30),
        ("mm-1.img", None),
        ("mm-1.img", b"empty"),
        ("pagemap-1.img", b"cut"),
        ("pagemap-1.img", b"noise"),
    ],
)
def test_files_that_are_not_known_are_left_to_criu(images: Path, name: str, data: bytes | None) -> None:
    dump(images, Process(1, 0, PLAIN, RUNS))
    path = images / name
    before = path.read_bytes()
    broken = {b"empty": before[:8], b"cut": before[:-3], b"noise": before[:12] + b"\xff" * (len(before) - 12)}
    if data is None:
        path.unlink()
    else:
        path.write_bytes(broken.get(data, data))
    with pytest.raises(NotSplitError):
        memory_split.split_checkpoint(staged(images))
    assert os.listdir(images.parent) == ["images"]
