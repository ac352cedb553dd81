# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What processes have that CRIU dumps under no option, found before anything stops.

Facts: criu/files.c and sockets.c (kinds of descriptors), namespaces.c (of a process's namespaces only that of mounts
may differ from the first one's; runc empties the network's, and then a second one is too much), filesystems.c (a mount
of message queues has to be empty), seize.c (nobody else may trace); each seen with CRIU 4.2.1.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._containerd.containers import Container
from .._core.errors import NodeError
from .._host import mountinfo, processes
from . import inet_sockets, mounts as container_mounts

_IO_URING = "anon_inode:[io_uring]"
#: Beginnings of what descriptors and mappings of other kinds lead to; those of drivers go with a CUDA checkpoint.
_ANONYMOUS = (
    "anon_inode:[userfaultfd]",
    "anon_inode:[perf_event]",
    "anon_inode:bpf",
    "anon_inode:seccomp notify",
    "anon_inode:[fscontext]",
    "anon_inode:kvm-",
    "anon_inode:[landlock-ruleset]",
    "anon_inode:[iommufd]",
    "/secretmem",
)
#: Not among them: maps of BPF, which CRIU takes.
_BPF_MAP = "anon_inode:bpf-map"
#: Protocols of sockets that CRIU knows, as the kernel names them.
_PROTOCOLS = inet_sockets.PROTOCOLS | {"UNIX", "UNIX-STREAM", "PACKET", "NETLINK"}
#: statfs(2) of a message queue; the type is the first word of the structure.
_MQUEUE_MAGIC, _STATFS_BYTES = 0x19800202, 512
#: Those that no process may have of its own, by their names below /proc/PID/ns.
_NAMESPACES = {
    "cgroup": "cgroup",
    "ipc": "ipc",
    "net": "network",
    "pid": "pid",
    "pid_for_children": "pid",
    "time": "time",
    "time_for_children": "time",
    "user": "user",
    "uts": "uts",
}


@dataclass(frozen=True)
class Found:
    """One such thing, and the process that has it."""

    pid: int
    command: str
    thing: str

    def result(self) -> dict[str, Any]:
        """As modules return it."""
        return {"pid": self.pid, "command": self.command, "thing": self.thing}

    def __str__(self) -> str:
        return f"{self.thing} of process {self.pid} ({self.command})"


def problems(container: Container, first: int, pids: Sequence[int], proc: str = "/proc") -> list[NodeError]:
    """Why these processes cannot be dumped; ``first``: the container's. Those that have ended have nothing."""
    kinds: dict[str, list[Found]] = {}
    own = _namespaces(first, proc)
    for pid in pids:
        seen: dict[tuple[str, str], Found] = {}
        for code, thing in _things(pid, own, proc):
            if (code, thing) not in seen:
                seen[code, thing] = found = Found(pid, processes.command(pid, proc), thing)
                kinds.setdefault(code, []).append(found)
    queues = list(_queues_left(first, container.spec, proc))
    if queues and "message_queues_open" not in kinds:
        kinds["message_queues_open"] = [Found(first, processes.command(first, proc), queue) for queue in queues]
    return [_problem(container, code, found) for code, found in sorted(kinds.items())]


def _things(pid: int, own: Mapping[str, str], proc: str) -> Iterator[tuple[str, str]]:
    """Code and thing, of one process; some more than once."""
    directory = f"{proc}/{pid}/fd"
    mappings = ((-1, path) for path in _mapped(pid, proc))
    for number, target in (*processes.descriptors(pid, proc), *mappings):
        path = f"{directory}/{number}"
        if target == _IO_URING:
            yield "io_uring_open", "io_uring"
        elif target.startswith(_ANONYMOUS) and not target.startswith(_BPF_MAP):
            yield "descriptor_not_dumped", target
        elif target.startswith("socket:["):
            protocol = inet_sockets.protocol_of(path)
            if protocol and protocol not in _PROTOCOLS:
                yield "descriptor_not_dumped", f"a socket of {protocol}"
        elif number >= 0 and target.count("/") == 1 and target.startswith("/") and _is_queue(path):
            yield "message_queues_open", target
    found = _namespaces(pid, proc)
    for name in own if "uts" in found else ():
        # One for children has no name before there is one; of a process that has ended hardly any can be read.
        if found.get(name) != own[name]:
            yield "namespaces_nested", f"the {_NAMESPACES[name]} namespace"
    for tracer in _tracers(pid, proc):
        yield "process_traced", f"process {tracer} ({processes.command(tracer, proc)})"


