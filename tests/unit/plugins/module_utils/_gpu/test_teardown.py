# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""GPU memory goes back to the card before a kill, on the STAND-INS for containerd and for the driver's libraries."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._container import task_end
from ansible_collections.gpuops.restore.plugins.module_utils._container.task_params import TaskParams
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import UNKNOWN, RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._gpu import devices, nvml, teardown
from ansible_collections.gpuops.restore.tests.standin import standin
from ansible_collections.gpuops.restore.tests.unit.helpers.gpu_access import changed
from ansible_collections.gpuops.restore.tests.unit.helpers.gpu_node import Cuda, GpuNode

pytest_plugins = ["ansible_collections.gpuops.restore.tests.unit.helpers.cuda_fixtures"]

GIB = standin.GIB
GPU = standin.uuid(0)
LIVE = Cuda(standin.RUNNING, {GPU: GIB})


@pytest.fixture
def train(gpus: GpuNode) -> TaskParams:
    """A task runs that holds GPU memory; what its end would be asked with."""
    gpus.add("train", [Cuda(None), LIVE, LIVE])
    gpus.begin("train")
    return dataclasses.replace(gpus.job("train").task, grace_seconds=5.0)


def used(gpus: GpuNode) -> list[int]:
    """Processes that are not off the card."""
    return [pid for pid in gpus.started["train"][-1][1:] if gpus.world.state(pid) != standin.CHECKPOINTED]


def at_kill(gpus: GpuNode) -> list[Any]:
    """The signal, and who still held the card, at each kill."""
    seen: list[Any] = []
    gpus.fake.on("Tasks/Kill", lambda _context: seen.append((gpus.fake.seen[-1].request.signal, used(gpus))))
    return seen


@pytest.mark.parametrize("state", ["stopped", "absent"])
def test_all_are_suspended_and_then_killed_at_once(gpus: GpuNode, train: TaskParams, state: str) -> None:
    act = getattr(task_end, state)
    predicted = act(gpus.client, train, True)
    assert gpus.world.order() == []
    seen = at_kill(gpus)
    done = act(gpus.client, train, False)
    _plain, first, second = gpus.started["train"][-1]
    assert [what for what, _pid in gpus.world.order()] == ["lock", "lock", "checkpoint", "checkpoint"]
    assert done.actions == predicted.actions
    assert done.actions[:4] == [f"{what} process {pid}" for what in ("lock", "checkpoint") for pid in (first, second)]
    # No TERM for a process that waits for its GPU.
    assert [signal for signal, _used in seen] == [9]
    assert seen[0][1] == []
    assert done.warnings == []
    assert gpus.alive() == []
    assert act(gpus.client, train, False).changed is False


def test_without_cuda_the_process_gets_its_grace(gpus: GpuNode) -> None:
    gpus.add("train", [Cuda(None)])
    gpus.begin("train")
    seen = at_kill(gpus)
    task_end.absent(gpus.client, dataclasses.replace(gpus.job("train").task, grace_seconds=5.0), False)
    assert seen[0][0] == 15


@pytest.mark.parametrize("mode", ["auto", "none"])
def test_the_driver_is_not_asked_in_vain(
    gpus: GpuNode, train: TaskParams, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "has_driver", lambda _device: mode == "none")
    calls = len(gpus.world.calls())
    done = task_end.absent(gpus.client, dataclasses.replace(train, gpu=teardown.Policy(mode=mode)), False)
    assert (done.warnings, len(done.actions)) == ([], 1)
    assert len(gpus.world.calls()) == calls


@pytest.mark.parametrize(
    ("arrange", "words"),
    [("fail_checkpoint", "when process"), ("busy", "could not be locked"), ("unreadable", "does not tell the state")],
)
def test_what_cannot_be_suspended_is_killed_with_a_warning(
    gpus: GpuNode, train: TaskParams, arrange: str, words: str
) -> None:
    pid = gpus.started["train"][-1][1]
    gpus.world.set(f"pids/{pid}/{arrange}", 801)
    policy = changed(train.gpu, lock_timeout=0.1)
    done = task_end.absent(gpus.client, dataclasses.replace(train, gpu=policy, grace_seconds=0.0), False)
    assert any("goes without being suspended first" in text and words in text for text in done.warnings)
    assert gpus.alive() == []


def test_no_driver_any_more(gpus: GpuNode, train: TaskParams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH")
    done = task_end.absent(gpus.client, train, False)
    assert "goes without being suspended first" in done.warnings[0]
    assert gpus.alive() == []


def test_a_call_that_hangs_keeps_the_task(gpus: GpuNode, train: TaskParams, no_patience: None) -> None:
    pid = gpus.started["train"][-1][1]
    gpus.world.set(f"pids/{pid}/hang_checkpoint", 1)
    with pytest.raises(RestoreError) as caught:
        task_end.absent(gpus.client, train, False)
    assert (caught.value.code, caught.value.outcome) == ("cuda_timeout", UNKNOWN)
    assert "The task was not killed" in caught.value.remedy and "gpu: none" in caught.value.remedy
    assert len(gpus.alive()) == 3
    assert gpus.fake.count("Tasks/Kill") == 0
    # As the remedy says.
    task_end.absent(gpus.client, dataclasses.replace(train, gpu=teardown.Policy(mode="none")), False)
    assert gpus.alive() == []


def test_a_paused_task_is_said_to_go_as_it_is(gpus: GpuNode, train: TaskParams) -> None:
    gpus.fake.state.tasks["train"].status = 4
    done = task_end.absent(gpus.client, train, False)
    assert "is paused" in done.warnings[0]
    assert gpus.world.order() == []


def test_a_task_that_has_ended_has_nothing_on_the_card(gpus: GpuNode, train: TaskParams) -> None:
    gpus.fake.state.end("train", 0)
    assert task_end.absent(gpus.client, train, False).warnings == []
    done = teardown.suspend(gpus.client, "train", train.gpu, train.owner, False, False)
    assert done == teardown.Suspended()


def test_memory_that_does_not_leave_the_card_is_said(
    gpus: GpuNode, train: TaskParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = gpus.started["train"][-1][1]
    real = nvml.Session.read
    # The driver says CHECKPOINTED, NVML still lists it.
    monkeypatch.setattr(
        nvml.Session,
        "read",
        lambda *arguments: dataclasses.replace(real(*arguments), holders=(nvml.Holder(pid, GPU, GIB),)),
    )
    slept: list[float] = []
    done = teardown.suspend(
        gpus.client, "train", train.gpu, train.owner, False, False, slept.append, lambda: 4.0 * len(slept)
    )
    assert done.warnings[-1] == (
        f"The GPUs still show memory of process {pid} of train 10 s after it was checkpointed."
    )
    assert len(slept) == 3


def test_a_card_that_cannot_be_looked_at_is_said(gpus: GpuNode, train: TaskParams) -> None:
    gpus.world.set("nvml_error", 9)
    done = teardown.suspend(gpus.client, "train", train.gpu, train.owner, False, False)
    assert any("was not seen" in text for text in done.warnings)


def test_marks_of_killed_processes_go_with_them(gpus: GpuNode) -> None:
    gpus.add("train", [Cuda(more={"fail_restore": 2})])
    assert gpus.one(gpus.job("train")).failure is not None
    assert not gpus.marks.exists()
