# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Captures of a node's workloads: what is asked for, what keeps them, and what became of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import results

#: What a loop over the names of workloads puts its item into.
NAME = "__checkpoint_node_name"

_HOOKS = ("before_capture", "after_capture")
#: What is kept of a capture that gives no answer to it.
_KEPT: Mapping[str, Any] = {
    "recorded": {},
    "accepted": [],
    "ended": [],
    "recovered": False,
    "staged": "",
    "sizes": {},
    "hooks": [],
    "memory_volumes": [],
    "seconds": {},
}


def requests(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The workloads as containerd_checkpoint takes them; ``known`` has options of those without their own."""
    return [_request(workload, known) for workload in known["workloads"]]


def _request(workload: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    store = workload.get("store", known["store"])
    # Archives and registries are given images.
    leaves = "archive" in workload or "registry" in workload
    return {
        "container_id": workload["name"],
        "name": workload["checkpoint"],
        "leave": workload.get("leave", "running"),
        "store": "both" if store == "node" and leaves else store,
        "gpu": workload.get("gpu", "auto"),
        "cuda_forks": workload.get("cuda_forks", known["cuda_forks"]),
        "accept": workload.get("accept", []),
        "targets": workload.get("targets", known["targets"]),
        "criu": workload.get("criu", {}),
        "memory_volumes": workload.get("memory_volumes", ["auto"]),
        "force": workload.get("force", False),
        **{hook: workload[hook] for hook in _HOOKS if workload.get(hook)},
    }


def problems(workloads: Sequence[Mapping[str, Any]], foretold: Mapping[str, Any]) -> list[str]:
    """What keeps any of them from being captured. ``foretold``: the answer of containerd_checkpoint in check mode."""
    found = [
        f"{name}: The name stands more than once in checkpoint_node_workloads. Capture a container once in a run."
        for name in _repeated([workload["name"] for workload in workloads])
    ]
    found += [
        f"{reference}: The reference stands more than once in checkpoint_node_workloads. "
        "Give each checkpoint one of its own."
        for reference in _repeated([workload["checkpoint"] for workload in workloads])
    ]
    if "workloads" not in foretold and not results.skipped(foretold):
        found.append(results.message(foretold, "containerd_checkpoint"))
    answers = foretold.get("workloads", {})
    return found + [f"{name}: {answer['msg']}" for name, answer in answers.items() if answer["failure"] is not None]


def _repeated(items: Sequence[str]) -> list[str]:
    return [item for item in dict.fromkeys(items) if items.count(item) > 1]


def taken(taking: Mapping[str, Any], names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What containerd_checkpoint came to: the ``captures`` and the ``failures``, by workload."""
    answers = _answers(taking, names)
    captures = {
        answer[NAME]: {
            "changed": answer["changed"],
            "checkpoint": answer["checkpoint"],
            **{key: answer.get(key, instead) for key, instead in _KEPT.items()},
        }
        for answer in answers
        if "checkpoint" in answer
    }
    return {"captures": captures, "failures": failures(answers)}


def _answers(taking: Mapping[str, Any], names: Iterable[str]) -> list[dict[str, Any]]:
    """One for each workload, as if each had been captured by a call of its own."""
    silent = {"failure": taking.get("failure", {}), "msg": results.message(taking, "The module")}
    found = []
    for name in names:
        answer = taking.get("workloads", {}).get(name, silent)
        found.append({**answer, NAME: name, "failed": answer["failure"] is not None})
    return found


def failures(answers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What failed at a step, by workload: results of a loop over names."""
    return {
        answer[NAME]: {
            "code": results.code(answer),
            "outcome": results.outcome(answer),
            "msg": results.message(answer, "The module"),
        }
        for answer in answers
        if not results.skipped(answer) and (answer.get("failed") or answer.get("failure") is not None)
    }


def receipts(captured: Mapping[str, Mapping[str, Any]], exports: Any, pushes: Any) -> dict[str, Any]:
    """The captures, with where each was handed on to."""
    archives, registries = _by_name(exports, "archive"), _by_name(pushes, "registry")
    return {
        name: {**capture, "archive": archives.get(name, {}), "registry": registries.get(name, {})}
        for name, capture in captured.items()
    }


def _by_name(loop: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {answer[NAME]: answer.get(key, {}) for answer in loop.get("results", [])}
