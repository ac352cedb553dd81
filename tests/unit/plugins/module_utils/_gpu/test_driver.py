# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The driver's calls, on the STAND-IN library under the real cuda-bindings."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RETRYABLE, NodeError, RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._gpu import (
    driver as gpu_driver,
    driver_library,
    driver_worker,
)
from ansible_collections.gpuops.restore.plugins.module_utils._gpu.driver import (
    CHECKPOINT,
    CHECKPOINTED,
    GONE,
    LOCK,
    LOCKED,
    QUERY,
    RESTORE,
    RUNNING,
    UNLOCK,
)
from ansible_collections.gpuops.restore.plugins.module_utils._host.processes import Process
from ansible_collections.gpuops.restore.tests.standin import standin
from ansible_collections.gpuops.restore.tests.unit.helpers.cuda_samples import meeting, process, soon

pytestmark = [pytest.mark.every_python, pytest.mark.own_helpers]

pytest_plugins = ["ansible_collections.gpuops.restore.tests.unit.helpers.cuda_fixtures"]

NOWHERE = "/nonexistent"


def failure(**options: str) -> RestoreError:
    """Why the driver cannot be opened."""
    with pytest.raises(RestoreError) as caught, gpu_driver.opened(soon(), **{"fallback": NOWHERE, **options}):
        pass
    return caught.value


# --- the calls


def test_a_process_goes_all_the_way_round(world: standin.World) -> None:
    one = process(world.add_process(standin.RUNNING, {standin.uuid(0): standin.GIB}))
    with gpu_driver.opened(soon()) as driver:
        states = [
            driver.call(operation, [one], soon()).done[one.pid].state
            for operation in (QUERY, LOCK, CHECKPOINT, RESTORE, UNLOCK)
        ]
    assert states == [RUNNING, LOCKED, CHECKPOINTED, LOCKED, RUNNING]
    assert world.order() == [(operation, one.pid) for operation in (LOCK, CHECKPOINT, RESTORE, UNLOCK)]


def test_one_init_one_helper_and_one_thread_for_each_process(world: standin.World) -> None:
    several = [process(world.add_process(standin.CHECKPOINTED)) for _number in range(3)]
    with gpu_driver.opened(soon()) as driver:
        for operation in (QUERY, RESTORE, UNLOCK):
            driver.call(operation, several, soon())
    calls = world.calls()
    assert [call.what for call in calls].count("init") == 1
    assert {call.caller for call in calls} != {os.getpid()}
    assert len({call.caller for call in calls}) == 1
    threads = {one.pid: {call.thread for call in calls if call.pid == one.pid} for one in several}
    assert all(len(found) == 1 for found in threads.values())
    assert len(set.union(*threads.values())) == 3


def test_calls_run_side_by_side_and_each_has_its_own_seconds(world: standin.World) -> None:
    several = [process(world.add_process(standin.CHECKPOINTED)) for _number in range(4)]
    pids = [one.pid for one in several]
    with gpu_driver.opened(soon()) as driver, meeting(world, RESTORE, pids):
        found = driver.call(RESTORE, several, soon())
    moments = [call.detail.split()[0] for call in world.calls() if call.what == RESTORE and call.detail != "hang"]
    assert moments == ["begin"] * 4 + ["end"] * 4
    assert sorted(found.done) == sorted(pids)
    assert all(done.seconds > 0 for done in found.done.values())


def test_processes_without_cuda_coordinators_and_those_that_are_gone(world: standin.World) -> None:
    plain, coordinator = process(world.spawn()), process(world.add_process(standin.RUNNING, coordinator=1))
    gone = process(world.add_process(standin.RUNNING))
    thread = process(world.add_process(standin.RUNNING, restore_tid=4711))
    world.kill(gone.pid)
    with gpu_driver.opened(soon()) as driver:
        done = driver.call(QUERY, [plain, coordinator, gone, thread], soon()).done
    assert done[plain.pid].error == gpu_driver.NOT_INITIALIZED
    assert done[coordinator.pid].error == gpu_driver.NOT_INITIALIZED, "it has a state but no restore thread"
    assert (done[gone.pid].gone, done[gone.pid].state) == (True, GONE)
    assert (done[thread.pid].thread, done[thread.pid].state) == (4711, RUNNING)


def test_a_reused_pid_is_never_touched(world: standin.World) -> None:
    pid = world.add_process(standin.CHECKPOINTED)
    other = Process(pid, process(pid).start_time - 1)
    with gpu_driver.opened(soon()) as driver:
        done = driver.call(RESTORE, [other], soon()).done[pid]
    assert (done.gone, done.error) == (True, 304)
    assert world.order() == []
    assert world.state(pid) == standin.CHECKPOINTED


