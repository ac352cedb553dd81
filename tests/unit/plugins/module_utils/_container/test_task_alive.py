# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes that end when they have hardly begun."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._container import task as task_steps, task_alive
from ansible_collections.gpuops.restore.plugins.module_utils._container.task_params import TaskParams
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RestoreError
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd


@pytest.mark.parametrize(("status", "signal"), [(1, ""), (139, "signal 11"), (0, "")])
def test_a_process_that_dies_at_once(
    fake: FakeContainerd, client: Client, ready: TaskParams, tmp_path: Path, status: int, signal: str
) -> None:
    log = tmp_path / "out.log"
    fake.state.dies_with = status
    fake.on("Tasks/Start", lambda _context: log.write_text("cannot find GPU\n", encoding="utf-8"))
    with pytest.raises(RestoreError) as caught:
        task_steps.started(client, dataclasses.replace(ready, alive_seconds=3, stdout=str(log)), False)
    error = caught.value
    assert error.code == "process_died"
    assert error.details == {"exit_status": status, "output": ["cannot find GPU"]}
    assert f"exit status {status}" in error.message and signal in error.message
    # What ends well at once may have taken the interruption of its sleep for an error.
    assert ("interrupts system calls" in error.remedy) is (status == 0)
    assert fake.state.tasks == {} and not log.exists()


def test_a_process_that_dies_while_it_is_watched(fake: FakeContainerd, client: Client, ready: TaskParams) -> None:
    fake.on("Tasks/Wait", lambda _context: fake.state.end("train", 7), times=1)
    with pytest.raises(RestoreError) as caught:
        task_steps.started(client, dataclasses.replace(ready, alive_seconds=3), False)
    assert (caught.value.code, caught.value.details["exit_status"]) == ("process_died", 7)


def test_a_process_that_is_gone_though_containerd_says_that_it_runs(
    fake: FakeContainerd, client: Client, ready: TaskParams
) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    fake.state.spawn = lambda _container_id: ended.pid
    with pytest.raises(RestoreError) as caught:
        task_steps.started(client, ready, False)
    assert (caught.value.code, caught.value.details["exit_status"]) == ("process_died", None)
    assert "an exit status that containerd did not learn" in str(caught.value)
    assert fake.state.tasks == {}


def test_without_watching_a_dead_process_is_still_seen(fake: FakeContainerd, client: Client, ready: TaskParams) -> None:
    fake.state.dies_with = 1
    with pytest.raises(RestoreError) as caught:
        task_steps.started(client, dataclasses.replace(ready, alive_seconds=0), False)
    assert (caught.value.code, caught.value.details["exit_status"]) == ("process_died", 1)
    assert fake.count("Tasks/Wait") == 0


def test_of_a_task_that_is_gone_altogether_no_exit_status_is_told(
    fake: FakeContainerd, client: Client, ready: TaskParams
) -> None:
    with pytest.raises(RestoreError) as caught:
        task_alive.stays_alive(client, ready, 77, 0.0)
    assert (caught.value.code, caught.value.details["exit_status"]) == ("process_died", None)
    assert "(pid 77)" in str(caught.value)
