# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps, on the STAND-IN library under the real cuda-bindings: what is called, in which order, and what not."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils import _cuda_marks, _cuda_step
from ansible_collections.gpuops.restore.plugins.module_utils._cuda_step import Outcome, Wish
from ansible_collections.gpuops.restore.plugins.module_utils._errors import (
    RETRYABLE,
    TERMINAL,
    UNKNOWN,
    ConflictError,
    InputError,
    NodeError,
    RestoreError,
)
from ansible_collections.gpuops.restore.tests.standin import standin
from ansible_collections.gpuops.restore.tests.unit.plugins.module_utils.cuda_node import FakeNode
from ansible_collections.gpuops.restore.tests.unit.plugins.module_utils.cuda_samples import process

pytest_plugins = ["ansible_collections.gpuops.restore.tests.unit.plugins.module_utils.cuda_fixtures"]

GIB = standin.GIB
GPU = standin.uuid(0)
NAMES = ("RUNNING", "LOCKED", "CHECKPOINTED", "FAILED")


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    return tmp_path / "run" / "cuda"


class Steps:
    """Runs steps; every run is predicted by check mode first."""

    def __init__(self, world: standin.World, marks: Path) -> None:
        self.world = world
        self.marks = marks

    def wish(self, *pids: int, **changes: Any) -> Wish:
        plain = Wish(pids=pids, marks_root=str(self.marks), driver_container="/nonexistent", cuda_timeout=30.0)
        return dataclasses.replace(plain, **changes)

    def states(self) -> dict[str, int]:
        return {path.name: self.world.state(int(path.name)) for path in (self.world.root / "pids").iterdir()}

    def run(self, *pids: int, **changes: Any) -> Outcome:
        wish = self.wish(*pids, **changes)
        before, log = self.states(), len(self.world.order())
        predicted = _cuda_step.reach(None, wish, True)
        assert (self.states(), len(self.world.order())) == (before, log), "check mode has made a call"
        done = _cuda_step.reach(None, wish, False)
        assert (predicted.changed, predicted.actions) == (done.changed, done.actions)
        assert [entry["after"] for entry in predicted.processes] == [entry["after"] for entry in done.processes]
        assert done.changed == (self.states() != before)
        return done

    def refused(self, *pids: int, **changes: Any) -> RestoreError:
        """An error before the first call, which check mode predicts."""
        before, log, found = self.states(), len(self.world.order()), []
        for check in (True, False):
            with pytest.raises(RestoreError) as caught:
                _cuda_step.reach(None, self.wish(*pids, **changes), check)
            found.append(caught.value)
        assert (found[0].code, found[0].message) == (found[1].code, found[1].message)
        assert (self.states(), len(self.world.order())) == (before, log)
        return found[1]

    def fails(self, *pids: int, **changes: Any) -> RestoreError:
        """An error in the middle."""
        with pytest.raises(RestoreError) as caught:
            _cuda_step.reach(None, self.wish(*pids, **changes), False)
        return caught.value


@pytest.fixture
def steps(world: standin.World, marks: Path) -> Steps:
    return Steps(world, marks)


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
    pids = [steps.world.add_process(standin.CHECKPOINTED, {GPU: GIB}, delay_restore=400) for _n in range(3)]
    done = steps.run(*pids)
    order = steps.world.order()
    assert {what for what, _pid in order[:3]} == {"restore"}
    assert {what for what, _pid in order[3:]} == {"unlock"}
    assert done.actions == [f"{what} process {pid}" for what in ("restore", "unlock") for pid in pids]
    assert done.seconds["restore"] < 0.9, "one after another would take 1.2 s"
    assert sum(entry["seconds"]["restore"] for entry in done.processes) > 1.2
    assert [entry["bytes"] for entry in done.processes] == [GIB] * 3
    assert [entry["gpus"] for entry in done.processes] == [
        [{"uuid": GPU, "index": 0, "name": "Stand-in H1", "memory": GIB}]
    ] * 3


def test_all_are_locked_and_only_then_all_checkpointed(steps: Steps) -> None:
    pids = [steps.world.add_process(standin.RUNNING, {GPU: GIB}, delay_checkpoint=400) for _n in range(3)]
    done = steps.run(*pids, state="CHECKPOINTED")
    order = steps.world.order()
    assert {what for what, _pid in order[:3]} == {"lock"}
    assert {what for what, _pid in order[3:]} == {"checkpoint"}
    assert done.seconds["checkpoint"] < 0.9
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


