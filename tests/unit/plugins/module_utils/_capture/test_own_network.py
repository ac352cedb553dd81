# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container has in a network namespace of its own, read from a /proc made of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import own_network
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import spec

HEAD = "Inter-|   Receive                                                |  Transmit\n face |bytes    packets\n"
LO = "    lo:       0       0    0    0    0     0          0         0        0\n"
ROUTES = "Iface\tDestination\tGateway\tFlags\n"
TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
Local:
  +-- 0.0.0.0/0 2 0 2
     +-- 10.9.8.0/24 2 0 2
        |-- 10.9.8.7
           /32 host LOCAL
        |-- 10.9.8.255
           /32 link BROADCAST
     |-- 127.0.0.1
        /32 host LOCAL
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """Loopback alone."""
    found = tmp_path / "41/net"
    found.mkdir(parents=True)
    (found / "dev").write_text(HEAD + LO, encoding="ascii")
    (found / "route").write_text(ROUTES, encoding="ascii")
    (found / "if_inet6").write_text("00000000000000000000000000000001 01 80 10 80       lo\n", encoding="ascii")
    (found / "fib_trie").write_text(TRIE.replace("10.9.8.7", "127.0.0.9"), encoding="ascii")
    return found


def lost(net: Path, **entry: Any) -> list[str]:
    linux = {"namespaces": [{"type": "pid"}, {"type": "network", **entry}]}
    return own_network.lost(spec(linux=linux), 41, str(net.parents[1]))


def add(file: Path, text: str) -> None:
    file.write_text(file.read_text(encoding="ascii") + text, encoding="ascii")


def test_loopback_comes_back(net: Path) -> None:
    assert lost(net) == []


def test_devices(net: Path) -> None:
    add(net / "dev", "  eth0: 1 1 0 0\ndummy7: 0 0 0 0\n")
    assert lost(net) == ["eth0", "dummy7"]


@pytest.mark.parametrize("entry", [{"path": "/run/netns/pod"}, {"type": "uts"}], ids=["by path", "the node's"])
def test_what_is_not_the_containers_own_is_not_lost(net: Path, entry: dict[str, Any]) -> None:
    add(net / "dev", "  eth0: 1 1 0 0\n")
    assert lost(net, **entry) == []


def test_what_the_kernel_puts_into_each_namespace_is_there_again(net: Path) -> None:
    add(net / "dev", " tunl0: 0 0 0 0\n  sit0: 0 0 0 0\n")
    assert lost(net) == []
    add(net / "route", "tunl0\t0000000A\t00000000\t0001\n")
    add(net / "if_inet6", "fe800000000000000000000000000001 02 40 20 80     sit0\n")
    assert lost(net) == ["tunl0", "sit0"]


def test_further_addresses_of_loopback(net: Path) -> None:
    (net / "fib_trie").write_text(TRIE, encoding="ascii")
    add(net / "if_inet6", "fd000000000000000000000000000007 01 80 00 80       lo\n")
    assert lost(net) == ["10.9.8.7 on lo", "fd00::7 on lo"]


def test_a_kernel_without_a_protocol_has_no_file_of_it(net: Path) -> None:
    for name in ("if_inet6", "fib_trie"):
        (net / name).unlink()
    assert lost(net) == []
