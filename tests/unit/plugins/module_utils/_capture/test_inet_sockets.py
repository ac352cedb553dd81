# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which internet sockets processes hold, looked for in this one."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import inet_sockets


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def listening_6() -> socket.socket:
    return socket.create_server(("::1", 0), family=socket.AF_INET6)


def bound() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    return made


def unbound() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM)


def port(made: socket.socket) -> int:
    return int(made.getsockname()[1])


@pytest.mark.parametrize(
    ("make", "protocol", "local"),
    [
        (listening, "TCP", "127.0.0.1:{}"),
        (listening_6, "TCPv6", "[::1]:{}"),
        (bound, "UDP", "127.0.0.1:{}"),
        (unbound, "TCP", ""),
    ],
)
def test_one_that_this_process_holds(make: Callable[[], socket.socket], protocol: str, local: str) -> None:
    with make() as made:
        found = next(one for one in inet_sockets.held_by([os.getpid()]) if one.local == local.format(port(made)))
        assert (found.pid, found.protocol) == (os.getpid(), protocol)
        assert f"of process {os.getpid()} (" in str(found)


def test_each_once_and_no_others() -> None:
    before = len(inet_sockets.held_by([os.getpid()]))
    left, right = socket.socketpair()
    with left, right, listening() as made, made.dup():
        assert len(inet_sockets.held_by([os.getpid(), os.getpid()])) == before + 1
    assert inet_sockets.held_by([2**22 + 1]) == []


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("0100007F:1F90", "127.0.0.1:8080"),
        ("00000000:0016", "0.0.0.0:22"),
        ("00000000000000000000000001000000:0050", "[::1]:80"),
        ("B80D0120000000000000000001000000:0050", "[2001:db8::1]:80"),
    ],
)
def test_addresses_as_little_endian_machines_write_them(text: str, meant: str) -> None:
    assert inet_sockets.address(text) == meant
