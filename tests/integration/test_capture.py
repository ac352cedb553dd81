# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Captures of a running task on a real containerd: complete, restorable by us and by ctr, and never at its cost."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from typing import Any, Callable

import in_node
import process_memory
import pytest
from gpuops_lab import image, node as lab_node, workload
from gpuops_lab.config import Node
from gpuops_lab.node import output
from node_listing import Listing, listing, settled_difference

REF = "gpuops.test/captured:1"
STATE = "/var/lib/gpuops-restore"
SOURCE = "source"
# runc's own mark of a container that was dumped once; it goes with the container.
RUNC_MARK = f"/run/containerd/runc/k8s.io/{SOURCE}/checkpoint"
#: What a capture calls when everything is ready for the task to stand still.
PAUSE = "_containerd.tasks:pause"
RunModule = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def counting(node: Node) -> None:
    """A counter that runs through all tests of this file."""
    workload.start(node, SOURCE, 8)
    workload.await_count(node, SOURCE, 5)


@pytest.fixture
def clean(node: Node) -> Iterator[Listing]:
    """The node is afterwards as it was before, the counter still runs, and nobody is paused."""
    sweep(node)
    before = without_mark(listing(node))
    yield before
    assert differences(node, before) == []
    alive(node)


def sweep(node: Node) -> None:
    """Take away what a test before that failed has left."""
    for identifier in set(workload.ctr(node, "k8s.io", "containers", "ls", "-q").split()) - {SOURCE}:
        workload.delete(node, identifier)
    names = workload.ctr(node, "k8s.io", "images", "ls", "-q").split()
    left = [name for name in names if name.startswith("gpuops.test/") and name != image.REFERENCE]
    if left:
        forget(node, *left)


def without_mark(found: Listing) -> Listing:
    return {kind: [row for row in rows if RUNC_MARK not in row] for kind, rows in found.items()}


def differences(node: Node, before: Listing) -> list[str]:
    return [line for line in settled_difference(node, before, seconds=0.5) if RUNC_MARK not in line]


def alive(node: Node, identifier: str = SOURCE) -> int:
    """The counter goes on; returns where it is."""
    assert status(node, identifier) == "RUNNING"
    return workload.await_count(node, identifier, workload.count(node, identifier) + 2)


def status(node: Node, identifier: str) -> str:
    rows = [line.split() for line in workload.ctr(node, "k8s.io", "tasks", "ls").splitlines()[1:]]
    return next((row[2] for row in rows if row and row[0] == identifier), "absent")


def options(name: str = REF, **more: Any) -> dict[str, Any]:
    return {"container_id": SOURCE, "name": name, **more}


def forget(node: Node, *names: str) -> None:
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", *names)


def restored(node: Node, run_module: RunModule, name: str, at_least: int, stage: bool = True) -> None:
    """Our modules restore it, it counts on from there, and is taken away again."""
    identity = {"container_id": "copy", "checkpoint": name}
    staged = run_module("containerd_checkpoint_stage", {"checkpoint": name})
    assert staged["changed"] is stage
    run_module("containerd_container", identity)
    run_module("containerd_task", identity)
    consistent(node, "copy", at_least)
    for module in ("containerd_task", "containerd_container"):
        run_module(module, {"container_id": "copy", "state": "absent"})
    run_module("containerd_checkpoint_stage", {"checkpoint": name, "state": "absent"})


def consistent(node: Node, identifier: str, at_least: int) -> None:
    """It counts on from there, and has not lost or repeated a number."""
    begun = workload.await_count(node, identifier, at_least)
    workload.await_count(node, identifier, begun + 3)
    read = ["tasks", "exec", "--exec-id", "log", identifier, "/bin/cat", "/var/count.log"]
    numbers = [int(line) for line in workload.ctr(node, "k8s.io", *read).split()]
    assert numbers == list(range(1, len(numbers) + 1)), "the writable layer is of another moment than the memory"


def restored_by_ctr(node: Node, name: str, at_least: int) -> None:
    """ctr gives the copy the original's control group and empties that in the end: the original must be gone."""
    workload.restore(node, "by-ctr", name)
    workload.await_count(node, "by-ctr", at_least + 3)
    workload.delete(node, "by-ctr")
    for path in node.inside("/tmp").glob("ctrd-checkpoint*"):
        shutil.rmtree(path)


