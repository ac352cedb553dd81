# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the variables of a host ask for: a selection, a list, or by mistake nothing."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SELECTION = "workloads"
#: The list of each use; it wins over the selection.
LISTS: Mapping[str, str] = {
    "capture": "checkpoint_node_workloads",
    "restore": "restore_node_workloads",
    "migrate": "migrate_workloads",
}
#: So alike is a name that was misspelt.
_ALIKE = 0.88


@dataclass(frozen=True)
class Request:
    """What a host is to do."""

    #: It has something to do, be it only to say what is wrong.
    takes_part: bool = False
    #: By the selection; otherwise by the list.
    selects: bool = False
    problem: str = ""
    #: A list that is there and empty: the host is left out on purpose, unless all are.
    empty: str = ""
    #: Lists for other uses.
    others: tuple[str, ...] = ()

    def result(self) -> dict[str, Any]:
        """As the filter returns it."""
        return {
            "takes_part": self.takes_part,
            "selects": self.selects,
            "problem": self.problem,
            "empty": self.empty,
            "others": list(self.others),
        }


def of_host(variables: Mapping[str, Any], use: str, host: str) -> Request:
    """What a host's variables ask for. ``use``: a key of :data:`LISTS`, or one that has no list."""
    name = LISTS.get(use, SELECTION)
    others = tuple(sorted(other for other in LISTS.values() if other != name and other in variables))
    if name in variables and name != SELECTION:
        given = variables[name]
        if given is None or not isinstance(given, Sequence) or isinstance(given, (str, bytes)):
            what = "has no value" if given is None else "is no list"
            return Request(
                True, problem=f"{name} of {host} {what}. Give a list of workloads, or [] to leave {host} out."
            )
        if given:
            return Request(True)
        return Request(empty=name, others=others)
    if SELECTION in variables:
        return Request(True, selects=True)
    for key in variables:
        if not isinstance(key, str) or key in LISTS.values():
            continue
        near = difflib.get_close_matches(key, [name, SELECTION], 1, _ALIKE)
        if near:
            return Request(True, problem=f"{host} has a variable {key}, which nobody reads. Is {near[0]} meant?")
    return Request(others=others)


def nobody(requests: Mapping[str, Request], use: str) -> str:
    """The sentence for a play in which no host has anything to do."""
    name = LISTS.get(use, SELECTION)
    wanted = SELECTION if name == SELECTION else f"{SELECTION} (a selection, for all playbooks) or {name}"
    empty = sorted(host for host, request in requests.items() if request.empty)
    others = sorted((host, request.others[0]) for host, request in requests.items() if request.others)
    seen = ""
    if empty:
        seen = f" {name} is empty on {empty[0]}" + (f" and {len(empty) - 1} more." if len(empty) > 1 else ".")
    elif others:
        seen = f" {others[0][0]} has {others[0][1]}, which is for another use."
    return (
        f"None of {len(requests)} host(s) says which workloads are meant, so nothing was done.{seen} "
        f"Set {wanted} in the inventory."
    )
