# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError, NodeError
from ansible_collections.gpuops.restore.plugins.module_utils._window import journal
from ansible_collections.gpuops.restore.plugins.module_utils._window.journal import Notes

NOW, LATER = "2026-12-02T20:00:00Z", "2026-12-02T20:05:00Z"


def note(root: Path, node: Any = None, *workloads: Any, now: str = NOW, check: bool = False) -> bool:
    return journal.note(str(root / "state"), "k8s.io", Notes("w1", node or {}, workloads), now, check)


def read(root: Path) -> dict[str, Any]:
    return journal.read(str(root / "state"), "k8s.io", "w1")


def test_each_phase_has_its_time_and_what_is_not_given_stays(tmp_path: Path) -> None:
    assert read(tmp_path) == {"node": {}, "workloads": []}
    assert note(
        tmp_path, {"phase": "planned", "attempt": 1, "before": {"boot": "a"}}, {"id": "box", "phase": "planned"}
    )
    assert note(tmp_path, {"phase": "captured"}, {"id": "box", "phase": "captured", "digest": "sha256:1"}, now=LATER)
    found = read(tmp_path)
    assert (found["node"]["phase"], found["node"]["before"]) == ("captured", {"boot": "a"})
    (box,) = found["workloads"]
    assert [(entry["at"], entry["phase"]) for entry in box["history"]] == [(NOW, "planned"), (LATER, "captured")]
    assert box["history"][1]["digest"] == "sha256:1"
    assert journal.windows(str(tmp_path / "state"), "k8s.io") == ["w1"]
    assert journal.windows(str(tmp_path / "state"), "other") == []


def test_the_same_again_is_no_change_and_check_mode_writes_nothing(tmp_path: Path) -> None:
    assert note(tmp_path, {"phase": "planned"}, check=True) and not (tmp_path / "state").exists()
    assert note(tmp_path, {"phase": "planned"}) and not note(tmp_path, {"phase": "planned"}, now=LATER)
    assert len(read(tmp_path)["node"]["history"]) == 1


def test_it_is_on_the_disk_before_the_run_goes_on_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (order.append("sync"), sync(number))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append(os.path.basename(b)), replace(a, b))[1])
    note(tmp_path, {"phase": "planned"}, {"id": "box", "phase": "planned"})
    # The node speaks of workloads, so it comes after them; directories up to the root follow each file.
    assert order.index("w.box.json") < order.index("node.json")
    assert order[0] == "sync" and order[1] == "w.box.json" and order[2:6] == ["sync"] * 4
    place = tmp_path / "state" / "windows" / "w1" / "k8s.io"
    assert {oct(path.stat().st_mode & 0o777) for path in place.iterdir()} == {"0o600"}
    assert oct(place.stat().st_mode & 0o777) == "0o700"


def test_what_a_full_disk_broke_off_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note(tmp_path, {"phase": "planned"})

    def full(*_arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        note(tmp_path, {"phase": "captured"})
    monkeypatch.undo()
    assert read(tmp_path)["node"]["phase"] == "planned"
    assert [path.name for path in (tmp_path / "state" / "windows" / "w1" / "k8s.io").iterdir()] == ["node.json"]


def test_a_journal_that_cannot_be_read_stops_the_run(tmp_path: Path) -> None:
    note(tmp_path, {"phase": "planned"})
    (tmp_path / "state" / "windows" / "w1" / "k8s.io" / "w.box.json").write_text('{"id": "box"', encoding="utf-8")
    with pytest.raises(NodeError, match=r"w\.box\.json, which a window has noted, cannot be read") as caught:
        read(tmp_path)
    assert caught.value.code == "window_unreadable"


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 65, "two words"])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(InputError, match="is no name for a window"):
        journal.check_name(name)
