# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules of a CRIU that was killed, by programs that stand in for those of a node."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd import network_locks
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import NodeError
from ansible_collections.gpuops.restore.plugins.module_utils._host import netfilter

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace is only entered by root")

MARKED, DROP = "-A CRIU -m mark --mark 0xc114 -j ACCEPT", "-A CRIU -j DROP"
LOCKED = [
    "*filter",
    ":INPUT ACCEPT [0:0]",
    ":CRIU - [0:0]",
    "-A INPUT -j CRIU",
    "-A OUTPUT -j CRIU",
    MARKED,
    DROP,
    "COMMIT",
]
SAVE = """#!/bin/sh
cat {rules} 2>/dev/null
"""
RESTORE = """#!/bin/sh
cat > {undone}
rm {rules}
"""
NFT = """#!/bin/sh
[ "$1" = delete ] && echo "$@" > {deleted} && rm {tables}
exit 0
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Their place; nothing else runs on the node."""
    place = tmp_path / "bin"
    place.mkdir()
    names = {name: tmp_path / name for name in ("rules", "undone", "tables", "deleted")}
    for name, text in (("iptables-save", SAVE), ("iptables-restore", RESTORE), ("nft", NFT)):
        (place / name).write_text(text.format(**names), encoding="ascii")
        (place / name).chmod(0o755)

    def tables() -> set[tuple[int, str]]:
        words = names["tables"].read_text(encoding="ascii").splitlines() if names["tables"].exists() else []
        newer = {(netfilter.INET, word.split()[2]) for word in words if word.startswith("table inet")}
        return newer | ({(netfilter.IPV4, "filter")} if names["rules"].exists() else set())

    monkeypatch.setattr(netfilter, "tables", tables)
    monkeypatch.setattr(network_locks, "_criu_runs", lambda _proc: False)
    return f"{place}:/usr/bin:/bin"


def test_nothing_where_nothing_is(programs: str, tmp_path: Path) -> None:
    assert network_locks.release(os.getpid(), programs) == []
    assert network_locks.release(1 << 30, programs) == []
    # Nor where the programs are not there.
    (tmp_path / "rules").write_text("\n".join(LOCKED), encoding="ascii")
    assert network_locks.release(os.getpid(), str(tmp_path)) == []


def test_a_lock_is_taken_away(programs: str, tmp_path: Path) -> None:
    (tmp_path / "rules").write_text("\n".join(LOCKED), encoding="ascii")
    (tmp_path / "tables").write_text("table ip filter\ntable inet CRIU-4711\n", encoding="ascii")
    wanted = ["the chain CRIU of iptables", "the table CRIU-4711 of nftables"]
    assert network_locks.release(os.getpid(), programs) == wanted
    undone = (tmp_path / "undone").read_text(encoding="ascii").splitlines()
    assert undone == ["*filter", ":CRIU - [0:0]", "-D INPUT -j CRIU", "-D OUTPUT -j CRIU", "-X CRIU", "COMMIT"]
    assert (tmp_path / "deleted").read_text(encoding="ascii").split() == ["delete", "table", "inet", "CRIU-4711"]


@pytest.mark.parametrize(
    "rules",
    [
        [":CRIU - [0:0]", "-A CRIU -p tcp -j DROP"],
        [":CRIU - [0:0]", "-A INPUT -s 10.0.0.1/32 -j CRIU", DROP],
        [":CRIU-OTHER - [0:0]", "-A INPUT -j CRIU-OTHER"],
    ],
)
def test_what_is_somebody_elses_stays(programs: str, tmp_path: Path, rules: list[str]) -> None:
    (tmp_path / "rules").write_text("\n".join(rules), encoding="ascii")
    assert network_locks.release(os.getpid(), programs) == []
    assert (tmp_path / "rules").exists()


def test_one_that_cannot_be_taken_away_is_told(programs: str, tmp_path: Path) -> None:
    (tmp_path / "rules").write_text("\n".join(LOCKED), encoding="ascii")
    (tmp_path / "bin" / "iptables-restore").write_text("#!/bin/sh\nexit 1\n", encoding="ascii")
    with pytest.raises(NodeError) as caught:
        network_locks.release(os.getpid(), programs)
    assert caught.value.code == "network_locked" and "the chain CRIU of iptables" in caught.value.message


def test_all_namespaces_are_looked_at_once(programs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proc, named = tmp_path / "proc", tmp_path / "netns"
    named.mkdir()
    for name in ("7", "8", "self"):
        (proc / name / "ns").mkdir(parents=True)
        (proc / name / "ns" / "net").symlink_to("/proc/self/ns/net")
    (tmp_path / "rules").write_text("\n".join(LOCKED), encoding="ascii")
    wanted = [f"the chain CRIU of iptables in the network namespace {proc}/7/ns/net"]
    assert network_locks.everywhere(programs, False, str(proc), str(named)) == wanted
    assert (tmp_path / "rules").exists()
    # That of a CRIU that is at work is its own.
    monkeypatch.setattr(network_locks, "_criu_runs", lambda _proc: True)
    assert network_locks.everywhere(programs, True, str(proc), str(named)) == []
    monkeypatch.setattr(network_locks, "_criu_runs", lambda _proc: False)
    assert network_locks.everywhere(programs, True, str(proc), str(named)) == wanted
    assert network_locks.everywhere(programs, True, str(proc), str(named)) == []


def test_a_namespace_without_such_a_table_costs_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node has hundreds of them; a program takes fifteen milliseconds."""
    proc, named = tmp_path / "proc", tmp_path / "netns"
    (proc / "7" / "ns").mkdir(parents=True)
    (proc / "7" / "ns" / "net").symlink_to("/proc/self/ns/net")
    ran: list[str] = []
    monkeypatch.setattr(network_locks, "_run", lambda command, _path, _text="": ran.append(command[0]) or "")
    monkeypatch.setattr(network_locks, "_criu_runs", lambda _proc: False)
    filters: set[tuple[int, str]] = set()
    monkeypatch.setattr(netfilter, "tables", lambda: filters)
    assert network_locks.everywhere("/bin", True, str(proc), str(named)) == [] and ran == []
    # What kube-proxy and others have there.
    filters.update({(netfilter.IPV4, "nat"), (netfilter.INET, "kube-proxy"), (netfilter.IPV6, "raw")})
    assert network_locks.everywhere("/bin", True, str(proc), str(named)) == [] and ran == []
    filters.update({(netfilter.IPV4, "filter"), (netfilter.IPV6, "filter")})
    assert network_locks.everywhere("/bin", True, str(proc), str(named)) == []
    assert ran == ["iptables-save", "ip6tables-save"]


def test_where_the_kernel_does_not_tell_the_programs_are_asked(
    programs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tables() -> set[tuple[int, str]]:
        raise PermissionError

    monkeypatch.setattr(netfilter, "tables", tables)
    (tmp_path / "bin" / "nft").write_text("#!/bin/sh\necho table inet CRIU-7\n", encoding="ascii")
    (tmp_path / "rules").write_text("\n".join(LOCKED), encoding="ascii")
    with pytest.raises(NodeError, match="the table CRIU-7 of nftables could not be removed"):
        network_locks.release(os.getpid(), programs)
    assert not (tmp_path / "rules").exists()
