# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the processes of a task have that CRIU takes only when told to, and what it is told therefore.

Facts: CRIU's sk-inet.c (``tcp-established`` for a connected socket; ``skip-in-flight`` for a listening one with
connections that nobody has accepted), file-lock.c (locks as the ``fdinfo`` of each descriptor has them), files-reg.c
(``ghost-limit``: 1 MiB).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .._containerd.containers import Container
from .._core.errors import RETRYABLE, TERMINAL, NodeError
from .._core.text import gib
from .._criu import config as criu_config, dump_config
from .._host import processes
from . import tcp_sockets, unix_sockets, unlinked_files
from .params import AUTO, OFF, ON, DumpOptions
from .tcp_sockets import Connection, Ended
from .unix_sockets import Outside
from .unlinked_files import LINK_REMAP, UnlinkedFile

TCP_ESTABLISHED, FILE_LOCKS, EXT_UNIX_SK = criu_config.RECORDED
#: For the restore alone: what has ended is dumped without a word, and a dump that is told to close drops what lives.
TCP_CLOSE = criu_config.CLOSE_RECORDED
SKIP_IN_FLIGHT, GHOST_LIMIT = "skip-in-flight", dump_config.GHOST_LIMIT
#: Those that containerd's options for a checkpoint do not know.
_CONFIGURED = (SKIP_IN_FLIGHT, LINK_REMAP, GHOST_LIMIT)
_MIB = 1 << 20


@dataclass(frozen=True)
class Lock:
    """A file lock of a process."""

    pid: int
    command: str
    #: As the kernel has it: FLOCK, POSIX, OFDLCK, LEASE.
    kind: str
    path: str

    def __str__(self) -> str:
        return f"{self.kind} of {self.path} by process {self.pid} ({self.command})"


@dataclass(frozen=True)
class Found:
    """What there is, each thing once."""

    connections: tuple[Connection, ...] = ()
    #: Addresses of listening sockets, with the number of connections that nobody has accepted.
    waiting: tuple[tuple[str, int], ...] = ()
    #: Sockets whose connection has ended.
    ended: tuple[Ended, ...] = ()
    locks: tuple[Lock, ...] = ()
    outside: tuple[Outside, ...] = ()
    #: Deleted files with another name, and without one.
    unlinked: tuple[UnlinkedFile, ...] = ()
    nameless: tuple[UnlinkedFile, ...] = ()

    @property
    def as_connected(self) -> tuple[Connection | Ended, ...]:
        """What comes back only by being connected anew."""
        return (*self.connections, *(one for one in self.ended if one.unread))

    def lacks_address(self, one: Ended) -> bool:
        """Whether it would need an address that neither every network namespace has nor a connection needs anyway."""
        own = {tcp_sockets.host(connection.local) for connection in self.connections if connection.within}
        return not one.anywhere and tcp_sockets.host(one.local) not in own

    @property
    def largest(self) -> UnlinkedFile | None:
        """Of the files without a name, where it is larger than CRIU takes by itself."""
        found = max(self.nameless, key=lambda file: file.bytes, default=None)
        return found if found and found.bytes > _MIB else None

    @property
    def nameless_bytes(self) -> int:
        """What those files take in the dump."""
        return sum({file.identity: file.bytes for file in self.nameless}.values())


@dataclass(frozen=True)
class Need:
    """One option that CRIU is given."""

    #: As CRIU names it.
    option: str
    #: A sentence's end: what was found, or that it was asked for.
    why: str
    value: str = ""

    @property
    def line(self) -> str:
        """For CRIU's configuration."""
        return f"{self.option}={self.value}" if self.value else self.option

    def result(self) -> dict[str, Any]:
        """As modules return it."""
        return {"option": self.option, "value": self.value, "why": self.why}


def look(
    container: Container,
    first: int,
    pids: Sequence[int],
    proc: str = "/proc",
    root: str = "",
    volumes: Collection[str] = (),
) -> Found:
    """Look at the processes; those that have ended have nothing.

    ``first``: the container's first one; ``root``: its root file system, in which links of its spec are followed;
    ``volumes``: devices of the file systems whose content is kept beside the dump.
    """
    tcp = tcp_sockets.held_by(pids, proc)
    return Found(
        connections=tcp.connections,
        waiting=tcp.waiting,
        ended=tcp.ended,
        locks=tuple(dict.fromkeys(lock for pid in pids for lock in _locks(pid, proc))),
        outside=tuple(unix_sockets.leading_outside(first, pids, proc)),
        unlinked=tuple(unlinked_files.find(pids, container.spec, proc, root, volumes)),
        nameless=tuple(unlinked_files.nameless(pids, container.spec, proc, root)),
    )


