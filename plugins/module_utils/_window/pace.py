# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long the batches of a window that are still to come will take, by those that are done. Pure.

A batch takes some time whatever its size (the work, the slowest reboot), and some for each node (the controller's
forks, a registry, a shared disk). The canary alone only tells of the first; the second batch tells of both. A batch
that an earlier run has begun tells of neither: some of its work was done, or all.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from .._core import text
from . import course

#: Seconds by which a node's clock may be behind the controller's.
_SKEW = 5.0


def sizes(serial: Any, total: int) -> list[int]:
    """The nodes of each batch, as Ansible makes them of ``serial``: the last entry goes on until none is left."""
    entries = list(serial) if isinstance(serial, (list, tuple)) else [serial]
    found: list[int] = []
    left = total
    while left > 0 and entries:
        entry = entries.pop(0) if len(entries) > 1 else entries[0]
        size = min(_size(entry, total), left)
        found.append(size)
        left -= size
    return found


def _size(entry: Any, total: int) -> int:
    given = str(entry).strip()
    number = int(float(given[:-1]) / 100 * total) if given.endswith("%") else int(given)
    # Ansible takes 0 and less for all at once, and a percentage for one node at least.
    return max(number, 1) if given.endswith("%") else (number if number > 0 else total)


def predict(done: Sequence[Mapping[str, Any]], nodes: int) -> float | None:
    """Seconds of a batch of so many nodes; None before one is done as a whole. ``done``: ``nodes`` and ``seconds``."""
    points = [(float(one["nodes"]), float(one["seconds"])) for one in _whole(done)]
    if not points:
        return None
    base, each = _line(points)
    return round(base + each * nodes, 1)


def _whole(done: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [one for one in done if not one.get("resumed")]


def _line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """By least squares; no node makes a batch shorter, and none takes less than no time."""
    count = len(points)
    mean_x, mean_y = sum(x for x, _y in points) / count, sum(y for _x, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _y in points)
    each = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
    each = max(each, 0.0)
    base = mean_y - each * mean_x
    if base < 0:
        # All of it is the nodes'.
        return 0.0, sum(x * y for x, y in points) / sum(x * x for x, _y in points)
    return base, each


def after_batch(
    done: Sequence[Mapping[str, Any]], nodes: int, seconds: float, resumed: bool = False
) -> list[dict[str, Any]]:
    """With the batch that has just ended, and what was foretold of it. ``resumed``: an earlier run began it."""
    ended = {"nodes": nodes, "seconds": round(float(seconds), 1), "predicted": predict(done, nodes)}
    return [*map(dict, done), {**ended, "resumed": True} if resumed else ended]


def batches(nodes: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Those that are done, in their order. ``nodes``: by host, ``batch``: ``hosts``, and when each began and ended.

    One in which no node got to the end (all were left alone, say) tells nothing of the others.
    """
    spans: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for heard in nodes.values():
        one = heard.get("batch") or {}
        if one.get("hosts") and one.get("begun") and one.get("ended"):
            spans.setdefault(tuple(one["hosts"]), []).append((float(one["begun"]), float(one["ended"])))
    found: list[dict[str, Any]] = []
    for hosts, times in sorted(spans.items(), key=lambda item: min(item[1])):
        if not any((nodes[host].get("node") or {}).get("phase") == course.DONE for host in hosts if host in nodes):
            continue
        begun = min(begun for begun, _ended in times)
        resumed = not any(_from_the_beginning(nodes[host].get("node") or {}, begun) for host in hosts if host in nodes)
        found = after_batch(found, len(hosts), max(ended for _begun, ended in times) - begun, resumed)
    return found


def _from_the_beginning(node: Mapping[str, Any], begun: float) -> bool:
    """Whether the node's journal has its attempt begin since then; without a journal nobody says otherwise."""
    history = node.get("history")
    times = [str(entry.get("at")) for entry in history or () if entry.get("phase") == course.PLANNED]
    return not history or any(_seconds(at) >= begun - _SKEW for at in times)


def _seconds(moment: str) -> float:
    try:
        found = datetime.datetime.strptime(moment, text.UTC)
    except ValueError:
        return 0.0
    return found.replace(tzinfo=datetime.timezone.utc).timestamp()


def over(nodes: Mapping[str, Mapping[str, Any]]) -> int:
    """How many nodes are in batches that are over."""
    ended = [one["batch"]["hosts"] for one in nodes.values() if (one.get("batch") or {}).get("ended")]
    return len({host for hosts in ended for host in hosts})


def left(done: Sequence[Mapping[str, Any]], serial: Any, total: int, begun: int) -> float | None:
    """Seconds until the last batch is done; None where nothing is left, or nobody can tell.

    ``begun``: the nodes of batches that are over, done or not.
    """
    coming = []
    for size in sizes(serial, total):
        if begun <= 0:
            coming.append(size)
        begun -= size
    told = [predict(done, size) for size in coming]
    return round(sum(one for one in told if one is not None), 1) if coming and None not in told else None


def late(nodes: Mapping[str, Mapping[str, Any]], batch: Sequence[str], minutes: Any, now: float) -> str:
    """Why the batch may not begin: the window's time is over, or would be before it is done; empty where it may.

    ``minutes``: what the window may take; None: as long as it takes.
    """
    if minutes is None:
        return ""
    try:
        allowed = float(minutes)
    except (TypeError, ValueError):
        return f"maintenance_minutes is {minutes!r}; it has to be a number of minutes."
    begun = [float(one["batch"]["begun"]) for one in nodes.values() if (one.get("batch") or {}).get("begun")]
    gone = (now - min([*begun, now])) / 60
    needed = (predict(batches(nodes), len(batch)) or 0.0) / 60
    if gone + needed <= allowed:
        return ""
    return (
        f"This batch does not begin: {gone:.0f} of the {allowed:g} minutes of the window (maintenance_minutes) are "
        f"over, and its {len(batch)} node(s) would take about {needed:.0f}, as those before it did. They were not "
        "touched. Run the window again when there is time; it goes on from here."
    )


def say(done: Sequence[Mapping[str, Any]], serial: Any, total: int, begun: int) -> str:
    """One line for a screen; empty before the first batch is done."""
    if not done:
        return ""
    last, more = done[-1], left(done, serial, total, begun)
    told = f" (predicted {last['predicted']:.0f} s)" if last.get("predicted") is not None else ""
    # Batches of one size tell nothing of what a node adds.
    known = {one["nodes"] for one in _whole(done)}
    alike = len(known) == 1 and any(size > max(known) for size in sizes(serial, total))
    how = "at least" if alike else "about"
    tail = f" The {total - begun} node(s) that are left will take {how} {more:.0f} s." if more is not None else ""
    if more is None and total > begun:
        tail = (
            f" What the {total - begun} node(s) that are left will take nobody can tell yet: "
            "by their journals an earlier run had begun the batches so far, or their clocks are behind."
        )
    return f"The last batch, with {last['nodes']} node(s), took {last['seconds']:.0f} s{told}.{tail}"
