# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lock that CRIU puts onto a network while it dumps: rules that drop every packet of the namespace.

It takes them away when it is done, whether it has failed or not; one that was killed leaves them, and the workload goes
on without a network. Facts: criu/netfilter.c and criu/net.c: a chain CRIU, to which INPUT and OUTPUT lead, or a table
``inet CRIU-PID`` of nftables.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from .._core.errors import NodeError
from .._host import netfilter, processes

_NEW_NETWORK = 0x40000000
_CHAIN = ":CRIU "
_TO_CHAIN = re.compile(r"-A (?:INPUT|OUTPUT) -j CRIU\Z")
_IN_CHAIN = re.compile(r"-A CRIU (?:-m mark --mark 0xc114(?:/0xffffffff)? -j ACCEPT|-j DROP)\Z", re.IGNORECASE)
_TABLE = re.compile(r"CRIU(?:-[0-9]+)?\Z")
#: What CRIU's chain is in.
_FILTER = "filter"
_FAMILIES = {"iptables": netfilter.IPV4, "ip6tables": netfilter.IPV6}
#: Seconds that a program may take, and that other dumps are waited for.
_SECONDS, _OTHERS_SECONDS, _POLL_SECONDS = 30.0, 10.0, 0.1
_NAMED = "/run/netns"


def release(pid: int, path: str, proc: str = "/proc", sleep: Callable[[float], None] = time.sleep) -> list[str]:
    """Take away what a CRIU that dumped this process has left in its network namespace; what it was.

    ``path``: where the daemon's programs are. CRIU is to be gone; that of another workload in the same namespace is
    waited for. Raises NodeError ``network_locked``.
    """
    place = f"{proc}/{pid}/ns/net"
    if not _look(place, path, remove=False):
        return []
    give_up = time.monotonic() + _OTHERS_SECONDS
    while _criu_runs(proc):
        if time.monotonic() > give_up:
            raise _locked(place, "a CRIU is still at work")
        sleep(_POLL_SECONDS)
    found = _look(place, path, remove=True)
    left = _look(place, path, remove=False)
    if left:
        raise _locked(place, f"{', '.join(left)} could not be removed")
    return found


def everywhere(path: str, remove: bool, proc: str = "/proc", named: str = _NAMED) -> list[str]:
    """What is left in any network namespace of this node, each in words; nothing while a CRIU is at work."""
    found = []
    for place in _namespaces(proc, named):
        for one in _look(place, path, remove=False):
            # Asked after that: a lock of one that has begun since was not there yet.
            if _criu_runs(proc):
                return []
            if not remove or one in _look(place, path, remove=True):
                found.append(f"{one} in the network namespace {place}")
    return found


def _locked(place: str, why: str) -> NodeError:
    return NodeError(
        "network_locked",
        f"A CRIU was ended while it dumped, and its rules drop all packets in the network namespace {place}: {why}.",
        "Run containerd_leftovers when no CRIU is at work, or delete that chain or table CRIU there yourself.",
    )


def _criu_runs(proc: str) -> bool:
    return any(processes.root_program(int(name), proc) == "criu" for name in os.listdir(proc) if name.isdigit())


def _namespaces(proc: str, named: str) -> list[str]:
    """A path of each, that of a name first."""
    places = [f"{named}/{name}" for name in sorted(os.listdir(named))] if os.path.isdir(named) else []
    places += [f"{proc}/{name}/ns/net" for name in sorted(filter(str.isdigit, os.listdir(proc)), key=int)]
    found: dict[tuple[int, int], str] = {}
    for place in places:
        try:
            stat = os.stat(place)
        except OSError:
            # A process that has ended.
            continue
        found.setdefault((stat.st_dev, stat.st_ino), place)
    return list(found.values())


def _look(place: str, path: str, remove: bool) -> list[str]:
    """What is there, or with ``remove`` was; nothing where the namespace is gone."""
    try:
        with open(place, "rb") as namespace, ThreadPoolExecutor(1) as thread:
            return thread.submit(_within, namespace.fileno(), path, remove).result()
    except OSError:
        return []


def _within(namespace: int, path: str, remove: bool) -> list[str]:
    """In a thread of its own, whose programs begin where it is."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _NEW_NETWORK) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    tables = _tables(path)
    found = []
    for family, number in _FAMILIES.items():
        # Most namespaces have none, and a program takes as long as looking at a hundred of them.
        if (number, _FILTER) not in tables:
            continue
        undo = _undo(_run([f"{family}-save", "-t", "filter"], path).splitlines())
        if undo:
            found.append(f"the chain CRIU of {family}")
            if remove:
                _run([f"{family}-restore", "--noflush"], path, undo)
    for number, table in sorted(tables):
        if number == netfilter.INET and _TABLE.match(table):
            found.append(f"the table {table} of nftables")
            if remove:
                _run(["nft", "delete", "table", "inet", table], path)
    return found


def _tables(path: str) -> set[tuple[int, str]]:
    """Those of the namespace; where the kernel does not tell, any that iptables may have, and what nft says."""
    try:
        return netfilter.tables()
    except OSError:
        lines = map(str.split, _run(["nft", "list", "tables", "inet"], path).splitlines())
        said = {(netfilter.INET, words[2]) for words in lines if words[:2] == ["table", "inet"] and words[2:]}
        return said | {(number, _FILTER) for number in _FAMILIES.values()}


def _undo(rules: Sequence[str]) -> str:
    """What takes CRIU's chain away; empty where there is none, or one of somebody else's."""
    inside = [rule for rule in rules if rule.startswith("-A CRIU ")]
    if not any(rule.startswith(_CHAIN) for rule in rules) or not all(map(_IN_CHAIN.match, inside)):
        return ""
    leading = [rule for rule in rules if rule.endswith("-j CRIU")]
    if not all(map(_TO_CHAIN.match, leading)):
        return ""
    return "\n".join(["*filter", ":CRIU - [0:0]", *(f"-D{rule[2:]}" for rule in leading), "-X CRIU", "COMMIT", ""])


def _run(command: Sequence[str], path: str, text: str = "") -> str:
    """What a program says; empty where it is not there or fails."""
    try:
        # A step knows no AnsibleModule whose run_command it could use.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            ["/usr/bin/env", *command],
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
            env={"PATH": path},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
