# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is ready before a window: whether several threads are to write the memory, and why not."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import stage as stage_steps
from ansible_collections.gpuops.restore.plugins.module_utils._containerd import daemon
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._host import huge_pages
from ansible_collections.gpuops.restore.plugins.module_utils._parallel_memory import (
    hook as memory_hook,
    split as memory_split,
)
from ansible_collections.gpuops.restore.plugins.module_utils._parallel_memory.split import NotSplitError, Split
from ansible_collections.gpuops.restore.plugins.module_utils._restore import (
    demand as restore_demand,
    preparation,
)
from ansible_collections.gpuops.restore.plugins.module_utils._restore.forecast import Forecast
from ansible_collections.gpuops.restore.plugins.module_utils._restore.params import Job, Settings
from ansible_collections.gpuops.restore.plugins.module_utils._restore.preparation import Preparation
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import CHECKPOINT_NAME

GIB = 1 << 30
SPLIT = Split("/parts/images", "/parts/plan.json", GIB)


@pytest.fixture
def processors(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Those of the node; sixteen unless a test takes some away."""
    found = set(range(16))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: found)
    monkeypatch.setattr(daemon, "find_program", lambda *_arguments: daemon.Program("/usr/sbin/criu", "4.1.1"))
    monkeypatch.setattr(memory_split, "split_checkpoint", lambda _staged: SPLIT)
    return found


def prepared(
    client: Client,
    node: Node,
    memory: int = GIB,
    mode: str = "auto",
    settings: dict[str, Any] | None = None,
    **workload: Any,
) -> Preparation:
    stage_steps.present(client, CHECKPOINT_NAME, node.root, None, False)
    all_settings = Settings(staging_dir=node.root, parallel_memory=mode, **(settings or {}))
    job = Job.from_options({"name": "train", "checkpoint": CHECKPOINT_NAME, **workload}, all_settings)
    demand = dataclasses.replace(restore_demand.assess(client, job), memory=memory)
    return preparation.prepare(client, demand, huge_pages.HugePages("keep"), Forecast([], 1, False))


def skipped(found: Preparation) -> str:
    assert found.split is None
    told = found.result()["parallel_memory"]
    assert told == {"bytes": 0, "huge": 0, "seconds": 0.0, "writers": 0, "skipped": found.unsplit}
    return found.unsplit


def test_large_memory_is_split_on_a_large_node(client: Client, node: Node, processors: set[int]) -> None:
    assert prepared(client, node).split == SPLIT
    assert memory_hook.writers() == 16


@pytest.mark.parametrize(("huge_pages", "huge"), [("auto", True), ("always", True), ("keep", False)])
def test_its_process_may_get_huge_pages_unless_they_are_to_be_kept(
    client: Client, node: Node, processors: set[int], huge_pages: str, huge: bool
) -> None:
    found = prepared(client, node, settings={"huge_pages": huge_pages})
    assert found.split == dataclasses.replace(SPLIT, huge=huge)


def test_auto_leaves_what_is_not_worth_it_and_always_does_not(client: Client, node: Node, processors: set[int]) -> None:
    assert "smaller than 256 MiB" in skipped(prepared(client, node, 255 << 20))
    processors -= set(range(1, 16))
    assert "has 1 processor(s) for 1 restore(s)" in skipped(prepared(client, node))
    assert prepared(client, node, 1 << 20, mode="always").split == SPLIT
    assert skipped(prepared(client, node, mode="never")) == "parallel_memory is never"
    assert "staged files" in skipped(prepared(client, node, mode="always", route="descriptor"))


def test_what_the_node_cannot_do_is_told(
    client: Client, node: Node, processors: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "find_program", lambda *_arguments: daemon.Program("/usr/sbin/criu", "3.17.1"))
    assert "CRIU 3.17.1" in skipped(prepared(client, node))
    monkeypatch.setattr(daemon, "find_program", lambda *_arguments: daemon.Program("/usr/sbin/criu", "4.1.1"))

    def refuse(_staged: Any) -> Split:
        raise NotSplitError("none of the memory lies in large pieces")

    monkeypatch.setattr(memory_split, "split_checkpoint", refuse)
    assert "none of the memory" in skipped(prepared(client, node))


def test_nothing_staged_is_nothing_to_split(client: Client, node: Node) -> None:
    job = Job.from_options({"name": "train", "checkpoint": "x:1"}, Settings(staging_dir=node.root))
    found = preparation.prepare(
        client, restore_demand.Demand(job), huge_pages.HugePages("keep"), Forecast([], 1, False)
    )
    assert skipped(found) == "nothing is staged"
