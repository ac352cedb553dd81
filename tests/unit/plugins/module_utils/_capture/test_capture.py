# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Captures against the test double of containerd: order, failures at every call, marks of runs that were killed."""

from __future__ import annotations

import dataclasses
import datetime
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import (
    inet_sockets,
    mark as capture_mark,
    tcp_sockets,
    unlinked_files,
)
from ansible_collections.gpuops.restore.plugins.module_utils._capture.inet_sockets import InetSocket
from ansible_collections.gpuops.restore.plugins.module_utils._capture.mark import ENDING, Mark
from ansible_collections.gpuops.restore.plugins.module_utils._capture.params import DumpOptions
from ansible_collections.gpuops.restore.plugins.module_utils._capture.tcp_sockets import Connection, TcpSockets
from ansible_collections.gpuops.restore.plugins.module_utils._capture.unlinked_files import LAYER, UnlinkedFile
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import reader as checkpoint_reader
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.messages import message
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import (
    RETRYABLE,
    TERMINAL,
    UNKNOWN,
    RestoreError,
)
from ansible_collections.gpuops.restore.plugins.module_utils._criu import dump_config, dump_turns
from ansible_collections.gpuops.restore.plugins.module_utils._host import (
    memory as host_memory,
    processes as host_processes,
)
from ansible_collections.gpuops.restore.plugins.module_utils._oci.facts import Facts
from ansible_collections.gpuops.restore.tests.unit.helpers import capture_samples, criu_samples, host_process
from ansible_collections.gpuops.restore.tests.unit.helpers.capture_samples import (
    BOX,
    NAME,
    PAUSED,
    RUNNING,
    STOPPED,
    Box,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import BASE_NAME, spec
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_state import Snapshot

process = pytest.fixture(capture_samples.process)
second = pytest.fixture(capture_samples.process)


@pytest.fixture
def box(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, process: int) -> Iterator[Box]:
    yield Box(fake, client, node, tmp_path, process)


# --- what it does


def test_it_is_captured_and_goes_on(box: Box, client: Client) -> None:
    predicted = box.capture(True)
    box.untouched()
    done = box.capture()
    assert (predicted.changed, predicted.actions) == (done.changed, done.actions) == (True, done.actions)
    assert box.status() == RUNNING
    names = box.fake.names()
    order = ["Tasks/Pause", "Tasks/Checkpoint", "Diff/Diff", "Tasks/Resume", "Content/Write", "Images/Create"]
    assert [name for name in dict.fromkeys(names) if name in order] == order
    found = checkpoint_reader.load(client, NAME)
    assert (found.digest, found.base_name, found.snapshotter) == (done.digest, BASE_NAME, "overlayfs")
    assert checkpoint_reader.spec(client, found) == spec()
    assert found.criu is not None and found.writable_layer is not None and found.runtime_options is not None
    assert found.facts.container == BOX
    # What a restore may have of the host, and that this node vouches for it.
    assert found.captured_here
    assert found.facts.rights == ("host_namespaces=network", "seccomp_unconfined")
    assert done.sizes["criu"] == found.criu.size
    del box.fake.state.images[NAME]
    box.untouched()


def test_what_the_processes_have_is_recorded_while_they_stand_still(box: Box, client: Client) -> None:
    here = box.here.proc / str(box.pid)
    limits = f"{'Limit':26}Soft Limit           Hard Limit\n{'Max open files':26}%d                    9\n"

    def paused(_context: object) -> None:
        (here / "limits").write_text(limits % 5, encoding="ascii")

    (here / "status").unlink()
    (here / "status").write_text("Name:\tjob\nNSpid:\t99\t1\nSeccomp:\t2\n", encoding="ascii")
    (here / "limits").write_text(limits % 4, encoding="ascii")
    box.fake.on("Tasks/Pause", paused)
    box.capture()
    state = checkpoint_reader.load(client, NAME).state
    assert state is not None
    assert state.kinds["limits"] == {"1": {"Max open files": "5 9"}}
    assert state.kinds["seccomp"] == {"1": {"Seccomp": "2"}}
    assert state.kinds["mounts"]["/proc"] == {"flags": "rw", "type": "proc"}


@pytest.mark.parametrize(
    ("leave", "then"),
    [
        ("running", ["resume the task", "write the image"]),
        ("paused", ["write the image"]),
        (
            "stopped",
            ["keep the dump as the checkpoint, then end the task", "write the image from the checkpoint on the node"],
        ),
    ],
)
def test_what_becomes_of_the_task_is_among_the_actions(box: Box, leave: str, then: list[str]) -> None:
    expected = [f"pause the task (pid {box.pid}) and dump it", *then]
    assert box.capture(True, leave=leave).actions == expected
    assert box.capture(leave=leave).actions == expected


def test_twice_is_once_and_force_is_twice(box: Box) -> None:
    first = box.capture()
    for check in (True, False):
        again = box.capture(check)
        assert (again.changed, again.actions, again.digest) == (False, [], first.digest)
    box.fake.state.dump["pages-1.img"] = b"later"
    second = box.capture(force=True)
    assert second.changed and second.digest != first.digest
    assert second.before == {"digest": first.digest}


def test_one_whose_memory_is_gone_is_taken_anew(box: Box, client: Client) -> None:
    box.capture()
    criu = checkpoint_reader.load(client, NAME).criu
    assert criu is not None
    del box.fake.state.blobs[criu.digest]
    assert box.capture().changed


def test_stopped_stays_paused_until_the_checkpoint_is_safe(box: Box) -> None:
    seen = []
    box.fake.on("Images/Create", lambda _context: seen.append(box.status()))
    done = box.capture(leave="stopped")
    assert (seen[0], box.status()) == (PAUSED, STOPPED)
    assert 0 < done.seconds["standstill"] <= done.seconds["total"]
    assert box.fake.names().index("Images/Create") < box.fake.names().index("Tasks/Kill")
    assert not box.run.exists() and not os.path.exists(box.root)
    again = box.capture(leave="stopped")
    assert (again.changed, again.warnings) == (False, [])


def test_a_checkpoint_from_before_does_not_stop_the_task(box: Box) -> None:
    box.capture()
    again = box.capture(leave="stopped")
    assert (again.changed, box.status()) == (False, RUNNING)
    assert "gone on" in again.warnings[0]


def test_the_dump_may_stay_as_the_staged_directory(box: Box) -> None:
    done = box.capture(keep_staged=True)
    assert sorted(os.listdir(done.staged)) == sorted(box.fake.state.dump)
    assert os.listdir(box.root) == [done.digest.split(":")[1]]


def test_a_given_lease_is_used_and_stays(box: Box) -> None:
    box.fake.state.leases["mine"] = {}
    box.capture(lease="mine")
    assert list(box.fake.state.leases) == ["mine"]
    (written, *_more) = [call for call in box.fake.seen if call.name == "Content/Write"]
    assert written.metadata["containerd-lease"] == "mine"


def test_criu_is_told_what_it_may_take(box: Box) -> None:
    done = box.capture(criu=DumpOptions(tcp_established="true", file_locks="true", empty_namespaces=("network",)))
    (call,) = [call for call in box.fake.seen if call.name == "Tasks/Checkpoint"]
    options = message("containerd.runc.v1.CheckpointOptions")
    options.ParseFromString(call.request.options.value)
    assert (options.open_tcp, options.file_locks, options.terminal) == (True, True, False)
    assert (options.exit, list(options.empty_namespaces)) == (False, ["network"])
    assert [(one["option"], one["why"]) for one in done.criu_options] == [
        ("tcp-established", "it was asked for"),
        ("file-locks", "it was asked for"),
    ]
    found = checkpoint_reader.load(box.client, NAME)
    assert found.facts.criu_options == checkpoint_reader.dump_options(box.client, found)
    assert found.facts.criu_options == ("file-locks", "tcp-established")
    nothing_recorded = dataclasses.replace(found, facts=Facts())
    assert set(checkpoint_reader.dump_options(box.client, nothing_recorded)) == {"file-locks", "tcp-established"}


def test_its_configuration_has_what_is_needed_while_it_is_dumped(
    box: Box, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A deleted file of 5 MiB, and lines that were asked for."""
    config = tmp_path / "etc" / "criu" / "runc.conf"
    config.parent.mkdir(parents=True)
    config.write_text("timeout 60\n", encoding="ascii")
    monkeypatch.setattr(dump_config, "NODE_CONFIG", str(config))
    file = UnlinkedFile(box.pid, "/var/large", LAYER, "", (1, 1), 0, (5 << 20) - 4096)
    monkeypatch.setattr(unlinked_files, "nameless", lambda _pids, _spec, _proc, _root: [file])
    seen: list[list[str]] = []
    box.fake.on("Tasks/Checkpoint", lambda _context: seen.append(config.read_text("ascii").splitlines()))
    done = box.capture(criu=DumpOptions(extra=("force-irmap",)))
    (lines,) = seen
    assert [line for line in lines if not line.startswith("#")] == ["timeout 60", "ghost-limit=5242880", "force-irmap"]
    assert config.read_text("ascii") == "timeout 60\n"
    assert [(one["option"], one["value"]) for one in done.criu_options] == [("ghost-limit", "5242880")]
    assert f"/var/large of process {box.pid}" in done.criu_options[0]["why"]
    assert done.facts.criu_options == ("ghost-limit",)


def test_its_lines_are_in_no_other_dump(box: Box, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A dump of this process without them waits, and has its turn as soon as this one's is over."""
    config = tmp_path / "etc" / "criu" / "runc.conf"
    config.parent.mkdir(parents=True)
    monkeypatch.setattr(dump_config, "NODE_CONFIG", str(config))
    order: list[str] = []

    def other() -> None:
        dump_turns.TURNS.begin(())
        order.append("other: " + "force-irmap" * config.exists())
        dump_turns.TURNS.end()

    beside, waits, changed = threading.Thread(target=other), threading.Event(), dump_turns.TURNS._changed
    wait = changed.wait
    monkeypatch.setattr(changed, "wait", lambda timeout=None: (waits.set(), wait(timeout))[1])

    def dumped(_context: object) -> None:
        beside.start()
        while beside.is_alive() and not waits.wait(0.01):
            pass
        order.append("dumped")

    box.fake.on("Tasks/Checkpoint", dumped)
    box.fake.on("Tasks/Resume", lambda _context: beside.join(60))
    box.capture(criu=DumpOptions(extra=("force-irmap",)))
    assert order == ["dumped", "other: "] and not beside.is_alive()


# --- deleted files


@pytest.fixture
def deleted(box: Box, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The process holds a deleted file; what its root directory has below /var, where CRIU's link would be."""
    var = tmp_path / "rootfs" / "var"
    var.mkdir(parents=True)
    (box.here.proc / str(box.pid) / "root").symlink_to(var.parent)
    (tmp_path / "file").write_text("content", encoding="ascii")
    file = UnlinkedFile(box.pid, "/var/one", LAYER, str(tmp_path / "file"), (1, 1))
    monkeypatch.setattr(unlinked_files, "find", lambda _pids, _spec, _proc, _root, _volumes: [file])
    monkeypatch.setattr(dump_config, "NODE_CONFIG", str(tmp_path / "etc" / "criu" / "runc.conf"))
    (tmp_path / "etc").mkdir()
    (tmp_path / "dump").mkdir()
    criu_samples.dump_files(tmp_path / "dump", {5: "/var/one", 6: "var/link_remap.6"}, [(5, 6, 0)])
    box.fake.state.dump.update({path.name: path.read_bytes() for path in (tmp_path / "dump").iterdir()})
    return var


@pytest.mark.parametrize("leave", ["running", "stopped"])
def test_a_deleted_file_is_in_the_layer(box: Box, deleted: Path, leave: str) -> None:
    configured, linked = [], []
    config = Path(dump_config.NODE_CONFIG)
    box.fake.on("Tasks/Checkpoint", lambda _context: configured.append("link-remap" in config.read_text("ascii")))
    box.fake.on("Diff/Diff", lambda _context: linked.append(os.listdir(deleted)))
    predicted = box.capture(True, leave=leave)
    done = box.capture(leave=leave)
    assert predicted.unlinked_files == done.unlinked_files == [{"pid": box.pid, "path": "/var/one"}]
    assert configured == [True]
    # Without an overlay nothing is copied, so the layer is made while the task is paused; then the dump is packed.
    assert linked == [["link_remap.6"], []]
    assert os.listdir(deleted) == [] and not config.parent.exists()


def test_a_layer_that_fails_leaves_no_link(box: Box, deleted: Path) -> None:
    box.fake.fail("Diff/Diff")
    assert box.fails().code == "rpc_failed"
    assert os.listdir(deleted) == []
    box.untouched()


def test_one_that_the_layer_cannot_hold_is_no_checkpoint(box: Box, deleted: Path) -> None:
    (deleted / "link_remap.6").touch()
    assert box.fails().code == "link_remap_failed"
    box.untouched()


def test_the_next_run_takes_away_the_links_of_a_broken_one(box: Box, deleted: Path) -> None:
    (deleted / "link_remap.6").touch()
    broken_off(box, links=("/var/link_remap.6",))
    assert box.capture().recovered
    assert os.listdir(deleted) == []


# --- refusals


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda box: box.fake.state.containers.clear(), "container_absent"),
        (lambda box: box.fake.state.tasks.clear(), "task_not_running"),
        (lambda box: setattr(box.fake.state.tasks[BOX], "status", PAUSED), "task_paused"),
        (lambda box: box.fake.state.snapshots.pop(("overlayfs", BOX)), "snapshot_absent"),
    ],
)
def test_what_cannot_be_captured_is_told_in_check_mode_too(box: Box, change: Any, code: str) -> None:
    change(box)
    for check in (True, False):
        assert box.fails(check).code == code
    assert not box.run.exists()


