# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What large fleets would take, from what small ones took; the formula of docs/performance.md. Pure."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

FLEETS = (1_000, 10_000)
CONTROLLERS = (1, 10)
PROCESSORS, FORKS = 16, 200
#: Batches before the last, as restore_batches has them; the other playbooks have one batch.
BATCHES = {"restore": 2, "maintenance": 2}


@dataclasses.dataclass(frozen=True)
class Constants:
    """Controller's processor seconds: ``base`` of a playbook, ``per_node``; ``node``: wall seconds of its turn."""

    base: float
    per_node: float
    node: float


def constants(runs: Sequence[Mapping[str, Any]]) -> Constants:
    """From the runs of one playbook with several numbers of nodes."""
    points = [(float(run["nodes"]), float(run["controller"])) for run in runs]
    slope, base = points[0][1] / points[0][0], 0.0
    if len({nodes for nodes, _seconds in points}) > 1:
        slope, base = statistics.linear_regression(*zip(*points))
    smallest = min(runs, key=lambda run: int(run["nodes"]))
    return Constants(max(0.0, base), slope, float(smallest["wall"]))


def seconds(of: Constants, nodes: int, controllers: int, batches: int) -> float:
    """Until the last of so many nodes has had its turn."""
    work = of.base + of.per_node * nodes / (controllers * PROCESSORS)
    turns = math.ceil(nodes / (controllers * FORKS)) * of.node
    return max(work, turns) + batches * of.node


def table(runs: Sequence[Mapping[str, Any]], variant: str) -> list[str]:
    """Rows of Markdown."""
    chosen = [run for run in runs if run["variant"] == variant]
    lines = [
        f"| playbook | c0, s | c, s | w, s | nodes | controllers of {PROCESSORS} processors, {FORKS} forks | minutes |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for playbook in dict.fromkeys(run["playbook"] for run in chosen):
        found = constants([run for run in chosen if run["playbook"] == playbook])
        shown = f"| {playbook} | {found.base:.1f} | {found.per_node:.2f} | {found.node:.1f} |"
        for nodes in FLEETS:
            for controllers in CONTROLLERS:
                minutes = seconds(found, nodes, controllers, BATCHES.get(playbook, 0)) / 60
                lines.append(f"{shown} {nodes:,} | {controllers} | {minutes:.1f} |")
    return lines
