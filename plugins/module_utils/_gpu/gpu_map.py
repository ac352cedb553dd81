# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Onto which GPUs a restore goes.

Facts: ``CUcheckpointRestoreArgs.gpuPairs`` (driver 580): every GPU that the process could see has to be in it, each new
one once and of the same chip.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from .._core.errors import InputError, NodeError
from .nvml import Reading

_UUID = re.compile(r"GPU-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")


def pairs(gpu_map: Mapping[str, str], known: Collection[str]) -> tuple[tuple[str, str], ...]:
    """What to hand to the driver: nothing for the identity, all pairs otherwise.

    ``known`` has the old UUIDs of the GPUs that the checkpoint's processes are known to have used or seen. Raises
    InputError ``gpu_map_invalid``, ``gpu_map_incomplete``.
    """
    for uuid in (*gpu_map, *gpu_map.values(), *known):
        if not _UUID.match(uuid):
            raise InputError(
                "gpu_map_invalid",
                f"{uuid!r} is no GPU UUID.",
                "Give UUIDs as nvidia-smi -L prints them (GPU- and 32 hex digits, in lower case).",
            )
    twice = sorted({uuid for uuid in gpu_map.values() if list(gpu_map.values()).count(uuid) > 1})
    if twice:
        raise InputError(
            "gpu_map_invalid",
            f"gpu_map sends several GPUs to {', '.join(twice)}.",
            "Give every old GPU a new one of its own.",
        )
    if all(old == new for old, new in gpu_map.items()):
        return ()
    missing = sorted(set(known) - set(gpu_map))
    if missing:
        raise InputError(
            "gpu_map_incomplete",
            f"gpu_map lacks {', '.join(missing)}, which the checkpoint's processes used or could see.",
            "List every GPU that they could see, also unused ones and those that stay where they were, each with a new "
            "GPU of its own.",
            details={"missing": missing},
        )
    return tuple(sorted(gpu_map.items()))


def require_targets(wanted: tuple[tuple[str, str], ...], reading: Reading) -> None:
    """Raise NodeError ``gpu_map_unchecked``, ``gpu_absent`` or ``gpu_other_chip`` unless the new GPUs will do.

    An old GPU that is not on this node has no chip to compare; the driver decides then.
    """
    if not wanted:
        return
    if reading.reason:
        raise NodeError(
            "gpu_map_unchecked",
            f"The GPUs of gpu_map cannot be checked: {reading.reason}.",
            "Install nvidia-ml-py and the driver's NVML library, or leave gpu_map out.",
        )
    for old, new in wanted:
        here, there = reading.gpu(new), reading.gpu(old)
        if here is None:
            raise NodeError(
                "gpu_absent",
                f"gpu_map names the GPU {new}, which this node does not have.",
                "See nvidia-smi -L for the GPUs of this node.",
                details={"gpus": [gpu.uuid for gpu in reading.gpus]},
            )
        if there is not None and there.name != here.name:
            raise NodeError(
                "gpu_other_chip",
                f"gpu_map sends the memory of {old} ({there.name}) to {new} ({here.name}).",
                "Choose a GPU of the same chip: a checkpoint does not fit another one.",
            )
