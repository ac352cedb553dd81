# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is made ready before a window: whether memory is to be written beside CRIU, and by which task."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import original, stage as stage_steps
from ansible_collections.gpuops.restore.plugins.module_utils._container import (
    container as container_steps,
    params as container_params,
    task as task_steps,
)
from ansible_collections.gpuops.restore.plugins.module_utils._container.params import TaskParams
from ansible_collections.gpuops.restore.plugins.module_utils._containerd import daemon
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.messages import message
from ansible_collections.gpuops.restore.plugins.module_utils._core import state_dir
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._host import huge_pages
from ansible_collections.gpuops.restore.plugins.module_utils._parallel_memory import (
    hook as memory_hook,
    policy as memory_policy,
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
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

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


def prepared(client: Client, node: Node, memory: int = GIB, mode: str = "auto", **workload: Any) -> Preparation:
    stage_steps.present(client, CHECKPOINT_NAME, node.root, None, False)
    settings = Settings(staging_dir=node.root, parallel_memory=mode)
    job = Job.from_options({"name": "train", "checkpoint": CHECKPOINT_NAME, **workload}, settings)
    demand = dataclasses.replace(restore_demand.assess(client, job), memory=memory)
    return preparation.prepare(client, demand, huge_pages.for_size("keep", 0), Forecast([], 1, False))


def skipped(found: Preparation) -> str:
    assert found.split is None
    told = found.result()["parallel_memory"]
    assert told == {"bytes": 0, "seconds": 0.0, "writers": 0, "skipped": found.unsplit}
    return found.unsplit


def test_large_memory_is_split_on_a_large_node(client: Client, node: Node, processors: set[int]) -> None:
    assert prepared(client, node).split == SPLIT
    assert memory_policy.writers() == 16


def test_auto_leaves_what_is_not_worth_it_and_always_does_not(client: Client, node: Node, processors: set[int]) -> None:
    assert "smaller than 256 MiB" in skipped(prepared(client, node, 255 << 20))
    processors -= set(range(3, 16))
    assert "has 3 processors" in skipped(prepared(client, node))
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
        client, restore_demand.Demand(job), huge_pages.for_size("keep", 0), Forecast([], 1, False)
    )
    assert skipped(found) == "nothing is staged"


# --- the task


@pytest.fixture
def ready(fake: FakeContainerd, client: Client, node: Node) -> TaskParams:
    """Checkpoint staged, container made."""
    stage_steps.present(client, CHECKPOINT_NAME, node.root, None, False)
    wanted = container_params.ContainerParams("train", original.Source(CHECKPOINT_NAME), staging_dir=node.root)
    container_steps.present(client, wanted, False)
    fake.heal()
    return TaskParams("train", CHECKPOINT_NAME, staging_dir=node.root, alive_seconds=0.0, split=SPLIT)


def config(ready: TaskParams) -> Path:
    return Path(state_dir.criu_config(ready.staging_dir, "tests", "train"))


def test_criu_gets_its_part_and_the_script(fake: FakeContainerd, client: Client, ready: TaskParams) -> None:
    before = config(ready).read_text(encoding="utf-8")
    seen: list[str] = []

    def write(_context: Any) -> None:
        seen.append(config(ready).read_text(encoding="utf-8"))
        config(ready).with_name("memory.json").write_text(f'{{"bytes": {GIB}, "seconds": 0.1}}', encoding="utf-8")

    fake.on("Tasks/Start", write)
    done = task_steps.started(client, ready, False)
    assert done.memory == {"bytes": GIB, "seconds": 0.1}
    options = message("containerd.runc.v1.Options")
    options.ParseFromString(fake.state.tasks["train"].request.options.value)
    assert options.criu_image_path == SPLIT.images
    assert seen == [f"{before}action-script={config(ready).with_name('memory.sh')}\n"]
    assert config(ready).read_text(encoding="utf-8") == before


@pytest.mark.parametrize(("report", "reason"), [("", "has not started"), ('{"failed": "no luck"}', "no luck")])
def test_a_task_without_its_memory_does_not_stay(
    fake: FakeContainerd, client: Client, ready: TaskParams, report: str, reason: str
) -> None:
    fake.on("Tasks/Start", lambda _context: config(ready).with_name("memory.json").write_text(report, encoding="utf-8"))
    with pytest.raises(RestoreError, match=reason) as caught:
        task_steps.started(client, ready, False)
    assert caught.value.code == "memory_write_failed"
    assert not fake.state.tasks
    assert not config(ready).with_name("memory.sh").exists()


def test_a_process_with_a_hole_is_never_taken_for_restored(
    fake: FakeContainerd, client: Client, ready: TaskParams
) -> None:
    task_steps.started(client, dataclasses.replace(ready, split=None), False)
    config(ready).with_name("memory.sh").write_text("#!/bin/sh\n", encoding="utf-8")
    with pytest.raises(RestoreError) as caught:
        task_steps.started(client, ready, False)
    assert caught.value.code == "memory_unwritten"
    config(ready).with_name("memory.json").write_text('{"bytes": 1}', encoding="utf-8")
    assert not task_steps.started(client, ready, False).changed


def test_what_a_killed_run_left_says_nothing_of_the_next_task(
    fake: FakeContainerd, client: Client, ready: TaskParams
) -> None:
    config(ready).with_name("memory.sh").write_text("#!/bin/sh\n", encoding="utf-8")
    plain = dataclasses.replace(ready, split=None)
    assert task_steps.started(client, plain, False).changed
    assert not task_steps.started(client, plain, False).changed


def test_another_configuration_of_criu_is_left_alone(
    fake: FakeContainerd, client: Client, ready: TaskParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_dir, "criu_config", lambda *_arguments: "/elsewhere/criu.conf")
    monkeypatch.setattr(memory_hook.Hook, "__enter__", lambda _self: pytest.fail("the hook was armed"))
    assert task_steps.started(client, ready, False).memory == {}
