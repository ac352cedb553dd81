# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is refused before the first call: memory, GPUs. On the STAND-IN libraries under the real bindings."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RETRYABLE, TERMINAL, NodeError
from ansible_collections.gpuops.restore.tests.standin import standin
from ansible_collections.gpuops.restore.tests.unit.helpers.cuda_node import FakeNode
from ansible_collections.gpuops.restore.tests.unit.helpers.cuda_samples import Steps

pytest_plugins = ["ansible_collections.gpuops.restore.tests.unit.helpers.cuda_fixtures"]

GIB = standin.GIB
GPU = standin.uuid(0)


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
    assert error.message == (
        f"The GPU 0 ({GPU}) has 1.0 GiB of VRAM free, and the checkpoint of process {pid} held 4.0 GiB on it."
    )
    steps.world.set("gpus/0/other_used", 0)
    assert steps.run(pid, vram={GPU: 4 * GIB}).changed


def test_vram_that_cannot_be_looked_at_is_warned_of(steps: Steps) -> None:
    steps.world.set("nvml_error", 9)
    pid = steps.world.add_process(standin.CHECKPOINTED, {GPU: GIB})
    done = steps.run(pid, vram={GPU: 99 * GIB})
    assert done.warnings == ["Whether the GPUs have room was not looked at: NVML: Driver Not Loaded."]
    assert done.changed


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


def test_a_map_has_to_list_what_the_process_could_only_see(steps: Steps) -> None:
    seen = steps.world.add_gpu(1)
    pid = steps.world.add_process(standin.CHECKPOINTED, {GPU: GIB})
    error = steps.refused(pid, gpu_map={GPU: seen}, visible=(GPU, seen))
    assert (error.code, error.details["missing"]) == ("gpu_map_incomplete", [seen])
    done = steps.run(pid, gpu_map={GPU: seen, seen: GPU}, visible=(GPU, seen))
    assert [entry["uuid"] for entry in done.processes[0]["gpus"]] == [seen]


def test_a_map_that_the_driver_refuses_poisons_nothing(steps: Steps) -> None:
    seen = steps.world.add_gpu(1)
    pid = steps.world.add_process(standin.CHECKPOINTED, {GPU: GIB}, **{f"visible/{seen}": 1})
    error = steps.fails(pid, gpu_map={GPU: seen})
    assert (error.code, error.outcome) == ("gpu_map_refused", TERMINAL)
    assert error.details["processes"][0]["after"] == "CHECKPOINTED"
    assert steps.run(pid, gpu_map={GPU: seen, seen: GPU}).processes[0]["after"] == "RUNNING"


def test_a_map_is_not_looked_at_where_nothing_is_restored(steps: Steps) -> None:
    pid = steps.world.add_process(standin.RUNNING)
    assert not steps.run(pid, gpu_map={GPU: standin.uuid(9)}).changed
