# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel tells of a task's processes, as it tells it: texts of /proc, and of their network what netlink says.

Read while nothing of the task runs: by a capture in its own process, and by a restore as a program of its own that CRIU
starts (:mod:`_container.comparison`), so it imports nothing of this collection. It never fails: what cannot be read is
empty. Facts: proc(5), netlink(7), rtnetlink(7), linux/if_link.h, linux/rtnetlink.h.

Arguments: names of sysctls, the report to write, and the pid of the first process. Report: :func:`observe`.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any

#: linux/sched.h.
_NEW = {"uts": 0x04000000, "ipc": 0x08000000, "net": 0x40000000}
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
_TEXTS = ("status", "limits", "stat", "cgroup", "oom_score_adj")
#: Limits of a control group: those of v2, and by the controller that has them those of v1.
_LIMITS = {
    "": (
        "memory.max",
        "memory.high",
        "memory.swap.max",
        "cpu.max",
        "cpu.weight",
        "pids.max",
        "cpuset.cpus",
        "cpuset.mems",
    ),
    "memory": ("memory.limit_in_bytes",),
    "cpu": ("cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.shares"),
    "pids": ("pids.max",),
    "devices": ("devices.list",),
}
#: As many processes, and descriptors of all of them, are looked at.
_PROCESSES, _DESCRIPTORS = 4096, 16384
_LONGEST = 1 << 20

_AF_NETLINK, _SOCK_RAW, _SOCK_CLOEXEC = 16, 3, 0o2000000
_GETLINK, _GETADDR, _GETROUTE = 18, 22, 26
_REQUEST_DUMP = 0x301
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_MAIN_TABLE, _UNICAST = 254, 1


def observe(pid: int, proc: str = "/proc", sysctls: Iterable[str] = ()) -> dict[str, Any]:
    """A JSON object: ``processes`` with their texts, ``mountinfo`` of the first one, and what its namespaces have."""
    left = [_DESCRIPTORS]
    tree = _tree(pid, proc)
    found: dict[str, Any] = {
        "mountinfo": _text(f"{proc}/{pid}/mountinfo"),
        "uid_map": _text(f"{proc}/{pid}/uid_map"),
        "gid_map": _text(f"{proc}/{pid}/gid_map"),
        "here": _namespaces("self", proc),
        "processes": [_process(one, proc, left) for one in tree[:_PROCESSES]],
        "processes_left_out": len(tree[_PROCESSES:]),
        "limits": _limits(_text(f"{proc}/{pid}/cgroup")),
        "hostname": "",
        "sysctls": {},
        "network": None,
    }
    # Namespaces are entered by a thread that ends with it, so that nothing else is moved.
    thread = threading.Thread(target=_enter, args=(pid, proc, sysctls, found))
    thread.start()
    thread.join()
    return found


def _tree(pid: int, proc: str) -> list[int]:
    """The process and its descendants, each before its own."""
    found = {pid: None}
    waiting = [pid]
    for one in waiting:
        for thread in _list(f"{proc}/{one}/task"):
            words = _text(f"{proc}/{one}/task/{thread}/children").split()
            new = [int(word) for word in words if word.isdigit() and int(word) not in found]
            found.update(dict.fromkeys(new))
            waiting += new
    return list(found)


def _process(pid: int, proc: str, left: list[int]) -> dict[str, Any]:
    own = f"{proc}/{pid}"
    found: dict[str, Any] = {name: _text(f"{own}/{name}") for name in _TEXTS}
    found["pid"] = pid
    found["label"] = _text(f"{own}/attr/current")
    found["namespaces"] = _namespaces(pid, proc)
    for name in ("cwd", "root", "exe"):
        found[name] = _link(f"{own}/{name}")
    numbers = sorted(int(name) for name in _list(f"{own}/fd") if name.isdigit())
    taken = numbers[: max(0, left[0])]
    left[0] -= len(numbers)
    found["descriptors"] = [
        [number, _link(f"{own}/fd/{number}"), _flags(_text(f"{own}/fdinfo/{number}"))] for number in taken
    ]
    found["descriptors_left_out"] = len(numbers) - len(taken)
    return found


def _limits(groups: str, root: str = "/sys/fs/cgroup") -> dict[str, str]:
    """Those of the control groups that a process is in."""
    found = {}
    for line in groups.splitlines():
        _number, controllers, place = (line.split(":", 2) + ["", ""])[:3]
        for controller in controllers.split(","):
            for name in _LIMITS.get(controller, ()):
                for mounted in (controllers, controller, "unified") if controllers else ("", "unified"):
                    text = _text(f"{root}/{mounted}/{place}/{name}").strip()
                    if text:
                        found[name] = text
                        break
    return found


