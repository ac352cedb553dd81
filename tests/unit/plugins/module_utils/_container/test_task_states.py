# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every status that a task can have, against every state that can be wished: check mode and run agree."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import original, stage as stage_steps
from ansible_collections.gpuops.restore.plugins.module_utils._container import (
    container as container_steps,
    params as container_params,
    task as task_steps,
    task_end,
)
from ansible_collections.gpuops.restore.plugins.module_utils._container.task_params import TaskParams, TaskResult
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import UNKNOWN, RestoreError
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import CHECKPOINT_NAME
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_state import Task

STATUS = {"UNKNOWN": 0, "CREATED": 1, "RUNNING": 2, "STOPPED": 3, "PAUSED": 4, "PAUSING": 5}
STATES: dict[str, Callable[[Client, TaskParams, bool], TaskResult]] = {
    "started": task_steps.started,
    "stopped": task_end.stopped,
    "absent": task_end.absent,
}
#: (wished, found, pid) -> whether it changes, what is there then; or the code of the refusal.
EXPECTED: list[tuple[str, str, int, Any]] = [
    ("started", "absent", 0, (True, "RUNNING")),
    ("started", "CREATED", 0, (True, "RUNNING")),
    ("started", "CREATED", 77, (True, "RUNNING")),
    ("started", "RUNNING", 77, (False, "RUNNING")),
    ("started", "STOPPED", 77, (True, "RUNNING")),
    ("started", "PAUSED", 77, "task_paused"),
    ("started", "PAUSING", 77, "task_paused"),
    ("started", "UNKNOWN", 77, (True, "RUNNING")),
    ("stopped", "absent", 0, (False, "absent")),
    ("stopped", "CREATED", 77, (True, "STOPPED")),
    ("stopped", "RUNNING", 77, (True, "STOPPED")),
    ("stopped", "STOPPED", 77, (False, "STOPPED")),
    ("stopped", "PAUSED", 77, "task_paused"),
    ("stopped", "PAUSING", 77, "task_paused"),
    ("stopped", "UNKNOWN", 77, (True, "STOPPED")),
    ("absent", "absent", 0, (False, "absent")),
    ("absent", "CREATED", 0, (True, "absent")),
    ("absent", "CREATED", 77, (True, "absent")),
    ("absent", "RUNNING", 77, (True, "absent")),
    ("absent", "STOPPED", 77, (True, "absent")),
    ("absent", "PAUSED", 77, (True, "absent")),
    ("absent", "PAUSING", 77, (True, "absent")),
    ("absent", "UNKNOWN", 77, (True, "absent")),
]


@pytest.fixture
def ready(fake: FakeContainerd, client: Client, node: Node) -> TaskParams:
    """Checkpoint staged, container made."""
    stage_steps.present(client, CHECKPOINT_NAME, node.root, None, False)
    wanted = container_params.ContainerParams("train", original.Source(CHECKPOINT_NAME), staging_dir=node.root)
    container_steps.present(client, wanted, False)
    fake.heal()
    return TaskParams("train", CHECKPOINT_NAME, staging_dir=node.root, alive_seconds=0.05, grace_seconds=0.2)


def put_task(fake: FakeContainerd, status: str, pid: int = 77) -> None:
    if status != "absent":
        fake.state.tasks["train"] = Task(None, pid, STATUS[status], 137 if status == "STOPPED" else 0)


def status_of(fake: FakeContainerd) -> str:
    task = fake.state.tasks.get("train")
    return {number: name for name, number in STATUS.items()}[task.status] if task else "absent"


@pytest.mark.parametrize(("state", "status", "pid", "expected"), EXPECTED)
def test_check_mode_says_what_a_run_does(
    fake: FakeContainerd, client: Client, ready: TaskParams, state: str, status: str, pid: int, expected: Any
) -> None:
    put_task(fake, status, pid)
    before = fake.state.listing()
    act = STATES[state]
    if isinstance(expected, str):
        for check in (True, False):
            with pytest.raises(RestoreError) as caught:
                act(client, ready, check)
            assert caught.value.code == expected
        assert fake.state.listing() == before
        return
    predicted = act(client, ready, True)
    assert fake.state.listing() == before
    done = act(client, ready, False)
    assert (done.changed, status_of(fake)) == expected
    for name in ("changed", "created", "before", "after", "actions"):
        assert getattr(predicted, name) == getattr(done, name), name
    assert (done.before, done.after) == (status, expected[1])
    again = act(client, ready, False)
    assert (again.changed, again.created) == (False, False)


# --- stopping


