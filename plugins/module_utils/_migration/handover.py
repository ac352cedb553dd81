# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a migration hands from its source to its target, and what is said of it at the end.

Records are as ``migration_plan`` gives them: with ``source_name``, ``name`` on the target, ``checkpoint``,
``reference`` and ``place``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

#: Options of a workload that its capture takes, under other names than a restore's.
_OF_CAPTURE = ("criu", "accept", "memory_volumes")
_HOOKS = ("before_capture", "after_capture")
_NOT_RESTORED = ("source_name", *_HOOKS, *(f"capture_{name}" for name in _OF_CAPTURE))


def decide(step: str, known: Mapping[str, Any]) -> Any:
    """What the playbook does at the step. ``step``: a key of :data:`STEPS`. Raises ValueError for another one."""
    if step not in STEPS:
        raise ValueError(f"{step} is no step of a migration; there are {', '.join(STEPS)}")
    return STEPS[step](known)


def captures(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the source captures: the workloads by the names that they have there."""
    by_name = _first_of_each(known["workloads"])
    return [_capture(record, by_name[record["name"]], known["targets"]) for record in known["going"]]


def _capture(record: Mapping[str, Any], workload: Mapping[str, Any], targets: Any) -> dict[str, Any]:
    handed_on: dict[str, Any] = {}
    if record["reference"]:
        handed_on = {"registry": record["reference"]}
    elif record["place"]:
        handed_on = {"archive": f"{record['place']}/{record['name']}.tar", "compression": "none"}
    return {
        "name": record["source_name"],
        "checkpoint": record["checkpoint"],
        "gpu": workload.get("gpu", "auto"),
        "criu": workload.get("capture_criu", {}),
        "accept": workload.get("capture_accept", []),
        "targets": targets,
        "memory_volumes": workload.get("capture_memory_volumes", ["auto"]),
        **{hook: workload.get(hook, {}) for hook in _HOOKS},
        "leave": "paused",
        "force": True,
        **handed_on,
    }


def targets(target: str, gpu: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the target has for CUDA processes, by cuda_process_info.

    Without a driver that can be asked, or without NVML, nobody knows of GPUs.
    """
    found: dict[str, Any] = {"name": target}
    driver = (gpu.get("driver") or {}).get("version")
    if driver:
        found["driver"] = driver
    if (gpu.get("nvml") or {}).get("available"):
        found["gpus"] = [one["name"] for one in gpu["gpus"]]
    elif gpu.get("reason_code") == "driver_library_missing":
        found["gpus"] = []
    return [found]


def taken(
    going: Iterable[Mapping[str, Any]], receipts: Mapping[str, Any], failures: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The records of what was captured, with its digests."""
    return [
        {**record, "state": "captured", "digest": receipts[record["source_name"]]["checkpoint"]["digest"]}
        for record in going
        if record["source_name"] in receipts and record["source_name"] not in failures
    ]


def restores(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What of ``arriving`` (records) is on the target (``arrived``, names), as the role restore_node takes it."""
    by_name, arrived = _first_of_each(known["workloads"]), set(known["arrived"])
    return [
        {
            **{key: value for key, value in by_name[record["name"]].items() if key not in _NOT_RESTORED},
            "digest": record["digest"],
        }
        for record in known["arriving"]
        if record["name"] in arrived
    ]


def stayed(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What did not move: a ``line`` for each, and whether a reason of its own is ``explained`` there.

    Reasons by name: of the capture (``not_captured``), of bringing it (``refused``), of the restore (``not_restored``).
    """
    verdicts = {(verdict["record"]["id"], verdict["record"]["name"]): verdict for verdict in known["verdicts"]}
    found = []
    for record in known["going"]:
        verdict = verdicts.get((record["id"], record["name"]), {})
        if verdict.get("where") == "target":
            continue
        said = f"Nobody can tell what became of {record['source_name']}"
        reason = (
            known["not_captured"].get(record["source_name"])
            or known["refused"].get(record["name"])
            or known["not_restored"].get(record["name"])
            or {}
        )
        why = f" {reason['msg']}" if "msg" in reason else ""
        found.append({"line": f"{verdict.get('message', said)}.{why}", "explained": bool(why)})
    return found


def places(known: Mapping[str, Any]) -> list[str]:
    """Directories that can go from a host.

    Those that a verdict names; and of those that ``looks`` (answers of containerd_migration_info) have found, what no
    record of ``noted`` speaks of and has been ``idle`` for longer than so many seconds.
    """
    settled = [verdict["place"] for verdict in known["verdicts"] if verdict["place"]]
    ids = [record["id"] for record in known["noted"]]
    spoken_of = re.compile(rf"gpuops-migrate-({'|'.join(ids)})$") if ids else None
    forgotten = [
        place["path"]
        for look in known["looks"]
        for place in look.get("places") or []
        if place["idle"] > known["idle"] and not (spoken_of and spoken_of.search(place["path"]))
    ]
    return list(dict.fromkeys([*settled, *forgotten]))


def not_settled(known: Mapping[str, Any]) -> list[str]:
    """What the playbook settle fails with, in sentences: what is open, what cannot be read, who cannot be asked.

    ``source``: the answer of containerd_migration_info; ``found``: the result of the task that went to the host first.
    """
    source = known["source"]
    said = [str(verdict["message"]) for verdict in known["verdicts"] if verdict["open"]]
    said += [
        f"{path} is no record of a migration that can be read; look at that workload, then remove it"
        for path in source.get("unreadable", [])
    ]
    if known["found"].get("unreachable"):
        said.append("It cannot be reached, so nobody can tell what migrations have left there")
    if "failure" in source:
        said.append(str(source.get("msg", "containerd_migration_info did not run; -vvv shows why")))
    return [f"{sentence}." for sentence in said]


def _first_of_each(workloads: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for workload in workloads:
        found.setdefault(workload["name"], workload)
    return found


STEPS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "captures": captures,
    "targets": lambda known: targets(known["target"], known["gpu"]),
    "taken": lambda known: taken(known["going"], known["receipts"], known["failures"]),
    "restores": restores,
    "stayed": stayed,
    "places": places,
    "not_settled": not_settled,
}