def needs(found: Found, options: DumpOptions) -> list[Need]:
    """The options that CRIU is given."""
    wanted = [
        (TCP_ESTABLISHED, options.tcp_established, _several("TCP connection", found.as_connected)),
        (SKIP_IN_FLIGHT, options.skip_in_flight, _left_out(found)),
        (FILE_LOCKS, options.file_locks, _several("file lock", found.locks)),
        (EXT_UNIX_SK, options.ext_unix_sk, _several("Unix socket", [one for one in found.outside if one.taken])),
        (LINK_REMAP, options.link_remap, _several("deleted file", found.unlinked)),
    ]
    chosen = [
        Need(option, why or "it was asked for") for option, how, why in wanted if how == ON or (how == AUTO and why)
    ]
    if found.ended and not found.as_connected and options.tcp_established != ON:
        chosen.append(Need(TCP_CLOSE, _several("TCP socket without a connection any more", found.ended)))
    if options.ghost_limit == ON:
        chosen.append(Need(GHOST_LIMIT, "it was asked for", str(options.ghost_limit_max)))
    elif options.ghost_limit == AUTO and found.largest:
        # Whole MiB: a file may grow by a page until it is dumped.
        size = min(-(-found.largest.bytes // _MIB) * _MIB, options.ghost_limit_max)
        why = f"the deleted file {found.largest} takes {gib(found.largest.bytes)}"
        chosen.append(Need(GHOST_LIMIT, why, str(size)))
    return chosen


def lines(chosen: Sequence[Need], options: DumpOptions) -> list[str]:
    """What of it has to stand in CRIU's configuration. Raises InputError ``criu_option_refused``."""
    return [need.line for need in chosen if need.option in _CONFIGURED] + criu_config.dump_lines(options.extra)


def recorded(chosen: Sequence[Need], container: Container, options: DumpOptions) -> tuple[str, ...]:
    """The options that a checkpoint records; what CRIU's configuration had already is among them."""
    config = dump_config.config_of(container.spec, container.labels)
    names = {need.option for need in chosen}
    names.update(dump_config.lock_recorded(config.network_lock(criu_config.dump_lines(options.extra))))
    names.update(name for name in criu_config.RECORDED if config.has(name))
    # Where what has ended is to be closed there was nothing to be connected.
    return tuple(sorted(names - {TCP_ESTABLISHED} if TCP_CLOSE in names else names))


def locks_by_iptables(container: Container, options: DumpOptions) -> bool:
    """Whether CRIU runs iptables-restore at a dump of the container."""
    config = dump_config.config_of(container.spec, container.labels)
    told = dump_config.lock_recorded(config.network_lock(criu_config.dump_lines(options.extra)))
    return dump_config.locks_by_iptables(told, config)


def warnings(found: Found, options: DumpOptions) -> list[str]:
    """What does not come back although CRIU takes the rest."""
    texts = []
    if options.skip_in_flight != OFF and found.waiting:
        texts.append(f"The checkpoint will lack {_left_out(found)}; the client of each meets an end.")
    untold = sum(1 for one in found.ended if not one.told)
    if untold:
        texts.append(
            f"Linux before 5.6 does not tell whether {untold} of the TCP sockets have been connected: what they have "
            "received and nobody has read may be lost."
        )
    return texts


def problems(container: Container, found: Found, options: DumpOptions) -> list[NodeError]:
    """Why they cannot be taken along; ``criu_option_refused`` is raised."""
    config = dump_config.config_of(container.spec, container.labels)
    problems_found = unlinked_files.problems(container, found.unlinked, options)
    wanted = lines(needs(found, options), options)
    if wanted and not config.writable and not all(config.has(line.partition("=")[0]) for line in wanted):
        where = config.path or "no file, as its spec says"
        problems_found.append(
            NodeError(
                "criu_config_foreign",
                f"CRIU needs {', '.join(wanted)} for {container.id}, which would have to stand in {where}, and that is "
                "not of this collection.",
                f"Put {', '.join(wanted)} there, or take the annotation org.criu.config from the container.",
            )
        )
    whose = f"The processes of {container.id}"
    connections = _asked_for(found, options)
    if connections and options.tcp_established != ON and not config.has(TCP_ESTABLISHED):
        where = "" if options.tcp_established == OFF else " that lead out of the container"
        problems_found.append(
            NodeError(
                "tcp_connections",
                f"{whose} hold {_several('TCP connection', connections)}{where}, which CRIU takes only when told to.",
                "Set criu.tcp_established to true, and have the restore keep or close them (criu.tcp), or close them "
                "first.",
                details={"connections": [str(one) for one in connections[:20]]},
            )
        )
    if found.waiting and options.skip_in_flight == OFF and not config.has(SKIP_IN_FLIGHT):
        problems_found.append(
            NodeError(
                "connections_in_flight",
                f"The dump of {container.id} would lack {_left_out(found)}.",
                "Leave criu.skip_in_flight at auto, or run again when the workload has accepted them.",
                outcome=RETRYABLE,
            )
        )
    if found.locks and options.file_locks == OFF and not config.has(FILE_LOCKS):
        problems_found.append(
            NodeError(
                "file_locks_held",
                f"{whose} hold {_several('file lock', found.locks)}, which CRIU takes only when told to.",
                "Leave criu.file_locks at auto.",
                details={"locks": [str(lock) for lock in found.locks[:20]]},
            )
        )
    return [
        *problems_found,
        *_socket_problems(container, found.outside, options.ext_unix_sk, config),
        *_size_problems(container, found.largest, options, config),
    ]


def _asked_for(found: Found, options: DumpOptions) -> list[Connection | Ended]:
    """What comes back only as a connection, of which the operator has to say that it may."""
    if options.tcp_established == OFF:
        return list(found.as_connected)
    outside: list[Connection | Ended] = [one for one in found.connections if not one.within]
    return outside + [one for one in found.ended if found.as_connected and found.lacks_address(one)]


def _socket_problems(
    container: Container, outside: Sequence[Outside], option: str, config: dump_config.DumpConfig
) -> list[NodeError]:
    not_taken = [one for one in outside if not one.taken]
    why, remedy = (
        "which CRIU cannot dump",
        "Have the workload close them before the capture, and connect anew afterwards.",
    )
    if not not_taken and option == OFF and not config.has(EXT_UNIX_SK):
        not_taken, why, remedy = list(outside), "which CRIU takes only when told to", "Leave criu.ext_unix_sk at auto."
    if not not_taken:
        return []
    return [
        NodeError(
            "unix_sockets_outside",
            f"Processes of {container.id} have Unix sockets that lead out of the container, {why}: "
            f"{', '.join(map(str, not_taken[:3]))}.",
            remedy,
            details={"sockets": [str(one) for one in not_taken[:20]]},
        )
    ]


def _size_problems(
    container: Container, largest: UnlinkedFile | None, options: DumpOptions, config: dump_config.DumpConfig
) -> list[NodeError]:
    if largest is None or (options.ghost_limit == OFF and config.value(GHOST_LIMIT)):
        return []
    limit = _MIB if options.ghost_limit == OFF else options.ghost_limit_max
    if largest.bytes <= limit:
        return []
    remedy = "Leave criu.ghost_limit at auto" if options.ghost_limit == OFF else "Raise criu.ghost_limit_max"
    return [
        NodeError(
            "unlinked_file_too_large",
            f"The deleted file {largest} of {container.id} is {gib(largest.bytes)} large, and has to be in the dump, "
            f"where {gib(limit)} are allowed.",
            f"{remedy}, or have the workload close it first.",
            outcome=TERMINAL,
            details={"path": largest.path, "bytes": largest.bytes, "limit": limit},
        )
    ]


def _several(what: str, things: Sequence[object]) -> str:
    """``2 file locks, of which the first is ...``; empty for none."""
    if not things:
        return ""
    return f"a {what} ({things[0]})" if len(things) == 1 else f"{len(things)} {what}s (the first: {things[0]})"


def _left_out(found: Found) -> str:
    if not found.waiting:
        return ""
    number = sum(number for _address, number in found.waiting)
    addresses = ", ".join(address for address, _number in found.waiting[:3])
    return f"{number} TCP connection{'s' if number > 1 else ''} to {addresses} that nobody has accepted"


def _locks(pid: int, proc: str) -> Iterator[Lock]:
    for number, target in processes.descriptors(pid, proc):
        if not target.startswith("/"):
            continue
        for words in _rows(f"{proc}/{pid}/fdinfo/{number}"):
            # lock:  1: FLOCK  ADVISORY  WRITE 7 00:2b:1234 0 EOF
            if words[0] == "lock:" and len(words) > 2:
                yield Lock(pid, processes.command(pid, proc), words[2], target)


def _rows(path: str) -> list[list[str]]:
    try:
        with open(path, encoding="ascii", errors="replace") as stream:
            return [line.split() for line in stream.read().splitlines() if line.strip()]
    except OSError:
        return []
