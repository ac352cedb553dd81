# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Memory volumes that several workloads of one call had together, as the containers of a pod have /dev/shm.

They have it together again, so its content has to be of a moment that fits the memory of all of them. It does where
all captures found the same, or where one was taken while the others stood still: what they had not seen then, they see
as if they had only been slow.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence

from .._checkpoint.volumes import MemoryVolume
from .._container.volumes import Volume
from .._core.errors import ConflictError, RestoreError
from .demand import Demand


def agree(demands: Sequence[Demand]) -> tuple[list[Demand], dict[str, RestoreError]]:
    """The demands with the content that counts for all; and those that cannot be restored, by name, and why."""
    groups: dict[str, list[tuple[Demand, Volume]]] = {}
    for demand in demands:
        for volume in demand.volumes:
            if volume.record.shared:
                groups.setdefault(volume.place, []).append((demand, volume))
    content: dict[str, MemoryVolume] = {}
    refused: dict[str, RestoreError] = {}
    for place, members in groups.items():
        agreed, problem = _agree(members)
        if problem is not None:
            refused.update({demand.job.name: problem for demand, _volume in members if not demand.live})
        elif agreed is not None:
            content[place] = agreed
    return [_with_content(demand, content) for demand in demands], refused


def turns(demands: Sequence[Demand]) -> dict[str, list[threading.Lock]]:
    """For each workload, by name, the locks of the volumes that others have too, in one order for all.

    CRIU makes deleted files again under names that it takes from the dump, so two restores at once would meet there.
    """
    users: dict[str, list[str]] = {}
    for demand in demands:
        for place in sorted({volume.place for volume in demand.volumes if volume.record.shared}):
            users.setdefault(place, []).append(demand.job.name)
    found: dict[str, list[threading.Lock]] = {}
    for _place, names in sorted(users.items()):
        lock = threading.Lock()
        for name in names if len(names) > 1 else ():
            found.setdefault(name, []).append(lock)
    return found


def warnings(demand: Demand, demands: Sequence[Demand]) -> list[str]:
    """What an operator is told of the volumes of one workload of ``demands`` that it does not have alone."""
    found = []
    for volume in () if demand.live else demand.volumes:
        here = {one.record.container for other in demands for one in other.volumes if one.place == volume.place}
        absent = sorted(set(volume.record.shared) - here)
        if absent:
            found.append(
                f"The memory volume at {volume.record.destination} of {demand.job.name} was also one of "
                f"{', '.join(absent)}, which this call does not restore: they have it together only if restored in one "
                "call."
            )
    return found


def _agree(members: Sequence[tuple[Demand, Volume]]) -> tuple[MemoryVolume | None, RestoreError | None]:
    records = [volume.record for _demand, volume in members]
    names = ", ".join(demand.job.name for demand, _volume in members)
    origins = [record.container for record in records]
    if len(set(origins)) < len(origins):
        return None, _refusal(records[0], names, "two of them are restores of the same container", records[0].source)
    if len({record.digest for record in records}) == 1:
        return records[0], None
    for record in records:
        if set(origins) - {record.container} <= set(record.paused):
            lacking = [one.container for one in records if one.links and one.digest != record.digest]
            if not lacking:
                return record, None
            why = f"deleted files that {', '.join(lacking)} has open there are in the content of its own capture alone"
            return None, _refusal(records[0], names, why, records[0].source)
    why = "their checkpoints hold different contents of it, none of which was taken while the others stood still"
    return None, _refusal(records[0], names, why, records[0].source)


def _refusal(record: MemoryVolume, names: str, why: str, source: str) -> ConflictError:
    return ConflictError(
        "memory_volume_moments",
        f"{names} had the memory volume at {record.destination} together and cannot have it again: {why}.",
        "Capture one with leave: paused, then the other while that one is paused, and settle both; or give each a "
        f"directory of its own in mounts: '{source}': NEW-SOURCE.",
        details={"source": source},
    )


def _with_content(demand: Demand, content: dict[str, MemoryVolume]) -> Demand:
    mine = {
        volume.record.source: dataclasses.replace(
            content[volume.place],
            destination=volume.record.destination,
            container=volume.record.container,
            shared=volume.record.shared,
        )
        for volume in demand.volumes
        if volume.place in content
    }
    if not mine:
        return demand
    container = dataclasses.replace(demand.job.container, shared_volumes=mine)
    volumes = tuple(
        dataclasses.replace(volume, record=mine.get(volume.record.source, volume.record)) for volume in demand.volumes
    )
    return dataclasses.replace(demand, job=dataclasses.replace(demand.job, container=container), volumes=volumes)