def test_captured_and_restored_by_us_and_by_ctr(node: Node, run_module: RunModule, clean: Listing) -> None:
    count = workload.count(node, SOURCE)
    predicted = run_module("containerd_checkpoint", options(), check=True)
    assert differences(node, clean) == []
    done = run_module("containerd_checkpoint", options(), diff=True)
    assert predicted["changed"] and done["changed"]
    assert predicted["actions"] == done["actions"]
    assert done["diff"]["after"]["digest"] == done["checkpoint"]["digest"]
    assert done["seconds"]["standstill"] <= done["seconds"]["total"]
    assert done["sizes"]["criu"] > 8 << 20
    for check in (True, False):
        again = run_module("containerd_checkpoint", options(), check=check)
        assert (again["changed"], again["checkpoint"]["digest"]) == (False, done["checkpoint"]["digest"])
    found = run_module("containerd_checkpoint_info", {"checkpoint": REF})
    assert found["problems"] == []
    recorded = found["checkpoint"]["recorded"]
    assert recorded == done["recorded"]
    assert (recorded["container"], recorded["gpu"]) == (SOURCE, None)
    assert recorded["memory_bytes"] > 8 << 20
    assert recorded["base_image"]["name"] == image.REFERENCE
    assert found["checkpoint"]["base_image"]["digest"] == recorded["base_image"]["digest"]
    assert recorded["criu"] and recorded["runtime"]["version"] and recorded["cpu"]["features"]
    restored(node, run_module, REF, count)
    forget(node, REF)


def test_parked_it_stands_still_and_goes_on_in_place(
    node: Node, run_module: RunModule, expect_failure: RunModule, clean: Listing
) -> None:
    """Also over a restart of containerd, which is what it may be parked for."""
    identity = {"container_id": SOURCE, "force": True}
    count = workload.count(node, SOURCE)
    predicted = run_module("containerd_park", identity, check=True)
    assert status(node, SOURCE) == "RUNNING"
    done = run_module("containerd_park", identity, diff=True)
    assert done["actions"] == predicted["actions"] and done["diff"]["after"] == {"state": "PARKED"}
    assert run_module("containerd_park", identity)["changed"] is False
    assert status(node, SOURCE) == "PAUSED"
    refused = (
        ("containerd_checkpoint", options()),
        ("containerd_task", {**identity, "state": "stopped"}),
        ("containerd_task", {**identity, "state": "absent"}),
    )
    for module, given in refused:
        expect_failure(module, given, "workload_parked")
    lab_node.restart(node)
    assert status(node, SOURCE) == "PAUSED"
    for check, changed in ((True, True), (False, True), (False, False)):
        assert run_module("containerd_park", {**identity, "state": "resumed"}, check=check)["changed"] is changed
    consistent(node, SOURCE, count)


def test_what_was_restored_is_captured_again(node: Node, run_module: RunModule, clean: Listing) -> None:
    """Twice over, without a place for its output, which is the default."""
    names = [f"gpuops.test/generation:{number}" for number in range(3)]
    run_module("containerd_checkpoint", options(names[0]))
    for old, new in zip(names, names[1:]):
        count = workload.count(node, SOURCE)
        identity = {"container_id": "copy", "checkpoint": old}
        run_module("containerd_checkpoint_stage", {"checkpoint": old})
        run_module("containerd_container", identity)
        run_module("containerd_task", identity)
        run_module("containerd_checkpoint", {"container_id": "copy", "name": new})
        for module in ("containerd_task", "containerd_container"):
            run_module(module, {"container_id": "copy", "state": "absent"})
        run_module("containerd_checkpoint_stage", {"checkpoint": old, "state": "absent"})
    restored(node, run_module, names[-1], count - 5)
    forget(node, *names)


@pytest.mark.every_containerd
@pytest.mark.parametrize("route", ["staged", "descriptor"])
def test_an_open_stdin_stays_open_and_silent(node: Node, run_module: RunModule, clean: Listing, route: str) -> None:
    """Twice over: a process that waits for its input waits on, and reads no end of file."""
    names = [f"gpuops.test/stdin:{number}" for number in range(2)]
    script = "while :; do read line; echo read >>/var/read; done"
    # Without a place for its output ctr gives it pipes, for its input too.
    workload.ctr(node, "k8s.io", "run", "--detach", image.REFERENCE, "reader", "/bin/sh", "-c", script)
    for name in names:
        run_module("containerd_checkpoint", {"container_id": "reader", "name": name})
        workload.delete(node, "reader")
        identity = {"container_id": "reader", "checkpoint": name}
        run_module("containerd_checkpoint_stage", {"checkpoint": name})
        run_module("containerd_container", identity)
        run_module("containerd_task", {**identity, "route": route})
        process = f"/proc/{task_pid(node, 'reader')}"
        assert output(node, ["readlink", f"{process}/fd/0"]).startswith("pipe:")
        assert not node.inside(f"{process}/root/var/read").exists()
    for module in ("containerd_task", "containerd_container"):
        run_module(module, {"container_id": "reader", "state": "absent"})
    for name in names:
        run_module("containerd_checkpoint_stage", {"checkpoint": name, "state": "absent"})
    forget(node, *names)


