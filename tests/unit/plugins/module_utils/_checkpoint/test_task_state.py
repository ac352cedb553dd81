# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is recorded of a task, and a record that a stranger may have written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import differences, task_state
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint.task_state import TaskState
from ansible_collections.gpuops.restore.plugins.module_utils._host import network_sysctls, task_worker

#: Pipes, a file, a child that shares them, and a limit of its own.
PROGRAM = """
import os, resource, sys
read, write = os.pipe()
deleted = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_APPEND)
os.unlink(sys.argv[1])
if os.fork() == 0:
    resource.setrlimit(resource.RLIMIT_NOFILE, (77, 88))
    os.umask(0o27)
    os.write(1, b"x")
    os.read(0, 1)
    os._exit(0)
os.write(1, b"x")
os.read(0, 1)
os.wait()
"""


@pytest.fixture
def tree(tmp_path: Any) -> Iterator[int]:
    """A process with a child."""
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, str(tmp_path / "gone")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.read(2) == b"xx"
        yield process.pid
        process.stdin.write(b"xx")
        process.stdin.close()


def test_what_processes_have(tree: int) -> None:
    found = task_state.seen(task_worker.observe(tree))
    assert found is not None and set(found.kinds) <= set(task_state.KINDS)
    first, child = found.kinds["processes"]
    assert first == str(tree)
    assert found.kinds["processes"][child]["parent"] == first
    assert (found.kinds["limits"][child]["Max open files"], found.kinds["identity"][child]["Umask"]) == (
        "77 88",
        "0027",
    )
    assert found.kinds["limits"][first]["Max open files"] != "77 88"
    assert {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} <= set(found.kinds["capabilities"][child])
    assert (
        found.kinds["seccomp"][first]["Seccomp"] in "012" and found.kinds["no_new_privs"][first]["NoNewPrivs"] in "01"
    )
    assert "/" in found.kinds["mounts"] and found.kinds["mounts"]["/proc"]["type"] == "proc"
    own, shared = found.kinds["descriptors"][first], found.kinds["descriptors"][child]
    read, write, deleted = sorted((int(number) for number in own), reverse=True)[2::-1]
    assert own[str(read)] == "pipe (read, cloexec)" or own[str(read)].endswith(f"of process {first} (read, cloexec)")
    assert own[str(write)].startswith("pipe of descriptor") and own[str(write)].endswith("(write, cloexec)")
    assert shared[str(read)] == f"pipe of descriptor {read} of process {first} (read, cloexec)"
    assert own[str(deleted)] == "deleted file (read and write, append, cloexec)"
    # Where they lead is outside.
    assert shared["0"] == "pipe (read)" and shared["1"] == "pipe (write)"


