# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The GPU's part in a restore: what needs it, what is insisted on, what is verified. On the STAND-IN libraries."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import (
    RETRYABLE,
    TERMINAL,
    UNKNOWN,
    RestoreError,
)
from ansible_collections.gpuops.restore.plugins.module_utils._gpu import devices
from ansible_collections.gpuops.restore.plugins.module_utils._gpu.access import GpuAccess
from ansible_collections.gpuops.restore.plugins.module_utils._gpu.nvml import Gpu, Holder, Reading
from ansible_collections.gpuops.restore.plugins.module_utils._gpu.teardown import Policy
from ansible_collections.gpuops.restore.plugins.module_utils._oci.facts import Facts, GpuFacts, ProcessFacts
from ansible_collections.gpuops.restore.plugins.module_utils._restore import gpu as restore_gpu
from ansible_collections.gpuops.restore.plugins.module_utils._restore.gpu import GpuParams, GpuResult
from ansible_collections.gpuops.restore.tests.standin import standin
from ansible_collections.gpuops.restore.tests.unit.helpers.clock import Clock
from ansible_collections.gpuops.restore.tests.unit.helpers.cuda_samples import process
from ansible_collections.gpuops.restore.tests.unit.helpers.gpu_node import Cuda, GpuNode

pytest_plugins = ["ansible_collections.gpuops.restore.tests.unit.helpers.cuda_fixtures"]

GIB = standin.GIB
GPU = standin.uuid(0)
DEVICE = {"linux": {"devices": [{"path": "/dev/nvidia0"}]}}
RECORD = Facts(gpu=GpuFacts(processes=(ProcessFacts(1),)), gpu_examined=True)
OURS = ("gpuops.restore", False)
#: Of a checkpoint that no capture of ours took.
NOTHING = Facts()


def params(mode: str, access: GpuAccess | None = None) -> GpuParams:
    return GpuParams(Policy(mode, access or GpuAccess()))


@pytest.mark.parametrize(
    ("mode", "spec", "facts", "driver", "needs_driver", "requires_gpu", "requires_processes"),
    [
        ("none", DEVICE, RECORD, True, False, False, False),
        ("required", {}, Facts(), False, True, True, True),
        ("auto", {}, Facts(), False, False, False, False),
        ("auto", {}, Facts(), True, True, False, False),
        ("auto", DEVICE, Facts(), False, True, True, False),
        ("auto", {}, RECORD, False, True, True, True),
        ("auto", {}, Facts(gpu_examined=True), False, False, False, False),
        ("auto", {}, Facts(gpu=GpuFacts()), False, False, False, False),
    ],
)
def test_whether_a_workload_needs_driver_gpu_and_processes(
    mode: str,
    spec: dict[str, Any],
    facts: Facts,
    driver: bool,
    needs_driver: bool,
    requires_gpu: bool,
    requires_processes: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "has_driver", lambda _device: driver)
    wanted = params(mode)
    assert restore_gpu.needs_driver(wanted, spec, facts) is needs_driver
    if mode != "none":
        assert restore_gpu.requires_gpu(wanted, spec, facts) is requires_gpu
    assert restore_gpu.requires_processes(wanted, facts) is requires_processes


def restore(gpus: GpuNode, mode: str, check: bool, **more: Any) -> GpuResult:
    return restore_gpu.restore_memory(gpus.client, "train", params(mode, gpus.access()), OURS, check, **more)


def test_check_mode_and_a_task_that_would_be_new(gpus: GpuNode) -> None:
    gpus.add("train", [Cuda()])
    assert not restore(gpus, "auto", True, gpu_required=False, predicted_task=True).actions, "nobody can know"
    found = restore(gpus, "auto", True, gpu_required=True, processes_required=True, predicted_task=True)
    assert found.changed and "would be new" in found.actions[0]
    assert gpus.world.calls() == []


@pytest.mark.parametrize("check", [False, True])
def test_a_task_without_cuda_is_told_alike_in_check_mode(gpus: GpuNode, check: bool) -> None:
    gpus.add("train", [Cuda(None)])
    gpus.begin("train")
    assert not restore(gpus, "auto", check, gpu_required=False).processes
    with pytest.raises(RestoreError) as caught:
        restore(gpus, "required", check, gpu_required=True, processes_required=True)
    assert caught.value.code == "no_cuda_process"