def test_a_logger_gives_no_input(node: Node, run_module: RunModule, expect_failure: RunModule, clean: Listing) -> None:
    """Which is said before, and keeps a second capture from stopping anything."""
    name, logger = "gpuops.test/stdin:logger", node.inside("/opt/logger")
    logger.write_text("#!/bin/sh\nexec 5>&-\ncat <&3 >/dev/null &\nexec cat <&4 >/dev/null\n", encoding="utf-8")
    logger.chmod(0o755)
    workload.ctr(node, "k8s.io", "run", "--detach", image.REFERENCE, "reader")
    workload.await_count(node, "reader", 2)
    run_module("containerd_checkpoint", {"container_id": "reader", "name": name})
    workload.delete(node, "reader")
    identity = {"container_id": "reader", "checkpoint": name}
    run_module("containerd_checkpoint_stage", {"checkpoint": name})
    told = run_module("containerd_checkpoint_info", {**identity, "stdout": "binary:///opt/logger"})
    run_module("containerd_container", identity)
    done = run_module("containerd_task", {**identity, "stdout": "binary:///opt/logger"})
    assert "binary:// logger" in json.dumps(told["warnings"]) and "binary:// logger" in json.dumps(done["warnings"])
    failed = expect_failure("containerd_checkpoint", {"container_id": "reader", "name": f"{name}-2"}, "stdio_foreign")
    assert "/dev/null as descriptor 0" in failed["msg"]
    alive(node, "reader")
    for module in ("containerd_task", "containerd_container"):
        run_module(module, {"container_id": "reader", "state": "absent"})
    run_module("containerd_checkpoint_stage", {"checkpoint": name, "state": "absent"})
    logger.unlink()
    forget(node, name)


@pytest.mark.every_containerd
def test_ctr_restores_the_first_and_the_second(node: Node, run_module: RunModule, clean: Listing) -> None:
    names = ["gpuops.test/for-ctr:1", "gpuops.test/for-ctr:2"]
    workload.ctr(node, "k8s.io", "run", "--detach", image.REFERENCE, "for-ctr")
    count = workload.await_count(node, "for-ctr", 3)
    for name in names:
        run_module("containerd_checkpoint", {"container_id": "for-ctr", "name": name})
    workload.delete(node, "for-ctr")
    for name in names:
        restored_by_ctr(node, name, count)
    forget(node, *names)


@pytest.mark.every_containerd
def test_ten_in_a_row_are_complete(node: Node, run_module: RunModule, clean: Listing) -> None:
    """And all ten run side by side, each from its own moment."""
    names = {f"row-{number}": f"gpuops.test/row:{number}" for number in range(10)}
    counts = {}
    for copy, name in names.items():
        counts[copy] = workload.count(node, SOURCE)
        run_module("containerd_checkpoint", options(name, keep_staged=True))
    workloads = [{"name": copy, "checkpoint": name} for copy, name in names.items()]
    # The measurement of "auto" is kept on the node.
    run_module("containerd_restore", {"workloads": workloads, "huge_pages": "keep"})
    for copy, name in names.items():
        consistent(node, copy, counts[copy])
        for module in ("containerd_task", "containerd_container"):
            run_module(module, {"container_id": copy, "state": "absent"})
        run_module("containerd_checkpoint_stage", {"checkpoint": name, "state": "absent"})
    shutil.rmtree(node.inside(f"{STATE}/receipts"))
    found = run_module("containerd_checkpoint_info", {"checkpoint": name})
    assert found["problems"] == []
    assert all(found["checkpoint"][part] for part in ("criu", "writable_layer", "options"))
    forget(node, *names.values())