def _problem(container: Container, code: str, found: Sequence[Found]) -> NodeError:
    whose = f"processes of {container.id}"
    sentence, remedy = {
        "io_uring_open": (
            f"The {whose} use io_uring, which CRIU cannot dump",
            "Start it where io_uring is switched off, and it does without: under a seccomp profile that refuses it "
            "(the default one of containerd 2.0 and later), or with sysctl kernel.io_uring_disabled=2 on the node "
            "(Linux 6.6). Or by its own option: USE_LIBUV=0 in the environment for PyTorch's TCPStore, but not for "
            "that of torchrun, which heeds none; UV_USE_IO_URING=0 for libuv before 1.49.",
        ),
        "descriptor_not_dumped": (
            f"The {whose} have something open or mapped of a kind that CRIU cannot dump",
            "Have the workload do without it, or close it before the capture (GODEBUG=multipathtcp=0 keeps Go programs "
            "from using MPTCP).",
        ),
        "message_queues_open": (
            f"There are POSIX message queues of the {whose}, which CRIU cannot dump",
            "Have the workload close and unlink them (mq_unlink) before the capture, or use pipes or sockets.",
        ),
        "namespaces_nested": (
            f"Some {whose} have namespaces of their own, which CRIU cannot dump",
            "Run them without (a browser's --no-sandbox, no unshare, bubblewrap or container within the container), or "
            "end them before the capture.",
        ),
        "process_traced": (
            f"Some {whose} are traced, and CRIU has to trace them itself",
            "Detach the debugger or tracer (gdb, strace, a sandbox that uses ptrace) before the capture.",
        ),
    }[code]
    shown = ", ".join(_phrase(code, one) for one in found[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return NodeError(
        code, f"{sentence}: {shown}{more}.", remedy, details={"found": [one.result() for one in found[:20]]}
    )


def _phrase(code: str, found: Found) -> str:
    if code == "process_traced":
        return f"process {found.pid} ({found.command}) by {found.thing}"
    return str(found)


def _mapped(pid: int, proc: str) -> list[str]:
    """What is mapped that has a name."""
    try:
        with open(f"{proc}/{pid}/maps", encoding="utf-8", errors="replace") as stream:
            lines = [line.rstrip("\n").split(None, 5) for line in stream]
    except OSError:
        return []
    return list(dict.fromkeys(words[5] for words in lines if len(words) > 5))


def _is_queue(path: str) -> bool:
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if ctypes.CDLL(None).statfs(os.fsencode(path), buffer) != 0:
        return False
    return ctypes.c_long.from_buffer(buffer).value == _MQUEUE_MAGIC


def _queues_left(pid: int, spec: Mapping[str, Any], proc: str) -> Iterator[str]:
    """Names of the queues in a mount that is dumped, which need not be open."""
    try:
        mounts = mountinfo.parse(mountinfo.read(f"{proc}/{pid}/mountinfo"))
    except OSError:
        return
    for mount in mounts:
        if mount.fstype == "mqueue" and container_mounts.is_dumped(mount, spec):
            try:
                names = sorted(os.listdir(f"{proc}/{pid}/root{mount.mount_point}"))
            except OSError:
                continue
            yield from (f"/{name}" for name in names)
            return


def _namespaces(pid: int, proc: str) -> dict[str, str]:
    found = {}
    for name in _NAMESPACES:
        try:
            found[name] = os.readlink(f"{proc}/{pid}/ns/{name}")
        except OSError:
            # The kernel has no such namespaces, or the process has ended.
            continue
    return found


def _tracers(pid: int, proc: str) -> Iterable[int]:
    """Who traces a thread of it."""
    try:
        threads = os.listdir(f"{proc}/{pid}/task")
    except OSError:
        return []
    found = {_tracer(f"{proc}/{pid}/task/{thread}/status") for thread in threads}
    return sorted(found - {0})


def _tracer(path: str) -> int:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return next((int(line.split()[1]) for line in stream if line.startswith("TracerPid:")), 0)
    except OSError:
        return 0
