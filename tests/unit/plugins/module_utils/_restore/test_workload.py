# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The restore of one workload with GPU memory, on the STAND-INS for containerd and for the driver's libraries."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._container import (
    container as container_steps,
    task_end,
)
from ansible_collections.gpuops.restore.plugins.module_utils._core import state_dir
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import (
    RETRYABLE,
    TERMINAL,
    UNKNOWN,
    RestoreError,
)
from ansible_collections.gpuops.restore.plugins.module_utils._gpu import devices, driver_library
from ansible_collections.gpuops.restore.plugins.module_utils._probe.probe import ProbeResult
from ansible_collections.gpuops.restore.plugins.module_utils._restore import (
    batch as restore_batch,
    records as restore_records,
    workload as restore_workload,
)
from ansible_collections.gpuops.restore.plugins.module_utils._restore.result import Result, WorkloadFailure
from ansible_collections.gpuops.restore.tests.standin import standin
from ansible_collections.gpuops.restore.tests.unit.helpers.gpu_node import Cuda, GpuNode

pytest_plugins = ["ansible_collections.gpuops.restore.tests.unit.helpers.cuda_fixtures"]

GIB = standin.GIB
GPU = standin.uuid(0)
HELD = {GPU: GIB}
PLAIN = Cuda(None)


def failure(result: Result) -> WorkloadFailure:
    assert result.failure is not None
    return result.failure


def evidence(result: Result) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Path(failure(result).evidence, "failure.json").read_text(encoding="utf-8"))
    return document


def restored(gpus: GpuNode, name: str = "train") -> None:
    """It runs, as a second run sees it, too."""
    again = gpus.one(gpus.job(name))
    assert (again.failure, again.changed, again.shown()["actions"]) == (None, False, [])
    assert set(gpus.states(name)) <= {standin.RUNNING, -1}


# --- it works


def test_memory_comes_back_and_the_receipt_tells(gpus: GpuNode) -> None:
    gpus.add("train", [Cuda(memory=HELD)], held=[HELD])
    result = gpus.one(gpus.job("train", gpu="required"))
    (pid,) = gpus.started["train"][-1]
    assert (result.failure, result.changed) == (None, True)
    assert gpus.world.order() == [("restore", pid), ("unlock", pid)]
    assert {"container", "task", "gpu", "window", "alive", "receipt"} <= set(result.seconds)
    receipt = json.loads(Path(restore_records.receipt_path(gpus.root, "tests", "train")).read_text(encoding="utf-8"))
    assert receipt == result.receipt
    assert (receipt["outcome"], receipt["pid"]) == ("restored", pid)
    assert receipt["gpu"]["bytes"] == GIB
    assert receipt["gpu"]["gpus"] == [
        {"uuid": GPU, "index": 0, "name": "Stand-in H1", "memory": GIB, "used_before": 0, "used_after": GIB}
    ]
    assert receipt["gpu"]["processes"][0]["before"] == "CHECKPOINTED"
    assert receipt["seconds"]["gpu"] == result.seconds["gpu"]
    assert not gpus.marks.exists()
    restored(gpus)
    assert gpus.one(gpus.job("train")).receipt == receipt, "a run that changes nothing leaves it"