def test_a_foreign_name_is_not_taken_without_force(box: Box, fake: FakeContainerd) -> None:
    error = box.refused(name=BASE_NAME)
    assert (error.code, error.outcome) == ("checkpoint_name_taken", TERMINAL)
    assert box.capture(name=BASE_NAME, force=True).changed


def test_another_containers_checkpoint_is_not_taken(box: Box, fake: FakeContainerd) -> None:
    box.capture()
    fake.state.containers["other"] = fake.state.containers[BOX]
    error = box.fails(container_id="other")
    assert (error.code, error.details["container"]) == ("checkpoint_name_taken", BOX)


def test_a_foreign_container_may_be_captured_but_not_ended(box: Box) -> None:
    assert box.refused(owner="someone", leave="stopped").code == "container_not_ours"
    assert box.capture(owner="someone").changed


def test_a_second_run_at_the_same_time_is_refused(box: Box, client: Client) -> None:
    with capture_mark.locked(str(box.run), client.namespace, BOX) as slot:
        slot.write(mark(box))
        for check in (True, False):
            error = box.fails(check)
            assert (error.code, error.outcome) == ("busy", RETRYABLE)
        slot.clear()
    box.untouched()


@pytest.mark.parametrize(
    ("kernel", "criu", "refused"),
    [("6.18.44", "4.1.1", True), ("6.18.44", "4.2.1", False), ("6.12.30", "4.1.1", False)],
)
def test_sockets_that_this_criu_cannot_dump_on_this_kernel(
    box: Box, node: Node, monkeypatch: pytest.MonkeyPatch, kernel: str, criu: str, refused: bool
) -> None:
    (node.programs / "criu").write_text(f"#!/bin/sh\necho Version: {criu}\n", encoding="ascii")
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "node", kernel, "#1", "x86_64")))
    # Nothing to refuse as long as there is no socket.
    assert box.capture(True).changed
    held = InetSocket(box.pid, "server", "TCP", "0.0.0.0:80")
    monkeypatch.setattr(inet_sockets, "held_by", lambda pids, _proc: [held] if box.pid in pids else [])
    if not refused:
        assert box.capture().changed
        return
    error = box.refused()
    assert (error.code, error.outcome) == ("sockets_not_dumped", TERMINAL)
    assert f"TCP 0.0.0.0:80 of process {box.pid} (server)" in error.message
    assert "CRIU 4.1.1 cannot dump on Linux 6.18.44." in error.message
    assert error.remedy == "Install CRIU 4.2 or newer on this node."


