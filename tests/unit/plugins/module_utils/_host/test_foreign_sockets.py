# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sockets of another process, which is a child of this one."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._host import foreign_sockets
from ansible_collections.gpuops.restore.plugins.module_utils._host.foreign_sockets import Closed, NotToldError

HELD = 50
#: It has one socket, as its argument says, and tells its address and its peer's.
HOLDS = f"""
import os, socket, sys
how, family = sys.argv[1], socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET
made = socket.socket(family)
if how == "connected":
    server = socket.create_server((sys.argv[2], 0), family=family)
    made.connect(server.getsockname())
if how == "ended":
    server = socket.create_server((sys.argv[2], 0), family=family)
    client = socket.create_connection(server.getsockname()[:2])
    made = server.accept()[0]
    client.send(b"hello")
    client.close()
    made.shutdown(socket.SHUT_WR)
    print(made.getsockname()[1], server.getsockname()[1], flush=True)
os.dup2(made.fileno(), {HELD})
print(os.fstat({HELD}).st_ino, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holds(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDS, *request.param]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def told(process: subprocess.Popen[str]) -> list[int]:
    assert process.stdout is not None
    return [int(word) for word in process.stdout.readline().split()]


@pytest.mark.parametrize("holds", [("never", "127.0.0.1"), ("never", "::1")], indirect=True)
def test_one_that_never_was_connected(holds: subprocess.Popen[str]) -> None:
    (inode,) = told(holds)
    assert foreign_sockets.closed(holds.pid, HELD, inode) == Closed()


@pytest.mark.parametrize("holds", [("ended", "127.0.0.1"), ("ended", "::1")], indirect=True)
def test_one_whose_connection_has_ended(holds: subprocess.Popen[str]) -> None:
    port, _server = told(holds)
    (inode,) = told(holds)
    found = foreign_sockets.closed(holds.pid, HELD, inode)
    assert found is not None and found.unread == 5
    host = found.local.rpartition(":")[0]
    assert host in ("127.0.0.1", "[::1]") and found.local == f"{host}:{port}"
    assert found.remote.startswith(f"{host}:") and found.remote != f"{host}:0"


@pytest.mark.parametrize("holds", [("connected", "127.0.0.1")], indirect=True)
def test_others_are_not_told_of(holds: subprocess.Popen[str]) -> None:
    (inode,) = told(holds)
    assert foreign_sockets.closed(holds.pid, HELD, inode) is None, "it is connected"
    assert foreign_sockets.closed(holds.pid, HELD, inode + 1) is None, "the number is another's by now"
    assert foreign_sockets.closed(holds.pid, HELD + 1, inode) is None, "it is closed"
    assert foreign_sockets.closed(2**22 + 1, HELD, inode) is None, "the process has ended"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_a_kernel_that_does_not_tell(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refused(_pid: int, _number: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(foreign_sockets, "_copied", refused)
    with pytest.raises(NotToldError):
        foreign_sockets.closed(os.getpid(), 0, 0)