def test_a_new_one_takes_the_place_of_the_old_with_force(
    node: Node, run_module: RunModule, expect_failure: RunModule, clean: Listing
) -> None:
    first = run_module("containerd_checkpoint", options())
    second = run_module("containerd_checkpoint", options(force=True))
    assert second["changed"] and second["checkpoint"]["digest"] != first["checkpoint"]["digest"]
    expect_failure("containerd_checkpoint", options(image.REFERENCE), "checkpoint_name_taken")
    forget(node, REF)


def test_the_dump_becomes_the_staged_directory(node: Node, run_module: RunModule, clean: Listing) -> None:
    count = workload.count(node, SOURCE)
    done = run_module("containerd_checkpoint", options(keep_staged=True))
    directory = node.inside(done["staged"])
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {entry.stat().st_mode & 0o777 for entry in directory.iterdir()} == {0o600}
    assert not node.inside(f"{STATE}/capture").exists()
    restored(node, run_module, REF, count, stage=False)
    forget(node, REF)


def test_the_copied_layer_is_the_one_that_containerd_makes(node: Node, run_module: RunModule, clean: Listing) -> None:
    """A running task's files are copied, a stopped one's are compared in place: whiteouts, links, owners, modes."""
    workload.ctr(node, "k8s.io", "run", "--detach", image.REFERENCE, "files")
    workload.await_count(node, "files", 2)
    commands = (
        *("rm /bin/wget", "rm -r /etc", "mkdir /etc", "touch /etc/new", "chown 5:6 /etc/new", "chmod 1711 /etc"),
        *("ln -s /nowhere /var/link", "ln /etc/new /var/hard", "mkfifo /var/pipe", "truncate -s 3M /var/hole"),
    )
    script = " && ".join(f"/bin/busybox {command}" for command in commands)
    workload.ctr(node, "k8s.io", "tasks", "exec", "--exec-id", "write", "files", "/bin/sh", "-c", script)
    wanted = {"container_id": "files", "force": True}
    run_module("containerd_checkpoint", {**wanted, "name": REF})
    run_module("containerd_checkpoint", {**wanted, "name": "gpuops.test/captured:2", "leave": "stopped"})
    workload.delete(node, "files")
    copied, compared = (layer(node, run_module, name) for name in (REF, "gpuops.test/captured:2"))
    assert copied == compared
    assert {"bin/.wh.wget", "etc/new", "var/hard", "var/link", "var/pipe", "var/hole"} <= set(copied)
    forget(node, REF, "gpuops.test/captured:2")


def test_a_tree_as_deep_as_the_container_likes(
    node: Node, run_module: RunModule, expect_failure: RunModule, clean: Listing
) -> None:
    """What containerd can open by its path is captured; what it cannot is refused before anything stops.

    To lay such a tree out again takes containerd minutes, since it follows each path from its beginning; it came back.
    """
    workload.ctr(node, "k8s.io", "run", "--detach", image.REFERENCE, "deep")
    workload.await_count(node, "deep", 2)
    below = node.inside(f"/proc/{task_pid(node, 'deep')}/root/var")
    wanted = {"container_id": "deep", "name": REF}
    nested(below, 1500, "d")
    told = "very deep directories: containerd takes about 6 minutes"
    assert told in str(run_module("containerd_checkpoint", wanted)["warnings"])
    assert told in str(run_module("containerd_checkpoint_info", {"checkpoint": REF})["warnings"])
    assert "var/" + "d/" * 1500 + "end" in layer(node, run_module, REF)
    forget(node, REF)
    nested(below, 1500, "directory")
    for check in (True, False):
        expect_failure("containerd_checkpoint", wanted, "written_path_too_long", check=check)
    assert status(node, "deep") == "RUNNING"
    workload.delete(node, "deep")