def test_a_call_that_hangs_is_unknown_and_not_replayed(steps: Steps) -> None:
    hangs = steps.world.add_process(standin.CHECKPOINTED, hang_restore=1)
    fine = steps.world.add_process(standin.CHECKPOINTED)
    error = steps.fails(hangs, fine, cuda_timeout=2.0)
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


def test_a_checkpoint_that_hangs_is_not_rolled_back_blindly(steps: Steps) -> None:
    hangs = steps.world.add_process(standin.RUNNING, hang_checkpoint=1)
    error = steps.fails(hangs, state="CHECKPOINTED", cuda_timeout=2.0)
    assert (error.code, error.outcome) == ("cuda_timeout", UNKNOWN)
    assert [what for what, _pid in steps.world.order()] == ["lock"]


def test_a_driver_that_does_not_tell_states_has_changed_nothing(steps: Steps) -> None:
    pid = steps.world.add_process(standin.CHECKPOINTED, hang_thread=1)
    error = steps.refused(pid, cuda_timeout=1.5)
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
    done = _cuda_step.reach(None, steps.wish(ends, fine, state="CHECKPOINTED"), False)
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
    pid = steps.world.add_process(standin.CHECKPOINTED, **{f"fail_{call}": "999 done"})
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


def test_a_way_back_that_hangs_is_unknown(steps: Steps) -> None:
    stuck = steps.world.add_process(standin.RUNNING, hang_unlock=1)
    fails = steps.world.add_process(standin.RUNNING, fail_lock=1)
    error = steps.fails(stuck, fails, state="LOCKED", cuda_timeout=2.0)
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


# --- memory


def test_host_memory_for_all_of_them_is_checked_first(steps: Steps, tmp_path: Path) -> None:
    pids = [steps.world.add_process(standin.RUNNING, {GPU: 4 * GIB}) for _n in range(2)]
    node = FakeNode(tmp_path)
    node.hold(pids)
    node.write_available(7 * GIB)
    error = steps.refused(*pids, state="CHECKPOINTED", **node.options)
    assert (type(error), error.code, error.outcome) == (NodeError, "host_memory_short", RETRYABLE)
    assert "8.0 GiB" in error.message
    assert steps.run(pids[0], state="CHECKPOINTED", **node.options).changed


def test_the_containers_memory_limit_is_checked_first(steps: Steps, tmp_path: Path) -> None:
    pids = [steps.world.add_process(standin.RUNNING, {GPU: 4 * GIB}) for _n in range(2)]
    node = FakeNode(tmp_path)
    node.hold(pids)
    node.limit(8 * GIB, GIB)
    error = steps.refused(*pids, state="CHECKPOINTED", **node.options)
    assert (error.code, error.details["available"]) == ("container_memory_short", 7 * GIB)
    node.limit(8 * GIB, GIB, GIB)
    assert steps.run(*pids, state="CHECKPOINTED", **node.options).changed, "file pages make room"


def test_memory_that_is_not_told_is_warned_of(steps: Steps) -> None:
    steps.world.set("gpus/0/no_process_memory")
    pid = steps.world.add_process(standin.RUNNING, {GPU: 4 * GIB})
    (warning,) = steps.run(pid, state="CHECKPOINTED").warnings
    assert str(pid) in warning


def test_a_divided_gpu_is_warned_of(steps: Steps) -> None:
    steps.world.set("gpus/0/mig", 1)
    pid = steps.world.add_process(standin.RUNNING, {GPU: GIB})
    assert any("MIG" in warning for warning in steps.run(pid, state="CHECKPOINTED").warnings)


def test_too_little_vram_is_refused_before_the_process_is_poisoned(steps: Steps) -> None:
    steps.world.set("gpus/0/other_used", 79 * GIB)
    pid = steps.world.add_process(standin.CHECKPOINTED, {GPU: 4 * GIB})
    error = steps.refused(pid, vram={GPU: 4 * GIB})
    assert (error.code, error.outcome) == ("vram_short", RETRYABLE)
    assert (error.details["free"], error.details["needed"]) == (GIB, 4 * GIB)
    steps.world.set("gpus/0/other_used", 0)
    assert steps.run(pid, vram={GPU: 4 * GIB}).changed


