# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which processes a container's CUDA processes are: cgroup, containerd (a test double) and the STAND-IN driver."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.messages import message
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import ConflictError, InputError, RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._gpu import (
    driver as gpu_driver,
    info as gpu_info,
    processes as gpu_processes,
    state as gpu_state,
)
from ansible_collections.gpuops.restore.plugins.module_utils._gpu.access import GpuAccess
from ansible_collections.gpuops.restore.plugins.module_utils._gpu.processes import Scope
from ansible_collections.gpuops.restore.plugins.module_utils._host import processes as host_processes
from ansible_collections.gpuops.restore.plugins.module_utils._host.processes import Process
from ansible_collections.gpuops.restore.tests.standin import standin
from ansible_collections.gpuops.restore.tests.unit.helpers.cuda_node import FakeNode
from ansible_collections.gpuops.restore.tests.unit.helpers.cuda_samples import process, soon
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_state import Task

pytest_plugins = ["ansible_collections.gpuops.restore.tests.unit.helpers.cuda_fixtures"]


def no_container() -> GpuAccess:
    """Each test has an NVML of its own."""
    return GpuAccess(driver_container="/nonexistent")


CREATED, RUNNING, STOPPED, PAUSED = 1, 2, 3, 4


class Box:
    """A container ``train`` with a task, on a fake node."""

    def __init__(self, fake: FakeContainerd, world: standin.World, root: Path) -> None:
        self.fake, self.world, self.node = fake, world, FakeNode(root / "node")
        self.marks = str(root / "run" / "cuda")
        self.init = world.spawn()
        self.pids = [self.init]
        self.node.hold(self.pids)
        kind = "containerd.services.containers.v1.Container"
        labels = {"io.gpuops.restore/owner": "gpuops.restore"}
        fake.state.containers["train"] = message(kind, id="train", labels=labels)
        self.task(RUNNING)

    def task(self, status: int) -> None:
        self.fake.state.tasks["train"] = Task(None, self.init, status)

    def add(self, state: int, **more: Any) -> int:
        pid = self.world.add_process(state, **more)
        self.pids.append(pid)
        self.node.hold(self.pids)
        return pid

    def params(self, **changes: Any) -> gpu_state.StateParams:
        return gpu_state.StateParams(**{"container_id": "train", "access": self.access(), **changes})

    def info(self) -> gpu_info.InfoParams:
        return gpu_info.InfoParams("train", access=self.access())

    def access(self) -> GpuAccess:
        places = {"marks_root": self.marks, "driver_container": "/nonexistent", **self.node.options}
        return GpuAccess(cuda_timeout=20.0, **places)


@pytest.fixture
def box(fake: FakeContainerd, world: standin.World, tmp_path: Path) -> Box:
    return Box(fake, world, tmp_path)


def code(client: Client, params: gpu_state.StateParams) -> str:
    found = []
    for check in (True, False):
        with pytest.raises(RestoreError) as caught:
            gpu_state.ensure(client, params, check)
        found.append(caught.value.code)
    assert found[0] == found[1]
    return found[0]


def test_several_processes_of_one_task_and_one_without_cuda(box: Box, client: Client) -> None:
    several = [box.add(standin.CHECKPOINTED) for _n in range(2)]
    outside = box.world.add_process(standin.CHECKPOINTED)
    predicted = gpu_state.ensure(client, box.params(), True)
    done = gpu_state.ensure(client, box.params(), False)
    assert predicted.actions == done.actions
    assert [entry["pid"] for entry in done.processes] == several
    assert [box.world.state(pid) for pid in several] == [standin.RUNNING] * 2
    assert box.world.state(outside) == standin.CHECKPOINTED
    assert not gpu_state.ensure(client, box.params(), False).changed


def test_a_container_without_cuda_is_as_wanted(box: Box, client: Client) -> None:
    done = gpu_state.ensure(client, box.params(), False)
    assert (done.changed, done.processes) == (False, [])


