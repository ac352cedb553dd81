# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When several threads write the memory: what speaks against it is said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._parallel_memory import policy as memory_policy

LARGE = 256 << 20


def processors(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(count)))


def test_auto_wants_processors_and_memory_and_always_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    processors(monkeypatch, 4)
    assert memory_policy.refusal("auto", LARGE, staged=True) == ""
    assert "smaller than 256 MiB" in memory_policy.refusal("auto", LARGE - 1, staged=True)
    processors(monkeypatch, 3)
    assert "has 3 processors" in memory_policy.refusal("auto", LARGE, staged=True)
    assert memory_policy.refusal("always", 1, staged=True) == ""


@pytest.mark.parametrize("mode", ["auto", "always"])
def test_it_takes_the_staged_files(mode: str) -> None:
    assert "staged files" in memory_policy.refusal(mode, LARGE, staged=False)


def test_never_is_never() -> None:
    assert memory_policy.refusal("never", LARGE, staged=True) == "parallel_memory is never"


@pytest.mark.parametrize(("count", "writers"), [(1, 1), (16, 16), (17, 16)])
def test_each_processor_writes_up_to_sixteen(monkeypatch: pytest.MonkeyPatch, count: int, writers: int) -> None:
    processors(monkeypatch, count)
    assert memory_policy.writers() == writers


@pytest.mark.parametrize(
    ("version", "usable"), [("3.17.1", False), ("3.18", False), ("3.19", True), ("4.1.1", True), ("", False)]
)
def test_criu_has_to_run_scripts(tmp_path: Path, version: str, usable: bool) -> None:
    assert (memory_policy.problem(version, str(tmp_path / "not" / "yet")) == "") == usable


def test_a_file_system_without_programs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(tmp_path)
    changed = [*real]
    changed[8] = real.f_flag | os.ST_NOEXEC
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(changed))
    assert "noexec" in memory_policy.problem("4.1.1", str(tmp_path))