def test_more_processes_than_are_looked_at_are_told(tree: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = task_state.seen(task_worker.observe(tree))
    assert whole is not None and whole.omitted == ()
    monkeypatch.setattr(task_worker, "_PROCESSES", 1)
    observed = task_worker.observe(tree)
    assert (len(observed["processes"]), observed["processes_left_out"]) == (1, 1)
    found = task_state.seen(observed)
    assert found is not None and not {"descriptors", "processes"} & set(found.kinds)
    assert set(found.kinds["limits"]) == {str(tree)}
    # Who sees all of them tells no difference, and says that not all was compared, whichever side it was.
    for before, after in ((whole, found), (found, whole)):
        assert differences.compare(before, after) == []
        why = differences.not_compared(before, TaskState.parse(after.render()))
        assert why.startswith("There is too much to compare all of: ")
        assert all(kind in why for kind in ("capabilities", "descriptors", "limits", "processes", "seccomp"))


def test_a_descriptor_of_a_terminal() -> None:
    """The kernel shows "cloexec" of runc's own open for each copy of a console; a restore's is without."""
    for flags in ("02100002", "0100002"):
        process = {"pid": 1, "descriptors": [[0, "/dev/pts/0", flags], [3, "/var/file", flags]]}
        found = task_state._descriptors([process], {1: "1"})
        assert found["1"]["0"] == "/dev/pts/0 (read and write)"
        assert ("cloexec" in found["1"]["3"]) is (flags == "02100002")


def test_the_network_of_a_namespace_of_its_own() -> None:
    script = "ip link set lo up && ip address add 10.9.8.7/24 dev lo && echo && exec sleep 60"
    command = ["unshare", "--user", "--map-root-user", "--net", "--uts", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        if os.geteuid() == 0:
            found = task_state.seen(task_worker.observe(process.pid, "/proc", ["net.core.somaxconn"]))
            assert found is not None
            assert found.kinds["network"]["lo"]["state"] == "up"
            assert found.kinds["network"]["lo"]["addresses"].split() == ["10.9.8.7/24", "127.0.0.1/8", "::1/128"]
            assert found.kinds["sysctls"][""]["net.core.somaxconn"].isdecimal()
            assert found.kinds["namespaces"][str(process.pid)]["net"] == "own"
            assert found.kinds["namespaces"][str(process.pid)]["ipc"] == "node"
        process.kill()


@pytest.mark.parametrize("source", ["rw,nosuid - tmpfs tmpfs rw,size=64k", "rw - devtmpfs udev rw,size=8g"])
def test_what_the_runtime_hides_is_hidden_by_whichever_null(tree: int, source: str) -> None:
    """Of the container's own /dev when it began, of the node's when CRIU has restored it; seen on Ubuntu 24.04."""
    options, kind = source.split(" - ")
    observed = task_worker.observe(tree)
    observed["mountinfo"] += f"901 900 0:7 /null /proc/keys {options} - {kind}\n"
    found = task_state.seen(observed)
    assert found is not None and found.kinds["mounts"]["/proc/keys"] == {"type": "hidden"}


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
def test_what_was_set_in_a_network_namespace() -> None:
    """By whomever: a new namespace on this node tells what nobody has set."""
    script = "cd /proc/sys/net/ipv4; echo 23 > ip_default_ttl; echo 1 > conf/all/rp_filter"
    script += "; echo 1-2-3-4 > tcp_fastopen_key; echo; exec sleep 60"
    with subprocess.Popen(["unshare", "--net", "sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        names = network_sysctls.changed(process.pid)
        found = task_state.seen(task_worker.observe(process.pid, "/proc", names))
        process.kill()
    assert found is not None and found.kinds["sysctls"][""]["net.ipv4.ip_default_ttl"] == "23"
    assert task_state.recorded_sysctls(found) == names
    assert names == ["net.ipv4.conf.all.rp_filter", "net.ipv4.ip_default_ttl"]
    assert network_sysctls.changed(os.getpid()) == [] and network_sysctls.changed(1 << 30) == []


def test_a_stranger_has_few_sysctls_read_and_none_by_a_path() -> None:
    names = {f"net.ipv4.a{number}": "1" for number in range(1000)}
    found = TaskState({"sysctls": {"": {**names, "net.../../x": "1", "vm.swappiness": "1", "net.ipv4.b c": "1"}}})
    wanted = task_state.recorded_sysctls(found)
    assert len(wanted) == 256 and set(wanted) <= set(names) and task_state.recorded_sysctls(None) == []


def test_the_nodes_network_is_not_recorded(tree: int) -> None:
    found = task_state.seen(task_worker.observe(tree))
    assert found is not None and "network" not in found.kinds


def test_a_process_that_has_ended_leaves_no_record() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert task_state.seen(task_worker.observe(process.pid)) is None
    assert task_state.seen({}) is None


def test_a_record_is_read_as_it_was_written(tree: int) -> None:
    found = task_state.seen(task_worker.observe(tree))
    assert found is not None
    again = TaskState.parse(found.render())
    assert again is not None and again.kinds == found.kinds
    # What the child has as its parent has it is there once.
    assert found.render().count("CapBnd") == 1


def test_too_much_is_left_out_and_said() -> None:
    many = {str(number): {str(fd): "x" * 100 for fd in range(100)} for number in range(200)}
    written = TaskState({"descriptors": many, "mounts": {"/": {"flags": "ro"}}}).render()
    assert len(written) < task_state.MOST_BYTES
    found = TaskState.parse(written)
    assert found is not None and found.omitted == ("descriptors",) and list(found.kinds) == ["mounts"]


def document(**changes: Any) -> str:
    return json.dumps({"version": 1, "kinds": {"mounts": {"/": {"flags": "ro"}}}, "omitted": [], **changes})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        document(version=2),
        document(version=True),
        document(kinds=[]),
        document(kinds={"other": {}}),
        document(kinds={"mounts": []}),
        document(kinds={"mounts": {"/": "ro"}}),
        document(kinds={"mounts": {"/": {"flags": 1}}}),
        document(kinds={"mounts": {"/": {"flags": "x" * 5000}}}),
        document(kinds={"mounts": {"/" * 5000: {"flags": "ro"}}}),
        document(omitted=["other"]),
        document(omitted="mounts"),
        document(omitted=[["mounts"]]),
        document() + " " * task_state.MOST_BYTES,
        '{"version":1,"kinds":{},"kinds":{},"omitted":[]}',
    ],
)
def test_what_is_not_of_the_form_counts_as_not_recorded(text: str) -> None:
    assert TaskState.parse(text) is None


def test_a_record_that_would_grow_by_what_its_processes_share_is_none() -> None:
    """18 KB of it took 25 MiB, 1 MiB would have taken all of a node's memory."""
    shared = {str(number): "x" for number in range(1000)}
    subjects = {"first": {"": "1"}, "1": shared, **{f"p{number}": {} for number in range(2000)}}
    text = json.dumps({"version": 1, "kinds": {"limits": subjects}, "omitted": []})
    assert TaskState.parse(text) is None


def test_a_stranger_may_name_any_first() -> None:
    for first in ({"": "9"}, {}, {"": "first"}):
        assert TaskState.parse(document(kinds={"limits": {"first": first, "1": {"Max open files": "1 1"}}})) is not None


def test_limits_of_both_kinds_of_control_groups_are_told_alike() -> None:
    old = {"memory.limit_in_bytes": "9223372036854771712", "cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}
    observed = {**task_worker.observe(os.getpid()), "limits": old}
    found = task_state.seen(observed)
    assert found is not None
    group = found.kinds["cgroup"][""]
    assert (group["memory.max"], group["cpu.max"]) == ("max", "max 100000")


@pytest.mark.parametrize(
    ("first", "second", "place"),
    [
        ("0::/pods/web\n", "0::/pods/web/below\n", "below"),
        ("4:memory:/web\n2:pids:/web\n", "4:memory:/web\n2:pids:/web/below\n", "below"),
        ("4:memory:/web\n", "4:memory:/web\n", "."),
        ("4:memory:/\n0::/\n", "4:memory:/\n0::/\n", ""),
    ],
)
def test_a_nested_group_in_any_hierarchy(first: str, second: str, place: str) -> None:
    processes = [{"pid": 1, "cgroup": first}, {"pid": 7, "cgroup": second}]
    found = task_state._cgroup({}, processes, {1: "1", 7: "7"})
    assert found["7"]["place"] == place
