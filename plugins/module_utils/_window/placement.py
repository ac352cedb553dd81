# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which spare node takes in which workload, and in which order they move. Pure; the same answer for the same facts.

A workload goes to the first spare, in the operator's order, that has what it needs, beside those placed there before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .._core.text import gib

#: What lies on a spare's disk of each byte of a checkpoint: by the route direct the staged dump; by the others an
#: archive or what was pulled, the image, and the staged dump.
_ON_DISK, _ON_DISK_BY_IMAGE = 1, 3
DIRECT = "direct"


@dataclass(frozen=True)
class Card:
    """A GPU: the name of its chip, and bytes, held or free; None: not known."""

    name: str
    size: int | None


@dataclass(frozen=True)
class Need:
    """What a workload needs of the node that takes it in."""

    host: str
    id: str
    #: What people call it, and its container's name on the spare.
    called: str
    name: str
    #: Bytes of host memory; of GPU memory, which goes through host memory on its way.
    memory: int
    cards: tuple[Card, ...] = ()
    driver: str = ""
    architecture: str = ""
    cpu_features: frozenset[str] = frozenset()

    @property
    def gpu_memory(self) -> int:
        """Bytes on all cards."""
        return sum(card.size or 0 for card in self.cards)


@dataclass(frozen=True)
class Spare:
    """What a spare node has left; None: not known."""

    host: str
    driver: str = ""
    cards: tuple[Card, ...] = ()
    memory: int | None = None
    disk: int | None = None
    architecture: str = ""
    cpu_features: frozenset[str] = frozenset()
    #: Containers that are there, or will be.
    names: frozenset[str] = frozenset()

    @classmethod
    def from_answers(cls, host: str, heard: Mapping[str, Any], answer: Mapping[str, Any]) -> Spare:
        """Of the answers of ``containerd_window`` and ``containerd_workload_info``."""
        room = heard.get("room") or {}
        return cls(
            host=host,
            driver=(heard.get("facts") or {}).get("driver") or "",
            cards=tuple(Card(card["name"], card.get("free")) for card in room.get("cards") or ()),
            memory=room.get("memory"),
            disk=room.get("disk"),
            architecture=room.get("architecture") or "",
            cpu_features=frozenset(room.get("cpu_features") or ()),
            names=frozenset(one["id"] for one in answer["workloads"]),
        )


def need(host: str, record: Mapping[str, Any], heard: Mapping[str, Any], answer: Mapping[str, Any]) -> Need:
    """Of a record of the journal, by what its node has told, as :meth:`Spare.from_answers`."""
    seen: Mapping[str, Any] = next((one for one in answer["workloads"] if one["id"] == record["id"]), {})
    held: dict[str, Card] = {}
    for holder in seen.get("gpu_processes") or ():
        for share in holder["gpus"]:
            before = held.get(share["uuid"], Card(share["name"], 0)).size or 0
            held[share["uuid"]] = Card(share["name"], before + (share.get("memory") or 0))
    room = heard.get("room") or {}
    return Need(
        host=host,
        id=record["id"],
        called=record["called"],
        name=record["restored"],
        memory=int(seen.get("memory") or 0),
        cards=tuple(held[uuid] for uuid in sorted(held)),
        driver=(heard.get("facts") or {}).get("driver") or "",
        architecture=room.get("architecture") or "",
        cpu_features=frozenset(room.get("cpu_features") or ()),
    )


def lacks(wanted: Need, spare: Spare, route: str) -> str:
    """What the spare lacks for the workload, the first that counts; empty where it takes it in."""
    if wanted.architecture and spare.architecture and wanted.architecture != spare.architecture:
        return f"is {spare.architecture} and not {wanted.architecture}"
    if wanted.cards and spare.driver != wanted.driver:
        return f"has the driver {spare.driver or 'none'} and not {wanted.driver}"
    missing = wanted.cpu_features - spare.cpu_features
    if spare.cpu_features and missing:
        return f"has a processor without {', '.join(sorted(missing)[:5])}"
    if wanted.name in spare.names:
        return f"has a container {wanted.name} already"
    if _seated(wanted.cards, spare.cards) is None:
        return f"has no room on its GPUs for {_said(wanted.cards)} (it has {_said(spare.cards)})"
    host = wanted.memory + wanted.gpu_memory
    if spare.memory is not None and host > spare.memory:
        return f"has {gib(spare.memory)} of host memory left, of {gib(host)} that it needs"
    disk = host * (_ON_DISK if route == DIRECT else _ON_DISK_BY_IMAGE)
    if spare.disk is not None and disk > spare.disk:
        return f"has {gib(spare.disk)} of disk left, of {gib(disk)} that it needs"
    return ""


