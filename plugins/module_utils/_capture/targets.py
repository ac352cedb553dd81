# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the nodes that a checkpoint is meant for have the driver and the GPUs that its processes need.

A process has the user's half of the driver in its memory, which works with a kernel module of the same version only,
and GPU memory is restored on a GPU of the same chip only (NVIDIA, CUDA driver API: cuCheckpointProcessRestore).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .._core.errors import NodeError

#: The refusals' codes.
DRIVER, GPUS = "target_driver_differs", "target_gpu_lacking"


@dataclass(frozen=True)
class Target:
    """A node that a checkpoint is meant for."""

    name: str
    #: The version of its NVIDIA driver; empty where it is not known.
    driver: str = ""
    #: The names of its GPUs, or words of them such as ``H100``, one for each; None where they are not known.
    gpus: tuple[str, ...] | None = None

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Target:
        """One entry of the option ``targets``."""
        gpus = options["gpus"]
        return cls(options["name"], options["driver"] or "", None if gpus is None else tuple(gpus))


def problems(container_id: str, targets: Iterable[Target], info: Mapping[str, Any]) -> list[NodeError]:
    """What targets lack for the CUDA processes, as ``cuda_process_info`` tells of them; nothing without any."""
    processes = info["processes"]
    if not processes:
        return []
    used = {gpu["uuid"]: gpu["name"] for process in processes for gpu in process["gpus"]}
    driver = info["driver"]["version"] or ""
    found = []
    for target in targets:
        if target.driver and driver and target.driver != driver:
            found.append(
                NodeError(
                    DRIVER,
                    f"{container_id} runs with NVIDIA's driver {driver}, and {target.name} has {target.driver}: a "
                    "process that has one in its memory does not go on with another.",
                    f"Give {target.name} the driver {driver}, or choose a target that has it.",
                    details={"target": target.name, "driver": driver, "found": target.driver},
                )
            )
        lacking = _lacking(Counter(used.values()), target.gpus)
        if lacking:
            names = ", ".join(f"{number} x {name}" if number > 1 else name for name, number in sorted(lacking.items()))
            has = ", ".join(target.gpus or ()) or "none"
            found.append(
                NodeError(
                    GPUS,
                    f"{container_id} has memory on GPUs that {target.name} lacks: {names} (it has: {has}).",
                    "Choose a target with GPUs of the same chip.",
                    details={"target": target.name, "lacking": dict(lacking), "found": list(target.gpus or ())},
                )
            )
    return found


def _lacking(used: Mapping[str, int], gpus: tuple[str, ...] | None) -> dict[str, int]:
    """How many GPUs of each name there are too few."""
    if gpus is None:
        return {}
    missing = {name: number - sum(_is_called(gpu, name) for gpu in gpus) for name, number in used.items()}
    return {name: number for name, number in missing.items() if number > 0}


def _is_called(words: str, name: str) -> bool:
    """Whether whole words of a GPU's name are these, in upper or lower case."""
    return bool(words.strip()) and bool(re.search(rf"(?<!\w){re.escape(words.strip())}(?!\w)", name, re.IGNORECASE))