def test_a_task_that_has_ended_has_no_processes_and_needs_no_driver(
    box: Box, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH")
    box.task(STOPPED)
    assert gpu_state.ensure(client, box.params(state="CHECKPOINTED"), False).processes == []
    box.task(RUNNING)
    box.node.forget(box.init)
    assert gpu_state.ensure(client, box.params(), False).processes == []


def test_what_is_not_there_or_not_ours(box: Box, client: Client) -> None:
    pid = box.add(standin.CHECKPOINTED)
    assert code(client, box.params(container_id="other")) == "container_absent"
    assert code(client, box.params(owner="somebody")) == "container_not_ours"
    assert box.world.calls() == []
    assert gpu_state.ensure(client, box.params(owner="somebody", force=True), False).changed
    del box.fake.state.tasks["train"]
    assert code(client, box.params()) == "task_absent"
    assert box.world.state(pid) == standin.RUNNING


def test_a_paused_task_is_refused(box: Box, client: Client) -> None:
    box.add(standin.CHECKPOINTED)
    box.task(PAUSED)
    assert code(client, box.params()) == "task_paused"
    box.task(RUNNING)
    box.node.freeze(True)
    assert code(client, box.params()) == "task_paused"
    with pytest.raises(ConflictError):
        gpu_info.gather(client, box.info())
    assert box.world.calls() == []


def test_what_an_earlier_task_of_the_play_would_have_started(box: Box, client: Client) -> None:
    params = box.params(container_id="new", assume_prepared=True)
    predicted = gpu_state.ensure(client, params, True)
    assert (predicted.changed, len(predicted.actions)) == (True, 1)
    away = gpu_state.ensure(client, box.params(container_id="new", assume_prepared=True, state="CHECKPOINTED"), True)
    assert (away.changed, away.actions) == (False, [])
    with pytest.raises(InputError):
        gpu_state.ensure(client, params, False)


def test_a_process_that_is_forked_while_the_others_are_locked_is_taken_along(box: Box, client: Client) -> None:
    first = box.add(standin.RUNNING, hang_lock=1)
    forked: list[int] = []

    def fork() -> None:
        box.world.wait_for("lock", first)
        forked.append(box.add(standin.RUNNING))
        box.world.unset(f"pids/{first}/hang_lock")

    thread = threading.Thread(target=fork)
    thread.start()
    done = gpu_state.ensure(client, box.params(state="CHECKPOINTED"), False)
    thread.join()
    assert {entry["pid"]: entry["after"] for entry in done.processes} == dict.fromkeys([first, *forked], "CHECKPOINTED")
    locks = [text for text in done.actions if text.startswith("lock")]
    assert done.actions[:2] == locks


def test_a_failed_process_that_comes_while_the_others_are_locked_brings_them_back(box: Box, client: Client) -> None:
    first = box.add(standin.RUNNING, hang_lock=1)

    def fork() -> None:
        box.world.wait_for("lock", first)
        box.add(standin.FAILED)
        box.world.unset(f"pids/{first}/hang_lock")

    thread = threading.Thread(target=fork)
    thread.start()
    with pytest.raises(RestoreError) as caught:
        gpu_state.ensure(client, box.params(state="CHECKPOINTED"), False)
    thread.join()
    assert (caught.value.code, caught.value.details["rolled_back"]) == ("cuda_process_failed", True)
    assert box.world.state(first) == standin.RUNNING


def test_processes_that_keep_coming_are_not_waited_for_for_ever(
    box: Box, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = box.add(standin.RUNNING)
    plain = Scope.processes

    def one_more(scope: Scope) -> list[Process]:
        box.add(standin.RUNNING)
        return plain(scope)

    monkeypatch.setattr(Scope, "processes", one_more)
    with pytest.raises(RestoreError) as caught:
        gpu_state.ensure(client, box.params(state="CHECKPOINTED"), False)
    assert caught.value.code == "cuda_processes_keep_coming"
    assert caught.value.details["rolled_back"] is True
    assert box.world.state(first) == standin.RUNNING


# --- discovery by itself


def test_a_process_that_leaves_the_cgroup_while_we_look_is_left_out(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = box.add(standin.RUNNING)
    plain = host_processes.identify

    def and_then_it_leaves(pids: list[int], proc: str) -> list[Process]:
        found = plain(pids, proc)
        box.node.hold([box.init])
        return found

    monkeypatch.setattr(host_processes, "identify", and_then_it_leaves)
    found = Scope(task_pid=box.init, **box.node.options).processes()
    assert [each.pid for each in found] == [box.init]
    assert pid not in [each.pid for each in found]


def test_one_that_was_just_ending_is_asked_twice(world: standin.World, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = world.add_process(standin.CHECKPOINTED, unreadable=1)
    with gpu_driver.opened(soon()) as driver, monkeypatch.context() as patch:
        patch.setattr(time, "sleep", lambda _seconds: world.unset(f"pids/{pid}/unreadable"))
        (found,) = gpu_processes.query_states(driver, [process(pid)], soon())
    assert (found.state, found.problem) == ("CHECKPOINTED", "")


# --- what cuda_process_info tells


def test_what_is_told_of_a_container(box: Box, client: Client) -> None:
    box.world.set("gpus/0/persistence", 1)
    up = box.add(standin.RUNNING, memory={standin.uuid(0): standin.GIB}, restore_tid=77)
    away = box.add(standin.CHECKPOINTED, memory={standin.uuid(0): standin.GIB})
    found = gpu_info.gather(client, box.info())
    assert (found["available"], found["reason"], found["reason_code"]) == (True, None, None)
    assert found["driver"] == {
        "version": "580.0.0",
        "cuda": "13.0",
        "library": "the loader's default path",
        "gpu_map": True,
    }
    (gpu,) = found["gpus"]
    assert (gpu["persistence"], gpu["mig"], gpu["memory_free"]) == (True, False, 79 * standin.GIB)
    first, second = found["processes"]
    assert (first["pid"], first["state"], first["restore_thread_id"]) == (up, "RUNNING", 77)
    assert (first["memory"], [share["index"] for share in first["gpus"]]) == (standin.GIB, [0])
    assert (second["pid"], second["state"], second["memory"], second["gpus"]) == (away, "CHECKPOINTED", None, [])
    assert second["host_memory"] > 0
    assert second["restore_failed"] is None


def test_a_poisoned_process_is_told_as_such(box: Box, client: Client) -> None:
    box.add(standin.CHECKPOINTED, fail_restore=2)
    with pytest.raises(RestoreError):
        gpu_state.ensure(client, box.params(), False)
    (found,) = gpu_info.gather(client, box.info())["processes"]
    assert (found["state"], found["restore_failed"]) == ("CHECKPOINTED", "CUDA_ERROR_OUT_OF_MEMORY (2)")


def test_looking_is_allowed_at_containers_of_others(box: Box, client: Client) -> None:
    box.fake.state.containers["train"].labels.clear()
    box.add(standin.RUNNING)
    assert len(gpu_info.gather(client, box.info())["processes"]) == 1


def test_without_a_container_all_that_hold_memory_are_told(world: standin.World) -> None:
    up = world.add_process(standin.RUNNING, {standin.uuid(0): standin.GIB})
    world.add_process(standin.CHECKPOINTED, {standin.uuid(0): standin.GIB})
    found = gpu_info.gather(None, gpu_info.InfoParams(access=no_container()))
    assert [entry["pid"] for entry in found["processes"]] == [up]


def test_a_node_without_a_gpu_is_told_and_is_no_error(bare_world: standin.World) -> None:
    pid = bare_world.add_process(standin.RUNNING)
    found = gpu_info.gather(None, gpu_info.InfoParams(pids=(pid,), access=no_container()))
    assert (found["available"], found["reason_code"]) == (False, "driver_library_missing")
    assert "libcuda.so.1" in found["reason"]
    assert found["nvml"]["available"] is False
    assert "NVML" in found["nvml"]["reason"]
    assert (found["gpus"], found["processes"]) == ([], [])
    assert found["driver"] == {"version": None, "cuda": None, "library": None, "gpu_map": False}


def test_a_driver_that_is_too_old_is_told_with_its_version(world: standin.World) -> None:
    world.set("missing/cuCheckpointProcessRestore")
    world.set("driver_version", 12040)
    world.set("driver", "550.54.14")
    found = gpu_info.gather(None, gpu_info.InfoParams(access=no_container()))
    assert (found["available"], found["reason_code"]) == (False, "driver_too_old")
    assert (found["driver"]["version"], found["driver"]["cuda"]) == ("550.54.14", "12.4")
    assert len(found["gpus"]) == 1


def test_of_named_processes_those_without_cuda_are_left_out(world: standin.World) -> None:
    plain, up = world.spawn(), world.add_process(standin.LOCKED)
    params = gpu_info.InfoParams(pids=(plain, up), access=no_container())
    assert [entry["pid"] for entry in gpu_info.gather(None, params)["processes"]] == [up]
