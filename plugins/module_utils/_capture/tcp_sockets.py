# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The TCP sockets that processes hold: connections, what waits for being accepted, and what has ended.

Facts: proc_pid_net(5) (``tcp``: second column the local address, third the remote one, fourth the state, fifth the
queues, tenth the inode, 0 where no process has it). A socket whose connection has ended altogether is in no list, and
CRIU's sk-inet.c and sk-tcp.c dump it without a word; but by its remote address, which it keeps, the restore takes it
for a connection: it wants ``tcp-established``, by which it is connected and ended anew and so needs its local address,
or ``tcp-close``, by which it has ended, without what was to be read of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .._host import foreign_sockets, processes
from . import inet_sockets

#: SYN_SENT to LAST_ACK and CLOSING without TIME_WAIT (06), CLOSE (07) and LISTEN (0A), include/net/tcp_states.h.
_CONNECTED = frozenset({"01", "02", "03", "04", "05", "08", "09", "0B"})
#: CLOSE_WAIT, LAST_ACK, CLOSING: the other end has sent all that it ever will.
_TOLD_THE_END = frozenset({"08", "09", "0B"})
_LISTENING = "0A"
_SOCKET = re.compile(r"socket:\[([0-9]+)\]\Z")
#: An address of IPv4 as one of IPv6, in the kernel's hexadecimal form and in words.
_MAPPED, _MAPPED_TEXT = "0000000000000000FFFF0000", "[::ffff:"
#: What every network namespace has.
_LOOPBACK = ("127.", "[::1]:", _MAPPED_TEXT + "127.")


@dataclass(frozen=True)
class Connection:
    """A TCP connection of a process."""

    local: str
    remote: str
    #: Whether processes of the container have both ends, or one and nobody has the other any more.
    within: bool

    def __str__(self) -> str:
        return f"{self.local} -> {self.remote}"


@dataclass(frozen=True)
class Ended:
    """A socket of a process whose connection has ended altogether."""

    #: Both empty where the kernel does not tell, and it may never have had one.
    local: str
    remote: str
    #: Bytes that were received and not read.
    unread: int = 0

    @property
    def told(self) -> bool:
        """Whether the kernel tells anything of it."""
        return bool(self.remote)

    @property
    def anywhere(self) -> bool:
        """Whether its own address is in every network namespace."""
        return not self.told or self.local.startswith(_LOOPBACK)

    def __str__(self) -> str:
        if not self.told:
            return "it may have been connected"
        return f"{self.local} -> {self.remote}, ended" + (f", {self.unread} bytes unread" if self.unread else "")


@dataclass(frozen=True)
class TcpSockets:
    """What there is, each socket once."""

    connections: tuple[Connection, ...] = ()
    #: Addresses of listening sockets, with the number of connections that nobody has accepted.
    waiting: tuple[tuple[str, int], ...] = ()
    ended: tuple[Ended, ...] = ()


def held_by(pids: Sequence[int], proc: str = "/proc") -> TcpSockets:
    """Look at the processes; those that have ended have none."""
    mine: dict[str, list[str]] = {}
    others: dict[tuple[str, str], str] = {}
    unlisted: dict[str, Ended | None] = {}
    for pid in pids:
        held = _sockets(pid, proc)
        unknown = {inode for inode in held if inode not in mine and inode not in unlisted}
        rows = _rows(pid, proc) if unknown else []
        mine.update((words[9], words) for words in rows if words[9] in unknown)
        others.update(((_plain(words[1]), _plain(words[2])), words[9]) for words in rows)
        unlisted.update((inode, _ended(pid, held[inode], inode, proc)) for inode in sorted(unknown - set(mine)))
    connected = [words for words in mine.values() if words[3] in _CONNECTED]
    waiting = [
        (inet_sockets.address(words[1]), int(words[4].partition(":")[2], 16))
        for words in mine.values()
        if words[3] == _LISTENING
    ]
    return TcpSockets(
        tuple(sorted((_connection(words, mine, others) for words in connected), key=str)),
        tuple(sorted((address, number) for address, number in waiting if number)),
        tuple(sorted((one for one in unlisted.values() if one), key=str)),
    )


def host(address: str) -> str:
    """That of ``address:port``, the same for an address of IPv4 whichever way it is written."""
    plain = address.rpartition(":")[0]
    return plain[len(_MAPPED_TEXT) : -1] if plain.startswith(_MAPPED_TEXT) else plain


def _connection(words: Sequence[str], mine: Mapping[str, object], others: Mapping[tuple[str, str], str]) -> Connection:
    local, remote = _plain(words[1]), _plain(words[2])
    there = others.get((remote, local), "0")
    found = Connection(inet_sockets.address(words[1]), inet_sockets.address(words[2]), there in mine)
    if there == "0" and words[3] in _TOLD_THE_END and _is_here(found):
        return Connection(found.local, found.remote, True)
    return found


def _is_here(connection: Connection) -> bool:
    """Whether its other end can only be in the same network namespace."""
    return connection.remote.startswith(_LOOPBACK) or host(connection.local) == host(connection.remote)


def _ended(pid: int, number: int, inode: str, proc: str) -> Ended | None:
    if not inet_sockets.protocol_of(f"{proc}/{pid}/fd/{number}").startswith("TCP"):
        return None
    try:
        found = foreign_sockets.closed(pid, number, int(inode))
    except foreign_sockets.NotToldError:
        return Ended("", "")
    return Ended(found.local, found.remote, found.unread) if found and found.remote else None


def _sockets(pid: int, proc: str) -> dict[str, int]:
    """Inode of each socket, and a descriptor of it."""
    targets = ((number, _SOCKET.match(target)) for number, target in processes.descriptors(pid, proc))
    return {match.group(1): number for number, match in targets if match}


def _rows(pid: int, proc: str) -> list[list[str]]:
    """Of the process's network namespace."""
    found: list[list[str]] = []
    for name in ("tcp", "tcp6"):
        try:
            with open(f"{proc}/{pid}/net/{name}", encoding="ascii", errors="replace") as stream:
                found += [line.split() for line in stream.read().splitlines()[1:]]
        except OSError:
            continue
    return [words for words in found if len(words) > 9]


def _plain(address: str) -> str:
    """The same text for an address of IPv4, whichever way the kernel writes it."""
    return address[len(_MAPPED) :] if address.startswith(_MAPPED) else address