# --- failures


def calls(box: Box, **changes: Any) -> list[str]:
    """The calls of a capture that works, which is then taken away."""
    box.fake.heal()
    box.capture(**changes)
    names = box.fake.names()
    del box.fake.state.images[NAME]
    return names


def test_whatever_call_fails_the_task_goes_on(box: Box) -> None:
    """One call fails, once: nothing is left."""
    names = calls(box)
    assert names.count("Tasks/Checkpoint") == 1
    survived = []
    for position, name in enumerate(names):
        box.fake.heal()
        box.fake.fail_call(position)
        try:
            box.capture()
        except RestoreError as error:
            assert "left_behind" not in error.details, name
            assert NAME not in box.fake.state.images, name
            box.untouched()
        else:
            survived.append(name)
            del box.fake.state.images[NAME]
    box.fake.heal()
    assert box.capture().changed
    # The lease's deletion, which only tidies up, and a resume, which is tried again after a look.
    assert set(survived) <= {"Leases/Delete", "Content/Info", "Content/Update"}


@pytest.mark.parametrize("name", ["Tasks/Pause", "Tasks/Checkpoint", "Diff/Diff", "Content/Write"])
def test_a_failure_is_told_as_it_is(box: Box, name: str) -> None:
    box.fake.fail(name, "INTERNAL", "no luck")
    error = box.fails()
    assert "no luck" in error.message
    assert error.code == ("criu_dump_failed" if name == "Tasks/Checkpoint" else "rpc_failed"), error.code
    box.untouched()


