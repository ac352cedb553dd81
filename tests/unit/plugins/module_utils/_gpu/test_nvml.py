# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""NVML, on the STAND-IN library under the real nvidia-ml-py."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core import helper_process
from ansible_collections.gpuops.restore.plugins.module_utils._gpu import driver_library, nvml
from ansible_collections.gpuops.restore.plugins.module_utils._host import processes as host_processes
from ansible_collections.gpuops.restore.tests.standin import standin

pytestmark = [pytest.mark.every_python, pytest.mark.own_helpers]

pytest_plugins = ["ansible_collections.gpuops.restore.tests.unit.helpers.cuda_fixtures"]

GIB = standin.GIB
NOWHERE = "/nonexistent"


def test_gpus_memory_and_who_holds_it(world: standin.World) -> None:
    second = world.add_gpu(1, 40 * GIB, "Stand-in A1", other_used=GIB, persistence=1, mig=1)
    pid = world.add_process(standin.RUNNING, {standin.uuid(0): 2 * GIB, second: 3 * GIB})
    away = world.add_process(standin.CHECKPOINTED, {second: 30 * GIB})
    found = nvml.read(fallback=NOWHERE)
    assert (found.reason, found.driver, found.cuda) == ("", "580.0.0", 13000)
    assert [gpu.result() for gpu in found.gpus] == [
        {
            "uuid": standin.uuid(0),
            "index": 0,
            "name": "Stand-in H1",
            "memory_total": 80 * GIB,
            "memory_free": 78 * GIB,
            "persistence": False,
            "mig": False,
            "minor": 0,
        },
        {
            "uuid": second,
            "index": 1,
            "name": "Stand-in A1",
            "memory_total": 40 * GIB,
            "memory_free": 36 * GIB,
            "persistence": True,
            "mig": True,
            "minor": 1,
        },
    ]
    assert found.bytes_of(pid) == 5 * GIB
    assert [(share["index"], share["memory"]) for share in found.shares_of(pid)] == [(0, 2 * GIB), (1, 3 * GIB)]
    assert (found.bytes_of(away), found.shares_of(away)) == (None, []), "a checkpointed process is on no GPU"


def test_memory_that_the_driver_hides_is_unknown_not_nothing(world: standin.World) -> None:
    pid = world.add_process(standin.RUNNING, {standin.uuid(0): GIB})
    world.set("gpus/0/no_process_memory")
    found = nvml.read(fallback=NOWHERE)
    assert found.bytes_of(pid) is None
    assert [share["memory"] for share in found.shares_of(pid)] == [None]


def test_no_driver(bare_world: standin.World) -> None:
    found = nvml.read(fallback=NOWHERE)
    assert (found.gpus, found.holders, found.driver) == ((), (), None)
    assert found.reason.startswith("NVML: ")


def test_a_kernel_module_that_is_not_loaded(world: standin.World) -> None:
    world.set("nvml_error", 9)
    assert nvml.read(fallback=NOWHERE).reason == "NVML: Driver Not Loaded"


def test_it_does_not_wait_for_ever(world: standin.World) -> None:
    world.set("hang_nvml")
    assert nvml.read(seconds=0.0, fallback=NOWHERE).reason == "NVML did not answer in time"


def test_bindings_that_are_not_installed(world: standin.World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_library, "has_nvml", lambda: False)
    assert "nvidia-ml-py" in nvml.read(fallback=NOWHERE).reason


@pytest.mark.parametrize("named", [True, False])
def test_the_library_of_another_root(bare_world: standin.World, libraries: Path, tmp_path: Path, named: bool) -> None:
    bare_world.add_gpu(0)
    root = tmp_path / "driver"
    (root / "usr").mkdir(parents=True)
    (root / "usr" / "lib64").symlink_to(libraries)
    found = nvml.read(str(root), fallback=NOWHERE) if named else nvml.read(fallback=str(root))
    assert [gpu.uuid for gpu in found.gpus] == [standin.uuid(0)]


def test_a_root_that_is_none(bare_world: standin.World) -> None:
    assert "/nonexistent" in nvml.read("/nonexistent").reason


# --- one that stays open


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The helpers' process ids, as they are started."""
    found: list[int] = []

    class Counted(helper_process.Child):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            found.append(self.pid)

    monkeypatch.setattr(nvml, "Child", Counted)
    return found


def test_what_changes_meanwhile_is_read_and_nothing_is_opened_twice(world: standin.World, opened: list[int]) -> None:
    session = nvml.Session()
    assert session.read(fallback=NOWHERE).holders == ()
    pid = world.add_process(standin.RUNNING, {standin.uuid(0): GIB})
    assert session.read(fallback=NOWHERE).bytes_of(pid) == GIB
    assert len(opened) == 1
    session.close()
    assert host_processes.start_time(opened[0]) is None
    assert session.read(fallback=NOWHERE).bytes_of(pid) == GIB and len(opened) == 2
    session.close()


def test_after_a_failure_it_is_opened_anew(world: standin.World, opened: list[int]) -> None:
    session = nvml.Session()
    world.set("nvml_error", 9)
    assert session.read(fallback=NOWHERE).reason == "NVML: Driver Not Loaded"
    world.unset("nvml_error")
    assert session.read(fallback=NOWHERE).reason == ""
    os.kill(opened[1], signal.SIGKILL)
    while host_processes.start_time(opened[1]) is not None:
        time.sleep(0.005)
    assert "broke its helper process" in session.read(fallback=NOWHERE).reason
    assert session.read(fallback=NOWHERE).reason == "" and len(opened) == 3
    session.close()


def test_another_root_is_another_library(world: standin.World, opened: list[int]) -> None:
    session = nvml.Session()
    assert session.read(fallback=NOWHERE).reason == ""
    assert "/nonexistent" in session.read("/nonexistent").reason
    assert session.read(fallback=NOWHERE).reason == "" and len(opened) == 2
    session.close()


def test_one_that_is_forgotten_leaves_no_process(world: standin.World, opened: list[int]) -> None:
    session = nvml.Session()
    session.read(fallback=NOWHERE)
    del session
    assert host_processes.start_time(opened[0]) is None


def test_who_waits_for_another_waits_no_longer_than_it_may(world: standin.World, opened: list[int]) -> None:
    session = nvml.Session()
    with session._lock:
        assert session.read(seconds=0.01, fallback=NOWHERE).reason == "NVML did not answer in time"
    assert opened == []
