# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps, on the STAND-IN library under the real cuda-bindings: what is called, in which order, and what not."""

from __future__ import annotations

import dataclasses
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import (
    RETRYABLE,
    TERMINAL,
    UNKNOWN,
    ConflictError,
    InputError,
    RestoreError,
)
from ansible_collections.gpuops.restore.plugins.module_utils._gpu import (
    driver as gpu_driver,
    marks as gpu_marks,
    run as gpu_run,
    state as gpu_state,
)
from ansible_collections.gpuops.restore.plugins.module_utils._gpu.driver import Driver
from ansible_collections.gpuops.restore.plugins.module_utils._gpu.state import StateParams
from ansible_collections.gpuops.restore.plugins.module_utils._host.processes import Process
from ansible_collections.gpuops.restore.tests.standin import standin
from ansible_collections.gpuops.restore.tests.unit.helpers.cuda_node import FakeNode
from ansible_collections.gpuops.restore.tests.unit.helpers.cuda_samples import Steps, meeting, process

pytest_plugins = ["ansible_collections.gpuops.restore.tests.unit.helpers.cuda_fixtures"]

GIB = standin.GIB
GPU = standin.uuid(0)
NAMES = ("RUNNING", "LOCKED", "CHECKPOINTED", "FAILED")


def names(error: RestoreError, key: str = "after") -> dict[int, str]:
    return {entry["pid"]: entry[key] for entry in error.details["processes"]}


# --- where it leads


@pytest.mark.parametrize("wanted", ["RUNNING", "LOCKED", "CHECKPOINTED"])
@pytest.mark.parametrize("before", [standin.RUNNING, standin.LOCKED, standin.CHECKPOINTED])
def test_every_state_leads_to_every_state_and_a_second_run_changes_nothing(
    steps: Steps, before: int, wanted: str
) -> None:
    pid = steps.world.add_process(before, {GPU: GIB})
    done = steps.run(pid, state=wanted)
    assert done.changed == (NAMES[before] != wanted)
    assert NAMES[steps.world.state(pid)] == wanted
    (entry,) = done.processes
    assert (entry["before"], entry["after"]) == (NAMES[before], wanted)
    again = steps.run(pid, state=wanted)
    assert (again.changed, again.actions) == (False, [])


def test_all_are_restored_side_by_side_and_only_then_all_unlocked(steps: Steps) -> None:
    pids = [steps.world.add_process(standin.CHECKPOINTED, {GPU: GIB}) for _n in range(3)]
    with meeting(steps.world, "restore", pids):
        done = steps.run(*pids)
    order = steps.world.order()
    assert {what for what, _pid in order[:3]} == {"restore"}
    assert {what for what, _pid in order[3:]} == {"unlock"}
    assert done.actions == [f"{what} process {pid}" for what in ("restore", "unlock") for pid in pids]
    assert sorted(done.seconds) == ["init", "restore", "total", "unlock"]
    assert [sorted(entry["seconds"]) for entry in done.processes] == [["restore", "unlock"]] * 3
    assert [entry["bytes"] for entry in done.processes] == [GIB] * 3
    assert [entry["gpus"] for entry in done.processes] == [
        [{"uuid": GPU, "index": 0, "name": "Stand-in H1", "memory": GIB}]
    ] * 3


def test_all_are_locked_and_only_then_all_checkpointed(steps: Steps) -> None:
    pids = [steps.world.add_process(standin.RUNNING, {GPU: GIB}) for _n in range(3)]
    with meeting(steps.world, "checkpoint", pids):
        done = steps.run(*pids, state="CHECKPOINTED")
    order = steps.world.order()
    assert {what for what, _pid in order[:3]} == {"lock"}
    assert {what for what, _pid in order[3:]} == {"checkpoint"}
    assert sorted(done.seconds) == ["checkpoint", "init", "lock", "total"]
    assert [entry["bytes"] for entry in done.processes] == [GIB] * 3, "as it was before, since now they have none"


def test_a_plugin_has_restored_it_already(steps: Steps) -> None:
    pid = steps.world.add_process(standin.RUNNING, {GPU: GIB})
    done = steps.run(pid)
    assert (done.changed, steps.world.order()) == (False, [])
    assert done.processes[0]["bytes"] == GIB


def test_one_that_is_only_locked_is_unlocked(steps: Steps) -> None:
    pid = steps.world.add_process(standin.LOCKED)
    assert steps.run(pid).actions == [f"unlock process {pid}"]


