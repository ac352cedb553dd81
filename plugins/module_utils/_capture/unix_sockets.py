# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Unix sockets of processes whose other end nobody in the container has.

Facts: criu/sk-unix.c, and runs of CRIU 4.2.1. A datagram socket that is connected to one outside is taken with
``ext-unix-sk``, if that one is in the same network namespace and has the same name in the container, by which the
restore finds it again; half of a stream never is. Who is connected to whom tells sock_diag(7), for the sockets of one
network namespace.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import socket
import stat
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .._host import processes
from . import inet_sockets

_SOCKET = re.compile(r"socket:\[([0-9]+)\]\Z")
_CLONE_NEWNET = 0x40000000
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP = 4, 20, 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
#: What is asked of each socket, and the attributes of the answer (include/uapi/linux/unix_diag.h).
_SHOW_NAME_PEER_ICONS = 0x1 | 0x4 | 0x8
_NAME, _PEER, _ICONS, _SHUTDOWN = 0, 2, 3, 6
_ESTABLISHED, _BOTH = 1, 3
_KINDS: dict[int, str] = {
    socket.SOCK_STREAM: "stream",
    socket.SOCK_DGRAM: "datagram",
    socket.SOCK_SEQPACKET: "seqpacket",
}


@dataclass(frozen=True)
class Known:
    """What the kernel tells of a socket."""

    #: As socket(2) has it.
    type: int
    state: int
    #: As bind(2) took it: a path, or a name that begins with NUL; empty for none.
    name: str = ""
    #: Inode of the other end, 0 for none.
    peer: int = 0
    #: Inodes of those who wait for being accepted.
    waiting: tuple[int, ...] = ()
    #: Which halves are shut down.
    shutdown: int = 0


@dataclass(frozen=True)
class Outside:
    """A socket that leads out of the container."""

    pid: int
    command: str
    #: Of the socket.
    kind: str
    #: Name of the other end; empty where it has none, or is of another network namespace.
    name: str
    #: Whether CRIU takes it, with its option.
    taken: bool

    def __str__(self) -> str:
        name = self.name.replace("\0", "@")
        return f"the {self.kind} socket of process {self.pid} ({self.command}) to {name or 'one without a name'}"


def leading_outside(first: int, pids: Sequence[int], proc: str = "/proc") -> list[Outside]:
    """Each such socket once; none where the kernel does not tell. ``first``: the container's first process."""
    mine = dict(_held(pids, proc))
    known = _known(first, proc) if mine else {}
    accepting = {inode for listener in mine if listener in known for inode in known[listener].waiting}
    found = []
    for inode, pid in mine.items():
        one = known.get(inode)
        if not known or one is None or one.peer in mine or not _is_connected(one) or inode in accepting:
            continue
        name = known[one.peer].name if one.peer in known else ""
        taken = one.type == socket.SOCK_DGRAM and bool(name) and _is_there(first, name, proc)
        kind = _KINDS.get(one.type, str(one.type))
        found.append(Outside(pid, processes.command(pid, proc), kind, name, taken))
    return found


def _is_connected(one: Known) -> bool:
    """One without another end may wait for being accepted, or have lost it."""
    if one.peer:
        return True
    return one.type != socket.SOCK_DGRAM and one.state == _ESTABLISHED and one.shutdown != _BOTH


def _is_there(pid: int, name: str, proc: str) -> bool:
    """Whether a name leads to a socket in the container, too."""
    if name.startswith("\0"):
        return True
    try:
        return stat.S_ISSOCK(os.stat(f"{proc}/{pid}/root/{name.lstrip('/')}").st_mode)
    except OSError:
        return False


def _held(pids: Sequence[int], proc: str) -> Iterator[tuple[int, int]]:
    """Inode of each Unix socket and a process that has it."""
    for pid in pids:
        for number, target in processes.descriptors(pid, proc):
            match = _SOCKET.match(target)
            if match and inet_sockets.protocol_of(f"{proc}/{pid}/fd/{number}").startswith("UNIX"):
                yield int(match.group(1)), pid


def _known(pid: int, proc: str) -> dict[int, Known]:
    """All Unix sockets of a process's network namespace, by their inodes."""
    opened: list[socket.socket] = []

    def open_there() -> None:
        # Of the namespace of its thread, which ends.
        try:
            with open(f"{proc}/{pid}/ns/net", "rb") as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET) == 0:
                    opened.append(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG))
        except OSError:
            return

    thread = threading.Thread(target=open_there)
    thread.start()
    thread.join()
    if not opened:
        return {}
    with opened[0] as channel:
        channel.settimeout(10)
        try:
            return _asked(channel)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EOPNOTSUPP):
                # The kernel was built without it, and CRIU needs it, too.
                return {}
            raise


def _asked(channel: socket.socket) -> dict[int, Known]:
    request = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, _SHOW_NAME_PEER_ICONS, 0, 0)
    head = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0)
    channel.send(head + request)
    found: dict[int, Known] = {}
    while True:
        data = channel.recv(1 << 17)
        while len(data) >= 16:
            length, kind = struct.unpack_from("=IH", data)
            if kind == _NLMSG_DONE:
                return found
            if kind == _NLMSG_ERROR:
                number = -struct.unpack_from("=i", data, 16)[0]
                raise OSError(number, os.strerror(number))
            type_, state, inode = struct.unpack_from("=xBBxI", data, 16)
            found[inode] = _one(type_, state, dict(_attributes(data[32:length])))
            data = data[-(-length // 4) * 4 :]


def _one(type_: int, state: int, attributes: dict[int, bytes]) -> Known:
    waiting = attributes.get(_ICONS, b"")
    return Known(
        type=type_,
        state=state,
        name=attributes.get(_NAME, b"").decode("utf-8", "replace").rstrip("\0"),
        peer=struct.unpack("=I", attributes[_PEER])[0] if _PEER in attributes else 0,
        waiting=struct.unpack(f"={len(waiting) // 4}I", waiting),
        shutdown=attributes.get(_SHUTDOWN, b"\0")[0],
    )


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind, data[4:length]
        data = data[-(-length // 4) * 4 :]
