# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a node has the memory for all workloads together."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import metadata
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import NodeError
from ansible_collections.gpuops.restore.plugins.module_utils._gpu import driver as gpu_driver, nvml, vram
from ansible_collections.gpuops.restore.plugins.module_utils._gpu.nvml import Gpu, Reading
from ansible_collections.gpuops.restore.plugins.module_utils._restore.demand import Demand, assess, judge
from ansible_collections.gpuops.restore.plugins.module_utils._restore.params import Job, Settings
from ansible_collections.gpuops.restore.tests.standin import standin
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import CHECKPOINT_NAME, CRIU, spec
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_state import Task

GIB = standin.GIB
GPU, OTHER = standin.uuid(0), standin.uuid(1)
SETTINGS = Settings()


def demand(name: str, **changes: Any) -> Demand:
    workload = {"name": name, "checkpoint": CHECKPOINT_NAME, **changes.pop("workload", {})}
    return dataclasses.replace(Demand(Job.from_options(workload, SETTINGS)), **changes)


def on_gpu(name: str, size: int, gpu: str = GPU, **changes: Any) -> Demand:
    need = vram.Requirement(size, {gpu: size})
    return demand(name, gpu_required=True, vram_at_checkpoint={gpu: size}, vram=need, **changes)


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Reading:
    """Two GPUs, 10 GiB free each."""
    gpus = [Gpu(uuid, index, "H1", 80 * GIB, 10 * GIB, True, False) for index, uuid in enumerate((GPU, OTHER))]
    found = Reading("580", 13000, tuple(gpus))
    monkeypatch.setattr(nvml.Session, "read", lambda *_arguments, **_options: found)
    return found


def refused(demands: list[Demand], available: int | None = None) -> dict[str, list[str]]:
    verdict = judge(demands, available, False)
    return {name: [error.code for error in errors] for name, errors in verdict.refused.items()}


# --- what a workload will take


def test_what_a_checkpoint_says(fake: FakeContainerd, client: Client, node: Node) -> None:
    found = assess(client, demand("train").job)
    size = len(fake.state.blobs[node.checkpoint.parts[CRIU]].data)
    assert (found.memory, found.live, found.gpu_required, found.vram) == (size, False, False, vram.Requirement())
    needed = assess(client, demand("train", workload={"gpu": "required"}).job)
    assert needed.vram == vram.Requirement(size, estimated=True)
    assert assess(client, demand("train", workload={"gpu": "none", "vram": {GPU: 7}}).job).vram.total == 0
    fake.state.tasks["train"] = Task(None, 77, 2)
    assert assess(client, demand("train").job).live


@pytest.mark.parametrize(
    ("linux", "limit", "expected"),
    [
        ({"resources": {"memory": {"limit": 4096}}}, 4096, False),
        ({"resources": {"memory": {"limit": "many"}}}, None, False),
        ({"resources": {"memory": 7}}, None, False),
        ({"devices": [{"path": "/dev/nvidia0", "type": "c"}]}, None, True),
        ({"devices": "none"}, None, False),
    ],
)
def test_what_the_spec_says(
    client: Client, node: Node, linux: dict[str, Any], limit: int | None, expected: bool
) -> None:
    job = demand("train").job
    source = dataclasses.replace(job.container.source, metadata=metadata.Metadata(oci_spec=spec(linux=linux)))
    found = assess(client, dataclasses.replace(job, container=dataclasses.replace(job.container, source=source)))
    assert (found.memory_limit, found.gpu_required) == (limit, expected)


def test_a_checkpoint_that_cannot_be_read_is_left_to_its_own_steps(client: Client) -> None:
    job = demand("train").job
    found = assess(client, job)
    assert found.unreadable is not None and found.unreadable.code == "checkpoint_absent"
    assert found == Demand(job, unreadable=found.unreadable)
    assert judge([found], 0, False).refused == {}


# --- host memory


def test_host_memory_is_for_all_of_them() -> None:
    three = [demand(name, memory=4 * GIB) for name in ("a", "b", "c")]
    assert refused(three, 12 * GIB) == {}
    assert refused(three, 12 * GIB - 1) == {"c": ["host_memory_short"]}
    assert refused([dataclasses.replace(three[0], live=True), *three[1:]], 8 * GIB) == {}
    assert refused(three, None) == {}


def test_a_smaller_one_still_fits() -> None:
    demands = [demand("a", memory=4), demand("b", memory=9), demand("c", memory=5)]
    assert refused(demands, 10) == {"b": ["host_memory_short"]}