def test_each_takes_what_its_own_state_demands(steps: Steps) -> None:
    running, locked, away = (steps.world.add_process(state) for state in range(3))
    steps.run(running, locked, away)
    order = steps.world.order()
    assert order[0] == ("restore", away)
    assert sorted(order[1:]) == sorted([("unlock", locked), ("unlock", away)])


# --- what must not be


def test_a_failed_process_is_the_end_and_the_others_are_left_alone(steps: Steps) -> None:
    failed, other = steps.world.add_process(standin.FAILED), steps.world.add_process(standin.CHECKPOINTED)
    for wanted in ("RUNNING", "LOCKED", "CHECKPOINTED"):
        error = steps.refused(other, failed, state=wanted)
        assert (error.code, error.outcome) == ("cuda_process_failed", TERMINAL)
        assert str(failed) in error.message


def test_out_of_memory_poisons_the_process_and_it_is_never_tried_again(steps: Steps, marks: Path) -> None:
    steps.world.set("gpus/0/other_used", 79 * GIB)
    pid = steps.world.add_process(standin.CHECKPOINTED, {GPU: 4 * GIB})
    small = steps.world.add_process(standin.CHECKPOINTED, {GPU: GIB // 2})
    error = steps.fails(pid, small)
    assert (error.code, error.outcome) == ("cuda_restore_failed", TERMINAL)
    assert "CUDA_ERROR_OUT_OF_MEMORY (2)" in error.message
    assert "Free GPU memory" in error.remedy
    assert names(error) == {pid: "CHECKPOINTED", small: "LOCKED"}
    assert f"Process {small} is restored and stays locked." in error.message
    assert ("unlock", small) not in steps.world.order(), "a part of a workload must not go on"
    # There is room again, and the driver says CHECKPOINTED: no matter.
    steps.world.set("gpus/0/other_used", 0)
    again = steps.refused(pid)
    assert (again.code, again.outcome) == ("cuda_restore_failed", TERMINAL)
    assert "CUDA_ERROR_OUT_OF_MEMORY (2)" in again.message
    assert steps.refused(pid, state="LOCKED").code == "cuda_restore_failed"
    assert not steps.run(pid, state="CHECKPOINTED").changed, "which a tear-down may ask for"
    assert [what for what, who in steps.world.order() if who == pid] == ["restore"]
    assert [path.stat().st_mode & 0o777 for path in (marks.parent, marks, *marks.iterdir())] == [0o700, 0o700, 0o600]


def test_the_memory_of_a_poisoned_process_goes_with_it(steps: Steps, marks: Path) -> None:
    pid = steps.world.add_process(standin.CHECKPOINTED, fail_restore=2)
    steps.fails(pid)
    assert len(list(marks.iterdir())) == 1
    steps.world.kill(pid)
    steps.run(steps.world.add_process(standin.RUNNING))
    assert not marks.exists()
    assert not marks.parent.exists()


def test_a_poisoned_process_answers_304_at_once(steps: Steps, marks: Path) -> None:
    # Poisoned by another program: no mark of ours, and the driver answers as for a process that is gone.
    pid = steps.world.add_process(standin.CHECKPOINTED, poisoned=1)
    error = steps.fails(pid)
    assert (error.code, error.outcome) == ("cuda_restore_failed", TERMINAL)
    assert "CUDA_ERROR_OPERATING_SYSTEM (304)" in error.message
    assert steps.refused(pid).code == "cuda_restore_failed"


def test_a_call_that_hangs_is_unknown_and_not_replayed(steps: Steps, no_patience: None) -> None:
    hangs = steps.world.add_process(standin.CHECKPOINTED, hang_restore=1)
    fine = steps.world.add_process(standin.CHECKPOINTED)
    error = steps.fails(hangs, fine)
    assert (error.code, error.outcome, error.details["pending"]) == ("cuda_timeout", UNKNOWN, [hangs])
    assert names(error) == {hangs: "UNKNOWN", fine: "LOCKED"}
    assert {entry["pid"]: entry.get("problem") for entry in error.details["processes"]} == {
        hangs: "restore: did not answer in time",
        fine: None,
    }
    again = steps.refused(hangs)
    assert (again.code, again.outcome) == ("cuda_timeout", UNKNOWN)
    assert steps.world.order() == [("restore", fine)]
    # It has come back after all: the state decides.
    steps.world.set(f"pids/{hangs}/state", standin.LOCKED)
    assert steps.run(hangs, fine).actions == [f"unlock process {hangs}", f"unlock process {fine}"]
    assert not steps.marks.exists()


def test_a_checkpoint_that_hangs_is_not_rolled_back_blindly(steps: Steps, no_patience: None) -> None:
    hangs = steps.world.add_process(standin.RUNNING, hang_checkpoint=1)
    error = steps.fails(hangs, state="CHECKPOINTED")
    assert (error.code, error.outcome) == ("cuda_timeout", UNKNOWN)
    assert [what for what, _pid in steps.world.order()] == ["lock"]


def test_a_driver_that_does_not_tell_states_has_changed_nothing(steps: Steps, no_patience: None) -> None:
    pid = steps.world.add_process(standin.CHECKPOINTED, hang_thread=1)
    error = steps.refused(pid)
    assert (error.code, error.outcome) == ("cuda_timeout", RETRYABLE)


def test_a_process_that_ends_in_between(steps: Steps) -> None:
    ends = steps.world.add_process(standin.CHECKPOINTED, exit_restore=1)
    fine = steps.world.add_process(standin.CHECKPOINTED)
    error = steps.fails(ends, fine)
    assert (error.code, error.outcome) == ("cuda_process_gone", TERMINAL)
    assert names(error) == {ends: "GONE", fine: "LOCKED"}
    assert ("unlock", fine) not in steps.world.order()
    assert not steps.marks.exists(), "nothing to remember of a process that is gone"


def test_one_that_ends_while_it_runs_stops_nobody(steps: Steps) -> None:
    ends = steps.world.add_process(standin.RUNNING, exit_lock=1)
    fine = steps.world.add_process(standin.RUNNING)
    done = gpu_state.ensure(None, steps.params(ends, fine, state="CHECKPOINTED"), False)
    assert {entry["pid"]: entry["after"] for entry in done.processes} == {ends: "GONE", fine: "CHECKPOINTED"}


def test_one_that_ends_before_it_is_unlocked(steps: Steps) -> None:
    ends = steps.world.add_process(standin.CHECKPOINTED, exit_unlock=1)
    fine = steps.world.add_process(standin.CHECKPOINTED)
    error = steps.fails(ends, fine)
    assert error.code == "cuda_process_gone"
    assert names(error) == {ends: "GONE", fine: "RUNNING"}


def test_a_process_that_is_not_there_or_has_no_cuda(steps: Steps) -> None:
    plain, gone = steps.world.spawn(), steps.world.spawn()
    steps.world.kill(gone)
    assert steps.refused(plain).code == "not_a_cuda_process"
    error = steps.refused(gone)
    assert (type(error), error.code) == (InputError, "process_gone")


def test_a_live_process_that_the_driver_cannot_read(steps: Steps) -> None:
    pid = steps.world.add_process(standin.CHECKPOINTED, unreadable=1)
    error = steps.refused(pid)
    assert error.code == "cuda_process_unreadable"
    assert "CUDA_ERROR_OPERATING_SYSTEM (304)" in error.message


def test_a_process_that_another_program_is_at_work_on(steps: Steps) -> None:
    pid = steps.world.add_process(4)
    assert (steps.refused(pid).code, steps.refused(pid).outcome) == ("cuda_process_busy", RETRYABLE)


@pytest.mark.parametrize(("wanted", "before"), [("RUNNING", standin.CHECKPOINTED), ("CHECKPOINTED", standin.RUNNING)])
def test_a_driver_that_is_too_old_or_not_there(
    steps: Steps, wanted: str, before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = steps.world.add_process(before)
    steps.world.set("missing/cuCheckpointProcessLock")
    assert steps.refused(pid, state=wanted).code == "driver_too_old"
    monkeypatch.delenv("LD_LIBRARY_PATH")
    assert steps.refused(pid, state=wanted).code == "driver_library_missing"


# --- an error that is none


@pytest.mark.parametrize("call", ["restore", "unlock"])
def test_after_an_error_the_state_decides(steps: Steps, call: str) -> None:
    pid = steps.world.add_process(standin.CHECKPOINTED)
    steps.world.set(f"pids/{pid}/fail_{call}", "999 done")
    done = steps.run(pid)
    assert (done.changed, steps.world.state(pid)) == (True, standin.RUNNING)
    assert not steps.marks.exists()


def test_an_unlock_that_fails(steps: Steps) -> None:
    pid = steps.world.add_process(standin.LOCKED, fail_unlock=401)
    other = steps.world.add_process(standin.LOCKED)
    error = steps.fails(pid, other)
    assert (error.code, error.outcome) == ("cuda_unlock_failed", TERMINAL)
    assert names(error) == {pid: "LOCKED", other: "RUNNING"}


# --- the way back


def test_a_lock_that_cannot_be_had_unlocks_the_others(steps: Steps) -> None:
    fine, busy = steps.world.add_process(standin.RUNNING), steps.world.add_process(standin.RUNNING, busy=1)
    before = steps.world.add_process(standin.LOCKED)
    error = steps.fails(fine, busy, before, state="CHECKPOINTED", lock_timeout=0.1)
    assert (error.code, error.outcome) == ("cuda_lock_timeout", RETRYABLE)
    assert error.details["rolled_back"] is True
    assert "lock_timeout" in error.remedy
    assert names(error) == {fine: "RUNNING", busy: "RUNNING", before: "LOCKED"}
    assert ("checkpoint", fine) not in steps.world.order()
    assert ("unlock", before) not in steps.world.order(), "it was locked before us"


def test_processes_that_wait_for_each_other_are_locked_together(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_run, "ATTEMPT_SECONDS", 0.05)
    first, second = (steps.world.add_process(standin.RUNNING) for _n in range(2))
    steps.world.set(f"pids/{first}/collective", f"{second} 2")
    steps.world.set(f"pids/{second}/collective", f"{first} 2")
    done = steps.run(first, second, state="CHECKPOINTED", lock_timeout=30.0)
    assert 3 <= done.lock_attempts <= 5
    assert [steps.world.state(pid) for pid in (first, second)] == [standin.CHECKPOINTED] * 2
    calls = [what for what, _pid in steps.world.order()]
    assert calls.count("unlock") == done.lock_attempts - 1, "each attempt that failed was withdrawn"
    assert calls.count("lock") <= 2 * done.lock_attempts
    assert all("problem" not in entry for entry in done.processes)


def test_one_that_waits_for_the_others_is_locked_before_them(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen on two cards: a rank that is nearly always within a collective, since the other one also writes and waits.

    It comes to rest whenever the other arrives, and never while that one is locked.
    """
    monkeypatch.setattr(gpu_run, "ATTEMPT_SECONDS", 0.05)
    writer, waiting = (steps.world.add_process(standin.RUNNING) for _n in range(2))
    steps.world.set(f"pids/{waiting}/collective", f"{writer} 1000000")
    steps.world.set(f"pids/{waiting}/delay_lock", "20")
    done = steps.run(writer, waiting, state="CHECKPOINTED", lock_timeout=30.0)
    assert done.lock_attempts == 2
    locks = [pid for what, pid in steps.world.order() if what == "lock"]
    assert locks[2:] == [waiting, writer]


def test_a_partner_that_never_rests_has_both_go_on(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_run, "ATTEMPT_SECONDS", 0.02)
    first, second = steps.world.add_process(standin.RUNNING), steps.world.add_process(standin.RUNNING, busy=1)
    error = steps.fails(first, second, state="CHECKPOINTED", lock_timeout=0.3)
    assert (error.code, error.outcome) == ("cuda_lock_timeout", RETRYABLE)
    assert re.search(r"[2-9] attempts were made", error.message)
    assert [steps.world.state(pid) for pid in (first, second)] == [standin.RUNNING] * 2


def test_one_process_is_given_the_whole_time(steps: Steps) -> None:
    pid = steps.world.add_process(standin.RUNNING, busy=1)
    error = steps.fails(pid, state="CHECKPOINTED", lock_timeout=0.1)
    assert "attempts" not in error.message
    assert [what for what, _pid in steps.world.order()] == ["lock"]


def test_a_checkpoint_that_fails_brings_all_back(steps: Steps) -> None:
    fine, fails = (
        steps.world.add_process(standin.RUNNING),
        steps.world.add_process(standin.RUNNING, fail_checkpoint=801),
    )
    locked, away = steps.world.add_process(standin.LOCKED), steps.world.add_process(standin.CHECKPOINTED)
    error = steps.fails(fine, fails, locked, away, state="CHECKPOINTED")
    assert (error.code, error.outcome) == ("cuda_checkpoint_failed", TERMINAL)
    assert "CUDA_ERROR_NOT_SUPPORTED (801)" in error.message
    assert error.details["rolled_back"] is True
    expected = {fine: "RUNNING", fails: "RUNNING", locked: "LOCKED", away: "CHECKPOINTED"}
    assert names(error) == expected
    assert {pid: NAMES[steps.world.state(pid)] for pid in expected} == expected
    order = steps.world.order()
    assert order.index(("restore", fine)) < order.index(("unlock", fine))
    assert not steps.marks.exists()


def test_a_way_back_that_fails_is_said(steps: Steps) -> None:
    stuck = steps.world.add_process(standin.RUNNING, fail_restore=2)
    fails = steps.world.add_process(standin.RUNNING, fail_checkpoint=1)
    error = steps.fails(stuck, fails, state="CHECKPOINTED")
    assert error.code == "cuda_checkpoint_failed"
    assert error.details["rolled_back"] is False
    assert f"{stuck} (CHECKPOINTED)" in error.message
    assert f"{stuck} (CHECKPOINTED)" in error.details["left_behind"]
    assert NAMES[steps.world.state(fails)] == "RUNNING"
    assert steps.refused(stuck).code == "cuda_restore_failed"


def test_a_way_back_that_hangs_is_unknown(steps: Steps, no_patience: None) -> None:
    stuck = steps.world.add_process(standin.RUNNING, hang_unlock=1)
    fails = steps.world.add_process(standin.RUNNING, fail_lock=1)
    error = steps.fails(stuck, fails, state="LOCKED")
    assert (error.code, error.outcome, error.details["rolled_back"]) == ("cuda_lock_failed", UNKNOWN, False)


def test_a_process_that_is_killed_while_it_is_checkpointed_brings_the_others_back(steps: Steps) -> None:
    killed = steps.world.add_process(standin.RUNNING, exit_checkpoint=1)
    fine = steps.world.add_process(standin.RUNNING)
    error = steps.fails(killed, fine, state="CHECKPOINTED")
    assert (error.code, error.details["rolled_back"]) == ("cuda_process_gone", True)
    assert names(error) == {killed: "GONE", fine: "RUNNING"}


def test_we_are_killed_in_the_middle_and_the_next_run_goes_on(steps: Steps) -> None:
    # The helper is killed between restore and unlock, as it may be with the whole module.
    pid = steps.world.add_process(standin.CHECKPOINTED, delay_unlock=30_000)

    def kill() -> None:
        steps.world.wait_for("unlock", pid)
        os.kill(steps.world.calls()[0].caller, 9)

    thread = threading.Thread(target=kill)
    thread.start()
    error = steps.fails(pid)
    thread.join()
    assert (error.code, error.outcome) == ("cuda_helper_died", UNKNOWN)
    steps.world.unset(f"pids/{pid}/delay_unlock")
    assert steps.run(pid).actions == [f"unlock process {pid}"]


# --- without NVML, frozen


def test_it_works_without_nvml(steps: Steps) -> None:
    steps.world.set("nvml_error", 9)
    pid = steps.world.add_process(standin.CHECKPOINTED, {GPU: GIB})
    done = steps.run(pid)
    assert (done.processes[0]["bytes"], done.processes[0]["gpus"]) == (None, [])


def test_a_frozen_process_is_refused_and_the_driver_not_even_asked(steps: Steps, tmp_path: Path) -> None:
    pid = steps.world.add_process(standin.CHECKPOINTED)
    node = FakeNode(tmp_path)
    node.hold([pid])
    node.freeze(True)
    error = steps.refused(pid, **node.options)
    assert (type(error), error.code) == (ConflictError, "task_paused")
    # By hand a parked one would go on without its memory.
    assert "containerd_park with state: resumed" in error.remedy
    assert steps.world.calls() == []
    node.freeze(False)
    assert steps.run(pid, **node.options).changed


def test_a_mark_of_another_process_with_the_same_number_means_nothing(steps: Steps) -> None:
    pid = steps.world.add_process(standin.CHECKPOINTED)
    earlier = dataclasses.replace(process(pid), start_time=1)
    gpu_marks.write(str(steps.marks), [earlier], "CUDA_ERROR_OUT_OF_MEMORY (2)")
    assert steps.run(pid).changed
    assert not steps.marks.exists()


@pytest.mark.parametrize(("user", "expected"), [(0, "/run/gpuops-restore/cuda"), (7, "/mine/gpuops-restore/cuda")])
def test_where_marks_are(user: int, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/mine")
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert StateParams().access.marks_root == expected


def test_a_process_that_has_come_back_by_another_hand_is_no_longer_poisoned(steps: Steps) -> None:
    pid = steps.world.add_process(standin.RUNNING)
    gpu_marks.write(str(steps.marks), [process(pid)], gpu_marks.BEGUN)
    assert not steps.run(pid).changed
    assert not steps.marks.exists()


def test_the_deadline_is_for_all_calls_together(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = steps.world.add_process(standin.CHECKPOINTED)
    deadlines: dict[str, float] = {}
    call = Driver.call

    def noted(
        driver: Driver, operation: str, processes: Sequence[Process], deadline: float, *more: Any
    ) -> gpu_driver.Round:
        deadlines[operation] = deadline
        return call(driver, operation, processes, deadline, *more)

    monkeypatch.setattr(Driver, "call", noted)
    gpu_state.ensure(None, steps.params(pid), False)
    assert sorted(deadlines) == ["ask", "restore", "unlock"]
    assert len(set(deadlines.values())) == 1
