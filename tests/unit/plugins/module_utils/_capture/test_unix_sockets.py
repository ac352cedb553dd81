# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Unix sockets whose other end another process has: asked of the kernel, with this process and one beside it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import unix_sockets
from ansible_collections.gpuops.restore.plugins.module_utils._capture.unix_sockets import Known, Outside

ME = os.getpid()
SERVER = """
import socket, sys
kept = []
for kind, name in ((socket.SOCK_DGRAM, "datagrams"), (socket.SOCK_STREAM, "accepted"), (socket.SOCK_STREAM, "waiting")):
    kept.append(socket.socket(socket.AF_UNIX, kind))
    kept[-1].bind(f"{sys.argv[1]}/{name}")
kept[1].listen()
kept[2].listen()
kept.append(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
kept[-1].bind("\\0" + sys.argv[1])
print("there", flush=True)
kept.append(kept[1].accept())
sys.stdin.read()
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    """Another process, with a socket for each name."""
    command = [sys.executable, "-c", SERVER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        yield tmp_path
        process.kill()


def outside(name: str) -> list[Outside]:
    return [one for one in unix_sockets.leading_outside(ME, [ME]) if one.name.lstrip("\0") == name]


def test_datagrams_to_a_name_that_is_there(server: Path) -> None:
    name = str(server / "datagrams")
    assert outside(name) == []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as mine:
        mine.connect(name)
        (one,) = outside(name)
        assert (one.pid, one.kind, one.taken) == (ME, "datagram", True)
        assert str(one).startswith(f"the datagram socket of process {ME} (") and str(one).endswith(f") to {name}")
        (server / "datagrams").unlink()
        assert [found.taken for found in outside(name)] == [False], "the restore would look for it by its name"


def test_datagrams_to_an_abstract_name(server: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as mine:
        mine.connect(f"\0{server}")
        assert [one.taken for one in outside(str(server))] == [True]


def test_half_of_a_stream_is_never_taken(server: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as mine:
        mine.connect(str(server / "accepted"))
        found = [one for one in unix_sockets.leading_outside(ME, [ME]) if one.kind == "stream"]
        assert [one.taken for one in found].count(False) == len(found) > 0


def test_sockets_within_are_not_meant(tmp_path: Path) -> None:
    before = unix_sockets.leading_outside(ME, [ME])
    first, second = socket.socketpair()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "own"))
    listener.listen()
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(str(tmp_path / "own"))
    with first, second, listener, client:
        assert unix_sockets.leading_outside(ME, [ME]) == before, "the client waits for being accepted here"
        accepted, _address = listener.accept()
        with accepted:
            assert unix_sockets.leading_outside(ME, [ME]) == before
        # Its other end is closed.
        assert unix_sockets.leading_outside(ME, [ME]) == before


def test_who_waits_for_being_accepted_outside(server: Path) -> None:
    before = unix_sockets.leading_outside(ME, [ME])
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as mine:
        mine.connect(str(server / "waiting"))
        (one,) = [found for found in unix_sockets.leading_outside(ME, [ME]) if found not in before]
        assert (one.kind, one.name, one.taken) == ("stream", "", False)
        assert str(one).endswith("to one without a name")


def test_nobody_who_has_ended_and_nothing_where_the_kernel_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unix_sockets.leading_outside(2**22 + 1, [2**22 + 1]) == []
    nothing: dict[int, Known] = {}
    monkeypatch.setattr(unix_sockets, "_known", lambda _pid, _proc: nothing)
    first, second = socket.socketpair()
    with first, second:
        assert unix_sockets.leading_outside(ME, [ME]) == []