def test_a_process_that_ends_and_a_new_one_with_its_number_are_told_apart_by_a_pidfd(world: standin.World) -> None:
    one = process(world.add_process(standin.RUNNING))
    with gpu_driver.opened(soon()) as driver:
        driver.call(QUERY, [one], soon())
        os.kill(one.pid, signal.SIGKILL)
        # Unreaped, so /proc still has it: what tells is that it has ended.
        os.waitid(os.P_PID, one.pid, os.WEXITED | os.WNOWAIT)
        assert driver.call(LOCK, [one], soon()).done[one.pid].gone
    assert world.order() == []


def test_a_new_process_with_the_same_number_and_the_same_start_is_told_apart_by_the_pidfd(
    world: standin.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = process(world.add_process(standin.RUNNING))
    known = driver_worker._Process(one.pid, one.start_time)
    stat = Path(f"/proc/{one.pid}/stat").read_bytes()
    assert known.alive()
    world.kill(one.pid)
    # As if another one had been started within the same clock tick.
    monkeypatch.setattr("builtins.open", lambda *_arguments: io.BytesIO(stat))
    assert not known.alive()


def test_a_lock_is_given_its_timeout_in_milliseconds(world: standin.World) -> None:
    one = process(world.add_process(standin.RUNNING, busy=1))
    with gpu_driver.opened(soon()) as driver:
        done = driver.call(LOCK, [one], soon(), lock_timeout=0.25).done[one.pid]
    assert (done.error, done.name, done.state) == (gpu_driver.NOT_READY, "CUDA_ERROR_NOT_READY", RUNNING)
    assert [call.detail for call in world.calls() if call.what == "lock-arguments"] == ["timeout_ms=250"]


def test_gpu_pairs_reach_the_driver_as_they_are(world: standin.World) -> None:
    old, new = "GPU-00112233-4455-6677-8899-aabbccddeeff", standin.uuid(1)
    world.add_gpu(1)
    one = process(world.add_process(standin.CHECKPOINTED, {old: standin.GIB}))
    pairs = [(standin.uuid(0), standin.uuid(0)), (old, new)]
    with gpu_driver.opened(soon()) as driver:
        driver.require_map()
        assert driver.call(RESTORE, [one], soon(), pairs=pairs).done[one.pid].error == 0
    lines = [call.detail for call in world.calls() if call.what == "restore-pair"]
    assert lines == [f"{before}={after}" for before, after in pairs]
    assert world.has(f"pids/{one.pid}/bytes/{new}")


def test_a_call_that_hangs_is_given_up_and_the_others_answers_are_known(
    world: standin.World, no_patience: None
) -> None:
    hangs = process(world.add_process(standin.CHECKPOINTED, hang_restore=1))
    fine = process(world.add_process(standin.CHECKPOINTED))
    with gpu_driver.opened(soon()) as driver:
        found = driver.call(RESTORE, [hangs, fine], soon())
    assert (found.pending, found.reason, found.timed_out) == ((hangs,), "did not answer in time", True)
    assert found.done[fine.pid].state == LOCKED
    helper = world.calls()[0].caller
    assert not os.path.exists(f"/proc/{helper}")


def test_a_helper_that_dies_leaves_its_calls_unanswered(world: standin.World) -> None:
    hangs = process(world.add_process(standin.CHECKPOINTED, hang_restore=1))

    def kill() -> None:
        world.wait_for("restore", hangs.pid)
        os.kill(world.calls()[0].caller, signal.SIGKILL)

    with gpu_driver.opened(soon()) as driver:
        thread = threading.Thread(target=kill)
        thread.start()
        found = driver.call(RESTORE, [hangs], soon())
        thread.join()
    assert (found.pending, found.timed_out) == ((hangs,), False)
    assert "lost its helper process (exit status -9" in found.reason


def test_an_error_that_the_bindings_do_not_know_is_an_answer_too(world: standin.World) -> None:
    one = process(world.add_process(standin.RUNNING, fail_lock=12345))
    with gpu_driver.opened(soon()) as driver:
        done = driver.call(LOCK, [one], soon()).done[one.pid]
    assert (done.error, done.state) == (12345, RUNNING)


# --- drivers that are not there, too old, or broken


def test_no_driver(bare_world: standin.World) -> None:
    found = failure()
    assert (type(found), found.code) == (NodeError, "driver_library_missing")
    assert "libcuda.so.1" in found.message
    assert "driver_root" in found.remedy


@pytest.mark.parametrize("name", ["Lock", "GetState", "Restore", "GetRestoreThreadId"])
def test_a_driver_that_is_too_old(world: standin.World, name: str) -> None:
    world.set(f"missing/cuCheckpointProcess{name}")
    world.set("driver_version", 12040)
    found = failure()
    assert found.code == "driver_too_old"
    assert f"cuCheckpointProcess{name}" in found.message
    assert "CUDA 12.4" in found.message
    assert "570" in found.remedy


def test_a_driver_from_before_there_was_a_way_to_ask_for_functions(world: standin.World) -> None:
    world.set("missing/cuDriverGetVersion")
    assert failure().code == "driver_too_old"


def test_other_gpus_need_a_newer_driver(world: standin.World) -> None:
    world.set("driver_version", 12080)
    with gpu_driver.opened(soon()) as driver, pytest.raises(NodeError) as caught:
        driver.require_map()
    assert caught.value.code == "driver_too_old"
    assert "580" in caught.value.remedy


def test_a_driver_without_a_gpu(world: standin.World) -> None:
    world.set("init_error", 100)
    found = failure()
    assert found.code == "cuda_init_failed"
    assert "CUDA_ERROR_NO_DEVICE" in found.message
    assert "no GPU" in found.remedy


def test_a_driver_that_does_not_come_up(world: standin.World) -> None:
    world.set("hang_init")
    with pytest.raises(RestoreError) as caught, gpu_driver.opened(time.monotonic(), fallback=NOWHERE):
        pass
    assert (caught.value.code, caught.value.outcome) == ("cuda_timeout", RETRYABLE)


def test_a_library_that_is_no_library(bare_world: standin.World, tmp_path: Path) -> None:
    (tmp_path / "usr" / "lib64").mkdir(parents=True)
    (tmp_path / "usr" / "lib64" / "libcuda.so.1").write_text("rubbish", encoding="ascii")
    found = failure(driver_root=str(tmp_path))
    assert found.code == "driver_library_missing"
    assert "ELF" in found.message or "header" in found.message or "too short" in found.message


def test_bindings_that_are_not_installed(world: standin.World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_library, "has_cuda", lambda: False)
    found = failure()
    assert (found.code, found.details["missing"]) == ("dependency_missing", ["cuda-bindings"])


def test_bindings_that_are_too_old(world: standin.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "old" / "cuda" / "bindings"
    package.mkdir(parents=True)
    for path in (package.parent / "__init__.py", package / "__init__.py"):
        path.touch()
    (package / "driver.py").write_text("def cuCheckpointProcessLock(): pass\n", encoding="ascii")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "old"))
    found = failure()
    assert found.code == "bindings_too_old"
    assert "cuCheckpointProcessRestore" in found.message


