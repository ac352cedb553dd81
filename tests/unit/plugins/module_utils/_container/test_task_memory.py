# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tasks whose memory is written by several threads while CRIU waits."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import original, stage as stage_steps
from ansible_collections.gpuops.restore.plugins.module_utils._container import (
    container as container_steps,
    task as task_steps,
)
from ansible_collections.gpuops.restore.plugins.module_utils._container.params import ContainerParams
from ansible_collections.gpuops.restore.plugins.module_utils._container.task_params import TaskParams
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.messages import message
from ansible_collections.gpuops.restore.plugins.module_utils._core import state_dir
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._parallel_memory import hook as memory_hook
from ansible_collections.gpuops.restore.plugins.module_utils._parallel_memory.split import Split
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import CHECKPOINT_NAME
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

GIB = 1 << 30
SPLIT = Split("/parts/images", "/parts/plan.json", GIB)


@pytest.fixture
def ready(fake: FakeContainerd, client: Client, node: Node) -> TaskParams:
    """Checkpoint staged, container made."""
    stage_steps.present(client, CHECKPOINT_NAME, node.root, None, False)
    wanted = ContainerParams("train", original.Source(CHECKPOINT_NAME), staging_dir=node.root)
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


def test_a_process_without_its_memory_is_never_taken_for_restored(
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