# --- other GPUs


def test_memory_goes_to_another_gpu(steps: Steps) -> None:
    new = steps.world.add_gpu(1)
    pid = steps.world.add_process(standin.CHECKPOINTED, {GPU: GIB})
    done = steps.run(pid, gpu_map={GPU: new}, vram={GPU: GIB})
    assert [entry["uuid"] for entry in done.processes[0]["gpus"]] == [new]


def test_the_identity_passes_no_map_even_on_a_driver_that_takes_none(steps: Steps) -> None:
    steps.world.set("driver_version", 12080)
    pid = steps.world.add_process(standin.CHECKPOINTED, {GPU: GIB})
    steps.run(pid, gpu_map={GPU: GPU})
    assert [call.detail for call in steps.world.calls() if call.what == "restore-arguments"] == ["pairs=0"]


def test_a_map_that_keeps_a_gpu_is_passed_whole(steps: Steps) -> None:
    second, third = steps.world.add_gpu(1), steps.world.add_gpu(2)
    pid = steps.world.add_process(standin.CHECKPOINTED, {GPU: GIB, second: GIB})
    steps.run(pid, gpu_map={GPU: GPU, second: third})
    pairs = [call.detail for call in steps.world.calls() if call.what == "restore-pair"]
    assert pairs == [f"{GPU}={GPU}", f"{second}={third}"]


def test_maps_that_cannot_be(steps: Steps) -> None:
    other, chip = steps.world.add_gpu(1), steps.world.add_gpu(2, name="Stand-in L4")
    pid = steps.world.add_process(standin.CHECKPOINTED, {GPU: GIB})
    elsewhere = standin.uuid(9)
    assert steps.refused(pid, gpu_map={"0": other}).code == "gpu_map_invalid"
    assert steps.refused(pid, gpu_map={GPU: other, other: other}).code == "gpu_map_invalid"
    assert steps.refused(pid, gpu_map={elsewhere: other}, vram={GPU: GIB}).code == "gpu_map_incomplete"
    assert steps.refused(pid, gpu_map={GPU: elsewhere}).code == "gpu_absent"
    assert steps.refused(pid, gpu_map={GPU: chip}).code == "gpu_other_chip"
    steps.world.set("driver_version", 12080)
    assert steps.refused(pid, gpu_map={GPU: other}).code == "driver_too_old"
    steps.world.set("nvml_error", 9)
    steps.world.set("driver_version", 13000)
    assert steps.refused(pid, gpu_map={GPU: other}).code == "gpu_map_unchecked"


def test_a_map_is_not_looked_at_where_nothing_is_restored(steps: Steps) -> None:
    pid = steps.world.add_process(standin.RUNNING)
    assert not steps.run(pid, gpu_map={GPU: standin.uuid(9)}).changed


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
    assert steps.world.calls() == []
    node.freeze(False)
    assert steps.run(pid, **node.options).changed


def test_a_mark_of_another_process_with_the_same_number_means_nothing(steps: Steps) -> None:
    pid = steps.world.add_process(standin.CHECKPOINTED)
    earlier = dataclasses.replace(process(pid), start_time=1)
    _cuda_marks.write(str(steps.marks), [earlier], "CUDA_ERROR_OUT_OF_MEMORY (2)")
    assert steps.run(pid).changed
    assert not steps.marks.exists()


@pytest.mark.parametrize(("user", "expected"), [(0, "/run/gpuops-restore/cuda"), (7, "/mine/gpuops-restore/cuda")])
def test_where_marks_are(user: int, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/mine")
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert Wish().marks_root == expected


def test_a_process_that_has_come_back_by_another_hand_is_no_longer_poisoned(steps: Steps) -> None:
    pid = steps.world.add_process(standin.RUNNING)
    _cuda_marks.write(str(steps.marks), [process(pid)], _cuda_marks.BEGUN)
    assert not steps.run(pid).changed
    assert not steps.marks.exists()


def test_the_deadline_is_for_all_calls_together(steps: Steps) -> None:
    pid = steps.world.add_process(standin.CHECKPOINTED, delay_restore=1000, delay_unlock=30_000)
    begun = time.monotonic()
    error = steps.fails(pid, cuda_timeout=2.5)
    assert time.monotonic() - begun < 8
    assert (error.code, error.details["operation"]) == ("cuda_timeout", "unlock")
