# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Memory that is written into other processes by what CRIU runs; the tests play CRIU."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._parallel_memory import writer_worker
from ansible_collections.gpuops.restore.plugins.module_utils._parallel_memory.hook import Hook
from ansible_collections.gpuops.restore.plugins.module_utils._parallel_memory.split import Split

SIZE = 12 << 20
PAGE = mmap.PAGESIZE
HUGE = 2 << 20


#: Has fresh memory, and two children with the same; says where it is, and the pids.
PROGRAM = """
import ctypes, mmap, os, signal
area = mmap.mmap(-1, int(os.environ["SIZE"]), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
children = []
for _number in range(2):
    children.append(os.fork())
    if children[-1] == 0:
        signal.pause()
print(ctypes.addressof(ctypes.c_char.from_buffer(area)), os.getpid(), *children, flush=True)
signal.pause()
"""


class Target:
    """Processes with fresh memory, of which each can be asked what it holds."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], env={"SIZE": str(SIZE)}, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdout is not None
        self.address, *self.pids = map(int, self._process.stdout.readline().split())
        self.pid = self.pids[0]

    def memory(self, pid: int) -> bytes:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as stream:
            stream.seek(self.address)
            return stream.read(SIZE)

    def end(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)
        self._process.communicate()


@pytest.fixture
def target() -> Iterator[Target]:
    found = Target()
    yield found
    found.end()


@pytest.fixture
def plan(tmp_path: Path, target: Target) -> dict[str, Any]:
    """Two pieces for the parent, one for a child, none for the other."""
    (tmp_path / "pages-1.img").write_bytes(os.urandom(SIZE))
    (tmp_path / "pages-2.img").write_bytes(os.urandom(SIZE))
    pieces = [[target.address, PAGE, 5 << 20], [target.address + (6 << 20), 7 << 20, 4 << 20]]
    first = {"pid": target.pids[0], "file": str(tmp_path / "pages-1.img"), "pieces": pieces}
    second = {"pid": target.pids[1], "file": str(tmp_path / "pages-2.img"), "pieces": [[target.address, 0, SIZE]]}
    return {"bytes": (9 << 20) + SIZE, "processes": [first, second]}


def hook(tmp_path: Path, plan: dict[str, Any]) -> Hook:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan), encoding="utf-8")
    (tmp_path / "work").mkdir(exist_ok=True)
    (tmp_path / "work" / "criu.conf").write_text("verbosity=4\n", encoding="utf-8")
    split = Split("images", str(path), plan["bytes"], huge=True)
    return Hook(str(tmp_path / "work" / "criu.conf"), str(tmp_path / "work"), split)


def run_scripts(tmp_path: Path, action: str, root: int) -> list[int]:
    """As CRIU does, which has each script of its configuration twice."""
    text = (tmp_path / "work" / "criu.conf").read_text(encoding="utf-8")
    (script,) = [line.partition("=")[2] for line in text.splitlines() if line.startswith("action-script=")]
    environment = {"CRTOOLS_SCRIPT_ACTION": action, "CRTOOLS_INIT_PID": str(root), "PATH": "/usr/bin:/bin"}
    return [subprocess.run([script], env=environment, check=False).returncode for _time in range(2)]


def test_every_process_gets_its_own(tmp_path: Path, target: Target, plan: dict[str, Any]) -> None:
    with hook(tmp_path, plan) as armed:
        assert run_scripts(tmp_path, "pre-restore", 1) == [0, 0], "only one step is ours"
        assert not any(any(target.memory(pid)) for pid in target.pids)
        assert run_scripts(tmp_path, "post-restore", target.pid) == [0, 0]
    armed.require_written("train")
    assert armed.report["bytes"] == plan["bytes"]
    assert armed.report["writers"] == min(16, len(os.sched_getaffinity(0)))
    one, two = ((tmp_path / f"pages-{number}.img").read_bytes() for number in (1, 2))
    empty = bytes(1 << 20)
    assert target.memory(target.pids[0]) == (
        one[PAGE : PAGE + (5 << 20)] + empty + one[7 << 20 : 11 << 20] + empty + empty
    )
    assert target.memory(target.pids[1]) == two
    assert not any(target.memory(target.pids[2]))
    # Later dumps use the same configuration.
    assert {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "work").iterdir()} == {
        "criu.conf": "verbosity=4\n"
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda plan: plan["processes"][1].update(pid=99999999), "the process 99999999 was not restored"),
        (lambda plan: plan["processes"][0]["pieces"].append([PAGE, 0, PAGE]), "4096 bytes at 0x1000 of the process"),
        (lambda plan: plan["processes"][1].update(file="/nowhere"), "No such file or directory"),
        (lambda plan: plan["processes"][1]["pieces"][0].__setitem__(1, SIZE), "pages-2.img ends before byte"),
        (lambda plan: plan.update(bytes=1), "of 1 bytes were written"),
    ],
)
def test_whatever_fails_is_told_and_stops_criu(
    tmp_path: Path, target: Target, plan: dict[str, Any], change: Any, reason: str
) -> None:
    change(plan)
    with hook(tmp_path, plan) as armed:
        assert run_scripts(tmp_path, "post-restore", target.pid)[0] == 1
    with pytest.raises(RestoreError) as caught:
        armed.raise_failure("train")
    assert caught.value.code == "memory_write_failed"
    assert reason in caught.value.message and "parallel_memory" in caught.value.remedy


def test_a_process_whose_memory_nobody_wrote_must_not_run(tmp_path: Path, plan: dict[str, Any]) -> None:
    with hook(tmp_path, plan) as armed:
        pass
    armed.raise_failure("train")
    with pytest.raises(RestoreError, match="CRIU has not started what writes it"):
        armed.require_written("train")


def test_what_a_killed_run_has_left_does_not_count(tmp_path: Path, target: Target, plan: dict[str, Any]) -> None:
    with contextlib.suppress(KeyError), hook(tmp_path, plan):
        run_scripts(tmp_path, "post-restore", target.pid)
        left = {path: path.read_bytes() for path in (tmp_path / "work").iterdir()}
        raise KeyError
    for path, data in left.items():
        path.write_bytes(data)
    with hook(tmp_path, plan) as armed:
        pass
    with pytest.raises(RestoreError):
        armed.require_written("train")


def test_pieces_end_where_huge_pages_may_begin(tmp_path: Path) -> None:
    (tmp_path / "pages").write_bytes(bytes(18 << 20))
    process = {"pid": 7, "file": str(tmp_path / "pages"), "pieces": [[(15 << 20) + PAGE, 0, 18 << 20]]}
    found = list(writer_worker.pieces_of([process], {7: 70}))
    assert [(pid, there, length) for pid, there, _here, length in found] == [
        (70, (15 << 20) + PAGE, (1 << 20) - PAGE),
        (70, 16 << 20, 16 << 20),
        (70, 32 << 20, (1 << 20) + PAGE),
    ]
    assert found[1][2] - found[0][2] == (1 << 20) - PAGE


# --- huge pages


def in_huge_pages(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as stream:
        (line,) = [line for line in stream if line.startswith("AnonHugePages:")]
    return int(line.split()[1]) << 10


def test_what_fills_huge_pages_gets_them_and_holds_the_same(tmp_path: Path, target: Target) -> None:
    (tmp_path / "pages").write_bytes(os.urandom(SIZE))
    libc, pid = writer_worker._libc(), target.pids[0]
    process = {"pid": 1, "file": str(tmp_path / "pages"), "pieces": [[target.address, 0, SIZE]]}
    pieces = list(writer_worker.pieces_of([process], {1: pid}))
    filled = sum(max(0, (there + length) // HUGE - -(-there // HUGE)) * HUGE for _pid, there, _here, length in pieces)
    assert filled >= SIZE - 2 * HUGE
    supported = writer_worker.huge_wanted("huge")
    given = sum(writer_worker.collapse(libc, *piece) for piece in pieces)
    assert given == (filled if supported else given)
    assert sum(writer_worker._write(libc, *piece) for piece in pieces) == SIZE
    assert target.memory(pid) == (tmp_path / "pages").read_bytes()
    if supported:
        assert in_huge_pages(pid) == filled


def test_pieces_that_fill_none_ask_for_none(tmp_path: Path, target: Target) -> None:
    (tmp_path / "pages").write_bytes(os.urandom(HUGE))
    # Across the border of two, and one byte less than one.
    start = -(-target.address // HUGE) * HUGE + PAGE
    process = {"pid": 1, "file": str(tmp_path / "pages"), "pieces": [[start, 0, HUGE - PAGE]]}
    (piece,) = writer_worker.pieces_of([process], {1: target.pids[0]})
    assert writer_worker.collapse(writer_worker._libc(), *piece) == 0
    assert not any(target.memory(target.pids[0]))


@pytest.mark.parametrize("number", [1, 10**9])
def test_where_the_kernel_gives_none_nothing_is_lost(
    tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """An older kernel, and one that does not know the call."""
    monkeypatch.setattr(writer_worker, "_COLLAPSE" if number == 1 else "_PIDFD_OPEN", number)
    (tmp_path / "pages").write_bytes(os.urandom(SIZE))
    process = {"pid": 1, "file": str(tmp_path / "pages"), "pieces": [[target.address, 0, SIZE]]}
    pieces = writer_worker.pieces_of([process], {1: target.pids[0]})
    assert writer_worker.write_all(pieces, 2, writer_worker.Pages(True)) == (SIZE, 0)
    assert target.memory(target.pids[0]) == (tmp_path / "pages").read_bytes()


def choices(pages: writer_worker.Pages, seconds: dict[bool, float], count: int) -> list[bool]:
    found = []
    for _piece in range(count):
        found.append(pages.next())
        pages.took(found[-1], 1 << 20, seconds[found[-1]])
    return found


def test_the_faster_kind_of_pages_goes_on() -> None:
    assert choices(writer_worker.Pages(True), {True: 0.1, False: 0.2}, 5) == [True, False, True, True, True]
    assert choices(writer_worker.Pages(True), {True: 0.19, False: 0.2}, 5) == [True, False, False, False, False]
    assert choices(writer_worker.Pages(False), {True: 0.1, False: 0.2}, 3) == [False, False, False]


def test_a_kernel_that_gives_none_is_not_asked_for_ever() -> None:
    pages = writer_worker.Pages(True)
    asked = 0
    for _piece in range(40):
        if pages.next():
            asked += 1
            pages.refused()
        else:
            pages.took(False, 1, 1.0)
    assert asked == 4


@pytest.mark.parametrize(
    ("asked", "setting", "size", "wanted"),
    [
        ("huge", "always [madvise] never", "2097152", True),
        ("huge", "[always] madvise never", "2097152", False),
        ("huge", "always madvise [never]", "2097152", False),
        ("huge", "always [madvise] never", "536870912", False),
        ("huge", "always [madvise] never", "", False),
        ("small", "always [madvise] never", "2097152", False),
    ],
)
def test_whether_to_try(tmp_path: Path, asked: str, setting: str, size: str, wanted: bool) -> None:
    (tmp_path / "enabled").write_text(setting + "\n", encoding="ascii")
    (tmp_path / "hpage_pmd_size").write_text(size + "\n", encoding="ascii")
    assert writer_worker.huge_wanted(asked, str(tmp_path)) is wanted
    assert not writer_worker.huge_wanted(asked, str(tmp_path / "nowhere"))
