# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether what was captured before the work can come back after it: the node is still the same in what counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: So many seconds a clock may be behind: restored processes would see time run backwards.
_BEHIND = 5.0
#: File systems that no reboot outlives.
_MEMORY = ("tmpfs", "ramfs")


def problems(before: Mapping[str, Any], after: Mapping[str, Any], gpu_map: Mapping[str, str], gpu: bool) -> list[str]:
    """What is not as it was, each a sentence with its remedy.

    ``before``, ``after``: the node's facts, as ``containerd_window`` tells them; ``gpu``: whether any workload has GPU
    memory. Kernel features, the CPU's and mounts are the restore's own preflight.
    """
    found = []
    then, now = before.get("time"), after.get("time")
    if isinstance(then, (int, float)) and isinstance(now, (int, float)) and now < then - _BEHIND:
        found.append(
            f"The node's clock is {then - now:.0f} s behind the capture. Set it (chrony, systemd-timesyncd), then run "
            "again."
        )
    if not gpu:
        return found
    old, new = before.get("driver"), after.get("driver")
    if old and new and old != new:
        found.append(
            f"The workloads were captured with NVIDIA's driver {old}, and the node has {new} now. The driver's "
            "libraries are part of the captured processes, so no checkpoint bridges an update of the driver. Install "
            f"{old} again, then run again; for an update, move the workloads to a node that keeps its driver "
            "before it (maintenance_mode: evacuate, or gpuops.restore.migrate)."
        )
    elif old and not new:
        found.append(f"NVIDIA's driver ({old} before) is not loaded. Load it (modprobe nvidia), then run again.")
    cards = {card["uuid"]: card["name"] for card in after.get("gpus") or ()}
    for card in before.get("gpus") or ():
        target = gpu_map.get(card["uuid"], card["uuid"])
        if new and target not in cards:
            others = ", ".join(sorted(set(cards) - {one["uuid"] for one in before["gpus"]})) or "none"
            found.append(
                f"The GPU {card['uuid']} ({card['name']}) is not there any more; new ones: {others}. Put it back, or "
                f"say maintenance_gpu_map: {{{card['uuid']}: UUID of another {card['name']}}}."
            )
        elif new and cards[target] != card["name"]:
            found.append(
                f"{target} is a {cards[target]}, and the memory of a {card['name']} cannot go there. Map it to another "
                "one."
            )
    return found


def in_place(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Why workloads that are parked with GPU memory cannot come back yet; they stay parked meanwhile."""
    found = []
    old, new = before.get("driver"), after.get("driver")
    if old and new and old != new:
        found.append(
            f"The workloads were parked with NVIDIA's driver {old}, and the node has {new} now. The driver's libraries "
            f"are part of the parked processes. Load {old} again, then run again. For an update of the driver, move "
            "the workloads to a node that keeps its driver before it (maintenance_mode: evacuate, or "
            "gpuops.restore.migrate)."
        )
    elif old and not new:
        found.append(f"NVIDIA's driver ({old} before) is not loaded. Load it (modprobe nvidia), then run again.")
    cards = [card["uuid"] for card in after.get("gpus") or ()]
    for card in before.get("gpus") or ():
        if new and card["uuid"] not in cards:
            found.append(
                f"The GPU {card['uuid']} ({card['name']}) is not there any more, and what was parked comes back to its "
                "own card only. Put it back, then run again."
            )
    return found


def forgets(facts: Mapping[str, Any], host: str) -> str:
    """Why a reboot would lose what a window has there; "" where it does not. ``facts``: of the node."""
    state = facts.get("state") or {}
    if state.get("file_system") not in _MEMORY:
        return ""
    # The journal lies there, too: wherever the checkpoints are, nobody would know of them.
    return (
        f"{state['path']} on {host} is on {state['file_system']}, so the reboot (maintenance_reboot) would lose the "
        "window's journal and what is captured to the node. Choose a directory on a disk (restore_node_staging_dir)."
    )
