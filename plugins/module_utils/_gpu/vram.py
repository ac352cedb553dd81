# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much GPU memory a restore will need, and whether the GPUs have it.

A CUDA restore that fails for want of memory poisons its process, so this is looked at before anything is touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._core.errors import RETRYABLE, InputError, NodeError
from .._core.text import gib
from .._oci.facts import Facts
from .nvml import Gpu, Reading


@dataclass(frozen=True)
class Requirement:
    """What one workload needs, in bytes: on each GPU where that is known, else altogether."""

    total: int = 0
    #: By the UUIDs that the GPUs have here.
    by_gpu: Mapping[str, int] = field(default_factory=dict)
    #: Nobody recorded it, and ``total`` is the size of the CRIU images, which hold the process's own memory too; so it
    #: may be more than what is needed, never less.
    estimated: bool = False


def sizes(given: Mapping[str, Any] | None) -> dict[str, int]:
    """Bytes by GPU UUID; templates make strings of numbers. Raises InputError ``vram_invalid``."""
    try:
        return {str(uuid): int(size) for uuid, size in (given or {}).items()}
    except (TypeError, ValueError) as error:
        raise InputError("vram_invalid", f"vram holds what is no number of bytes: {error}.", "Give bytes.") from error


def at_checkpoint(given: Mapping[str, int], facts: Facts) -> dict[str, int]:
    """Bytes that the processes had on each GPU, by its old UUID: as the operator gave it, or as it was recorded."""
    return dict(given) or facts.vram()


def requirement(known: Mapping[str, int], facts: Facts, criu_bytes: int, gpu_map: Mapping[str, str]) -> Requirement:
    """What is ``known`` (:func:`at_checkpoint`) wins over the estimate by the size of the CRIU images."""
    if known:
        return mapped(known, gpu_map)
    if facts.tells_vram:
        return Requirement()
    return Requirement(criu_bytes, estimated=True)


def mapped(known: Mapping[str, int], gpu_map: Mapping[str, str]) -> Requirement:
    """What is known of the old GPUs, on those that the map sends it to."""
    moved: dict[str, int] = {}
    for uuid, size in known.items():
        new = gpu_map.get(uuid, uuid)
        moved[new] = moved.get(new, 0) + size
    return Requirement(sum(moved.values()), moved)


def require_room(name: str, needed: Requirement, taken: Mapping[str, int], reading: Reading) -> list[str]:
    """Raise NodeError ``vram_short`` when the GPUs lack room for ``needed`` besides ``taken`` (bytes by UUID).

    ``name``: of the workload, for the message. ``taken``: what other workloads of the same run will need; what nobody
    can tell the GPU of counts for all of them together. What nobody tells the free memory of is not judged: returns a
    sentence about each.
    """
    if reading.reason:
        return [f"Whether the GPUs have room was not looked at: {reading.reason}."]
    warnings = []
    for uuid, size in needed.by_gpu.items():
        gpu = reading.gpu(uuid)
        if gpu is None:
            # It may be any of those that are here: judged by what they have together.
            continue
        if gpu.memory_free is None:
            warnings.append(_unknown(gpu))
        elif size > gpu.memory_free - taken.get(uuid, 0):
            room = gib(max(0, gpu.memory_free - taken.get(uuid, 0)))
            raise _short(
                name,
                f"The GPU {gpu.index} ({uuid}) has {room} of VRAM free, and the checkpoint of {name} held "
                f"{gib(size)} on it.",
                "Free GPU memory there, or restore onto another GPU with gpu_map, then run again.",
                {"gpu": uuid, "needed": size, "free": gpu.memory_free, "estimated": False},
            )
    here = {gpu.uuid for gpu in reading.gpus}
    if not needed.total or (not needed.estimated and here.issuperset({*needed.by_gpu, *taken})):
        return warnings
    silent = [_unknown(gpu) for gpu in reading.gpus if gpu.memory_free is None]
    if silent or not reading.gpus:
        return list(dict.fromkeys([*warnings, *silent]))
    free = sum(gpu.memory_free or 0 for gpu in reading.gpus) - sum(taken.values())
    if needed.total <= free:
        return warnings
    details = {"needed": needed.total, "free": free, "estimated": needed.estimated}
    room = gib(max(0, free))
    others = " besides what other workloads of this run may need" if taken else ""
    if needed.estimated:
        raise _short(
            name,
            f"The GPUs of this node have {room} of VRAM free{others}, and the checkpoint of {name} may need up "
            f"to {gib(needed.total)}: an estimate by the size of its memory images, since its capture recorded "
            "nothing.",
            "Free GPU memory, or set vram of the workload to the bytes that it held on each GPU, if you know better.",
            details,
        )
    raise _short(
        name,
        f"The GPUs of this node have {room} of VRAM free{others}, and the checkpoint of {name} held "
        f"{gib(needed.total)}.",
        "Free GPU memory, or restore fewer workloads on this node; set vram of those whose need is only estimated.",
        details,
    )


def _short(name: str, message: str, remedy: str, details: dict[str, Any]) -> NodeError:
    return NodeError("vram_short", message, remedy, outcome=RETRYABLE, details={"workload": name, **details})


def _unknown(gpu: Gpu) -> str:
    return f"The free memory of the GPU {gpu.uuid} is not known."
