# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Brings up the loopback interface of a process's network namespace, as ``ip link set lo up`` would there.

A program of its own that CRIU starts (:mod:`_container.loopback`); it imports nothing of this collection. Never fails:
what is wrong stands in the report, and whether it matters is for others to say.

Arguments: the report to write, and the pid of a process in that namespace.
Report: ``up``, or why it has ``failed``.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import sys

#: linux/sched.h, linux/sockios.h, linux/if.h, sys/socket.h.
_CLONE_NEWNET, _SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x40000000, 0x8913, 0x8914, 0x1
_AF_INET, _SOCK_DGRAM = 2, 2
#: struct ifreq: a name and, of the union that follows, the flags.
_IFREQ = struct.Struct("16sH22x")


def bring_up(pid: int) -> None:
    """Enter the namespace and set the flag. Raises OSError."""
    # Not Python's socket module, whose import takes as long as all the rest.
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/proc/{pid}/ns/net", "rb") as namespace:
        _checked(libc.setns(namespace.fileno(), _CLONE_NEWNET))
    control = _checked(libc.socket(_AF_INET, _SOCK_DGRAM, 0))
    _name, flags = _IFREQ.unpack(fcntl.ioctl(control, _SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0)))
    fcntl.ioctl(control, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", flags | _IFF_UP))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def main() -> None:
    """Do it, and say how it went."""
    report, pid = sys.argv[1], int(sys.argv[2])
    found = '{"up": true}'
    try:
        bring_up(pid)
    except OSError as error:
        import json

        found = json.dumps({"failed": str(error)})
    with open(report, "w", encoding="utf-8") as stream:
        stream.write(found)


if __name__ == "__main__":
    main()
