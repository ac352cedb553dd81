# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.progress import Board, Track
from ansible_collections.gpuops.restore.plugins.module_utils._core.progress_file import ProgressFile

MIB = 1 << 20


class Turns(threading.Event):
    """So many rounds of waiting from ``ready`` on; then it is over."""

    def __init__(self, rounds: int, path: Path) -> None:
        super().__init__()
        self._rounds, self._path = rounds, path
        self.ready, self.through = threading.Event(), threading.Event()
        self.seen: list[str | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        """What the round before has written is kept."""
        self.ready.wait()
        self.seen.append(self._path.read_text(encoding="utf-8") if self._path.exists() else None)
        self._rounds -= 1
        if self._rounds < 0:
            self.through.set()
        return self._rounds < 0

    def pass_by(self) -> None:
        """All rounds."""
        self.ready.set()
        self.through.wait()


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_bytes_give_a_rate_and_the_time_that_is_left() -> None:
    clock = Clock()
    track = Track("bert", clock)
    assert track.entry() is None
    track.add(5)
    track.phase("stage", 40 * MIB)
    clock.now += 2
    track.add(10 * MIB)
    expected = {"name": "bert", "phase": "stage", "seconds": 2.0, "done": 10 * MIB, "total": 40 * MIB}
    assert track.entry() == {**expected, "rate": 5 * MIB, "left": 6.0}
    track.add(50 * MIB)
    entry = track.entry()
    assert entry is not None and (entry["done"], entry["left"]) == (40 * MIB, 0.0)
    track.phase("alive")
    entry = track.entry()
    assert entry is not None and (entry["seconds"], entry["done"], entry["rate"], entry["left"]) == (0.0, 0, None, None)


def test_what_nobody_counts_is_measured_and_where_nothing_can_be_a_prediction_tells() -> None:
    clock = Clock()
    track = Track("bert", clock)

    def gone() -> int:
        raise FileNotFoundError

    track.phase("dump", 100, lambda: 25)
    clock.now += 1
    entry = track.entry()
    assert entry is not None and (entry["done"], entry["left"]) == (25, 3.0)
    track.phase("dump", 100, gone)
    track.expect(8)
    clock.now += 2
    entry = track.entry()
    assert entry is not None and (entry["done"], entry["left"]) == (0, 6.0)
    clock.now += 20
    entry = track.entry()
    assert entry is not None and entry["left"] == 0.0


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "progress" / "a.json"


def test_a_board_has_those_who_are_at_work_and_leaves_nothing(path: Path) -> None:
    turns = Turns(2, path)
    with Board(ProgressFile(str(path)), 1.0, turns) as board, board.track("bert") as track, board.track("idle"):
        with board.track("done") as other:
            other.phase("dump")
        track.phase("dump", 10)
        turns.pass_by()
        assert (os.stat(path.parent).st_mode & 0o777, os.stat(path).st_mode & 0o777) == (0o700, 0o600)
        assert os.listdir(path.parent) == ["a.json"]
    assert turns.seen[0] is None
    for text in turns.seen[1:]:
        assert text is not None and [step["name"] for step in json.loads(text)["steps"]] == ["bert"]
    assert not path.parent.parent.exists()


def test_files_of_runs_that_were_killed_go_and_those_of_others_stay(path: Path) -> None:
    path.parent.mkdir(parents=True)
    for name in ("killed.json", "other.json"):
        path.with_name(name).touch()
    os.utime(path.with_name("killed.json"), (1, 1))
    turns = Turns(1, path)
    with Board(ProgressFile(str(path)), 1.0, turns):
        turns.pass_by()
    assert os.listdir(path.parent) == ["other.json"]


def test_what_cannot_be_written_disturbs_nobody(path: Path) -> None:
    path.parent.parent.mkdir()
    path.parent.touch()
    turns = Turns(1, path)
    with Board(ProgressFile(str(path)), 1.0, turns) as board, board.track("bert") as track:
        track.phase("dump")
        turns.ready.set()
    assert path.parent.is_file()


def test_without_a_path_there_is_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "Thread", None)
    with Board() as board, board.track("bert") as track:
        track.phase("dump")
