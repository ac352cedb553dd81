# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The TCP, UDP and other internet sockets that processes hold, listening and unconnected ones too.

A socket's protocol is an extended attribute of its descriptor (net/socket.c, ``system.sockprotoname``); the kernel's
lists (proc_pid_net(5)) have only bound ones, with addresses in hexadecimal, as the machine has them in memory.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .._host import processes

_SOCKET = re.compile(r"socket:\[([0-9]+)\]\Z")
PROTOCOLS = frozenset(["TCP", "TCPv6", "UDP", "UDPv6", "UDP-Lite", "UDPLITEv6", "RAW", "RAWv6", "PING", "PINGv6"])
_LISTS = ("tcp", "tcp6", "udp", "udp6")


@dataclass(frozen=True)
class InetSocket:
    """A socket that a process holds."""

    pid: int
    #: The process's name, as ps shows it.
    command: str
    #: As the kernel has it: TCP, TCPv6, UDP, ...
    protocol: str
    #: ``address:port``; empty where it is not bound.
    local: str = ""

    def __str__(self) -> str:
        where = f" {self.local}" if self.local else ""
        return f"{self.protocol}{where} of process {self.pid} ({self.command})"


def held_by(pids: Iterable[int], proc: str = "/proc") -> list[InetSocket]:
    """Each socket once, in the order of the processes; processes that have ended hold none."""
    found: dict[str, InetSocket] = {}
    for pid in pids:
        mine = {inode: protocol for inode, protocol in _sockets(pid, proc) if inode not in found}
        if mine:
            command, addresses = processes.command(pid, proc), _addresses(pid, proc)
            for inode, protocol in mine.items():
                found[inode] = InetSocket(pid, command, protocol, addresses.get(inode, ""))
    return list(found.values())


def address(text: str) -> str:
    """``0100007F:1F90`` as ``127.0.0.1:8080``; 32 digits are an address of IPv6."""
    words, port = text.split(":")
    raw = b"".join(struct.pack("=I", int(words[at : at + 8], 16)) for at in range(0, len(words), 8))
    if len(raw) == 4:
        return f"{socket.inet_ntop(socket.AF_INET, raw)}:{int(port, 16)}"
    return f"[{socket.inet_ntop(socket.AF_INET6, raw)}]:{int(port, 16)}"


def _sockets(pid: int, proc: str) -> Iterator[tuple[str, str]]:
    """Inode and protocol of each internet socket of a process."""
    for number, target in processes.descriptors(pid, proc):
        match = _SOCKET.match(target)
        protocol = protocol_of(f"{proc}/{pid}/fd/{number}") if match else ""
        if match and protocol in PROTOCOLS:
            yield match.group(1), protocol


def protocol_of(path: str) -> str:
    """The kernel's name for the protocol of a socket, by the way to its descriptor; empty for one closed since."""
    try:
        return os.getxattr(path, "system.sockprotoname").rstrip(b"\0").decode("ascii")
    except OSError:
        return ""


def _addresses(pid: int, proc: str) -> dict[str, str]:
    """The local address by inode, of all bound sockets of the process's network namespace."""
    found: dict[str, str] = {}
    for name in _LISTS:
        try:
            with open(f"{proc}/{pid}/net/{name}", encoding="ascii") as stream:
                rows = [line.split() for line in stream][1:]
        except OSError:
            continue
        found.update((words[9], address(words[1])) for words in rows if len(words) > 9)
    return found