def nested(directory: pathlib.Path, levels: int, name: str) -> None:
    """Directories within each other, and a file at the end."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    for _level in range(levels):
        os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("end", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=descriptor))
    os.close(descriptor)


def layer(node: Node, run_module: RunModule, name: str) -> dict[str, tuple[Any, ...]]:
    """What the writable layer of a checkpoint says of each file.

    Not the sizes of the counter's own files, which grow, nor the times of whiteouts, which are those of the comparison.
    """
    digest = run_module("containerd_checkpoint_info", {"checkpoint": name})["checkpoint"]["writable_layer"]["digest"]
    blobs = "/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256"
    with tarfile.open(node.inside(f"{blobs}/{digest.partition(':')[2]}")) as archive:
        return {
            member.name: (
                member.type,
                member.mode,
                (member.uid, member.gid),
                member.linkname,
                "" if "count" in member.name else member.size,
                "" if "count" in member.name or "/.wh." in f"/{member.name}" else member.mtime,
            )
            for member in archive.getmembers()
        }


def test_left_stopped_at_the_moment_of_the_image(
    node: Node, run_module: RunModule, expect_failure: RunModule, clean: Listing
) -> None:
    workload.ctr(node, "k8s.io", "run", "--detach", image.REFERENCE, "ending")
    workload.await_count(node, "ending", 3)
    wanted = {"container_id": "ending", "name": REF, "leave": "stopped"}
    expect_failure("containerd_checkpoint", wanted, "container_not_ours")
    assert status(node, "ending") == "RUNNING"
    done = run_module("containerd_checkpoint", {**wanted, "force": True})
    assert status(node, "ending") == "STOPPED"
    assert 0 < done["seconds"]["standstill"] < done["seconds"]["total"]
    assert not run_module("containerd_checkpoint", {**wanted, "leave": "stopped"})["changed"]
    workload.delete(node, "ending")
    restored(node, run_module, REF, 3)
    forget(node, REF)


def test_what_criu_cannot_take_is_found_before_anything_stops(
    node: Node, expect_failure: RunModule, clean: Listing
) -> None:
    """A nested mount in the container's own namespace, and one that does not run."""
    pid = task_pid(node)
    output(node, ["mkdir", "-p", "/opt/nested"])
    inside = ["nsenter", "--target", pid, "--mount"]
    with external_mount(node, inside):
        result = expect_failure("containerd_checkpoint", options(), "mount_not_in_spec")
        assert "/var" in result["msg"]
        expect_failure("containerd_checkpoint", options(), "mount_not_in_spec", check=True)
    expect_failure("containerd_checkpoint", options(gpu="required"), "dependency_missing")
    expect_failure("containerd_checkpoint", {**options(), "container_id": "nobody"}, "container_absent")


def task_pid(node: Node, identifier: str = SOURCE) -> str:
    rows = [line.split() for line in workload.ctr(node, "k8s.io", "tasks", "ls").splitlines()[1:]]
    return next(row[1] for row in rows if row and row[0] == identifier)


@contextlib.contextmanager
def external_mount(node: Node, inside: list[str]) -> Iterator[None]:
    """Something in the container's mount namespace that no spec names and CRIU does not know: a ramfs."""
    pid = inside[2]
    script = (
        "import ctypes, os, sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        f"os.setns(os.open('/proc/{pid}/ns/mnt', os.O_RDONLY), 0x20000)\n"
        "if sys.argv[1] == 'mount':\n"
        "    os.makedirs('/var/nested', exist_ok=True)\n"
        "    done = libc.mount(b'none', b'/var/nested', b'ramfs', 0, None)\n"
        "else:\n"
        "    done = libc.umount2(b'/var/nested', 0)\n"
        "    os.rmdir('/var/nested')\n"
        "sys.exit(os.strerror(ctypes.get_errno()) if done else 0)\n"
    )
    output(node, ["python3", "-c", script, "mount"])
    try:
        yield
    finally:
        output(node, ["python3", "-c", script, "umount"])


def test_a_failing_dump_leaves_the_task_running(node: Node, clean: Listing) -> None:
    """The preflight is silenced, so that CRIU itself meets the mount."""
    pid = task_pid(node)
    with external_mount(node, ["nsenter", "--target", pid, "--mount"]):
        result = in_node.quiet(node, "containerd_checkpoint", options())
        assert result["failed"]
        assert result["failure"]["code"] == "criu_dump_failed", result
        assert result["failure"]["details"]["errors"]
        assert "left_behind" not in result["failure"]["details"]
        alive(node)


@contextlib.contextmanager
def bystanders(node: Node, directory: str) -> Iterator[None]:
    """Root has a directory of the dump open; nobody, on the host and in a container, has it in a command line."""
    follow = f"until [ -d {directory}/work ]; do sleep 0.01; done; exec 3<{directory}/work; exec cat"
    nobody = ["setpriv", "--reuid=65534", "--clear-groups", "cat", "-", f"{directory}/images"]
    named = ["tail", "-f", "/dev/null", f"{directory}/images"]
    with contextlib.ExitStack() as stack:
        for command in (["sh", "-c", follow], nobody):
            enter = [str(node.directory / "enter"), *command]
            # They end with their input.
            stack.enter_context(subprocess.Popen(enter, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL))
        workload.ctr(node, "k8s.io", "run", "--detach", image.REFERENCE, "bystander", "/bin/busybox", *named)
        stack.callback(workload.delete, node, "bystander")
        yield


