# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a workload that a capture has stopped goes on: what is said, and how long is waited."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Callable

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import recovery
from ansible_collections.gpuops.restore.plugins.module_utils._capture.mark import CAPTURING, ENDING, KEPT_PAUSED, Mark
from ansible_collections.gpuops.restore.plugins.module_utils._capture.params import CaptureParams
from ansible_collections.gpuops.restore.plugins.module_utils._containerd import network_locks
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import (
    RETRYABLE,
    NodeError,
    RestoreError,
    RpcError,
)
from ansible_collections.gpuops.restore.plugins.module_utils._host import cgroup, processes as host_processes
from ansible_collections.gpuops.restore.tests.unit.helpers import capture_samples, host_process
from ansible_collections.gpuops.restore.tests.unit.helpers.capture_samples import BOX, PAUSED, RUNNING, STOPPED, Box
from ansible_collections.gpuops.restore.tests.unit.helpers.clock import Clock
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

process = pytest.fixture(capture_samples.process)


@pytest.fixture
def box(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, process: int) -> Iterator[Box]:
    yield Box(fake, client, node, tmp_path, process)


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        (KEPT_PAUSED, "resume box, which the capture example.test/old:1 keeps paused"),
        (CAPTURING, "resume box, which a capture as example.test/old:1 that was broken off may have left paused"),
        (ENDING, "resume box, which a capture as example.test/old:1 that was broken off may have left paused"),
    ],
)
def test_what_was_paused_on_purpose_is_told_from_what_was_broken_off(phase: str, expected: str) -> None:
    mark = Mark(1, 2, "/d", "/s", "", "overlayfs", "view", "", False, "example.test/old:1", phase)
    params = CaptureParams("box", "example.test/new:1")
    assert recovery.describe(params, mark) == [expected]
    told = recovery.describe(params, replace(mark, after={"command": ["/bin/wake"]}))
    assert told == [expected, *([] if phase == ENDING else ["run after_capture of box (/bin/wake)"])]


# --- the task that a mark speaks of


@pytest.mark.parametrize(
    ("pid", "later", "found"), [(0, 0, True), (1, 0, False), (0, 1, False)], ids=["same", "other-pid", "other-start"]
)
def test_the_marked_task_is_told_by_its_process_and_when_that_began(
    box: Box, client: Client, pid: int, later: int, found: bool
) -> None:
    start_time = host_processes.start_time(box.pid)
    assert start_time is not None
    mark = Mark(box.pid + pid, start_time + later, "/d", "/s", "", "overlayfs", "view", "", False, "example.test/old:1")
    assert (recovery.marked_task(client, BOX, mark, str(box.here.proc)) is not None) is found
    box.fake.state.tasks.clear()
    assert recovery.marked_task(client, BOX, mark, str(box.here.proc)) is None


# --- a CRIU that is still at it


RUNC = "/usr/sbin/runc"


def runtime_of(proc: Path, pid: int, directory: str, **changes: str) -> None:
    words = (RUNC, "checkpoint", "--image-path", f"{directory}/images")
    host_process.add(proc, pid, *words, **{"program": RUNC, **changes})


def criu_in(proc: Path, pid: int, directory: str, **changes: str) -> None:
    host_process.add(proc, pid, "criu", "swrk", "3", **{"program": "/usr/sbin/criu", **changes})
    (proc / str(pid) / "fd" / "5").symlink_to(f"{directory}/images")


def end(proc: Path, pid: int) -> None:
    (proc / str(pid) / "exe").unlink()


@pytest.mark.parametrize("worker", [runtime_of, criu_in])
def test_a_dump_is_waited_for_until_it_ends(tmp_path: Path, worker: Callable[..., None]) -> None:
    worker(tmp_path, 77, "/staging/dump")
    clock = Clock(4.9, lambda: end(tmp_path, 77))
    recovery.await_dump("box", "/staging/dump", 5.0, str(tmp_path), clock, clock.sleep)
    assert 4.9 <= clock.now < 5.0


@pytest.mark.parametrize(
    "program", ["/opt/runc-1.2", "/usr/bin/crun", "/usr/bin/nvidia-container-runtime", "/runc (deleted)"]
)
def test_a_dump_that_does_not_end_is_said_when_its_time_is_over_and_not_before(tmp_path: Path, program: str) -> None:
    runtime_of(tmp_path, 77, "/staging/dump", program=program)
    clock = Clock()
    with pytest.raises(RestoreError) as caught:
        recovery.await_dump("box", "/staging/dump", 5.0, str(tmp_path), clock, clock.sleep)
    assert (caught.value.code, caught.value.outcome) == ("capture_busy", RETRYABLE)
    assert "77" in caught.value.message and "box" in caught.value.message
    assert 5.0 <= clock.now < 5.2