def test_stopping_asks_first_and_kills_what_outlives_the_first_process(
    fake: FakeContainerd, client: Client, ready: TaskParams
) -> None:
    put_task(fake, "RUNNING")
    done = task_end.stopped(client, ready, False)
    kills = [(call.request.signal, call.request.all) for call in fake.seen if call.name == "Tasks/Kill"]
    assert kills == [(15, False), (9, True)]
    assert done.task == {"id": "train", "pid": 77, "status": "STOPPED", "exit_status": 143}


def test_a_process_that_ignores_term_is_killed_after_its_grace(
    fake: FakeContainerd, client: Client, ready: TaskParams
) -> None:
    put_task(fake, "RUNNING")
    fake.state.deadly = {9}
    assert task_end.stopped(client, ready, False).task["exit_status"] == 137


def test_without_grace_it_is_killed_at_once(fake: FakeContainerd, client: Client, ready: TaskParams) -> None:
    put_task(fake, "RUNNING")
    task_end.stopped(client, dataclasses.replace(ready, grace_seconds=0), False)
    assert [call.request.signal for call in fake.seen if call.name == "Tasks/Kill"] == [9]


def test_a_paused_task_is_killed_without_grace(fake: FakeContainerd, client: Client, ready: TaskParams) -> None:
    put_task(fake, "PAUSED")
    task_end.absent(client, ready, False)
    assert [call.request.signal for call in fake.seen if call.name == "Tasks/Kill"] == [9]


def test_processes_that_run_although_the_daemon_calls_them_created(
    fake: FakeContainerd, client: Client, ready: TaskParams
) -> None:
    """As where it fails when CRIU is done; it has no pid then, and deletes nothing that runs."""
    put_task(fake, "CREATED", 0)
    fake.fail("Tasks/Delete", "UNKNOWN", "cannot delete container train that is not stopped: running", times=2)
    assert task_end.absent(client, ready, False).changed is True
    kills = {(call.request.signal, call.request.all) for call in fake.seen if call.name == "Tasks/Kill"}
    assert kills == {(9, True)} and status_of(fake) == "absent"


@pytest.mark.parametrize("state", ["stopped", "absent"])
def test_a_process_that_nothing_kills(fake: FakeContainerd, ready: TaskParams, state: str) -> None:
    put_task(fake, "RUNNING")
    fake.state.deadly = set()
    with Client(fake.address, "tests", timeout=0.2) as impatient, pytest.raises(RestoreError) as caught:
        STATES[state](impatient, ready, False)
    assert (caught.value.code, caught.value.outcome) == ("task_unkillable", UNKNOWN)
    assert status_of(fake) == "RUNNING"


@pytest.mark.parametrize("name", ["Tasks/Kill", "Tasks/Wait", "Tasks/Delete"])
@pytest.mark.parametrize("status", ["INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED"])
def test_an_error_while_ending_is_told_and_the_next_run_finishes(
    fake: FakeContainerd, client: Client, ready: TaskParams, name: str, status: str
) -> None:
    put_task(fake, "RUNNING")
    fake.fail(name, status, times=2)
    if (name, status) == ("Tasks/Wait", "DEADLINE_EXCEEDED"):
        # Not an error but the grace that ran out, twice.
        with pytest.raises(RestoreError, match="did not end"):
            task_end.absent(client, ready, False)
    else:
        with pytest.raises(RestoreError, match="made to fail"):
            task_end.absent(client, ready, False)
    fake.heal()
    task_end.absent(client, ready, False)
    assert status_of(fake) == "absent"


@pytest.mark.parametrize("name", ["Tasks/Kill", "Tasks/Wait", "Tasks/Delete"])
def test_a_task_that_goes_meanwhile_is_as_wished(
    fake: FakeContainerd, client: Client, ready: TaskParams, name: str
) -> None:
    put_task(fake, "RUNNING")
    fake.on(name, lambda _context: fake.state.tasks.clear(), times=1)
    assert task_end.absent(client, ready, False).changed is True
    assert status_of(fake) == "absent"


@pytest.mark.parametrize("state", ["stopped", "absent"])
def test_a_task_of_another_owner_is_left_alone(
    fake: FakeContainerd, client: Client, ready: TaskParams, state: str
) -> None:
    put_task(fake, "RUNNING")
    theirs = dataclasses.replace(ready, owner="somebody")
    for check in (True, False):
        with pytest.raises(RestoreError) as caught:
            STATES[state](client, theirs, check)
        assert caught.value.code == "container_not_ours"
    assert status_of(fake) == "RUNNING"
    assert STATES[state](client, dataclasses.replace(theirs, force=True), False).changed is True


@pytest.mark.parametrize("state", ["stopped", "absent"])
def test_without_a_container_there_is_nothing_to_do(
    fake: FakeContainerd, client: Client, ready: TaskParams, state: str
) -> None:
    other = dataclasses.replace(ready, container_id="other")
    assert STATES[state](client, other, False).changed is False
