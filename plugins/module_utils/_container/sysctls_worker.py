# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gives sysctls of a process's network namespace values that they lack, as ``sysctl -w`` would there.

A program of its own that CRIU starts (:mod:`_container.sysctls`); it imports nothing of this collection. Never fails:
what could not be set is other than it was, which the comparison tells. Facts: sysctl(5), setns(2); of what is below
/proc/sys/net each process sees that of its own namespace.

Arguments: for each one ``NAME=VALUE``, then the report to write, and the pid of a process in that namespace.
Report: the names that were ``set``, and those that have ``failed`` with the reason.
"""

from __future__ import annotations

import ctypes
import os
import sys

#: linux/sched.h.
_NEW_NETWORK = 0x40000000
#: Where the kernel lists what it has of these: for another it would load a module.
_CHOICES = {"net.ipv4.tcp_congestion_control": "net.ipv4.tcp_available_congestion_control"}
#: Where others follow when one is set: ``ip_forward`` puts ``accept_redirects`` of all back, and more.
_FOLLOWING = tuple(f"net.{family}.conf.{device}" for family in ("ipv4", "ipv6") for device in ("all", "default"))
#: ``ip_forward`` by another name.
_ALIAS = "net.ipv4.conf.all.forwarding"
_PASSES = 3


def give(pid: int, wanted: dict[str, str], root: str = "/proc/sys") -> dict[str, object]:
    """Enter the namespace, which moves this thread, and set those that are other; the report. Raises OSError."""
    if os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/thread-self/ns/net"):
        raise OSError(f"process {pid} is in the node's own network namespace")
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/proc/{pid}/ns/net", "rb") as namespace:
        if libc.setns(namespace.fileno(), _NEW_NETWORK) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    # What nobody had set was as it is now, in a new namespace.
    aims = {**_all(root, _FOLLOWING), **wanted}
    done: set[str] = set()
    failed: dict[str, str] = {}
    for _time in range(_PASSES):
        failed = {}
        unlike = {name: value for name, value in aims.items() if _read(root, name) not in (None, value)}
        for name, value in unlike.items():
            try:
                _write(root, name, value)
                done.add(name)
            except OSError as error:
                failed[name] = str(error)
        if not unlike.keys() - failed.keys():
            break
    return {"set": sorted(wanted.keys() & done - failed.keys()), "failed": failed}


def _all(root: str, places: tuple[str, ...]) -> dict[str, str]:
    """All that can be read there, with their values."""
    found = {}
    for place in places:
        try:
            names = [f"{place}.{name}" for name in os.listdir(_path(root, place))]
        except OSError:
            # A kernel without that family.
            continue
        found.update({name: value for name in names for value in [_read(root, name)] if value is not None})
    found.pop(_ALIAS, None)
    return found


def _read(root: str, name: str) -> str | None:
    """None where this kernel has none of that name, or only one that is written."""
    try:
        with open(_path(root, name), encoding="utf-8") as stream:
            return " ".join(stream.read().split())
    except (OSError, ValueError):
        return None


def _write(root: str, name: str, value: str) -> None:
    if name in _CHOICES and value not in (_read(root, _CHOICES[name]) or "").split():
        raise OSError(f"this kernel has no {value}")
    # One that is there, and in one piece, as the kernel wants it.
    number = os.open(_path(root, name), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(number, value.encode())
    finally:
        os.close(number)


def _path(root: str, name: str) -> str:
    return os.path.join(root, *name.split("."))


def main() -> None:
    """Do it, and say how it went."""
    import json

    wanted = dict(one.split("=", 1) for one in sys.argv[1:-2])
    report, pid = sys.argv[-2], int(sys.argv[-1])
    found: dict[str, object]
    try:
        found = give(pid, wanted)
    except OSError as error:
        found = {"set": [], "failed": {name: str(error) for name in wanted}}
    with open(report, "w", encoding="utf-8") as stream:
        json.dump(found, stream)


if __name__ == "__main__":
    main()
