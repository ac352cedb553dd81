# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a node ends whose tasks are paused."""

from __future__ import annotations

import pathlib
import signal

import pytest
from gpuops_lab import cgroups, node
from gpuops_lab.cgroups import Hierarchy


@pytest.fixture
def hierarchies(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> list[Hierarchy]:
    """The freezer of cgroup v1, and v2."""
    found = [
        Hierarchy(str(tmp_path / "freezer"), "freezer", False),
        Hierarchy(str(tmp_path / "unified"), "", True),
        Hierarchy(str(tmp_path / "memory"), "memory", False),
    ]
    monkeypatch.setattr(cgroups, "host_hierarchies", lambda: found)
    return found


def group(path: pathlib.Path, **files: str) -> pathlib.Path:
    path.mkdir(parents=True)
    for name, text in files.items():
        (path / name.replace("_", ".")).write_text(text)
    return path


def test_paused_tasks_are_thawed_in_both_kinds_of_hierarchies(hierarchies: list[Hierarchy]) -> None:
    v1, v2, memory = (entry.node("n1") for entry in hierarchies)
    group(v1, freezer_state="THAWED\n")
    frozen = group(v1 / "k8s.io" / "box", freezer_state="FROZEN\n")
    paused = group(v2 / "k8s.io" / "box", cgroup_freeze="1\n")
    group(memory / "box", memory_limit="7\n")
    other = group(hierarchies[0].node("n2") / "box", freezer_state="FROZEN\n")
    cgroups.thaw("n1")
    assert (frozen / "freezer.state").read_text() == "THAWED"
    assert (paused / "cgroup.freeze").read_text() == "0"
    assert (memory / "box" / "memory.limit").read_text() == "7\n"
    assert (other / "freezer.state").read_text() == "FROZEN\n", "that is another node's"


def test_a_node_that_is_not_there_has_nothing_to_thaw(hierarchies: list[Hierarchy]) -> None:
    cgroups.thaw("n1")
    assert not hierarchies[0].top().exists()


def test_a_paused_process_is_killed_and_then_thawed_so_that_it_can_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel does it with cgroup v1: SIGKILL reaches a frozen process only when it is thawed."""
    done: list[str] = []

    def kill(pid: int, number: int) -> None:
        assert (pid, number) == (4711, signal.SIGKILL)
        done.append("killed")

    def processes(name: str) -> set[int]:
        assert name == "n1"
        assert len(done) < 10, "nobody thaws it"
        return set() if done[-2:] == ["killed", "thawed"] else {4711}

    monkeypatch.setattr(node.os, "kill", kill)
    monkeypatch.setattr(cgroups, "processes", processes)
    monkeypatch.setattr(cgroups, "thaw", lambda _name: done.append("thawed"), raising=False)
    node._end_processes("n1")
    assert done == ["killed", "thawed"]