def test_bystanders_keep_no_workload_paused(node: Node, clean: Listing) -> None:
    """A dump fails while others read its log and name its directory: the workload goes on all the same."""
    pid = task_pid(node)
    directory = f"{STATE}/capture/k8s.io/{SOURCE}"
    with bystanders(node, directory), external_mount(node, ["nsenter", "--target", pid, "--mount"]):
        result = in_node.quiet(node, "containerd_checkpoint", options(checkpoint_timeout=20))
        assert result["failure"]["code"] == "criu_dump_failed", result
        assert "left_behind" not in result["failure"]["details"]
        alive(node)


def test_a_terminated_run_has_the_workload_go_on_by_itself(node: Node, clean: Listing) -> None:
    """The connection breaks, or somebody gives up: nobody has to run it again."""
    function = "_containerd.tasks:checkpoint"
    found = in_node.signalled(node, "containerd_checkpoint", options(), function, "30", signal.SIGTERM).result
    assert found["failure"]["code"] == "capture_interrupted"
    assert "left_behind" not in found["failure"]["details"]
    alive(node)


KILLS = [
    ("_containerd.leases:hold", "enter"),
    ("_containerd.snapshots:view", "leave"),
    ("_containerd.tasks:pause", "enter"),
    ("_containerd.tasks:pause", "leave"),
    ("_containerd.tasks:checkpoint", "20"),
    ("_containerd.tasks:checkpoint", "80"),
    ("_containerd.tasks:checkpoint", "leave"),
    ("_capture.upperdir:copy", "leave"),
    ("_containerd.tasks:resume", "enter"),
    ("_containerd.tasks:resume", "leave"),
    ("_capture.layer:write", "leave"),
    ("_checkpoint.writer:packed_by_daemon", "5"),
    ("_checkpoint.writer:packed_by_daemon", "leave"),
    ("_checkpoint.writer:index", "enter"),
    ("_checkpoint.writer:index", "leave"),
    ("_capture.recovery:remove_directory", "leave"),
    ("_checkpoint.staging:adopt", "leave"),
]


@pytest.mark.parametrize(("function", "when"), KILLS)
def test_killed_at_a_step_and_finished_by_the_next_run(
    node: Node, run_module: RunModule, clean: Listing, function: str, when: str
) -> None:
    in_node.killed(node, "containerd_checkpoint", options(keep_staged=True), function, when)
    assert status(node, SOURCE) in ("RUNNING", "PAUSED"), "the workload has to be there still"
    predicted = run_module("containerd_checkpoint", options(), check=True)
    done = run_module("containerd_checkpoint", options())
    assert done["recovered"] is predicted["recovered"]
    assert predicted["changed"] is done["changed"]
    alive(node)
    assert run_module("containerd_checkpoint_info", {"checkpoint": REF})["problems"] == []
    run_module("containerd_checkpoint_stage", {"checkpoint": REF, "state": "absent"})
    forget(node, REF)


NODE_KILLS = [
    ("_checkpoint.staging:_make_durable", "leave"),
    ("_checkpoint.staging:adopt", "leave"),
    ("_checkpoint.writer:record", "leave"),
]


@pytest.mark.parametrize(("function", "when"), NODE_KILLS)
def test_killed_while_the_dump_becomes_a_checkpoint(
    node: Node, run_module: RunModule, clean: Listing, function: str, when: str
) -> None:
    in_node.killed(node, "containerd_checkpoint", options(store="node"), function, when)
    assert status(node, SOURCE) == "RUNNING"
    predicted = run_module("containerd_checkpoint", options(store="node"), check=True)
    done = run_module("containerd_checkpoint", options(store="node"))
    assert done["recovered"] and predicted["recovered"]
    alive(node)
    assert memory_of(node) == [done["checkpoint"]["digest"].split(":")[1]]
    assert run_module("containerd_checkpoint_info", {"checkpoint": REF})["problems"] == []
    gone(run_module)


COMPLETION_KILLS = [
    ("_checkpoint.writer:record", "leave"),
    ("_checkpoint.staging:adopt", "leave"),
]


