# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What CRIU dumps under no option: found in a /proc made of files, and where that is possible in this process."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import inet_sockets, unsupported
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.containers import Container
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import TERMINAL, NodeError

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts")
MOUNTINFO = "1 0 0:50 / / rw - overlay overlay rw\n2 1 0:51 / /dev/mqueue rw - mqueue mqueue rw\n"


class Processes:
    """Processes 7, the first one, and 8, which have nothing special."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        for pid in (7, 8):
            for below in ("fd", "ns", f"task/{pid}", "root/dev/mqueue"):
                (proc / str(pid) / below).mkdir(parents=True)
            for name in NAMESPACES:
                (proc / str(pid) / "ns" / name).symlink_to(f"{name}:[1]")
            self.write(pid, "comm", f"python{pid}\n")
            self.write(pid, "maps", "7f00-7f01 rw-s 00000000 00:01 1    /var/data\n7f02-7f03 rw-p 00000000 00:00 0 \n")
            self.write(pid, "mountinfo", MOUNTINFO)
            self.write(pid, f"task/{pid}/status", "Name:\tx\nTracerPid:\t0\n")
        self.open(7, "/var/log", "pipe:[3]", "anon_inode:[eventpoll]", "anon_inode:bpf-map", "anon_inode:[eventfd]")

    def write(self, pid: int, name: str, text: str) -> None:
        (self.proc / str(pid) / name).write_text(text, encoding="ascii")

    def open(self, pid: int, *targets: str) -> None:
        directory = self.proc / str(pid) / "fd"
        for target in targets:
            (directory / str(len(os.listdir(directory)))).symlink_to(target)

    def problems(self, spec: dict[str, Any] | None = None) -> list[NodeError]:
        return unsupported.problems(container(spec), 7, [7, 8, 9], str(self.proc))

    def problem(self) -> NodeError:
        (found,) = self.problems()
        assert found.outcome == TERMINAL
        return found


def container(spec: dict[str, Any] | None = None) -> Container:
    return Container("box", "", {}, "", None, spec or {}, "", "")


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    return Processes(tmp_path)


def test_nothing_special(processes: Processes) -> None:
    assert processes.problems() == []


def test_io_uring_open_or_mapped_alone(processes: Processes) -> None:
    processes.open(8, "anon_inode:[io_uring]", "anon_inode:[io_uring]")
    processes.write(7, "maps", "7f00-7f01 rw-s 00000000 00:0f 5    anon_inode:[io_uring]\n")
    error = processes.problem()
    assert error.code == "io_uring_open"
    assert error.message.endswith(": io_uring of process 7 (python7), io_uring of process 8 (python8).")
    # Of the three only the first helps torchrun, whose store heeds no variable, and programs with libuv 1.49 or later.
    words = ("seccomp", "io_uring_disabled", "USE_LIBUV=0", "UV_USE_IO_URING=0")
    assert [word for word in words if word not in error.remedy] == []
    assert error.details["found"][0] == {"pid": 7, "command": "python7", "thing": "io_uring"}


@pytest.mark.parametrize(
    "target", ["anon_inode:[userfaultfd]", "anon_inode:[perf_event]", "anon_inode:bpf-prog", "anon_inode:kvm-vm"]
)
def test_descriptors_of_kinds_that_criu_does_not_know(processes: Processes, target: str) -> None:
    processes.open(8, target)
    error = processes.problem()
    assert error.code == "descriptor_not_dumped"
    assert error.message.endswith(f": {target} of process 8 (python8).")


def test_no_more_than_three_are_named(processes: Processes) -> None:
    processes.open(8, *(f"anon_inode:bpf_{number}" for number in range(5)))
    error = processes.problem()
    assert error.message.endswith("anon_inode:bpf_2 of process 8 (python8) and 2 more.")
    assert len(error.details["found"]) == 5


def test_sockets_by_their_protocol(processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"3": "TCP", "4": "UNIX-STREAM", "5": "NETLINK", "6": "PACKET", "7": "UDPv6", "8": ""}
    protocols = {**known, "9": "MPTCP"}
    processes.open(8, *(f"socket:[{inode}]" for inode in protocols))
    monkeypatch.setattr(inet_sockets, "protocol_of", lambda path: protocols[os.readlink(path)[8:-1]])
    error = processes.problem()
    assert error.code == "descriptor_not_dumped"
    assert error.message.endswith(": a socket of MPTCP of process 8 (python8).")
    assert "GODEBUG=multipathtcp=0" in error.remedy


def test_a_message_queue_that_is_open() -> None:
    name = f"/gpuops-test-{os.getpid()}".encode()
    library = ctypes.CDLL("librt.so.1", use_errno=True)
    descriptor = library.mq_open(name, os.O_RDWR | os.O_CREAT, 0o600, None)
    assert descriptor >= 0, os.strerror(ctypes.get_errno())
    try:
        found = unsupported.problems(container(), os.getpid(), [os.getpid()])
        assert [error.code for error in found] == ["message_queues_open"]
        assert f"{name.decode()} of process {os.getpid()} (" in found[0].message
    finally:
        os.close(descriptor)
        library.mq_unlink(name)
    assert unsupported.problems(container(), os.getpid(), [os.getpid()]) == []


def test_queues_that_were_left(processes: Processes) -> None:
    (processes.proc / "7" / "root/dev/mqueue/left").touch()
    error = processes.problem()
    assert (error.code, error.details["found"][0]["thing"]) == ("message_queues_open", "/left")
    bind = {"mounts": [{"destination": "/dev/mqueue", "type": "bind", "source": "/dev/mqueue"}]}
    assert processes.problems(bind) == [], "a mount from outside is not dumped"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("uts", "uts"),
        ("ipc", "ipc"),
        ("user", "user"),
        ("cgroup", "cgroup"),
        ("net", "network"),
        ("pid_for_children", "pid"),
        ("time_for_children", "time"),
    ],
)
def test_namespaces_other_than_the_first_ones(processes: Processes, name: str, shown: str) -> None:
    link = processes.proc / "8" / "ns" / name
    link.unlink()
    link.symlink_to(f"{name}:[2]")
    error = processes.problem()
    assert error.code == "namespaces_nested"
    assert error.message.endswith(f": the {shown} namespace of process 8 (python8).")


def test_a_mount_namespace_of_its_own_is_fine_and_so_is_a_process_that_ends(processes: Processes) -> None:
    namespaces = processes.proc / "8" / "ns"
    (namespaces / "mnt").unlink()
    (namespaces / "mnt").symlink_to("mnt:[2]")
    assert processes.problems() == []
    for name in NAMESPACES:
        if name not in ("pid", "user"):
            (namespaces / name).unlink()
    assert processes.problems() == []


def test_children_who_are_to_have_a_namespace(processes: Processes) -> None:
    """Before the first of them is there the kernel has no name for it."""
    (processes.proc / "8" / "ns" / "pid_for_children").unlink()
    assert "the pid namespace of process 8" in processes.problem().message


def test_a_traced_thread(processes: Processes) -> None:
    (processes.proc / "8" / "task" / "9").mkdir()
    processes.write(8, "task/9/status", "Name:\tx\nTracerPid:\t7\n")
    error = processes.problem()
    assert error.code == "process_traced"
    assert error.message.endswith(": process 8 (python8) by process 7 (python7).")


def test_all_at_once(processes: Processes) -> None:
    processes.open(7, "anon_inode:[io_uring]")
    processes.open(8, "anon_inode:[perf_event]")
    assert [error.code for error in processes.problems()] == ["descriptor_not_dumped", "io_uring_open"]