def test_the_proof_is_in_the_result_and_in_the_receipt(gpus: GpuNode, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus.add("train", [PLAIN])
    proof = ProbeResult("file", True, "The file /log went from 1 to 2 bytes.", 0.2)
    monkeypatch.setattr(restore_workload.probes, "probe", lambda *_arguments: proof)
    result = gpus.one(gpus.job("train", probe={"file": {"path": "/log"}}))
    told = {"kind": "file", "ok": True, "detail": "The file /log went from 1 to 2 bytes.", "seconds": 0.2}
    assert (result.failure, result.shown()["probe"], result.receipt["probe"]) == (None, told, told)
    receipt = json.loads(Path(restore_records.receipt_path(gpus.root, "tests", "train")).read_text(encoding="utf-8"))
    assert (receipt["probe"], receipt["seconds"]["probe"]) == (told, result.seconds["probe"])


def test_a_workload_is_told_once_that_it_runs_again(gpus: GpuNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its proof; and by the next run where this one was broken off, or it could not be told."""
    gpus.add("train", [Cuda(memory=HELD)], held=[HELD])
    told: list[int] = []
    fails = [True]

    def run(_client: Any, hook: Any) -> ProbeResult:
        told.append(len(gpus.world.order()))
        if fails:
            raise RestoreError("hook_failed", f"{hook.name} failed.", "Mend it.")
        return ProbeResult("command", True, "It ended.", 0.1)

    monkeypatch.setattr(restore_workload.probe_hook, "run", run)
    wanted = {"after_restore": {"command": ["/bin/wake"]}}
    failed = gpus.one(gpus.job("train", **wanted))
    assert (failure(failed).step, failure(failed).code) == ("after_restore", "hook_failed")
    assert gpus.fake.state.tasks == {} and told == [2], "the process had its GPU memory"
    fails.clear()
    done = gpus.one(gpus.job("train", **wanted))
    assert (done.failure, len(told)) == (None, 2)
    shown = done.shown()
    assert shown["actions"][-1] == "run after_restore of train (/bin/wake)"
    assert shown["after_restore"] == done.receipt["after_restore"] and shown["after_restore"]["ok"]
    again = gpus.one(gpus.job("train", **wanted))
    assert (again.changed, again.after_restore, len(told)) == (False, None, 2)
    # A run that was broken off has left this.
    note = Path(state_dir.work_dir(gpus.root, "tests", "train"), "after_restore")
    note.touch()
    late = gpus.one(gpus.job("train", **wanted))
    assert late.changed and late.after_restore is not None and late.after_restore.ok
    assert len(told) == 3 and not note.exists()


def test_several_processes_of_one_task_and_one_without_cuda(gpus: GpuNode) -> None:
    gpus.add("train", [PLAIN, *[Cuda(memory=HELD) for _n in range(3)]], held=[HELD] * 3)
    result = gpus.one(gpus.job("train"))
    first, *others = gpus.started["train"][-1]
    assert result.failure is None
    order = gpus.world.order()
    assert {what for what, _pid in order[:3]} == {"restore"} and {what for what, _pid in order[3:]} == {"unlock"}
    assert sorted(pid for _what, pid in order[:3]) == sorted(others)
    assert result.receipt["pid"] == first
    assert result.receipt["gpu"]["bytes"] == 3 * GIB


def test_a_plugin_of_criu_has_restored_it_already(gpus: GpuNode) -> None:
    gpus.add("train", [Cuda(standin.RUNNING, HELD)], held=[HELD])
    result = gpus.one(gpus.job("train", gpu="required"))
    assert (result.failure, gpus.world.order()) == (None, [])
    assert result.gpu.changed is False
    assert result.receipt["gpu"]["bytes"] == GIB
    assert result.receipt["gpu"]["gpus"][0]["name"] == "Stand-in H1"


def test_one_that_comes_back_locked_is_unlocked(gpus: GpuNode) -> None:
    gpus.add("train", [Cuda(standin.LOCKED, HELD)])
    assert gpus.one(gpus.job("train")).failure is None
    assert [what for what, _pid in gpus.world.order()] == ["unlock"]


def test_a_run_that_was_killed_before_the_gpu_is_finished_by_the_next(gpus: GpuNode) -> None:
    gpus.add("train", [Cuda(memory=HELD)], held=[HELD])
    container_steps.present(gpus.client, gpus.job("train").container, False)
    gpus.put_task("train")
    result = gpus.one(gpus.job("train"))
    assert (result.failure, result.changed, result.task.created) == (None, True, False)
    assert len(gpus.started["train"]) == 1
    assert result.receipt["gpu"]["bytes"] == GIB


def test_memory_goes_to_another_gpu(gpus: GpuNode) -> None:
    other = gpus.world.add_gpu(1)
    gpus.add("train", [Cuda(memory=HELD)], held=[HELD])
    result = gpus.one(gpus.job("train", gpu_map={GPU: other}))
    assert result.failure is None
    assert [card["uuid"] for card in result.receipt["gpu"]["gpus"]] == [other]


def test_a_map_that_lacks_a_gpu_which_was_only_seen_is_refused_before_the_driver_is_called(gpus: GpuNode) -> None:
    other = gpus.world.add_gpu(1)
    gpus.add("train", [Cuda(memory=HELD)], held=[HELD], visible=[GPU, other])
    result = gpus.one(gpus.job("train", gpu_map={GPU: other}))
    assert result.failure is not None
    assert (result.failure.code, gpus.world.order()) == ("gpu_map_incomplete", [])


def test_a_container_without_cuda_needs_none(gpus: GpuNode, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus.add("train", [PLAIN])
    result = gpus.one(gpus.job("train"))
    assert (result.failure, result.receipt["gpu"], result.warnings) == (None, None, [])
    # Nor a driver.
    monkeypatch.delenv("LD_LIBRARY_PATH")
    gpus.add("plain", [PLAIN])
    found = gpus.one(gpus.job("plain"))
    assert found.failure is None
    assert "GPU memory was not looked for" in found.warnings[0]
    monkeypatch.setattr(devices, "has_driver", lambda _device: False)
    gpus.add("simple", [PLAIN])
    assert gpus.one(gpus.job("simple")).warnings == []


def test_gpu_none_never_asks_the_driver(gpus: GpuNode) -> None:
    gpus.add("train", [Cuda(memory=HELD)], held=[HELD])
    result = gpus.one(gpus.job("train", gpu="none"))
    assert (result.failure, result.receipt["gpu"]) == (None, None)
    assert gpus.world.calls() == []
    assert gpus.states("train") == [standin.CHECKPOINTED]


def test_without_nvml_the_memory_is_restored_and_that_it_was_not_seen_is_said(gpus: GpuNode) -> None:
    gpus.add("train", [Cuda(memory=HELD)], held=[HELD])
    gpus.world.set("nvml_error", 9)
    result = gpus.one(gpus.job("train"))
    assert result.failure is None
    assert any("was not seen" in warning for warning in result.warnings)


# --- it does not


def taken_back(gpus: GpuNode, before: Any, result: Result) -> None:
    """Nothing of the attempt is left, and the evidence says the same as the result."""
    assert gpus.everything() == before
    assert gpus.alive() == []
    assert not os.path.exists(restore_records.receipt_path(gpus.root, "tests", result.job.name))
    document = evidence(result)
    assert document["failure"] == failure(result).result()
    assert document["workload"]["name"] == result.job.name
    assert "criu.conf" in os.listdir(failure(result).evidence)
    assert result.changed is False


@pytest.mark.parametrize(
    ("start", "code"),
    [
        ([Cuda(standin.FAILED)], "cuda_process_failed"),
        ([Cuda(more={"fail_restore": 999})], "cuda_restore_failed"),
        ([Cuda(more={"poisoned": 1})], "cuda_restore_failed"),
        ([Cuda(more={"fail_unlock": 401})], "cuda_unlock_failed"),
        ([Cuda(more={"unreadable": 1})], "cuda_process_unreadable"),
        ([Cuda(4)], "cuda_process_busy"),
        ([Cuda(), Cuda(more={"exit_restore": 1})], "cuda_process_gone"),
        ([Cuda(more={"exit_restore": 1})], "process_died"),
        ([PLAIN], "no_cuda_process"),
    ],
)
def test_what_cannot_be_brought_back_is_taken_back(gpus: GpuNode, start: list[Cuda], code: str) -> None:
    gpus.add("train", start)
    before = gpus.everything()
    result = gpus.one(gpus.job("train", gpu="required"))
    assert (failure(result).code, failure(result).outcome) == (code, TERMINAL)
    assert failure(result).step == "gpu"
    taken_back(gpus, before, result)


def test_a_capture_that_recorded_processes_insists_on_them(gpus: GpuNode) -> None:
    gpus.add("train", [PLAIN], held=[HELD])
    before = gpus.everything()
    result = gpus.one(gpus.job("train"))
    assert failure(result).code == "no_cuda_process"
    assert "its capture recorded some" in failure(result).msg
    taken_back(gpus, before, result)


@pytest.mark.parametrize(
    ("arrange", "code"),
    [
        ("missing/cuCheckpointProcessLock", "driver_too_old"),
        ("", "driver_library_missing"),
        ("bindings", "dependency_missing"),
        ("init_error", "cuda_init_failed"),
    ],
)
def test_a_driver_that_is_too_old_or_not_there(
    gpus: GpuNode, arrange: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus.add("train", [Cuda(memory=HELD)])
    if arrange == "bindings":
        monkeypatch.setattr(driver_library, "has_cuda", lambda: False)
    elif arrange:
        gpus.world.set(arrange, 999)
    else:
        monkeypatch.delenv("LD_LIBRARY_PATH")
    before = gpus.everything()
    job = gpus.job("train", gpu="required")
    for check in (True, False):
        (result,) = restore_batch.restore_all(gpus.client.another, [job], 0, check)
        assert failure(result).code == code, "check mode predicts it"
        assert gpus.everything() == before
    assert failure(result).outcome == TERMINAL
    assert gpus.alive() == []
    verdict, _predicted = restore_batch.check_all(gpus.client.another, [job])
    (checked,) = verdict.refused["train"]
    assert checked.code == code


def test_a_call_that_hangs_is_unknown_and_not_replayed(gpus: GpuNode, no_patience: None) -> None:
    gpus.add("train", [Cuda(memory=HELD, more={"hang_restore": 1})], held=[HELD])
    result = gpus.one(gpus.job("train", {"gpu_retries": 3}))
    assert (failure(result).code, failure(result).outcome) == ("cuda_timeout", UNKNOWN)
    assert len(gpus.started["train"]) == 1, "not begun anew either"
    assert [call.what for call in gpus.world.calls() if call.detail == "begin"] == ["restore"]
    assert evidence(result)["failure"]["outcome"] == UNKNOWN


def test_a_driver_that_says_restored_where_nvml_sees_nothing(gpus: GpuNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_workload.gpu, "_SEEN_SECONDS", 0.5)
    gpus.add("train", [Cuda()])
    before = gpus.everything()
    result = gpus.one(gpus.job("train"))
    assert (failure(result).code, failure(result).outcome) == ("vram_not_back", UNKNOWN)
    taken_back(gpus, before, result)


# --- too little VRAM once it is in the window


def vanishing(gpus: GpuNode, until_start: int = 1000) -> None:
    """VRAM that is free before the start is taken when the task starts, at the first ``until_start`` starts."""

    def take(_context: Any) -> None:
        taken = len(gpus.started.get("train", [])) < until_start
        gpus.world.set("gpus/0/other_used", 80 * GIB - 1 if taken else 0)

    gpus.fake.on("Tasks/Start", take)
    gpus.fake.on("Tasks/Delete", lambda _context: gpus.world.set("gpus/0/other_used", 0))


def test_memory_that_vanishes_is_terminal_and_wholly_taken_back(gpus: GpuNode, tmp_path: Path) -> None:
    gpus.add("train", [Cuda(memory=HELD), Cuda(standin.RUNNING, {GPU: 0})], held=[HELD])
    before = gpus.everything()
    vanishing(gpus)
    log = tmp_path / "out.log"
    gpus.fake.on("Tasks/Start", lambda _context: log.write_text("a word\n", encoding="utf-8"))
    result = gpus.one(gpus.job("train", stdout=str(log), env={"TOKEN": "hunter2"}))
    found = failure(result)
    assert (found.code, found.outcome) == ("cuda_restore_failed", TERMINAL)
    assert "CUDA_ERROR_OUT_OF_MEMORY (2)" in found.msg and "Free GPU memory" in found.msg
    assert not log.exists()
    taken_back(gpus, before, result)
    document = evidence(result)
    assert document["spec"]["process"]["env"] == ["TOKEN=***"]
    assert document["workload"]["env"] == ["TOKEN"]
    assert Path(found.evidence, "out.log").read_text(encoding="utf-8") == "a word\n"
    assert "hunter2" not in json.dumps(document)
    # What ran is off the card before it is killed.
    _poisoned, running = gpus.started["train"][-1]
    assert [what for what, pid in gpus.world.order() if pid == running] == ["lock", "checkpoint"]
    # The checkpoint is unharmed.
    gpus.fake.heal()
    gpus.watch()
    assert gpus.one(gpus.job("train")).failure is None


def test_it_is_restored_anew_when_there_is_room_again(gpus: GpuNode) -> None:
    gpus.add("train", [Cuda(memory=HELD)], held=[HELD])
    vanishing(gpus, until_start=1)
    result = gpus.one(gpus.job("train", {"gpu_retries": 1}))
    assert (result.failure, result.changed) == (None, True)
    first, second = (pids[0] for pids in gpus.started["train"])
    assert gpus.alive() == [second]
    assert [pid for what, pid in gpus.world.order() if what == "restore"] == [first, second], "never one twice"
    assert any("was begun anew" in warning and "OUT_OF_MEMORY" in warning for warning in result.warnings)
    assert len(os.listdir(os.path.join(gpus.root, "debug"))) == 1, "the evidence of the first attempt stays"


@pytest.mark.parametrize("retries", [0, 2])
def test_it_is_begun_anew_as_often_as_it_may_be_and_not_more(gpus: GpuNode, retries: int) -> None:
    gpus.add("train", [Cuda(memory=HELD)], held=[HELD])
    before = gpus.everything()
    vanishing(gpus)
    result = gpus.one(gpus.job("train", {"gpu_retries": retries}))
    assert failure(result).code == "cuda_restore_failed"
    assert len(gpus.started["train"]) == 1 + retries
    assert len(os.listdir(os.path.join(gpus.root, "debug"))) == 1 + retries
    taken_back(gpus, before, result)


def test_it_is_not_begun_anew_while_there_is_no_room(gpus: GpuNode) -> None:
    gpus.add("train", [Cuda(memory=HELD)], held=[HELD])
    gpus.fake.on("Tasks/Start", lambda _context: gpus.world.set("gpus/0/other_used", 80 * GIB - 1))
    result = gpus.one(gpus.job("train", {"gpu_retries": 5}))
    assert failure(result).outcome == TERMINAL
    assert len(gpus.started["train"]) == 1


def test_a_container_that_was_there_before_is_made_anew_for_the_second_attempt(gpus: GpuNode) -> None:
    gpus.add("train", [Cuda(memory=HELD)], held=[HELD])
    container_steps.present(gpus.client, gpus.job("train").container, False)
    vanishing(gpus, until_start=1)
    result = gpus.one(gpus.job("train", {"gpu_retries": 1, "rebuild": False}))
    assert result.failure is None


def test_a_poisoned_task_that_a_killed_run_left_is_replaced(gpus: GpuNode) -> None:
    gpus.add("train", [Cuda(memory=HELD, more={"poisoned": 1})], [Cuda(memory=HELD)], held=[HELD])
    container_steps.present(gpus.client, gpus.job("train").container, False)
    gpus.put_task("train")
    kept = gpus.one(gpus.job("train"))
    assert failure(kept).code == "cuda_restore_failed"
    assert len(gpus.alive()) == 1, "without a retry it is not touched"
    result = gpus.one(gpus.job("train", {"gpu_retries": 1}))
    assert result.failure is None
    assert gpus.alive() == gpus.started["train"][-1]
    assert len(gpus.started["train"]) == 2


def test_room_for_a_task_that_a_killed_run_left_is_looked_for_first(gpus: GpuNode) -> None:
    gpus.add("train", [Cuda(memory=HELD)], held=[HELD])
    container_steps.present(gpus.client, gpus.job("train").container, False)
    gpus.put_task("train")
    gpus.world.set("gpus/0/other_used", 80 * GIB - 1)
    result = gpus.one(gpus.job("train"))
    assert (failure(result).code, failure(result).outcome) == ("vram_short", RETRYABLE)
    assert gpus.world.order() == [], "so it is not poisoned"
    gpus.world.set("gpus/0/other_used", 0)
    assert gpus.one(gpus.job("train")).failure is None


# --- the way back, and what it leaves


@pytest.mark.parametrize("name", ["Tasks/Delete", "Containers/Delete"])
def test_a_way_back_that_fails_is_said_in_the_evidence_too(gpus: GpuNode, name: str) -> None:
    gpus.add("train", [Cuda(standin.FAILED)])
    gpus.fake.fail(name, text="not now")
    result = restore_batch.restore_all(gpus.client.another, [gpus.job("train", {"gpu_retries": 2})], 0, False)[0]
    found = failure(result)
    assert (found.code, found.outcome) == ("cuda_process_failed", UNKNOWN)
    assert "not now" in found.left_behind
    assert found.error.outcome == UNKNOWN
    assert evidence(result)["failure"] == found.result()


def test_a_daemon_that_goes_away_is_told_as_a_failure(gpus: GpuNode) -> None:
    gpus.add("train", [Cuda(memory=HELD)], held=[HELD])
    vanishing(gpus)
    gpus.fake.on("Containers/Delete", lambda _context: gpus.fake.fail("Images/Get", text="not now"))
    (result,) = restore_batch.restore_all(gpus.client.another, [gpus.job("train", {"gpu_retries": 2})], 0, False)
    assert (failure(result).code, failure(result).step) == ("rpc_failed", "container")
    assert "not now" in failure(result).msg
    assert ["OUT_OF_MEMORY" in warning for warning in result.warnings] == [True], "what was before it is told, too"
    assert len(gpus.started["train"]) == 1


def test_no_evidence_where_none_is_wanted_or_it_cannot_be_written(gpus: GpuNode) -> None:
    gpus.add("train", [Cuda(standin.FAILED)])
    result = gpus.one(gpus.job("train", {"keep_evidence": 0}))
    assert failure(result).evidence == ""
    assert not os.path.exists(os.path.join(gpus.root, "debug"))
    Path(gpus.root, "debug").write_text("in the way", encoding="utf-8")
    blocked = gpus.one(gpus.job("train"))
    assert failure(blocked).code == "cuda_process_failed", "not hidden by that"
    assert any("evidence of train could not be kept" in warning for warning in blocked.warnings)


def test_a_receipt_that_cannot_be_written_is_a_failure(gpus: GpuNode) -> None:
    gpus.add("train", [Cuda(memory=HELD)])
    Path(gpus.root, "receipts").write_text("in the way", encoding="utf-8")
    before = gpus.everything()
    result = gpus.one(gpus.job("train"))
    assert (failure(result).code, failure(result).step) == ("io_error", "receipt")
    assert gpus.everything() == before


def test_a_failed_probe_takes_a_gpu_workload_off_the_card_first(gpus: GpuNode, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_arguments: Any) -> None:
        raise RestoreError("probe_failed", "It stands still.", outcome=RETRYABLE)

    gpus.add("train", [Cuda(memory=HELD)])
    before = gpus.everything()
    monkeypatch.setattr(restore_workload.probes, "probe", fails)
    result = gpus.one(gpus.job("train", probe={"file": {"path": "/log"}}))
    assert (failure(result).code, failure(result).step) == ("probe_failed", "probe")
    assert [what for what, _pid in gpus.world.order()] == ["restore", "unlock", "lock", "checkpoint"]
    taken_back(gpus, before, result)


def test_a_way_back_that_hangs_leaves_the_task(
    gpus: GpuNode, no_patience: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_arguments: Any) -> None:
        raise RestoreError("probe_failed", "It stands still.")

    gpus.add("train", [Cuda(memory=HELD, more={"hang_checkpoint": 1})])
    monkeypatch.setattr(restore_workload.probes, "probe", fails)
    (result,) = restore_batch.restore_all(
        gpus.client.another,
        [gpus.job("train", probe={"file": {"path": "/log"}})],
        0,
        False,
    )
    assert failure(result).outcome == UNKNOWN
    assert "The task was not killed" in failure(result).left_behind
    assert len(gpus.alive()) == 1


def test_a_log_that_criu_wrote_is_named_where_it_lies_now(gpus: GpuNode) -> None:
    gpus.add("train", [Cuda()])

    def refuse(_context: Any) -> None:
        path = Path(gpus.root, "work", "tests", "train", "restore.log")
        path.write_text("(00.01) Error (criu/files-reg.c:1): Can't open file data/x on restore: No such file\n")

    gpus.fake.on("Tasks/Start", refuse)
    gpus.fake.fail("Tasks/Start", "UNKNOWN", "criu failed: type NOTIFY errno 0")
    found = failure(gpus.one(gpus.job("train")))
    assert found.code == "criu_restore_failed"
    assert found.error.details["log"] == os.path.join(found.evidence, "restore.log")
    assert found.error.details["log"] in found.msg
    assert os.path.exists(found.error.details["log"])
    assert os.path.join(gpus.root, "work") not in json.dumps(found.result())


def test_cleanup_takes_memory_off_the_card_before_the_kill(gpus: GpuNode) -> None:
    gpus.add("train", [Cuda(memory=HELD)])
    gpus.begin("train")
    done = task_end.absent(gpus.client, gpus.job("train").task, False)
    assert [text.partition(" ")[0] for text in done.actions] == ["lock", "checkpoint", "end"]
    assert gpus.alive() == []