def test_what_comes_after_the_preflight_is_judged_too(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to elsewhere that was made when the task was about to stand still."""
    there = TcpSockets(connections=(Connection("10.0.0.2:1", "10.0.0.3:2", False),))
    found = TcpSockets()
    monkeypatch.setattr(tcp_sockets, "held_by", lambda _pids, _proc: found)

    def connects(_context: object) -> None:
        nonlocal found
        found = there

    box.fake.on("Tasks/Pause", connects)
    error = box.fails()
    assert (error.code, error.outcome) == ("tcp_connections", RETRYABLE)
    assert box.fake.count("Tasks/Checkpoint") == 0
    box.untouched()


def test_processes_that_end_when_the_workload_goes_on_are_told(box: Box, second: int) -> None:
    box.hold(box.pid, second)
    (box.here.proc / str(second) / "comm").write_text("sleep\n", encoding="ascii")
    box.fake.on("Tasks/Resume", lambda _context: capture_samples.end(second))
    done = box.capture()
    assert done.ended == [{"pid": second, "command": "sleep"}]
    assert any(f"Of the captured processes of {BOX}, {second} (sleep) ended" in text for text in done.warnings)
    assert done.digest


def test_a_task_that_ends_when_it_is_to_go_on_is_told(box: Box) -> None:
    box.fake.on("Tasks/Resume", lambda _context: capture_samples.end(box.pid))
    done = box.capture()
    assert [process["pid"] for process in done.ended] == [box.pid]
    assert f"The task of {BOX} has ended" in done.warnings[0]


def test_a_failure_after_which_the_task_has_ended_says_so(box: Box) -> None:
    box.fake.fail("Tasks/Checkpoint", "INTERNAL", "no luck")
    box.fake.on("Tasks/Resume", lambda _context: capture_samples.end(box.pid))
    error = box.fails()
    assert error.message.startswith("containerd could not dump") and f"The task of {BOX} has ended" in error.message
    assert error.details["ended"] == [{"pid": box.pid, "command": "?"}]


@pytest.mark.parametrize("leave", ["paused", "stopped"])
def test_what_is_not_to_go_on_is_not_looked_for(box: Box, leave: str) -> None:
    box.fake.on("Images/Create", lambda _context: capture_samples.end(box.pid))
    done = box.capture(leave=leave)
    assert (done.ended, done.warnings) == ([], [])


def test_what_ends_when_the_next_run_resumes_it_is_told(box: Box, second: int) -> None:
    """Of a run that was killed."""
    box.hold(box.pid, second)
    box.fake.fail("Tasks/Resume", "INTERNAL", "no luck")
    box.fails()
    box.fake.heal()
    box.fake.on("Tasks/Resume", lambda _context: capture_samples.end(second))
    done = box.capture()
    assert second in [process["pid"] for process in done.ended]
    assert any(str(second) in warning for warning in done.warnings)


def test_a_task_that_cannot_be_resumed_is_said_and_the_next_run_does_it(box: Box) -> None:
    box.fake.fail("Tasks/Resume", "INTERNAL", "no luck")
    error = box.fails()
    assert "may stand still" in error.details["left_behind"]
    assert (error.outcome, box.status()) == (UNKNOWN, PAUSED)
    box.fake.heal()
    predicted = box.capture(True)
    assert predicted.recovered and predicted.changed and box.status() == PAUSED
    assert predicted.after == {"digest": "to be taken"}
    done = box.capture()
    assert done.recovered and box.status() == RUNNING
    del box.fake.state.images[NAME]
    box.untouched()


def test_a_capture_takes_as_long_as_its_size_allows(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    expires: list[datetime.datetime] = []
    box.fake.on("Diff/Diff", lambda _context: expires.extend(box.fake.state.expiries()))
    box.client.rate = sum(map(len, box.fake.state.dump.values())) / 1e6
    memory = 4096
    monkeypatch.setattr(host_memory, "own", lambda _pids, _proc: memory)
    box.capture(checkpoint_timeout=0.0)
    assert box.fake.seconds("Tasks/Checkpoint") == [pytest.approx(memory / box.client.rate, rel=0.05)]
    assert box.fake.seconds("Diff/Diff")[-1] == pytest.approx(1e6, rel=0.05), "packed by what was dumped"
    left = (expires[-1] - datetime.datetime.now(datetime.timezone.utc)).total_seconds()
    assert left > 1.5 * memory / box.client.rate


def test_a_part_that_was_collected_meanwhile_makes_no_checkpoint(box: Box) -> None:
    def collect(_context: Any) -> None:
        for digest, blob in list(box.fake.state.blobs.items()):
            if b"inventory.img" in blob.data:
                del box.fake.state.blobs[digest]

    # The fourth part is written when the dump is packed already.
    box.fake.on("Content/Write", collect, after=1)
    error = box.fails()
    assert (error.code, error.outcome) == ("checkpoint_collected", RETRYABLE)
    assert NAME not in box.fake.state.images
    box.untouched()


def test_a_dump_that_takes_too_long(box: Box) -> None:
    box.fake.hang("Tasks/Checkpoint")
    error = box.fails(checkpoint_timeout=0.3)
    assert (error.code, error.outcome) == ("checkpoint_timeout", UNKNOWN)
    box.untouched()


def test_half_a_dump_is_no_checkpoint(box: Box) -> None:
    del box.fake.state.dump["inventory.img"]
    assert box.fails().code == "criu_images_incomplete"
    box.untouched()


def test_one_that_dies_of_its_kill_is_paused_for_a_moment_still(box: Box) -> None:
    """As seen under load: runc has no paused container any more, containerd's record lags behind."""
    seen = []

    def late(_context: Any) -> None:
        seen.append(box.status())
        if len(seen) > 5:
            box.fake.state.tasks[BOX].status = STOPPED

    def lag(_context: Any) -> None:
        box.fake.state.tasks[BOX].status = PAUSED
        box.fake.on("Tasks/Get", late)

    box.fake.on("Tasks/Resume", lag)
    box.fake.fail("Tasks/Resume", "UNKNOWN", "OCI runtime resume failed: container not paused: unknown")
    assert box.capture(leave="stopped").changed
    assert box.status() == STOPPED


# --- marks of runs that were killed


def mark(box: Box, **changes: Any) -> Mark:
    fields: dict[str, Any] = {
        "pid": box.pid,
        "start_time": host_processes.start_time(box.pid),
        "directory": os.path.join(box.root, "capture", "tests", BOX),
        "staging_dir": box.root,
        "lease": "gpuops-restore-old",
        "snapshotter": "overlayfs",
        "view": "old-view",
        "copy": "old-copy",
        "cuda": False,
        "name": "example.test/old:1",
    }
    return Mark(**{**fields, **changes})


def broken_off(box: Box, **changes: Any) -> Mark:
    """What a run leaves that was killed while the task was paused."""
    found = mark(box, **changes)
    state = box.fake.state
    os.makedirs(os.path.join(found.directory, "images"))
    with open(os.path.join(found.directory, "images", "pages-1.img"), "wb") as stream:
        stream.write(b"half")
    for key in (found.view, found.copy):
        if key:
            state.snapshots[("overlayfs", key)] = Snapshot("", 1, {})
    if found.lease:
        state.leases[found.lease] = {}
    state.tasks[BOX].status = PAUSED
    with capture_mark.locked(str(box.run), "tests", BOX) as slot:
        slot.write(found)
    return found


def test_the_next_run_resumes_and_clears_before_anything_else(box: Box) -> None:
    broken_off(box)
    predicted = box.capture(True)
    assert predicted.recovered and predicted.changed
    assert box.status() == PAUSED
    done = box.capture()
    assert done.recovered and done.actions[0] == predicted.actions[0]
    assert box.fake.names().index("Tasks/Resume") < box.fake.names().index("Tasks/Pause")
    del box.fake.state.images[NAME]
    box.untouched()


def test_it_resumes_even_if_it_then_fails(box: Box) -> None:
    broken_off(box)
    assert box.fails(name=BASE_NAME).code == "checkpoint_name_taken"
    box.untouched()


def test_an_image_that_was_complete_is_kept(box: Box) -> None:
    box.capture()
    broken_off(box, phase=ENDING)
    box.fake.heal()
    done = box.capture(leave="stopped")
    assert done.changed and done.recovered
    assert box.status() == STOPPED
    assert "Tasks/Checkpoint" not in box.fake.names()


def test_a_task_that_has_been_replaced_is_left_alone(box: Box) -> None:
    """Somebody has paused the new one, for reasons of his own."""
    broken_off(box, start_time=1)
    assert box.fails().code == "task_paused"
    assert box.status() == PAUSED
    assert "Tasks/Resume" not in box.fake.names()


def test_a_criu_that_is_still_at_it_is_waited_for(box: Box) -> None:
    found = broken_off(box)
    (box.here.proc / str(box.pid) / "cmdline").write_text("", encoding="ascii")
    words = ("runc", "checkpoint", "--image-path", f"{found.directory}/images")
    host_process.add(box.here.proc, 77, *words, program="/usr/sbin/runc")
    worker = box.here.proc / "77"
    error = box.fails(checkpoint_timeout=0.3)
    assert (error.code, error.outcome) == ("capture_busy", RETRYABLE)
    assert "77" in error.message and os.path.exists(found.directory)
    (worker / "cmdline").write_text("other\0", encoding="ascii")
    os.symlink(found.directory + "/images", worker / "fd" / "3")
    assert box.fails(checkpoint_timeout=0.3).code == "capture_busy"
    os.unlink(worker / "fd" / "3")
    assert box.capture().recovered
