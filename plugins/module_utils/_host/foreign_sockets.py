# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A TCP socket that another process has, asked as itself: once closed it is in no list of the kernel's.

Through a copy of its descriptor (pidfd_getfd(2), Linux 5.6). The socket itself is not touched: its flags, which the
copy shares, stay as they are, and what there is to be read stays unread.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from dataclasses import dataclass

#: asm-generic/unistd.h; alike on every architecture.
_PIDFD_OPEN, _PIDFD_GETFD = 434, 438
#: asm-generic/socket.h: also of a socket that was connected, which getpeername(2) does not tell.
_PEERNAME = 28
_FIONREAD = 0x541B
#: ``struct sockaddr_in`` and ``sockaddr_in6``.
_IPV4_BYTES, _IPV6_BYTES = 16, 28
#: include/net/tcp_states.h
_CLOSE = 7


@dataclass(frozen=True)
class Closed:
    """A TCP socket in state CLOSE."""

    #: ``address:port``; both empty where it never was connected.
    local: str = ""
    remote: str = ""
    #: Bytes that were received and not read.
    unread: int = 0


class NotToldError(Exception):
    """This kernel does not let anybody ask."""


def closed(pid: int, number: int, inode: int) -> Closed | None:
    """What becomes of a descriptor's socket; None where it is not closed, or not there any more.

    Raises NotToldError.
    """
    try:
        descriptor = _copied(pid, number)
    except OSError as error:
        if error.errno in (errno.EBADF, errno.ESRCH):
            return None
        if error.errno in (errno.ENOSYS, errno.EPERM):
            raise NotToldError(error.strerror) from error
        raise
    if os.fstat(descriptor).st_ino != inode:
        os.close(descriptor)
        return None
    with socket.socket(fileno=descriptor) as copy:
        is_closed = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _CLOSE
        return _ends(copy) if is_closed else None


def _ends(copy: socket.socket) -> Closed:
    try:
        size = _IPV4_BYTES if copy.family == socket.AF_INET else _IPV6_BYTES
        remote = copy.getsockopt(socket.SOL_SOCKET, _PEERNAME, size)
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        return Closed()
    unread = struct.unpack("=i", fcntl.ioctl(copy.fileno(), _FIONREAD, b"\0" * 4))[0]
    host, port = copy.getsockname()[:2]
    return Closed(_text(copy.family, host, port), _peer(copy.family, remote), unread)


def _peer(family: int, raw: bytes) -> str:
    host = raw[4:8] if family == socket.AF_INET else raw[8:24]
    return _text(family, socket.inet_ntop(family, host), int.from_bytes(raw[2:4], "big"))


def _text(family: int, host: str, port: int) -> str:
    return f"{host}:{port}" if family == socket.AF_INET else f"[{host.partition('%')[0]}]:{port}"


def _copied(pid: int, number: int) -> int:
    """Raises OSError."""
    process = _called(_PIDFD_OPEN, pid, 0)
    try:
        return _called(_PIDFD_GETFD, process, number, 0)
    finally:
        os.close(process)


def _called(number: int, *arguments: int) -> int:
    result: int = ctypes.CDLL(None, use_errno=True).syscall(number, *map(ctypes.c_long, arguments))
    if result < 0:
        found = ctypes.get_errno()
        raise OSError(found, os.strerror(found))
    return result