@pytest.mark.parametrize(("function", "when"), COMPLETION_KILLS)
def test_killed_while_its_image_is_written(
    node: Node, run_module: RunModule, clean: Listing, function: str, when: str
) -> None:
    run_module("containerd_checkpoint", options(store="node"))
    wanted = options(state="completed", store="both")
    in_node.killed(node, "containerd_checkpoint", wanted, function, when)
    done = run_module("containerd_checkpoint", wanted)
    assert run_module("containerd_checkpoint_info", {"checkpoint": REF})["problems"] == []
    run_module("containerd_leftovers", {})
    assert set(memory_of(node)) <= {done["checkpoint"]["digest"].split(":")[1]}
    gone(run_module)


def memory_of(node: Node) -> list[str]:
    """What is below the staging directory."""
    root = node.inside(STATE)
    return sorted(entry.name for entry in root.iterdir()) if root.exists() else []


def gone(run_module: RunModule) -> None:
    run_module("containerd_checkpoint_stage", {"checkpoint": REF, "state": "absent", "keep_captured": False})
    run_module("containerd_image", {"name": REF, "state": "absent"})


class DiskPeak:
    """The most that the staging directory and the content store have held while the block ran, in bytes of disk."""

    def __init__(self, node: Node) -> None:
        content = "/var/lib/containerd/io.containerd.content.v1.content"
        self._roots = [node.inside(STATE), node.inside(content)]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.bytes = 0

    def now(self) -> int:
        # By inode: a file that gets its name while this walks is met under both.
        found: dict[tuple[int, int], int] = {}
        for root in self._roots:
            for path, _directories, names in os.walk(root):
                for name in names:
                    with contextlib.suppress(FileNotFoundError):
                        seen = os.lstat(os.path.join(path, name))
                        found[seen.st_dev, seen.st_ino] = seen.st_blocks * 512
        return sum(found.values())

    def _look(self) -> None:
        while not self._over.wait(0.01):
            self.bytes = max(self.bytes, self.now() - self._before)

    def __enter__(self) -> DiskPeak:
        self._before = self.now()
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.mark.every_containerd
def test_a_checkpoint_that_lives_on_the_node(node: Node, run_module: RunModule, clean: Listing) -> None:
    """Captured, ended and restored with its memory on the disk once; its image is written afterwards."""
    workload.start(node, "leaving", 128)
    workload.await_count(node, "leaving", 3)
    wanted = {"container_id": "leaving", "name": REF, "leave": "stopped", "force": True, "store": "node"}
    with DiskPeak(node) as peak:
        done = run_module("containerd_checkpoint", wanted)
    assert status(node, "leaving") == "STOPPED"
    assert 128 << 20 < peak.bytes <= 1.1 * done["sizes"]["criu"]
    workload.delete(node, "leaving")
    assert not run_module("containerd_checkpoint_stage", {"checkpoint": REF})["changed"]
    job = {"workloads": [{"name": "copy", "checkpoint": REF}]}
    assert run_module("containerd_restore", {**job, "state": "checked"})["problems"] == []
    run_module("containerd_restore", job)
    consistent(node, "copy", 3)
    wanted = {"container_id": "leaving", "name": REF, "state": "completed"}
    image_of = run_module("containerd_checkpoint", wanted)
    assert image_of["checkpoint"]["digest"] != done["checkpoint"]["digest"]
    assert memory_of(node).count(done["checkpoint"]["digest"].split(":")[1]) == 0
    assert not run_module("containerd_restore", job)["changed"], "it is the same checkpoint"
    alive(node, "copy")
    for module in ("containerd_task", "containerd_container"):
        run_module(module, {"container_id": "copy", "state": "absent"})
    restored(node, run_module, REF, 3)
    restored_by_ctr(node, REF, 3)
    forget(node, REF)
    node.inside("/var/log/leaving.log").unlink()
    assert memory_of(node) == ["receipts"]
    shutil.rmtree(node.inside(f"{STATE}/receipts"))


@pytest.mark.every_containerd
def test_an_image_has_its_memory_on_the_disk_once(node: Node, run_module: RunModule, clean: Listing) -> None:
    """The dump gives its disk back while containerd packs it, and the image has every byte."""
    mib = 768
    workload.start(node, "heavy", mib)
    count = workload.await_count(node, "heavy", 3)
    before = process_memory.digest(node, "heavy", mib)
    with DiskPeak(node) as peak:
        done = run_module("containerd_checkpoint", {"container_id": "heavy", "name": REF})
    assert peak.bytes <= 1.6 * done["sizes"]["criu"]
    workload.delete(node, "heavy")
    run_module("containerd_checkpoint_stage", {"checkpoint": REF})
    run_module("containerd_restore", {"workloads": [{"name": "copy", "checkpoint": REF}]})
    consistent(node, "copy", count)
    assert process_memory.digest(node, "copy", mib) == before
    for module in ("containerd_task", "containerd_container"):
        run_module(module, {"container_id": "copy", "state": "absent"})
    run_module("containerd_checkpoint_stage", {"checkpoint": REF, "state": "absent"})
    shutil.rmtree(node.inside(f"{STATE}/receipts"))
    workload.restore(node, "by-ctr", REF)
    workload.await_count(node, "by-ctr", count + 3)
    assert process_memory.digest(node, "by-ctr", mib) == before
    workload.delete(node, "by-ctr")
    for path in node.inside("/tmp").glob("ctrd-checkpoint*"):
        shutil.rmtree(path)
    forget(node, REF)
    node.inside("/var/log/heavy.log").unlink()


