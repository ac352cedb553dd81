# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sysctls that somebody has set in a network namespace: those whose values a new one on this node does not have.

Each thread sees below /proc/sys/net what belongs to its own namespace, and may have one of its own for a moment. Facts:
sysctl(5), unshare(2).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_NEW_NETWORK = 0x40000000
#: Below /proc/sys; of devices those that each namespace has.
_DIRECTORIES = tuple(
    f"net/{name}"
    for name in ("core", "unix", "ipv4", "ipv6")
    + tuple(f"{family}/conf/{device}" for family in ("ipv4", "ipv6") for device in ("all", "default"))
)
#: Chosen anew for each namespace, or a key that is nobody's to read.
_RANDOM = frozenset({"stable_secret", "random_seed", "tcp_fastopen_key"})
_LONGEST = 4096


def changed(pid: int, proc: str = "/proc", root: str = "/proc/sys") -> list[str]:
    """Their names, as sysctl(8) has them; none where the namespace is that of this process or cannot be looked at."""
    try:
        if os.readlink(f"{proc}/{pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            return []
        with open(f"{proc}/{pid}/ns/net", "rb") as namespace:
            number = namespace.fileno()
            now = _within(lambda libc: libc.setns(number, _NEW_NETWORK), root)
        fresh = _within(lambda libc: libc.unshare(_NEW_NETWORK), root)
    except OSError:
        return []
    return sorted(name for name, value in now.items() if name in fresh and fresh[name] != value)


def _within(enter: Callable[[ctypes.CDLL], int], root: str) -> dict[str, str]:
    """All of them in a namespace that a thread enters, and that ends with it."""

    def look() -> dict[str, str]:
        libc = ctypes.CDLL(None, use_errno=True)
        if enter(libc) != 0:
            raise OSError(ctypes.get_errno(), "network namespace")
        return _read(root)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(look).result()


def _read(root: str) -> dict[str, str]:
    found = {}
    for directory in _DIRECTORIES:
        try:
            names = os.listdir(f"{root}/{directory}")
        except FileNotFoundError:
            # A kernel without that family.
            continue
        for name in names:
            try:
                with open(f"{root}/{directory}/{name}", encoding="utf-8") as stream:
                    value = " ".join(stream.read(_LONGEST).split())
            except (OSError, ValueError):
                # A directory, or one that can only be written.
                continue
            if name not in _RANDOM:
                found[f"{directory.replace('/', '.')}.{name}"] = value
    return found
