# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Workloads that are parked in host memory: STAND-IN libraries under the real bindings, the double of containerd."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import (
    park,
    park_batch,
    parked,
    recovery,
    settle,
    signals,
)
from ansible_collections.gpuops.restore.plugins.module_utils._capture.park import ParkParams, ParkResult
from ansible_collections.gpuops.restore.plugins.module_utils._containerd import tasks
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RETRYABLE, UNKNOWN, RestoreError
from ansible_collections.gpuops.restore.tests.standin import standin
from ansible_collections.gpuops.restore.tests.unit.helpers.capture_samples import BOX, NAME, PAUSED, RUNNING, Box
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_state import Task
from ansible_collections.gpuops.restore.tests.unit.helpers.gpu_access import changed

pytest_plugins = ["ansible_collections.gpuops.restore.tests.unit.helpers.cuda_fixtures"]

GIB = standin.GIB
GPU = standin.uuid(0)
ON, AWAY = [standin.RUNNING] * 2, [standin.CHECKPOINTED] * 2


@pytest.fixture
def pids(world: standin.World) -> list[int]:
    """Two processes on a GPU, and one without CUDA."""
    return [world.add_process(standin.RUNNING, {GPU: GIB}) for _n in range(2)] + [world.spawn()]


@pytest.fixture
def box(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, pids: list[int]) -> Iterator[Box]:
    found = Box(fake, client, node, tmp_path, pids[0])
    found.hold(*pids)
    yield found


def params(box: Box, **changes: Any) -> ParkParams:
    return changed(ParkParams(BOX, marks_root=str(box.run), access=box.params.access), **changes)


def do_park(box: Box, check: bool = False, **changes: Any) -> ParkResult:
    return park.parked(box.client, params(box, **changes), check)


def do_resume(box: Box, check: bool = False, **changes: Any) -> ParkResult:
    return park.resumed(box.client, params(box, **changes), check)


def fails(act: Any, *given: Any, **changes: Any) -> RestoreError:
    with pytest.raises(RestoreError) as caught:
        act(*given, **changes)
    return caught.value


def states(world: standin.World, pids: list[int]) -> list[int]:
    return [world.state(pid) for pid in pids[:2]]


def goes_on(box: Box, world: standin.World, pids: list[int]) -> None:
    """With its GPU memory, and nothing is left."""
    assert states(world, pids) == ON
    box.untouched()


def test_it_leaves_the_gpu_is_paused_and_comes_back_once(box: Box, world: standin.World, pids: list[int]) -> None:
    predicted = do_park(box, True)
    assert world.order() == []
    box.untouched()
    done = do_park(box)
    assert (predicted.changed, predicted.actions, predicted.vram) == (True, done.actions, done.vram)
    assert (done.before, done.after, done.vram, done.holding) == ("RUNNING", "PARKED", {GPU: 2 * GIB}, [])
    assert done.host_memory["needed"] == 2 * GIB
    assert predicted.pid == done.pid == box.fake.state.tasks[BOX].pid
    assert {"preflight", "cuda_suspend", "pause", "total"} == set(done.seconds)
    assert (box.status(), states(world, pids)) == (PAUSED, AWAY)
    again = do_park(box)
    assert (again.changed, again.before, again.vram, again.pid) == (False, "PARKED", done.vram, done.pid)
    foreseen = do_resume(box, True)
    assert box.status() == PAUSED
    back = do_resume(box)
    assert (back.changed, back.recovered, back.actions) == (True, False, foreseen.actions)
    assert foreseen.pid == back.pid == do_resume(box).pid == done.pid
    assert back.actions == [f"resume {BOX}, which is parked"]
    assert [what for what, _pid in world.order()] == [
        each for what in ("lock", "checkpoint", "restore", "unlock") for each in [what] * 2
    ]
    assert not do_resume(box).changed
    goes_on(box, world, pids)


def test_nothing_is_written_below_the_state_directory(box: Box) -> None:
    do_park(box)
    before = {kind: rows for kind, rows in box.before.items() if kind != "tasks"}
    assert before.items() <= box.kept(box.fake.state).items()
    assert not Path(box.root).exists()


def test_whatever_call_fails_it_goes_on(box: Box, world: standin.World, pids: list[int]) -> None:
    do_park(box)
    names = box.fake.names()
    do_resume(box)
    assert names.count("Tasks/Pause") == 1
    for position in range(len(names)):
        box.fake.heal()
        box.fake.fail_call(position)
        error = fails(do_park, box)
        assert "left_behind" not in error.details, names[position]
        goes_on(box, world, pids)


@pytest.mark.parametrize(("call", "code"), [("lock", "cuda_lock_failed"), ("checkpoint", "cuda_checkpoint_failed")])
def test_a_driver_that_refuses(box: Box, world: standin.World, pids: list[int], call: str, code: str) -> None:
    world.set(f"pids/{pids[1]}/fail_{call}", 999)
    assert fails(do_park, box).code == code
    assert "Tasks/Pause" not in box.fake.names()
    goes_on(box, world, pids)


