# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From what the playbooks have registered to lists of workloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from . import requests, selection
from .identity import Identity
from .selection import SelectionError, Workload

CAPTURE, RESTORE, MIGRATE = "capture", "restore", "migrate"
#: A window, which takes no list.
MAINTAIN = "maintain"
#: Where there may be nothing left to do, and a selection that takes nothing is no mistake.
_ENDS = {"prune": CAPTURE, "cleanup": RESTORE}


def request(names: Sequence[str], use: str, host: str, given: Any, wanted: Any) -> dict[str, Any]:
    """What a host's variables ask for.

    ``given``: the value of the list of the use, ``wanted``: the selection, where it has them.
    """
    listed = _ENDS.get(use, use)
    variables = {name: given if name == requests.LISTS.get(listed) else None for name in names}
    found = requests.of_host(variables, listed, host)
    if found.selects:
        try:
            selection.parse(wanted)
        except SelectionError as error:
            found = replace(found, problem=str(error))
    return found.result()


def nobody(names: Mapping[str, Sequence[str]], use: str) -> str:
    """The sentence for a play in which none of the hosts, whose variables' names are given, has anything to do."""
    listed = _ENDS.get(use, use)
    own = requests.LISTS.get(listed)
    found = {}
    for host, known in names.items():
        variables: dict[str, Any] = {name: [] if name == own else None for name in known}
        found[host] = requests.of_host(variables, listed, host)
    return requests.nobody(found, listed)


def select(answer: Any, wanted: Any, use: str, host: str) -> dict[str, Any]:
    """``workloads``: what the selection takes, as the list of the use has it; ``problems``: why it cannot be told."""
    problems: list[str] = []
    try:
        chosen = selection.parse(wanted)
        if not isinstance(answer, Mapping) or "workloads" not in answer or "checkpoints" not in answer:
            message = answer.get("msg") if isinstance(answer, Mapping) else None
            raise SelectionError([str(message or "containerd_workload_info did not run; -vvv shows why.")])
        why = blind(chosen, answer, host, use)
        if why:
            raise SelectionError([why])
        found = seen(answer)
        kind = _ENDS.get(use, use)
        picked = (selection.restores if kind == RESTORE else selection.captures)(chosen, found, host)
        entries = {
            CAPTURE: [one.capture() for one in picked],
            RESTORE: [one.restore() for one in picked],
            MIGRATE: [one.migration() for one in picked],
        }[kind]
        return {"workloads": entries, "problems": [], "note": ""}
    except SelectionError as error:
        problems = error.problems
        if use in _ENDS and isinstance(error, selection.NothingSelectedError):
            return {"workloads": [], "problems": [], "note": problems[0]}
    return {"workloads": [], "problems": problems, "note": ""}


def seen(answer: Mapping[str, Any]) -> list[Workload]:
    """The containers that a node told of, and those of which it has only a checkpoint."""
    kept: dict[str, set[str]] = {}
    on_gpu: set[str] = set()
    for checkpoint in answer["checkpoints"]:
        if checkpoint["container"]:
            kept.setdefault(checkpoint["container"], set()).add(checkpoint["name"])
            if checkpoint["gpu"]:
                on_gpu.add(checkpoint["container"])
    found = {}
    for entry in answer["workloads"]:
        found[entry["id"]] = Workload(
            identity=_identity(entry["id"], entry),
            gpu=entry["gpu"] or (entry["id"] in on_gpu and not entry["live"]),
            live=entry["live"],
            checkpoints=frozenset(kept.get(entry["id"], ())),
        )
    for checkpoint in answer["checkpoints"]:
        origin = checkpoint["container"]
        if origin and origin not in found:
            found[origin] = Workload(
                identity=_identity(origin, checkpoint),
                gpu=origin in on_gpu,
                checkpoints=frozenset(kept[origin]),
            )
    return list(found.values())


def _identity(container_id: str, entry: Mapping[str, Any]) -> Identity:
    pod = entry["pod"] or {}
    return Identity(
        id=container_id,
        namespace=pod.get("namespace", ""),
        pod=pod.get("name", ""),
        pod_uid=pod.get("uid", ""),
        container=pod.get("container", ""),
        sandbox=bool(entry.get("sandbox")),
        labels=dict(entry["labels"]),
    )


def blind(chosen: selection.Selection, answer: Mapping[str, Any], host: str, use: str) -> str:
    """Why nobody can tell which workloads have GPU memory, where the selection asks for that; else empty."""
    asks = chosen.match.gpu is not None or any(rule.gpu is not None for rule in chosen.exclude)
    nvml = answer.get("nvml") or {}
    if not asks or use == RESTORE or use in _ENDS or nvml.get("available") or not answer.get("gpu_node", True):
        return ""
    return (
        f"The selection workloads asks for GPU memory, and {host} cannot tell which containers have some: "
        f"{nvml.get('reason') or 'NVML did not answer'}. Mend that (gpuops.restore.prepare brings the packages), or "
        "select by labels, namespaces or names."
    )
