# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Captures of CUDA processes: the STAND-IN libraries under the real bindings, beside the double of containerd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import restorable, settle
from ansible_collections.gpuops.restore.plugins.module_utils._capture.targets import Target
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import reader as checkpoint_reader
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RETRYABLE, TERMINAL, UNKNOWN
from ansible_collections.gpuops.restore.plugins.module_utils._gpu import forks, marks
from ansible_collections.gpuops.restore.plugins.module_utils._host.processes import identify
from ansible_collections.gpuops.restore.tests.standin import standin
from ansible_collections.gpuops.restore.tests.unit.helpers.capture_samples import (
    BOX,
    NAME,
    PAUSED,
    RUNNING,
    STOPPED,
    Box,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.forked_process import DEVICE, Forked, forked

pytest_plugins = ["ansible_collections.gpuops.restore.tests.unit.helpers.cuda_fixtures"]

GIB = standin.GIB
GPU = standin.uuid(0)


@pytest.fixture
def pids(world: standin.World) -> list[int]:
    """Two processes on a GPU, and one without CUDA."""
    return [world.add_process(standin.RUNNING, {GPU: GIB}) for _n in range(2)] + [world.spawn()]


@pytest.fixture
def box(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, pids: list[int]) -> Iterator[Box]:
    found = Box(fake, client, node, tmp_path, pids[0])
    found.hold(*pids)
    yield found


def moments(box: Box, world: standin.World) -> list[str]:
    """What containerd's and the driver's calls meet: the other's state then."""
    seen: list[str] = []
    pid = box.pid
    box.fake.on("Tasks/Pause", lambda _context: seen.append(f"pause at {world.state(pid)}"))
    box.fake.on("Tasks/Checkpoint", lambda _context: seen.append(f"dump at {world.state(pid)}"))
    box.fake.on("Tasks/Resume", lambda _context: seen.append(f"resume at {world.state(pid)}"))
    box.fake.on("Images/Create", lambda _context: seen.append(f"image at {world.state(pid)}"))
    return seen


def running(box: Box, world: standin.World, pids: list[int]) -> None:
    """The workload goes on, GPU and all, and nothing is left."""
    assert [world.state(pid) for pid in pids[:2]] == [standin.RUNNING] * 2
    box.untouched()


def test_they_leave_the_gpu_before_the_pause_and_come_back_after_it(
    box: Box, world: standin.World, pids: list[int], client: Client
) -> None:
    seen = moments(box, world)
    predicted = box.capture(True)
    assert world.order() == []
    done = box.capture()
    assert predicted.actions == done.actions
    away, back = standin.CHECKPOINTED, standin.RUNNING
    assert seen == [f"pause at {away}", f"dump at {away}", f"resume at {away}", f"image at {back}"]
    calls = [what for what, _pid in world.order()]
    assert calls == ["lock"] * 2 + ["checkpoint"] * 2 + ["restore"] * 2 + ["unlock"] * 2
    assert {"cuda_suspend", "cuda_resume", "standstill"} <= set(done.seconds)
    facts = checkpoint_reader.load(client, NAME).facts
    assert [process.bytes for process in facts.cuda_processes] == [GIB, GIB]
    assert facts.gpu is not None and [card.uuid for card in facts.gpu.cards] == [GPU]
    del box.fake.state.images[NAME]
    running(box, world, pids)


def test_the_driver_is_initialised_once_for_both_ways(box: Box, world: standin.World) -> None:
    """The second time would be a part of the standstill."""
    box.capture()
    assert len({call.caller for call in world.calls() if call.what in ("lock", "unlock")}) == 1


def test_a_driver_helper_that_ended_meanwhile_is_replaced(box: Box, world: standin.World, pids: list[int]) -> None:
    def kill(_context: object) -> None:
        import os
        import signal

        for caller in {call.caller for call in world.calls() if call.what == "lock"}:
            os.kill(caller, signal.SIGKILL)

    box.fake.on("Tasks/Checkpoint", kill)
    box.capture()
    del box.fake.state.images[NAME]
    running(box, world, pids)


@pytest.mark.parametrize("name", ["Tasks/Pause", "Tasks/Checkpoint", "Diff/Diff", "Snapshots/View"])
def test_a_failing_capture_gives_the_memory_back(box: Box, world: standin.World, pids: list[int], name: str) -> None:
    box.fake.fail(name, "INTERNAL", "no luck")
    error = box.fails()
    assert "no luck" in error.message and "left_behind" not in error.details
    running(box, world, pids)


def test_a_process_that_cannot_be_locked(box: Box, world: standin.World, pids: list[int]) -> None:
    world.set(f"pids/{pids[1]}/busy")
    error = box.fails(lock_timeout=0.2)
    assert (error.code, error.outcome) == ("cuda_lock_timeout", RETRYABLE)
    assert "Tasks/Pause" not in box.fake.names()
    running(box, world, pids)


def test_a_checkpoint_of_the_gpu_that_fails(box: Box, world: standin.World, pids: list[int]) -> None:
    world.set(f"pids/{pids[1]}/fail_checkpoint", 999)
    error = box.fails()
    assert error.code == "cuda_checkpoint_failed" and error.details["rolled_back"]
    running(box, world, pids)


def test_memory_that_does_not_come_back_leaves_the_image_at_least(
    box: Box, world: standin.World, pids: list[int], client: Client
) -> None:
    world.set(f"pids/{pids[1]}/fail_restore", 2)
    error = box.fails()
    assert (error.code, error.outcome) == ("cuda_restore_failed", TERMINAL)
    assert error.details["checkpoint"] == {"name": NAME, "digest": checkpoint_reader.load(client, NAME).digest}
    assert f"The checkpoint {NAME} is complete." in error.sentence()
    assert box.status() == RUNNING
    assert not (Path(box.root) / "capture").exists()
    # It is said again until the workload is gone, and never tried again.
    restores = [pid for what, pid in world.order() if what == "restore"]
    assert box.fails().code == "cuda_restore_failed"
    assert [pid for what, pid in world.order() if what == "restore"] == restores
    box.fake.state.tasks.clear()
    again = box.capture()
    assert (again.recovered, again.digest) == (True, error.details["checkpoint"]["digest"])
    assert not box.run.exists()


def test_memory_that_no_driver_call_brings_back_is_said_to_be_lost(
    box: Box, world: standin.World, pids: list[int]
) -> None:
    """As with CUDA IPC on drivers before 610: the checkpoint that is complete is of no use either."""
    world.set(f"pids/{pids[1]}/fail_restore", 801)
    error = box.fails()
    assert error.message.startswith(f"The workload {BOX} is lost: ")
    assert f"cannot restore the checkpoint {NAME} either" in error.remedy and "unharmed" not in error.sentence()
    assert (error.outcome, error.details["lost"]) == (TERMINAL, True)
    assert "left_behind" not in error.details
    again = box.fails()
    assert f"The workload {BOX} is lost: " in again.message


def test_a_failed_dump_whose_way_back_fails_says_that_the_workload_is_lost(
    box: Box, world: standin.World, pids: list[int]
) -> None:
    world.set(f"pids/{pids[1]}/fail_restore", 801)
    box.fake.fail("Tasks/Checkpoint", "INTERNAL", "no luck")
    error = box.fails()
    assert error.code == "criu_dump_failed"
    assert error.message.startswith(f"The workload {BOX} is lost: ")
    assert "No checkpoint was taken: " in error.message and "no luck" in error.message
    assert "may stand still" not in str(error.details) and "checkpoint, which" not in error.remedy
    assert (error.outcome, error.details["lost"]) == (TERMINAL, True)
    # Nothing of its memory stays, and the next run says the same.
    assert not (Path(box.root) / "capture").exists()
    box.fake.heal()
    assert f"The workload {BOX} is lost: " in box.fails().message
    assert NAME not in box.fake.state.images


def test_a_suspension_whose_way_back_fails_says_that_the_workload_is_lost(
    box: Box, world: standin.World, pids: list[int]
) -> None:
    world.set(f"pids/{pids[0]}/fail_restore", 801)
    world.set(f"pids/{pids[1]}/fail_checkpoint", 801)
    error = box.fails()
    assert error.code == "cuda_checkpoint_failed"
    assert error.message.startswith(f"The workload {BOX} is lost: ") and error.details["lost"]
    assert "Tasks/Pause" not in box.fake.names()


@pytest.mark.parametrize(
    ("state", "code"), [(standin.FAILED, "cuda_process_failed"), (standin.CHECKPOINTED, "cuda_restore_failed")]
)
def test_what_is_lost_already_is_not_captured(
    box: Box, world: standin.World, pids: list[int], state: int, code: str
) -> None:
    """The driver says CHECKPOINTED of a process that nothing restores any more; its mark tells."""
    for pid in pids[:2]:
        world.set(f"pids/{pid}/state", state)
    if state == standin.CHECKPOINTED:
        marks.write(box.params.access.marks_root, identify(pids[1:2]), "CUDA_ERROR_OUT_OF_MEMORY (2)")
    assert box.refused().code == code


def test_a_killed_run_is_woken_by_the_next(box: Box, world: standin.World, pids: list[int]) -> None:
    """The run dies with the task paused and the memory off the GPU: its mark is all that is left."""
    box.fake.fail("Tasks/Resume", "INTERNAL", "no luck")
    error = box.fails()
    assert (box.status(), error.outcome) == (PAUSED, UNKNOWN)
    assert world.state(pids[0]) == standin.CHECKPOINTED
    box.fake.heal()
    seen = moments(box, world)
    assert box.capture().recovered
    assert seen[0] == f"resume at {standin.CHECKPOINTED}"
    assert seen[1] == f"pause at {standin.CHECKPOINTED}"
    del box.fake.state.images[NAME]
    running(box, world, pids)


def test_stopped_is_killed_off_the_gpu(box: Box, world: standin.World, pids: list[int]) -> None:
    seen: list[int] = []
    box.fake.on("Tasks/Kill", lambda _context: seen.append(world.state(pids[0])))
    box.capture(leave="stopped")
    assert (set(seen), box.status()) == ({standin.CHECKPOINTED}, STOPPED)
    assert [what for what, _pid in world.order()] == ["lock"] * 2 + ["checkpoint"] * 2


def test_paused_stays_off_the_gpu_until_it_is_settled(box: Box, world: standin.World, pids: list[int]) -> None:
    assert box.capture(leave="paused", gpu="required").changed
    assert [world.state(pid) for pid in pids[:2]] == [standin.CHECKPOINTED] * 2
    assert settle.settled(box.client, box.params, False).changed
    assert [world.state(pid) for pid in pids[:2]] == [standin.RUNNING] * 2
    assert box.status() == RUNNING


# --- what there has to be


def test_required_but_there_is_none(box: Box, world: standin.World) -> None:
    pid = world.spawn()
    box.hold(pid)
    box.fake.state.tasks[BOX].pid = pid
    box.before = box.kept(box.fake.state)
    assert box.refused(gpu="required").code == "no_cuda_processes"
    assert box.capture().seconds.get("cuda_suspend") is None


def test_mixed_states_are_nobodys_to_decide(box: Box, world: standin.World, pids: list[int]) -> None:
    world.set(f"pids/{pids[1]}/state", standin.CHECKPOINTED)
    error = box.refused()
    assert error.code == "cuda_states_mixed"
    assert f"{pids[1]} is CHECKPOINTED" in error.message


def test_what_somebody_has_suspended_stays_so(box: Box, world: standin.World, pids: list[int]) -> None:
    for pid in pids[:2]:
        world.set(f"pids/{pid}/state", standin.CHECKPOINTED)
    assert box.capture().changed
    assert world.order() == []


def test_too_little_host_memory_is_known_before(box: Box, world: standin.World) -> None:
    box.here.write_available(GIB)
    assert box.refused().code == "host_memory_short"


def test_without_a_driver_only_what_needs_it_fails(
    box: Box, bare_world: standin.World, pids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH")
    assert box.refused(gpu="required").code == "driver_library_missing"
    device = box.here.proc / str(pids[1]) / "fd" / "9"
    device.symlink_to("/dev/nvidia0")
    error = box.refused()
    assert (error.code, error.details["pids"]) == ("driver_library_missing", [pids[1]])
    device.unlink()
    assert box.capture().changed
    device.symlink_to("/dev/nvidiactl")
    assert box.capture(gpu="none", force=True).changed, "that is what none says"


@pytest.fixture
def with_fork(box: Box, world: standin.World, pids: list[int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Forked]:
    """A third process, without CUDA state, that holds a device which a CUDA process had opened."""
    monkeypatch.setattr(forks, "DEVICES", DEVICE)
    with forked() as found:
        box.hold(*pids[:2], found.process.pid)
        for name in ("maps", "fd"):
            path = box.here.proc / str(found.process.pid) / name
            if path.is_dir():
                path.rmdir()
            path.symlink_to(f"/proc/{found.process.pid}/{name}")
        yield found


def held(fork: Forked) -> list[forks.Fork]:
    return forks.find(identify([fork.process.pid]))


def test_a_fork_gives_up_what_it_inherited_before_the_dump(box: Box, with_fork: Forked, world: standin.World) -> None:
    seen: list[tuple[str, bool]] = []
    box.fake.on("Tasks/Pause", lambda _context: seen.append(("pause", bool(held(with_fork)))))
    pid = with_fork.process.pid
    predicted = box.capture(True)
    assert held(with_fork)
    done = box.capture()
    assert predicted.actions == done.actions
    assert f"take what process {pid} inherited of a CUDA process away from it" in done.actions
    assert seen == [("pause", False)]
    assert [entry["pid"] for entry in done.detached] == [pid]
    assert "detach" in done.seconds
    assert with_fork.count()[0] > 0
    assert box.capture(force=True).detached == []


def test_forks_are_refused_where_that_is_wanted(box: Box, with_fork: Forked, world: standin.World) -> None:
    refusal = box.refused(cuda_forks=forks.REFUSE)
    assert refusal.code == "cuda_forks"
    assert str(with_fork.process.pid) in refusal.message
    assert world.order() == []
    assert held(with_fork)


def test_a_fork_that_cannot_be_dealt_with_has_the_workload_go_on(
    box: Box, with_fork: Forked, world: standin.World, pids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forks, "_carry_out", lambda *_arguments: {})
    failure = box.fails()
    assert failure.code == "cuda_fork_not_detached"
    assert "Tasks/Pause" not in box.fake.names()
    running(box, world, pids)


def test_without_cuda_nothing_is_taken_away(box: Box, with_fork: Forked) -> None:
    """``gpu: none`` says that nobody wants the driver's part looked at."""
    assert box.capture(gpu="none").detached == []
    assert held(with_fork)


def test_ranks_that_may_share_gpu_memory_are_refused_and_go_on(box: Box, world: standin.World, pids: list[int]) -> None:
    for pid in pids[:2]:
        (box.here.proc / str(pid) / "maps").write_text("1-2 r-xp 0 fe:00 7 /lib/libnccl.so.2\n", encoding="ascii")
        (box.here.proc / str(pid) / "environ").write_bytes(b"WORLD_SIZE=2\0")
    assert box.refused().code == "cuda_ipc"
    assert world.order() == []
    done = box.capture(accept=("cuda_ipc",))
    assert [taken["code"] for taken in done.accepted] == ["cuda_ipc"]
    assert "ends the workload" in done.warnings[0]


def test_a_divided_gpu_is_refused_and_nobody_can_vouch_for_it(box: Box, world: standin.World, pids: list[int]) -> None:
    world.set("gpus/0/mig", 1)
    assert box.refused(accept=tuple(restorable.ACCEPTABLE)).code == "cuda_mig"
    assert world.order() == []
    world.set("gpus/0/mig", 0)
    assert box.capture().changed


def test_a_daemon_that_serves_the_gpu_is_refused_unless_vouched_for(
    box: Box, world: standin.World, pids: list[int]
) -> None:
    (box.here.proc / str(pids[2]) / "comm").write_text("nvidia-cuda-mps\n", encoding="ascii")
    assert box.refused().code == "cuda_mps"
    assert world.order() == []
    done = box.capture(accept=("cuda_mps",))
    assert [taken["code"] for taken in done.accepted] == ["cuda_mps"]
    (box.here.proc / str(pids[2]) / "comm").unlink()
    assert box.capture(force=True).accepted == []


def test_a_target_that_lacks_driver_or_gpu(box: Box, world: standin.World, pids: list[int]) -> None:
    """The processes have memory on one GPU of the stand-in, driver 580.0.0."""
    other = Target("far", "570.1", ("Some other chip",))
    codes = [problem["code"] for problem in box.refused(targets=(other,)).details["problems"]]
    assert codes == ["target_driver_differs", "target_gpu_lacking"]
    assert world.order() == []
    done = box.capture(targets=(other,), accept=("target_driver_differs", "target_gpu_lacking"))
    assert [taken["code"] for taken in done.accepted] == codes
    same = Target("near", "580.0.0", (done.facts.gpu.cards[0].name,) if done.facts.gpu else ())
    assert box.capture(targets=(same,), force=True).accepted == []


@pytest.mark.parametrize("killed", [False, True])
def test_what_somebody_has_locked_is_captured_and_stays_locked(
    box: Box, world: standin.World, pids: list[int], killed: bool
) -> None:
    for pid in pids[:2]:
        world.set(f"pids/{pid}/state", standin.LOCKED)
    if killed:
        box.fake.fail("Tasks/Resume", "INTERNAL", "no luck")
        box.fails()
        assert world.state(pids[0]) == standin.CHECKPOINTED
        box.fake.heal()
    done = box.capture()
    assert done.recovered is killed
    assert [world.state(pid) for pid in pids[:2]] == [standin.LOCKED] * 2
    calls = {what for what, _pid in world.order()}
    assert calls == {"checkpoint", "restore"}


def test_some_locked_and_some_not_is_refused(box: Box, world: standin.World, pids: list[int]) -> None:
    world.set(f"pids/{pids[0]}/state", standin.LOCKED)
    assert box.refused().code == "cuda_states_mixed"