def _said(cards: Sequence[Card]) -> str:
    return ", ".join(card.name + ("" if card.size is None else f" {gib(card.size)}") for card in cards) or "none"


def _seated(wanted: Sequence[Card], cards: Sequence[Card]) -> list[Card] | None:
    """The cards after each of the wanted has one of the same chip to itself; None where they are too few or too small.

    The largest first, each to the card with the least room that does.
    """
    left = list(cards)
    taken: list[Card] = []
    for card in sorted(wanted, key=lambda one: -(one.size or 0)):
        fits = [one for one in left if one.name == card.name and (one.size is None or one.size >= (card.size or 0))]
        if not fits:
            return None
        best = min(fits, key=lambda one: (one.size is None, one.size or 0))
        left.remove(best)
        taken.append(best if best.size is None else replace(best, size=best.size - (card.size or 0)))
    return [*left, *taken]


def _taken_in(wanted: Need, spare: Spare, route: str) -> Spare:
    host = wanted.memory + wanted.gpu_memory
    disk = host * (_ON_DISK if route == DIRECT else _ON_DISK_BY_IMAGE)
    return replace(
        spare,
        cards=tuple(_seated(wanted.cards, spare.cards) or ()),
        # What goes on the GPU is in host memory only for a while: the restores wait for each other.
        memory=None if spare.memory is None else spare.memory - wanted.memory,
        disk=None if spare.disk is None else spare.disk - disk,
        names=spare.names | {wanted.name},
    )


def place(
    needs: Sequence[Need], spares: Sequence[Spare], route: str, kept: Mapping[tuple[str, str], str] | None = None
) -> tuple[dict[tuple[str, str], str], dict[tuple[str, str], str]]:
    """The spare of each workload, by its host and id, and the sentences for those that none takes in.

    ``kept``: what an earlier run has noted; it may be on its way already. Of the others the largest are placed first,
    and of equals those whose hosts and names come first.
    """
    rooms = {spare.host: spare for spare in spares}
    places = {key: host for key, host in (kept or {}).items() if host in rooms}
    refused: dict[tuple[str, str], str] = {}
    ordered = sorted(needs, key=lambda one: (-one.gpu_memory, -one.memory, one.host, one.called, one.id))
    for wanted in ordered:
        there = places.get((wanted.host, wanted.id))
        if there is not None:
            rooms[there] = _taken_in(wanted, rooms[there], route)
    for wanted in ordered:
        if (wanted.host, wanted.id) in places:
            continue
        reasons = {host: lacks(wanted, spare, route) for host, spare in rooms.items()}
        fit = next((host for host, reason in reasons.items() if not reason), None)
        if fit is None:
            said = "; ".join(f"{host} {reason}" for host, reason in reasons.items())
            refused[wanted.host, wanted.id] = (
                f"No spare node takes {wanted.called} of {wanted.host} in: {said}. {_remedy(reasons, wanted)}"
            )
            continue
        places[wanted.host, wanted.id] = fit
        rooms[fit] = _taken_in(wanted, rooms[fit], route)
    return places, refused


def _remedy(reasons: Mapping[str, str], wanted: Need) -> str:
    if all(reason.startswith("has a container ") for reason in reasons.values()):
        return (
            "Tell them apart by workloads.restore_as, such as with {host}, remove the one that is there "
            "(gpuops.restore.cleanup), or name another spare node (maintenance_spares)."
        )
    what = "the same driver, chip and processor and enough room" if wanted.cards else "a like processor and enough room"
    return f"Name one with {what} (maintenance_spares), or have fewer nodes in a batch (maintenance_batches)."


def turns(moves: Sequence[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
    """Moves (``source``, ``target``, ``workloads``) in turns, in each of which no host is in more than one of them."""
    found: list[list[dict[str, Any]]] = []
    busy: list[set[str]] = []
    for move in moves:
        hosts = {move["source"], move["target"]}
        turn = next((number for number, others in enumerate(busy) if not hosts & others), None)
        if turn is None:
            turn = len(found)
            found.append([])
            busy.append(set())
        found[turn].append(dict(move))
        busy[turn] |= hosts
    return found