def test_the_bindings_are_found_and_not_imported_by_us() -> None:
    import sys

    assert (driver_library.has_cuda(), driver_library.has_nvml()) == (True, True)
    assert "cuda.bindings.driver" not in sys.modules


def test_a_package_that_is_not_there_is_missing() -> None:
    assert not driver_library._is_installed("no_such_package_at_all.below")


# --- where the library is


@pytest.fixture
def root(tmp_path: Path, libraries: Path) -> Path:
    """A driver container's root: its own C library beside the driver's, versioned names, an absolute link."""
    path = tmp_path / "driver"
    directory = path / "usr" / "lib" / f"{os.uname().machine}-linux-gnu"
    directory.mkdir(parents=True)
    (directory / "libcuda.so.580.0.0").write_bytes((libraries / "libcuda.so.1").read_bytes())
    below = directory.relative_to(path)
    (directory / "libcuda.so.1").symlink_to(f"/{below}/libcuda.so.580.0.0")
    (directory / "libnvidia-ml.so.1").write_bytes((libraries / "libnvidia-ml.so.1").read_bytes())
    for name in ("libc.so.6", "libm.so.6", "libpthread.so.0", "libz.so.1"):
        (directory / name).write_text("another distribution's", encoding="ascii")
    return path


def test_the_driver_container_is_tried_after_the_default_path(bare_world: standin.World, root: Path) -> None:
    with gpu_driver.opened(soon(), fallback=str(root)) as driver:
        assert driver.place.directory == str(root / "usr" / "lib" / f"{os.uname().machine}-linux-gnu")
    assert [call.what for call in bare_world.calls()] == ["init"]


def test_the_default_path_comes_first(world: standin.World, root: Path) -> None:
    with gpu_driver.opened(soon(), fallback=str(root)) as driver:
        assert driver.place.directory is None


def test_a_driver_root_that_is_named_is_the_only_place(world: standin.World, root: Path) -> None:
    with gpu_driver.opened(soon(), driver_root=str(root), fallback=NOWHERE) as driver:
        assert str(driver.place).startswith(str(root))
    found = failure(driver_root="/nonexistent")
    assert found.code == "driver_root_invalid"
    assert "/nonexistent" in found.message


def test_what_hides_gpus_from_our_environment_is_not_passed_on(
    world: standin.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    one = process(world.add_process(standin.RUNNING, hang_lock=1))
    environments = []

    def look() -> None:
        world.wait_for("lock", one.pid)
        environments.append(Path(f"/proc/{world.calls()[0].caller}/environ").read_bytes())
        world.unset(f"pids/{one.pid}/hang_lock")

    with gpu_driver.opened(soon()) as driver:
        thread = threading.Thread(target=look)
        thread.start()
        driver.call(LOCK, [one], soon())
        thread.join()
    assert b"CUDA_VISIBLE_DEVICES" not in environments[0]
    assert b"GPUOPS_STANDIN_DIR" in environments[0]