def test_memory_of_gpu_workloads_only_passes_through(reading: Reading) -> None:
    gpus = [on_gpu(name, GIB, memory=4 * GIB) for name in ("a", "b")]
    plain = demand("c", memory=2 * GIB)
    assert refused([*gpus, plain], 6 * GIB) == {}
    assert refused([*gpus, plain], 6 * GIB - 1) == {"c": ["host_memory_short"]}


def test_the_containers_own_limit() -> None:
    demands = [demand("a", memory=10, memory_limit=9), demand("b", memory=10, memory_limit=10)]
    assert refused(demands, 10) == {"a": ["container_memory_short"]}
    assert refused([demand("a", memory=10, memory_limit=-1)], 10) == {}


# --- VRAM


def test_vram_is_for_all_of_them(reading: Reading) -> None:
    demands = [on_gpu("a", 6 * GIB), on_gpu("b", 6 * GIB), on_gpu("c", 4 * GIB), on_gpu("d", 6 * GIB, OTHER)]
    assert refused(demands) == {"b": ["vram_short"]}
    assert refused([dataclasses.replace(demands[0], live=True), *demands[1:]]) == {}


def test_estimates_and_records_are_added_whatever_their_order(reading: Reading) -> None:
    guess = demand("a", gpu_required=True, vram=vram.Requirement(15 * GIB, estimated=True))
    known = on_gpu("b", 6 * GIB)
    assert refused([guess, known]) == {"b": ["vram_short"]}
    assert refused([known, guess]) == {"a": ["vram_short"]}


def test_other_gpus(reading: Reading) -> None:
    gone = standin.uuid(9)
    moved = {"workload": {"gpu_map": {gone: OTHER}}}
    assert refused([on_gpu("a", GIB, gone, **moved)]) == {}
    assert refused([on_gpu("a", GIB, GPU, workload={"gpu_map": {GPU: gone}})]) == {"a": ["gpu_absent"]}
    assert refused([on_gpu("a", GIB, GPU, **moved)]) == {"a": ["gpu_map_incomplete"]}


def test_a_map_lists_what_was_only_seen(reading: Reading) -> None:
    workload = {"gpu_map": {GPU: OTHER}}
    assert refused([on_gpu("a", GIB, GPU, workload=workload)]) == {}
    assert refused([on_gpu("a", GIB, GPU, workload=workload, visible=(GPU, OTHER))]) == {"a": ["gpu_map_incomplete"]}


def test_without_nvml_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml.Session, "read", lambda *_arguments, **_options: Reading(reason="not installed"))
    answers(monkeypatch)
    verdict = judge([on_gpu("a", 1000 * GIB)], None, True)
    assert verdict.refused == {}
    assert verdict.warnings == ["Whether the GPUs have room was not looked at: not installed."]


# --- the driver


def answers(monkeypatch: pytest.MonkeyPatch, version: int = 13000, problem: NodeError | None = None) -> None:
    """What the driver says when it is opened."""

    @contextlib.contextmanager
    def opened(*_arguments: object) -> Iterator[Any]:
        if problem is not None:
            raise problem
        yield SimpleNamespace(version=version)

    monkeypatch.setattr(gpu_driver, "opened", opened)


def test_a_node_that_cannot_serve_cuda(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, problem=NodeError("driver_too_old", "It is too old."))
    verdict = judge([on_gpu("a", GIB), demand("b")], None, True)
    assert [(name, error.code) for name, errors in verdict.refused.items() for error in errors] == [
        ("a", "driver_too_old")
    ]
    assert "It is too old." in verdict.refused["a"][0].message
    assert judge([on_gpu("a", GIB)], None, False).refused == {}, "which only a preflight asks"


def test_a_driver_that_takes_no_map(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, version=12080)
    verdict = judge([on_gpu("a", GIB, workload={"gpu_map": {GPU: OTHER}}), on_gpu("b", GIB)], None, True)
    assert {name: [error.code for error in errors] for name, errors in verdict.refused.items()} == {
        "a": ["driver_too_old"]
    }


def test_persistence_and_mig_are_warned_of(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch)
    gpus = [Gpu(GPU, 0, "H1", 80 * GIB, 10 * GIB, False, True), Gpu(OTHER, 1, "H1", 80 * GIB, 10 * GIB, True, False)]
    monkeypatch.setattr(nvml.Session, "read", lambda *_arguments, **_options: Reading("580", 13000, tuple(gpus)))
    warnings = judge([on_gpu("a", GIB)], None, True).warnings
    assert ["persistence" in warnings[0], "MIG" in warnings[1], len(warnings)] == [True, True, 2]
