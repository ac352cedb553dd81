# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""TCP sockets by who has their ends, looked for in this process and in lists of the kernel's form."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import tcp_sockets
from ansible_collections.gpuops.restore.plugins.module_utils._capture.tcp_sockets import Connection, Ended, TcpSockets
from ansible_collections.gpuops.restore.plugins.module_utils._host import foreign_sockets

ME = os.getpid()


def look() -> TcpSockets:
    return tcp_sockets.held_by([ME])


def text(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


def test_connections_by_who_has_their_ends() -> None:
    """One end is the test's own until it is closed here."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()[:2]) as client:
            local, remote = text(client.getsockname()), text(server.getsockname())
            found = look()
            assert Connection(local, remote, False) in found.connections, "nobody has accepted it"
            assert (remote, 1) in found.waiting
            accepted, _address = server.accept()
            with accepted:
                found = look()
                assert {Connection(local, remote, True), Connection(remote, local, True)} <= set(found.connections)
                assert not [address for address, _number in found.waiting if address == remote]
                client.close()
                assert Connection(remote, local, True) in look().connections, "nobody has the other end any more"
        assert not [one for one in look().connections if remote in (one.local, one.remote)]


@pytest.mark.parametrize("reset", [False, True])
def test_one_whose_connection_has_ended(reset: bool) -> None:
    """It is in no list, and what there is to be read stays there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()[:2]) as client:
            remote = text(client.getsockname())
            accepted, _address = server.accept()
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                accepted.shutdown(socket.SHUT_WR)
            client.send(b"hello")
        with accepted:
            ended = Ended(text(server.getsockname()), remote, 5)
            assert [one for one in look().ended if one.remote == remote] == [ended]
            assert (ended.anywhere, str(ended)) == (True, f"{ended.local} -> {ended.remote}, ended, 5 bytes unread")
            assert accepted.recv(9) == b"hello"
            assert [one for one in look().ended if one.remote == remote] == [Ended(ended.local, remote)]
            assert not [one for one in look().connections if one.remote == remote]


def test_sockets_that_never_were_connected_have_not_ended() -> None:
    before = look()
    with socket.socket() as never, socket.socket(socket.AF_INET6) as bound, socket.socket(type=socket.SOCK_DGRAM):
        bound.bind(("::1", 0))
        assert look() == before
        never.setblocking(False)
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            there = nobody.getsockname()
        never.connect_ex(there)
        assert [one.remote for one in look().ended if one not in before.ended] == [text(there)], "it was refused"


def test_what_the_kernel_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_pid: int, _number: int, _inode: int) -> None:
        raise foreign_sockets.NotToldError

    monkeypatch.setattr(foreign_sockets, "closed", refused)
    with socket.socket():
        (one, *_others) = look().ended
        assert (one, one.told, one.anywhere) == (Ended("", ""), False, True)


def listed(proc: Path, rows: list[tuple[str, str, str, int]], held: list[int]) -> TcpSockets:
    """Local and remote address, state and inode of each, of which a process has some."""
    (proc / "7/fd").mkdir(parents=True)
    (proc / "7/net").mkdir()
    for number, inode in enumerate(held):
        (proc / f"7/fd/{number}").symlink_to(f"socket:[{inode}]")
    for name in ("tcp", "tcp6"):
        mine = [row for row in rows if (len(row[0]) > 20) is (name == "tcp6")]
        lines = [f"0: {row[0]} {row[1]} {row[2]} 00000000:00000000 00:0 0 0 0 {row[3]}\n" for row in mine]
        (proc / "7/net" / name).write_text("sl local rem st tx:rx tr tm retr uid timeout inode\n" + "".join(lines))
    return tcp_sockets.held_by([7], str(proc))


MAPPED = "0000000000000000FFFF0000"
LO, LO_6, POD, OTHER = "0100007F", "00000000000000000000000001000000", "02004D0A", "03004D0A"


def test_ends_of_which_one_is_of_ipv6(tmp_path: Path) -> None:
    rows = [(f"{LO}:1F90", f"{LO}:1F91", "01", 11), (f"{MAPPED}{LO}:1F91", f"{MAPPED}{LO}:1F90", "01", 12)]
    found = listed(tmp_path, rows, [11, 12])
    assert [one.within for one in found.connections] == [True, True]


@pytest.mark.parametrize(
    ("local", "remote", "state", "other", "within"),
    [
        # The other end has sent its last, and no process has it.
        (LO, LO, "08", None, True),
        (LO, LO, "08", 0, True),
        (LO_6, LO_6, "09", 0, True),
        (POD, POD, "0B", None, True),
        # Somebody has it, who is not of the container.
        (LO, LO, "08", 99, False),
        # It may have more to say, or is elsewhere.
        (LO, LO, "01", 0, False),
        (LO, LO, "05", None, False),
        (POD, OTHER, "08", None, False),
    ],
)
def test_who_has_lost_the_other_end(
    tmp_path: Path, local: str, remote: str, state: str, other: int | None, within: bool
) -> None:
    rows = [(f"{local}:1F90", f"{remote}:1F91", state, 11)]
    if other is not None:
        rows.append((f"{remote}:1F91", f"{local}:1F90", "05", other))
    (found,) = listed(tmp_path, rows, [11]).connections
    assert found.within is within


@pytest.mark.parametrize(
    ("local", "anywhere"),
    [
        ("127.9.0.1:1", True),
        ("[::1]:1", True),
        ("[::ffff:127.0.0.1]:1", True),
        ("10.0.0.2:1", False),
        ("[::]:1", False),
    ],
)
def test_addresses_that_every_network_has(local: str, anywhere: bool) -> None:
    assert Ended(local, "x").anywhere is anywhere


def test_hosts_of_addresses() -> None:
    found = map(tcp_sockets.host, ("10.0.0.2:1", "[::ffff:10.0.0.2]:1", "[fe80::1]:1"))
    assert list(found) == ["10.0.0.2", "10.0.0.2", "[fe80::1]"]
