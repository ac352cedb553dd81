# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When several threads write the memory: what speaks against it is said."""

from __future__ import annotations

import os

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._parallel_memory import hook as memory_policy

LARGE = 256 << 20


def processors(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(count)))


def test_auto_wants_processors_and_memory_and_always_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    processors(monkeypatch, 2)
    assert memory_policy.refusal("auto", LARGE, staged=True) == ""
    assert "smaller than 256 MiB" in memory_policy.refusal("auto", LARGE - 1, staged=True)
    processors(monkeypatch, 1)
    assert "has 1 processor(s) for 1 restore(s)" in memory_policy.refusal("auto", LARGE, staged=True)
    processors(monkeypatch, 7)
    assert memory_policy.refusal("auto", LARGE, staged=True, at_once=3) == ""
    assert "has 7 processor(s) for 4 restore(s)" in memory_policy.refusal("auto", LARGE, staged=True, at_once=4)
    assert memory_policy.refusal("always", LARGE, staged=True, at_once=4) == ""
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