@pytest.mark.parametrize("required", [False, True])
def test_a_driver_that_cannot_be_used_matters_where_it_is_needed(gpus: GpuNode, required: bool) -> None:
    gpus.add("train", [Cuda(None)])
    gpus.begin("train")
    gpus.world.set("init_error", 999)
    if required:
        with pytest.raises(RestoreError) as caught:
            restore(gpus, "auto", False, gpu_required=True)
        assert caught.value.code == "cuda_init_failed"
    else:
        found = restore(gpus, "auto", False, gpu_required=False)
        assert "was not looked for" in found.warnings[0]


# --- verified by NVML


def outcome(*pids: int, **changes: Any) -> GpuResult:
    entries = [
        {
            "pid": pid,
            "start_time": process(pid).start_time,
            "after": "RUNNING",
            "seconds": {"restore": 0.5},
            "bytes": None,
            "gpus": [],
            **changes,
        }
        for pid in pids
    ]
    return GpuResult(True, processes=entries, seconds={"restore": 0.5})


def test_memory_that_comes_a_moment_later_is_waited_for(world: standin.World) -> None:
    pid = world.add_process(standin.CHECKPOINTED, {GPU: GIB})
    found = outcome(pid)
    clock = Clock(0.4, lambda: world.set(f"pids/{pid}/state", standin.RUNNING))
    reading = restore_gpu.verify(found, "train", Policy(), NOTHING, clock, clock.sleep)
    assert reading is not None and clock.now == pytest.approx(0.4)
    assert found.processes[0]["bytes"] == GIB
    assert found.result(None, reading)["gb_per_s"] == round(GIB / 0.5 / 1e9, 2)


def test_memory_that_does_not_come(world: standin.World) -> None:
    clock = Clock()
    fine, lost = world.add_process(standin.RUNNING, {GPU: GIB}), world.add_process(standin.CHECKPOINTED, {GPU: GIB})
    facts = recorded((fine, GIB), (lost, GIB))
    with pytest.raises(RestoreError) as caught:
        # Each look takes a process, so time passes in large steps.
        restore_gpu.verify(outcome(fine, lost), "train", Policy(), facts, clock, lambda _seconds: clock.sleep(2.5))
    assert clock.now == 5.0
    assert (caught.value.code, caught.value.outcome) == ("vram_not_back", UNKNOWN)
    assert caught.value.details == {"pids": [lost]}


def test_one_that_has_ended_meanwhile_is_not_missed(world: standin.World) -> None:
    pid = world.add_process(standin.RUNNING)
    found = outcome(pid)
    world.kill(pid)
    assert restore_gpu.verify(found, "train", Policy(), NOTHING) is not None


def test_nothing_was_restored_so_nothing_is_looked_at(world: standin.World) -> None:
    pid = world.add_process(standin.RUNNING, {GPU: GIB})
    assert restore_gpu.verify(outcome(pid, seconds={"unlock": 0.1}), "train", Policy(), NOTHING) is None
    assert restore_gpu.verify(outcome(pid, after="LOCKED"), "train", Policy(), NOTHING) is None


def test_without_nvml_it_is_said(world: standin.World) -> None:
    world.set("nvml_error", 9)
    found = outcome(world.add_process(standin.RUNNING))
    assert restore_gpu.verify(found, "train", Policy(), NOTHING) is None
    assert "was not seen" in found.warnings[0]


# --- results


def test_the_result_adds_what_processes_hold_on_each_card() -> None:
    card = {"uuid": GPU, "index": 3, "name": "H1"}
    entries = [
        {"bytes": 2 * GIB, "gpus": [{**card, "memory": 2 * GIB}]},
        {"bytes": GIB, "gpus": [{**card, "memory": GIB}]},
    ]
    found = GpuResult(processes=entries, seconds={"restore": 1.5, "unlock": 0.1})
    before, after = (Reading(gpus=(Gpu(GPU, 3, "H1", 80, free, True, False),)) for free in (70, 10))
    result = found.result(before, after)
    assert (result["bytes"], result["gb_per_s"]) == (3 * GIB, 2.15)
    assert result["gpus"] == [{**card, "memory": 3 * GIB, "used_before": 10, "used_after": 70}]
    assert found.result()["gpus"] == [{**card, "memory": 3 * GIB, "used_before": None, "used_after": None}]
    entries[0]["bytes"] = None
    unknown = found.result(before, after)
    assert (unknown["bytes"], unknown["gb_per_s"]) == (None, None)