def test_dumps_of_others_are_not_waited_for(tmp_path: Path) -> None:
    runtime_of(tmp_path, 77, "/staging/dump-of-another")
    runtime_of(tmp_path, os.getpid(), "/staging/dump")
    clock = Clock()
    recovery.await_dump("box", "/staging/dump", 5.0, str(tmp_path), clock, clock.sleep)
    assert clock.now == 0.0


@pytest.mark.parametrize("worker", [runtime_of, criu_in])
@pytest.mark.parametrize("how", host_process.NOT_ROOTS)
def test_nobody_else_keeps_a_workload_paused(tmp_path: Path, worker: Callable[..., None], how: str) -> None:
    """Whoever reads our log, or has the directory in its command line, as root or not."""
    worker(tmp_path, 77, "/staging/dump", **host_process.NOT_ROOTS[how])
    clock = Clock()
    recovery.await_dump("box", "/staging/dump", 5.0, str(tmp_path), clock, clock.sleep)
    assert clock.now == 0.0


# --- a task that cannot be resumed


def test_resuming_what_runs_or_is_gone_changes_nothing(box: Box, client: Client) -> None:
    recovery.resume(client, BOX)
    assert box.status() == RUNNING
    box.fake.state.tasks.clear()
    recovery.resume(client, BOX)
    assert box.fake.count("Tasks/Resume") == 2
    assert box.fake.state.tasks == {}


def test_a_record_that_lags_behind_is_waited_for(box: Box, client: Client) -> None:
    """As after a kill: runc has no paused container any more, containerd's record still has."""
    box.fake.state.tasks[BOX].status = PAUSED
    box.fake.fail("Tasks/Resume", "UNKNOWN", "OCI runtime resume failed: container not paused: unknown")
    clock = Clock(client.timeout - 0.2, lambda: setattr(box.fake.state.tasks[BOX], "status", STOPPED))
    recovery.resume(client, BOX, clock, clock.sleep)
    assert client.timeout - 0.2 <= clock.now < client.timeout


def test_a_record_that_stays_behind_is_an_error_when_the_time_is_over(box: Box, client: Client) -> None:
    box.fake.state.tasks[BOX].status = PAUSED
    box.fake.fail("Tasks/Resume", "UNKNOWN", "OCI runtime resume failed: container not paused: unknown")
    clock = Clock()
    with pytest.raises(RpcError):
        recovery.resume(client, BOX, clock, clock.sleep)
    assert client.timeout <= clock.now < client.timeout + 0.2


def test_what_only_the_daemon_has_paused_is_paused_anew_and_resumed(
    box: Box, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a CRIU that was killed, which thaws what it dumps."""
    task = box.fake.state.tasks[BOX]
    task.status = PAUSED
    box.fake.fail("Tasks/Resume", "UNKNOWN", "OCI runtime resume failed: container not paused: unknown", times=1)
    frozen: list[int] = []
    monkeypatch.setattr(cgroup, "freeze", lambda pid, _proc: frozen.append(pid) or True)
    clock = Clock()
    recovery.resume(client, BOX, clock, clock.sleep)
    assert (frozen, box.status(), clock.now) == ([task.pid], RUNNING, 0.0)


def test_a_network_that_cannot_be_unlocked_is_told(box: Box, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = NodeError("network_locked", "It is.", "Unlock it.")

    def release(_pid: int, _path: str, _proc: str) -> list[str]:
        raise locked

    assert recovery.unlock_network(client, 1 << 30) is None
    monkeypatch.setattr(network_locks, "release", release)
    assert recovery.unlock_network(client, box.pid) is locked


def test_another_failure_is_told_at_once(box: Box, client: Client) -> None:
    box.fake.state.tasks[BOX].status = PAUSED
    box.fake.fail("Tasks/Resume", "INTERNAL", "no luck")
    clock = Clock()
    with pytest.raises(RpcError, match="no luck"):
        recovery.resume(client, BOX, clock, clock.sleep)
    assert clock.now == 0.0
