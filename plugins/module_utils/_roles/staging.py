# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What comes of staging: why it failed for a workload, and what of it is taken back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import results
from .problems import first_of_each
from .results import mapping

#: The code of what another run is at work with, and what it uses is that run's now.
_BUSY = "busy"
#: The task that only says what was found wrong with the checkpoint that had just been brought.
_FAIL = "ansible.builtin.fail"


def failure(result: Mapping[str, Any], task: Mapping[str, Any], arrived: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A workload's failure at a step. ``arrived``: the problems of a checkpoint that had just been brought."""
    cause = mapping(result.get("failure"))
    if not cause and arrived and task.get("action") == _FAIL:
        outcomes = [problem["outcome"] for problem in arrived]
        lasting = [outcome for outcome in outcomes if outcome != "retryable"]
        cause = {"code": arrived[0]["code"], "outcome": (lasting or outcomes)[0]}
    return {
        "step": task.get("name", ""),
        "code": cause.get("code", results.CODE),
        "outcome": cause.get("outcome", results.OUTCOME),
        "msg": result.get("msg", "The step ended without a message."),
        "failure": result.get("failure", {}),
        "evidence": "",
        "left_behind": "",
    }


def orphans(known: Mapping[str, Any]) -> dict[str, list[str]]:
    """What this run staged (``staged``, checkpoints) and imported (``images``) only for workloads that failed."""
    checkpoints = {name: workload["checkpoint"] for name, workload in first_of_each(known["workloads"]).items()}
    failed: dict[str, list[str]] = {"staged": [], "images": []}
    kept: dict[str, list[str]] = {"staged": [], "images": []}
    for name, stage in known["stages"].items():
        checkpoint = checkpoints[name]
        if known["failures"].get(name, {"code": _BUSY}).get("code") == _BUSY:
            kept["staged"].append(checkpoint)
            kept["images"] += [checkpoint, stage["base"]]
        else:
            failed["staged"] += [checkpoint] if stage["staged"] else []
            failed["images"] += list(stage["images"])
    return {kind: _without(failed[kind], kept[kind]) for kind in failed}


def _without(items: Iterable[str], kept: Sequence[str]) -> list[str]:
    return [item for item in dict.fromkeys(items) if item not in kept]