def _namespaces(pid: int | str, proc: str) -> dict[str, str]:
    return {name: _link(f"{proc}/{pid}/ns/{name}") for name in _NAMESPACES}


def _flags(text: str) -> str:
    for line in text.splitlines():
        if line.startswith("flags:"):
            return line.split()[1]
    return ""


def _enter(pid: int, proc: str, sysctls: Iterable[str], found: dict[str, Any]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    entered: set[str] = set()
    for name, flag in _NEW.items():
        try:
            with open(f"{proc}/{pid}/ns/{name}", "rb") as namespace:
                if libc.setns(namespace.fileno(), flag) == 0:
                    entered.add(name)
        except OSError:
            continue
    if "uts" in entered:
        found["hostname"] = os.uname().nodename
    for name in sysctls:
        if ("net" if name.startswith("net.") else "ipc") in entered:
            found["sysctls"][name] = " ".join(_text("/proc/sys/" + name.replace(".", "/")).split())
    if "net" in entered:
        try:
            found["network"] = _network(libc)
        except (OSError, struct.error):
            return


def _network(libc: ctypes.CDLL) -> dict[str, Any]:
    """Devices with their addresses, and the routes of the main table; addresses in hexadecimal digits."""
    control = libc.socket(_AF_NETLINK, _SOCK_RAW | _SOCK_CLOEXEC, 0)
    if control < 0:
        raise OSError(ctypes.get_errno(), "netlink")
    try:
        devices: list[dict[str, Any]] = []
        names: dict[int, str] = {}
        for message in _dump(control, _GETLINK):
            _family, index, flags = struct.unpack_from("=B3xiI", message)
            parts = dict(_attributes(message[16:]))
            names[index] = parts.get(3, b"").rstrip(b"\0").decode("utf-8", "replace")
            mtu = struct.unpack("=I", parts[4])[0] if 4 in parts else 0
            devices.append({"name": names[index], "up": bool(flags & 1), "mtu": mtu, "addresses": []})
        named = {device["name"]: device for device in devices}
        for message in _dump(control, _GETADDR):
            _family, prefix, _unused, scope, index = struct.unpack_from("=BBBBI", message)
            parts = dict(_attributes(message[8:]))
            address = parts.get(2, parts.get(1, b"")).hex()
            if names.get(index) in named:
                named[names[index]]["addresses"].append([address, prefix, scope])
        routes = []
        for message in _dump(control, _GETROUTE):
            _family, prefix, _source, _tos, table, _protocol, _scope, kind = struct.unpack_from("=8B", message)
            parts = dict(_attributes(message[12:]))
            if table == _MAIN_TABLE and kind == _UNICAST:
                device = names.get(struct.unpack("=I", parts[4])[0], "") if 4 in parts else ""
                routes.append([parts.get(1, b"").hex(), prefix, parts.get(5, b"").hex(), device, _family])
        return {"devices": devices, "routes": routes}
    finally:
        os.close(control)


def _dump(control: int, kind: int) -> Iterator[bytes]:
    """The bodies of all messages that answer one request."""
    os.write(control, _HEADER.pack(_HEADER.size + 4, kind, _REQUEST_DUMP, 1, 0) + bytes(4))
    while True:
        data = os.read(control, 1 << 18)
        if not data:
            return
        while len(data) >= _HEADER.size:
            length, found, _unused, _sequence, _pid = _HEADER.unpack_from(data)
            if found in (_ERROR, _DONE) or length < _HEADER.size:
                return
            yield data[_HEADER.size : length]
            data = data[(length + 3) & ~3 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="backslashreplace") as stream:
            return stream.read(_LONGEST)
    except (OSError, ValueError):
        return ""


def _link(path: str) -> str:
    try:
        return os.fsencode(os.readlink(path)).decode("utf-8", "backslashreplace")
    except OSError:
        return ""


def _list(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def main() -> None:
    """Look, and say what was seen."""
    import json

    sysctls, report, pid = sys.argv[1:-2], sys.argv[-2], int(sys.argv[-1])
    with open(report, "w", encoding="utf-8") as stream:
        json.dump(observe(pid, "/proc", sysctls), stream)


if __name__ == "__main__":
    main()
