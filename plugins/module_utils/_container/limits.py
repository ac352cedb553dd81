# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Limits of a spec that speak of another machine: its processors, memory nodes, page sizes, block devices.

A kubelet pins a container to what its node has (static CPU manager, NUMA); runc writes that into control files, and a
kernel without such a processor refuses it when the restore is under way.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._core.errors import NodeError

#: The limits of the spec as they are; without those that this node cannot have.
KEEP, FIT = "keep", "fit"
_UNITS = ("KB", "MB", "GB")


@dataclass(frozen=True)
class Machine:
    """What the node has, by its /sys."""

    sys: str = "/sys"

    def numbers(self, name: str) -> frozenset[int] | None:
        """Of ``cpu`` or ``node``; None where the node does not tell."""
        try:
            with open(f"{self.sys}/devices/system/{name}/online", encoding="ascii") as stream:
                return parse(stream.read().strip())
        except OSError:
            return frozenset({0}) if name == "node" else None

    def page_sizes(self) -> frozenset[str]:
        """Of huge pages, as specs name them: ``2MB``, ``1GB``."""
        try:
            names = os.listdir(f"{self.sys}/kernel/mm/hugepages")
        except OSError:
            return frozenset()
        return frozenset(map(_size, names))

    def has_device(self, major: Any, minor: Any) -> bool:
        """Whether there is a block device of these numbers."""
        return os.path.exists(f"{self.sys}/dev/block/{major}:{minor}")


#: Bounds of a list that a stranger may have written: characters, and digits of a number.
_LONGEST, _DIGITS = 1024, 5


@dataclass(frozen=True)
class Unfit:
    """One limit that the node cannot have."""

    #: Where it stands below ``linux.resources``: the keys, of which the last may be a position.
    where: tuple[str | int, ...]
    #: What it asks for, as part of a sentence.
    what: str


def unfit(spec: Mapping[str, Any], machine: Machine | None = None) -> list[Unfit]:
    """Which limits this node cannot have; what cannot be read is left to runc."""
    machine = machine or Machine()
    resources = _object((spec.get("linux") or {}).get("resources"))
    found = []
    for key, name, what in (("cpus", "cpu", "processors"), ("mems", "node", "memory nodes")):
        wanted = str(_object(resources.get("cpu")).get(key) or "")
        there = machine.numbers(name)
        lacking = sorted((parse(wanted) or frozenset()) - there) if there is not None else []
        if lacking:
            found.append(Unfit(("cpu", key), f"{what} {wanted} (there are {_ranges(there or frozenset())})"))
    for position, limit in enumerate(resources.get("hugepageLimits") or ()):
        size = str(_object(limit).get("pageSize") or "")
        if size not in machine.page_sizes():
            found.append(Unfit(("hugepageLimits", position), f"huge pages of {size}"))
    for key, entries in _object(resources.get("blockIO")).items():
        for position, entry in enumerate(entries if isinstance(entries, list) else ()):
            numbers = _object(entry).get("major"), _object(entry).get("minor")
            if None not in numbers and not machine.has_device(*numbers):
                found.append(Unfit(("blockIO", key, position), f"the block device {numbers[0]}:{numbers[1]}"))
    return found


def problems(spec: Mapping[str, Any], machine: Machine | None = None) -> list[NodeError]:
    """One for all limits that this node cannot have."""
    found = unfit(spec, machine)
    if not found:
        return []
    return [
        NodeError(
            "limits_unfit",
            f"The spec limits the container to what this node does not have: {', '.join(one.what for one in found)}.",
            "Restore it with limits: fit, which leaves these limits out, or on a node that has them.",
            details={"limits": [".".join(map(str, one.where)) for one in found]},
        )
    ]


def fitted(spec: Mapping[str, Any], machine: Machine | None = None) -> tuple[Mapping[str, Any], list[str]]:
    """The spec without them, and what was left out, in sentences."""
    found = unfit(spec, machine)
    if not found:
        return spec, []
    made = copy.deepcopy(dict(spec))
    # From behind, so that positions stay true.
    for one in reversed(found):
        *way, last = one.where
        place: Any = made["linux"]["resources"]
        for key in way:
            place = place[key]
        del place[last]
    return made, [f"The limit to {one.what} is left out." for one in found]


def parse(text: str) -> frozenset[int] | None:
    """The numbers of a list as the kernel writes it (``0-3,7``); None where it is none."""
    found: set[int] = set()
    if not text.isascii() or len(text) > _LONGEST:
        return None
    for part in text.split(",") if text else ():
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or max(len(first), len(last)) > _DIGITS:
            return None
        if int(last or first) > 1 << 16:
            return None
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _ranges(numbers: frozenset[int]) -> str:
    ordered = sorted(numbers)
    contiguous = ordered and ordered == list(range(ordered[0], ordered[-1] + 1)) and len(ordered) > 1
    return f"{ordered[0]}-{ordered[-1]}" if contiguous else ", ".join(map(str, ordered))


def _size(name: str) -> str:
    """``hugepages-2048kB`` as ``2MB``."""
    digits = name.partition("-")[2].replace("kB", "")
    number, unit = int(digits) if digits.isdecimal() else 0, 0
    while number >= 1024 and number % 1024 == 0 and unit < len(_UNITS) - 1:
        number, unit = number // 1024, unit + 1
    return f"{number}{_UNITS[unit]}"


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