def test_a_gpu_failure_in_the_window_is_terminal_unless_nobody_knows() -> None:
    for before, after in ((RETRYABLE, TERMINAL), (TERMINAL, TERMINAL), (UNKNOWN, UNKNOWN)):
        assert restore_gpu.not_retryable(RestoreError("a_b", "x", outcome=before)).outcome == after


def test_holders_are_told_from_each_other() -> None:
    reading = Reading(gpus=(Gpu(GPU, 0, "H1", 80, 70, True, False),), holders=(Holder(7, GPU, 5), Holder(8, GPU, None)))
    assert (reading.bytes_of(7), reading.bytes_of(8), reading.bytes_of(9)) == (5, None, None)
    assert dataclasses.asdict(reading.holders[0]) == {"pid": 7, "gpu": GPU, "bytes": 5}


def recorded(*processes: tuple[int, int | None]) -> Facts:
    """What a capture recorded: pids within the container, which are the host's here, and bytes."""
    found = tuple(ProcessFacts(size, {}, pid) for pid, size in processes)
    return Facts(gpu=GpuFacts(processes=found), gpu_examined=True)


def test_what_had_no_memory_need_not_have_any(world: standin.World) -> None:
    """The launcher of a job's ranks, and torch.compile's workers, have CUDA state and nothing on a card."""
    launcher, rank = world.add_process(standin.RUNNING), world.add_process(standin.RUNNING, {GPU: GIB})
    facts = recorded((launcher, 0), (rank, GIB))
    assert restore_gpu.verify(outcome(launcher, rank), "train", Policy(), facts) is not None


def test_what_had_memory_has_to_have_it_again(world: standin.World) -> None:
    clock = Clock()
    launcher, rank = world.add_process(standin.RUNNING, {GPU: GIB}), world.add_process(standin.RUNNING)
    with pytest.raises(RestoreError) as caught:
        facts = recorded((launcher, 0), (rank, GIB))
        restore_gpu.verify(outcome(launcher, rank), "train", Policy(), facts, clock, lambda _s: clock.sleep(2.5))
    assert caught.value.details == {"pids": [rank]}
    assert "shows no GPU memory" in caught.value.message


@pytest.mark.parametrize(("has", "enough"), [(GIB, True), (GIB - (60 << 20), True), (GIB // 2, False)])
def test_as_much_as_when_it_was_captured_within_a_tolerance(world: standin.World, has: int, enough: bool) -> None:
    clock = Clock()
    pid = world.add_process(standin.RUNNING, {GPU: has})

    def verify() -> object:
        facts = recorded((pid, GIB))
        return restore_gpu.verify(outcome(pid), "train", Policy(), facts, clock, lambda _s: clock.sleep(2.5))

    if enough:
        assert verify() is not None
        return
    with pytest.raises(RestoreError, match="it has 0.5 GiB of GPU memory, where it had 1.0 GiB") as caught:
        verify()
    assert caught.value.code == "vram_not_back"


def test_where_pids_are_not_recorded_as_many_as_had_memory_have_to_have_some(world: standin.World) -> None:
    """Checkpoints of earlier versions of this collection."""
    clock = Clock()
    pids = world.add_process(standin.RUNNING, {GPU: GIB}), world.add_process(standin.RUNNING)
    old = Facts(gpu=GpuFacts(processes=(ProcessFacts(GIB), ProcessFacts(0))), gpu_examined=True)
    assert restore_gpu.verify(outcome(*pids), "train", Policy(), old) is not None
    both = Facts(gpu=GpuFacts(processes=(ProcessFacts(GIB), ProcessFacts(GIB))), gpu_examined=True)
    with pytest.raises(RestoreError, match="shows no GPU memory"):
        restore_gpu.verify(outcome(*pids), "train", Policy(), both, clock, lambda _s: clock.sleep(2.5))


def test_without_any_record_one_has_to_have_memory_and_the_others_are_told_of(world: standin.World) -> None:
    clock = Clock()
    pids = world.add_process(standin.RUNNING, {GPU: GIB}), world.add_process(standin.RUNNING)
    found = outcome(*pids)
    assert restore_gpu.verify(found, "train", Policy(), NOTHING) is not None
    assert found.warnings == [f"Process {pids[1]} has no GPU memory, and whether it had any was not recorded."]
    with pytest.raises(RestoreError, match="shows no GPU memory"):
        restore_gpu.verify(outcome(pids[1]), "train", Policy(), NOTHING, clock, lambda _s: clock.sleep(2.5))