def test_all_of_a_node_in_one_call(
    node: Node, run_module: RunModule, expect_failure: RunModule, clean: Listing
) -> None:
    """Side by side; one that is not there keeps the others from nothing."""
    names = ["left-a", "left-b"]
    for name in names:
        workload.ctr(node, "k8s.io", "run", "--detach", image.REFERENCE, name)
        workload.await_count(node, name, 3)
    wanted = [
        {"container_id": name, "name": f"gpuops.test/{name}:1", "store": "node", "leave": "stopped", "force": True}
        for name in names
    ]
    failed = expect_failure(
        "containerd_checkpoint",
        {"workloads": [*wanted, {**wanted[0], "container_id": "lacking", "name": REF}]},
        "container_absent",
    )
    assert {name: answer["failure"] for name, answer in failed["workloads"].items() if name in names} == dict.fromkeys(
        names
    )
    assert [status(node, name) for name in names] == ["STOPPED", "STOPPED"]
    # By force there would be new ones.
    again = [{**one, "force": False} for one in wanted]
    assert not run_module("containerd_checkpoint", {"workloads": again})["changed"]
    for name in names:
        workload.delete(node, name)
    run_module(
        "containerd_restore",
        {"workloads": [{"name": f"{one['container_id']}-copy", "checkpoint": one["name"]} for one in wanted]},
    )
    for name in names:
        consistent(node, f"{name}-copy", 3)
        for module in ("containerd_task", "containerd_container"):
            run_module(module, {"container_id": f"{name}-copy", "state": "absent"})
        forget(node, f"gpuops.test/{name}:1")
    run_module("containerd_leftovers", {})
    assert memory_of(node) == ["receipts"]
    shutil.rmtree(node.inside(f"{STATE}/receipts"))


@pytest.mark.parametrize(
    ("function", "when"), [("_containerd.tasks:kill", "enter"), ("_containerd.tasks:kill", "leave")]
)
def test_killed_while_it_ends_the_task(
    node: Node, run_module: RunModule, clean: Listing, function: str, when: str
) -> None:
    workload.ctr(node, "k8s.io", "run", "--detach", image.REFERENCE, "ending")
    workload.await_count(node, "ending", 3)
    wanted = {"container_id": "ending", "name": REF, "leave": "stopped", "force": True}
    in_node.killed(node, "containerd_checkpoint", wanted, function, when)
    done = run_module("containerd_checkpoint", {**wanted, "force": False})
    assert done["recovered"]
    assert status(node, "ending") == "STOPPED"
    workload.delete(node, "ending")
    restored(node, run_module, REF, 3)
    forget(node, REF)


def test_two_at_a_time(node: Node, expect_failure: RunModule, clean: Listing) -> None:
    """The second one waits for the first, or says who is at it where it may not wait; it does not touch the task."""
    other = "gpuops.test/captured:2"
    with in_node.Held(node, "containerd_checkpoint", options(), (PAUSE, "enter")) as first:
        found = expect_failure("containerd_checkpoint", options(other, busy_timeout=0), "busy")
        assert found["failure"]["outcome"] == "retryable"
        assert "Another run (containerd_checkpoint, pid " in found["msg"], found["msg"]
        assert status(node, SOURCE) == "RUNNING"
        # It opens the lock again when it has found it taken.
        with in_node.Held(node, "containerd_checkpoint", options(other), ("_host.run_lock:_open", "#2")) as second:
            done = [first.result(), second.result()]
    assert not any(one.get("failed") for one in done), done
    assert len({one["checkpoint"]["digest"] for one in done}) == 2
    forget(node, REF, other)


def test_containerd_restarts_with_cri(node: Node) -> None:
    assert workload.cri_problems(node) == []
