# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container has in a network namespace of its own, and would not have after a restore.

runc has CRIU dump such a namespace without its content (``empty_ns``, criu_linux.go), so it comes back with nothing
but loopback. Facts: proc_pid_net(5); Documentation/admin-guide/sysctl/net.rst for the devices that the kernel makes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from .._core.errors import NodeError
from .._oci import spec_namespaces

#: As ``criu.empty_namespaces`` has it.
KIND = "network"
#: The kernel puts these into each namespace when their modules are loaded (net.core.fb_tunnels_only_for_init_net).
_KERNELS = frozenset(["tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0", "lo"])


def lost(spec: Mapping[str, Any], pid: int, proc: str = "/proc") -> list[str]:
    """Devices, and addresses of the loopback device; none where the namespace is not the container's own.

    ``spec`` has been checked, ``pid`` is the container's first process.
    """
    if spec_namespaces.network_origin(spec) != spec_namespaces.PRIVATE:
        return []
    net = f"{proc}/{pid}/net"
    used = {line.split()[0] for line in _lines(f"{net}/route")[1:] if line.split()}
    addresses = [line.split() for line in _lines(f"{net}/if_inet6")]
    used |= {words[5] for words in addresses if len(words) > 5}
    used.discard("lo")
    names = [line.partition(":")[0].strip() for line in _lines(f"{net}/dev") if ":" in line]
    devices = [name for name in names if name not in _KERNELS or name in used]
    if devices:
        # Their addresses go with them.
        return devices
    on_lo = _local(_lines(f"{net}/fib_trie"))
    on_lo += [str(ipaddress.IPv6Address(int(words[0], 16))) for words in addresses if words[5:6] == ["lo"]]
    return [f"{address} on lo" for address in on_lo if not ipaddress.ip_address(address).is_loopback]


def problem(container_id: str, found: list[str]) -> NodeError:
    """The refusal."""
    return NodeError(
        "network_not_captured",
        f"The container {container_id} has {', '.join(found)} in a network namespace of its own, which CRIU does "
        "not take along: it would come back with nothing but loopback.",
        "Run it in a network namespace given by path (ip netns add, and the path in its spec), which a restore joins; "
        "or set criu.empty_namespaces: [network] to capture it without; a restore can have it made anew, by plugins of "
        "CNI (network: cni:PATH) or a command of yours (network_command).",
        details={"lost": found},
    )


def warning(container_id: str, found: list[str]) -> str:
    """What becomes of it where the operator wants the namespace to be captured empty."""
    return (
        f"The network of {container_id} is captured empty, as criu.empty_namespaces says: {', '.join(found)} will not "
        "be there after a restore, nor what was bound to an address of it."
    )


def _local(lines: list[str]) -> list[str]:
    """The host's own IPv4 addresses of a fib_trie: a leaf, and below it a line ``/32 host LOCAL``."""
    found, leaf = [], ""
    for line in lines:
        words = line.split()
        if words[:1] == ["|--"]:
            leaf = words[1]
        elif words[:3] == ["/32", "host", "LOCAL"] and leaf not in found:
            found.append(leaf)
    return found


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii", errors="replace") as stream:
            return stream.read().splitlines()
    except OSError:
        # The process has ended, or the kernel has no such protocol.
        return []
