# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A process that cannot be taken for a later one with its number, and what it has open."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Process:
    """A process of the host."""

    pid: int
    #: In clock ticks after boot, which tells it from a later process with the same id.
    start_time: int


def start_time(pid: int, proc: str = "/proc") -> int | None:
    """When the process started, in clock ticks after boot; None when it has ended (a zombie has). See proc(5)."""
    try:
        with open(f"{proc}/{pid}/stat", "rb") as stream:
            fields = stream.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def root_program(pid: int, proc: str = "/proc") -> str:
    """The name of the program that root runs there on the host itself; empty for every other process.

    That is one of another user's, in a process namespace or a root directory other than ours as in a container, or one
    that has ended. What a command line says is the process's own word, so it does not count.
    """
    own = f"{proc}/self"
    try:
        with open(f"{proc}/{pid}/status", encoding="utf-8", errors="replace") as stream:
            users = next((line.split()[1:] for line in stream if line.startswith("Uid:")), [])
        here = os.readlink(f"{proc}/{pid}/ns/pid") == os.readlink(f"{own}/ns/pid")
        here = here and os.path.samestat(os.stat(f"{proc}/{pid}/root"), os.stat(f"{own}/root"))
        program = os.path.basename(os.readlink(f"{proc}/{pid}/exe"))
    except OSError:
        return ""
    # A program that was replaced while it runs has a mark behind its name.
    return program.split(" (deleted)")[0] if here and users and set(users) == {"0"} else ""


def identity(pid: int, proc: str = "/proc") -> str:
    """A text that no other process on this node has had or will have; empty when it has ended."""
    begun = start_time(pid, proc)
    with open(f"{proc}/sys/kernel/random/boot_id", encoding="ascii") as stream:
        return "" if begun is None else f"{stream.read().strip()}/{pid}/{begun}"


def lives(found: str, proc: str = "/proc") -> bool:
    """Whether the process of an :func:`identity` still runs."""
    pid = found.split("/")[1:2]
    return bool(pid) and pid[0].isdigit() and identity(int(pid[0]), proc) == found


def environment(pid: int, proc: str = "/proc") -> dict[str, str]:
    """As the process was started with; a program may have changed its own since (proc_pid_environ(5))."""
    try:
        with open(f"{proc}/{pid}/environ", encoding="utf-8", errors="surrogateescape") as stream:
            entries = stream.read().split("\0")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def namespaced_pid(pid: int, proc: str = "/proc") -> int | None:
    """The process's id in the innermost pid namespace, which a restore keeps; None when that is not told (proc(5))."""
    try:
        with open(f"{proc}/{pid}/status", encoding="utf-8", errors="replace") as stream:
            found = next((line.split() for line in stream if line.startswith("NSpid:")), [])
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(found[-1]) if len(found) > 1 else None


def identify(pids: Iterable[int], proc: str = "/proc") -> list[Process]:
    """The processes that live now, ascending."""
    started = ((pid, start_time(pid, proc)) for pid in sorted(set(pids)))
    return [Process(pid, start) for pid, start in started if start is not None]


def command(pid: int, proc: str = "/proc") -> str:
    """The process's name, as ps shows it; ``?`` for one that has ended."""
    try:
        with open(f"{proc}/{pid}/comm", encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return "?"


def descriptors(pid: int, proc: str = "/proc") -> Iterator[tuple[int, str]]:
    """Each descriptor of a process with what it leads to, ascending; nothing for one that has ended."""
    directory = f"{proc}/{pid}/fd"
    try:
        numbers = sorted(map(int, os.listdir(directory)))
    except (FileNotFoundError, ProcessLookupError):
        return
    for number in numbers:
        try:
            target = os.readlink(f"{directory}/{number}")
        except OSError:
            # Closed since.
            continue
        yield number, target