class Killed(BaseException):
    """The run is killed: nothing of it is carried out any more."""


@pytest.mark.parametrize("capture", [False, True], ids=["resumed", "captured"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_one_that_was_killed_in_the_middle_goes_on_with_the_next_run(
    box: Box, world: standin.World, pids: list[int], moment: str, capture: bool
) -> None:
    pause = tasks.pause

    def killed(client: Client, container_id: str) -> None:
        if moment == "after":
            pause(client, container_id)
        raise Killed

    with patch.object(tasks, "pause", killed), patch.object(recovery, "recover"), pytest.raises(Killed):
        do_park(box)
    assert states(world, pids) == AWAY
    if capture:
        assert box.capture().recovered
        box.fake.state.images.pop(NAME)
    else:
        foreseen, done = do_resume(box, True), do_resume(box)
        assert (done.changed, done.recovered, done.actions) == (True, True, foreseen.actions)
        assert "half parked" in done.actions[0]
    goes_on(box, world, pids)


def test_one_that_was_killed_is_parked_anew(box: Box, world: standin.World, pids: list[int]) -> None:
    with patch.object(tasks, "pause", side_effect=Killed), patch.object(recovery, "recover"), pytest.raises(Killed):
        do_park(box)
    foreseen, done = do_park(box, True), do_park(box)
    assert done.recovered and foreseen.recovered
    assert foreseen.actions[0] == done.actions[0]
    assert (box.status(), states(world, pids)) == (PAUSED, AWAY)


def test_what_cannot_go_on_is_said_and_the_next_run_does_it(box: Box, world: standin.World, pids: list[int]) -> None:
    do_park(box)
    box.fake.fail("Tasks/Resume", "INTERNAL", "no luck")
    assert "no luck" in fails(do_resume, box).message
    assert (box.status(), states(world, pids)) == (PAUSED, AWAY)
    box.fake.heal()
    assert do_resume(box).changed
    goes_on(box, world, pids)


def test_a_way_back_that_fails_is_left_to_the_next_run(box: Box, world: standin.World, pids: list[int]) -> None:
    box.fake.on("Tasks/Pause", lambda _context: box.fake.fail("Tasks/Resume", "INTERNAL", "no luck"))
    with patch.object(park.resources, "nvidia_devices", side_effect=RestoreError("odd", "Odd.", "No.")):
        error = fails(do_park, box)
    assert (error.code, error.outcome) == ("odd", UNKNOWN) and "may stand still" in str(error.details["left_behind"])
    box.fake.heal()
    assert do_resume(box).recovered
    goes_on(box, world, pids)


def test_gpu_memory_that_is_taken_meanwhile_is_told_and_nothing_is_lost(
    box: Box, world: standin.World, pids: list[int]
) -> None:
    do_park(box)
    other = world.add_process(standin.RUNNING, {GPU: 79 * GIB})
    assert fails(do_resume, box).code == "vram_short"
    assert states(world, pids) == AWAY
    assert "restore" not in [what for what, _pid in world.order()]
    world.kill(other)
    shutil.rmtree(world.root / "pids" / str(other))
    assert do_resume(box).changed
    goes_on(box, world, pids)


def test_memory_that_does_not_come_back_loses_the_workload(box: Box, world: standin.World, pids: list[int]) -> None:
    do_park(box)
    world.set(f"pids/{pids[1]}/fail_restore", 2)
    error = fails(do_resume, box)
    assert error.code == "cuda_restore_failed" and error.message.startswith(f"The workload {BOX} is lost: ")
    # It does not stand still any more, so nothing keeps an operator from taking it away.
    parked.refuse("tests", tasks.get(box.client, BOX), str(box.run))  # type: ignore[arg-type]


def test_a_signal_has_it_go_on(box: Box, world: standin.World, pids: list[int]) -> None:
    noted = signals.DeferredSignals(BOX)
    box.fake.on("Tasks/Pause", lambda _context: noted.handle(15, None))
    error = fails(lambda: park.parked(box.client, params(box), False, noted))
    assert (error.code, error.outcome) == ("park_interrupted", RETRYABLE)
    goes_on(box, world, pids)


# --- what is refused, in check mode too


@pytest.mark.parametrize("check", [True, False])
def test_too_little_host_memory(box: Box, world: standin.World, pids: list[int], check: bool) -> None:
    box.here.write_available(GIB)
    assert fails(do_park, box, check).code == "host_memory_short"
    goes_on(box, world, pids)


@pytest.mark.parametrize("check", [True, False])
def test_a_limit_of_the_container_that_is_too_small(
    box: Box, world: standin.World, pids: list[int], check: bool
) -> None:
    box.here.limit(2 * GIB, GIB)
    assert fails(do_park, box, check).code == "container_memory_short"
    goes_on(box, world, pids)


def test_the_plan_says_what_the_limit_leaves(box: Box) -> None:
    assert do_park(box, True).host_memory["limit_leaves"] is None
    box.here.limit(8 * GIB, GIB)
    assert do_park(box, True).host_memory["limit_leaves"] == 7 * GIB


@pytest.mark.parametrize("check", [True, False])
def test_a_container_of_others_needs_force(box: Box, world: standin.World, pids: list[int], check: bool) -> None:
    assert fails(do_park, box, check, owner="somebody").code == "container_not_ours"
    goes_on(box, world, pids)
    assert do_park(box, check, owner="somebody", force=True).changed


@pytest.mark.parametrize("check", [True, False])
def test_what_a_capture_keeps_paused_is_left_to_it(box: Box, check: bool) -> None:
    box.capture(leave="paused", gpu="none")
    for act in (do_park, do_resume):
        assert fails(act, box, check, gpu="none").code == "capture_held"
    assert box.status() == PAUSED


@pytest.mark.parametrize("check", [True, False])
def test_what_somebody_else_has_paused_stays_so(box: Box, check: bool) -> None:
    box.fake.state.tasks[BOX].status = PAUSED
    for act in (do_park, do_resume):
        assert fails(act, box, check).code == "task_paused"
    assert box.status() == PAUSED


def test_what_is_parked_is_nobody_elses(box: Box, world: standin.World, pids: list[int]) -> None:
    do_park(box)
    for check in (True, False):
        for leave in ("running", "paused", "stopped"):
            error = box.fails(check, leave=leave)
            assert error.code == "workload_parked" and "containerd_park with state: resumed" in error.remedy
            assert fails(settle.settled, box.client, box.params, check).code == "workload_parked"
    task = tasks.get(box.client, BOX)
    assert task is not None
    assert fails(parked.refuse, "tests", task, str(box.run)).code == "workload_parked"
    parked.refuse("tests", dataclasses.replace(task, status="RUNNING"), str(box.run))
    parked.refuse("others", task, str(box.run))
    assert (box.status(), states(world, pids)) == (PAUSED, AWAY)


# --- what was parked and is gone


@pytest.mark.parametrize("check", [True, False])
def test_a_reboot_takes_everything_and_is_told(box: Box, check: bool) -> None:
    del box.fake.state.tasks[BOX]
    error = fails(do_resume, box, check)
    assert error.code == "task_not_running" and "a reboot took it" in error.message


def test_a_task_that_has_ended_meanwhile_is_told_until_another_runs(
    box: Box, world: standin.World, pids: list[int]
) -> None:
    do_park(box)
    del box.fake.state.tasks[BOX]
    for check in (True, False, False):
        assert fails(do_resume, box, check).code == "task_not_running"
    assert not box.run.exists()
    box.fake.state.tasks[BOX] = Task(None, pids[2], RUNNING)
    assert not do_resume(box).changed


def test_a_container_that_is_not_there(box: Box) -> None:
    del box.fake.state.containers[BOX]
    for act in (do_park, do_resume):
        assert fails(act, box).code == "container_absent"


def test_without_cuda_it_is_only_paused(box: Box, world: standin.World, pids: list[int]) -> None:
    done = do_park(box, gpu="none")
    assert (done.vram, done.processes, box.status()) == ({}, [], PAUSED)
    assert do_resume(box).changed
    assert world.order() == []
    goes_on(box, world, pids)


# --- several


def test_all_together_have_to_fit_into_host_memory(box: Box, world: standin.World, pids: list[int]) -> None:
    record = copy.deepcopy(box.fake.state.containers[BOX])
    record.id = "other"
    box.fake.state.containers["other"] = record
    box.fake.state.tasks["other"] = Task(None, pids[0], RUNNING)
    box.here.write_available(3 * GIB)
    jobs = [params(box), dataclasses.replace(params(box), container_id="other")]
    for check in (True, False):
        error = fails(park_batch.carry_out, box.client.another, park_batch.PARKED, jobs, check)
        assert error.code == "host_memory_short" and "2 workloads together" in error.message
    assert states(world, pids) == ON


def test_one_that_fails_does_not_keep_the_others(box: Box, world: standin.World, pids: list[int]) -> None:
    jobs = [params(box), dataclasses.replace(params(box), container_id="lost")]
    for state, left in ((park_batch.PARKED, AWAY), (park_batch.RESUMED, ON)):
        found = park_batch.carry_out(box.client.another, state, jobs, False)
        told = park_batch.answer(found)
        assert (told["changed"], told["failed"]) == (True, True)
        assert told["workloads"]["lost"]["failure"]["code"] == "container_absent"
        assert told["msg"].startswith("1 of 2 workload(s) failed. lost: ")
        assert set(told["diff"]["after"]) == {BOX}
        assert states(world, pids) == left


def test_none_stands_twice(box: Box) -> None:
    error = fails(park_batch.carry_out, box.client.another, park_batch.PARKED, [params(box)] * 2, False)
    assert error.code == "workload_twice"
