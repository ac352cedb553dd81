# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has to be brought and staged, what comes of it, why it failed for a workload, and what of it is taken back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import images, results
from .problems import first_of_each
from .results import mapping

#: The code of what another run is at work with, and what it uses is that run's now.
_BUSY = "busy"
#: The task that only says what was found wrong with the checkpoint that had just been brought.
_FAIL = "ansible.builtin.fail"


def to_bring(known: Mapping[str, Any]) -> list[str]:
    """Of those that go on, the workloads an image of which is not on the node and may be brought."""
    by_name = first_of_each(known["workloads"])
    return [name for name in known["going"] if _lacks_image(by_name[name], known["found"], known["pull"])]


def _lacks_image(workload: Mapping[str, Any], found: Mapping[str, Any], pull: str) -> bool:
    checkpoint = images.checkpoint_of(found, workload["name"])
    lacks_base = images.brings_base(workload, pull) and not images.base_of(checkpoint).get("present")
    return lacks_base or (images.brings_checkpoint(workload, pull) and not checkpoint)


def brought(known: Mapping[str, Any]) -> dict[str, Any]:
    """What is noted of one workload, by the results of its tasks: which ``images`` came, and what was done."""
    image, base_image = known["image"], known["base_image"]
    came = [(image, known["checkpoint"]), (base_image, known["base"])]
    return {
        "images": [name for result, name in came if result.get("created")],
        "base": known["base"],
        "staged": False,
        "seconds": round(float(known["seconds"]), 3),
        "actions": [*image.get("actions", []), *base_image.get("actions", [])],
    }


def to_stage(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of those that go on, the workloads whose CRIU images are not staged, as containerd_checkpoint_stage takes them.

    ``keep``: also where it runs already.
    """
    by_name = first_of_each(known["workloads"])
    wanted = []
    for name in known["going"]:
        status = mapping(mapping(known["found"].get(name)).get("status"))
        if not status.get("staged") and (known["keep"] or status.get("task", "absent") != "RUNNING"):
            workload = by_name[name]
            keys = workload.get("verify_key", known["verify_key"])
            wanted.append({"container_id": name, "checkpoint": workload["checkpoint"], "verify_key": keys})
    return wanted


def staged(known: Mapping[str, Any]) -> dict[str, Any]:
    """``stages`` and ``failures`` with ``answer``, what containerd_checkpoint_stage said of the workloads ``names``."""
    stages, failures, answer = dict(known["stages"]), dict(known["failures"]), known["answer"]
    if results.skipped(answer):
        return {"stages": stages, "failures": failures}
    told = answer.get("workloads", {})
    for name in known["names"]:
        result = told.get(name, answer)
        before = {"images": [], "base": "", "seconds": 0.0, "actions": [], **stages.get(name, {})}
        stages[name] = {
            **before,
            "staged": bool(result.get("created")),
            "seconds": round(before["seconds"] + float(result.get("seconds", 0.0)), 3),
            "actions": [*before["actions"], *(["stage the CRIU images"] if result.get("changed") else [])],
        }
        if name not in told or result.get("failure"):
            failures[name] = failure(result, {"name": known["task"]}, ())
    return {"stages": stages, "failures": failures}


def removed(answer: Mapping[str, Any], stages: Mapping[str, Any]) -> dict[str, bool]:
    """Whether removing what was staged has ``changed`` anything, and ``failed``, by what the module said.

    What this very run staged was no lasting change. What another run is at work with is that run's.
    """
    told = answer.get("workloads", {})
    codes = [results.code(one) for one in told.values() if one.get("failure")]
    if not told and answer.get("failed"):
        codes.append(results.code(answer))
    return {
        "changed": any(one["changed"] and not mapping(stages.get(name)).get("staged") for name, one in told.items()),
        "failed": any(code != _BUSY for code in codes),
    }


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
    for name, checkpoint in checkpoints.items():
        stage = mapping(known["stages"].get(name))
        if known["failures"].get(name, {"code": _BUSY}).get("code") == _BUSY:
            kept["staged"].append(checkpoint)
            kept["images"] += [checkpoint, stage.get("base", "")]
        else:
            failed["staged"] += [checkpoint] if stage.get("staged") else []
            failed["images"] += stage.get("images", [])
    return {kind: _without(failed[kind], kept[kind]) for kind in failed}


def _without(items: Iterable[str], kept: Sequence[str]) -> list[str]:
    return [item for item in dict.fromkeys(items) if item not in kept]
