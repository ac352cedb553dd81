# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What keeps workloads from being restored: problems with ``workload`` (or ``node``), ``code`` and ``message``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from . import results
from .images import brings_base, brings_checkpoint

#: What a problem has in place of a workload's name that all of them have.
NODE = "node"
#: What a loop over archives puts its item into; it has its ``workload``.
ARCHIVE = "__restore_node_archive"

_NAME = re.compile(r"^[A-Za-z0-9]+([._-][A-Za-z0-9]+)*$")
_LONGEST = 76
_PROBES = ("command", "file", "http")
# What staging will solve, by whether it brings the image.
_BROUGHT = {"checkpoint_absent": brings_checkpoint, "base_image_absent": brings_base}


def collect(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All of them, in the order in which they were looked for."""
    return [
        *of_input(known["workloads"], known["metadata"]),
        *reported(known["found"], known["workloads"], known["pull"]),
        *of_archives(known["opened"]),
        *of_resources(known["checked"]),
        *of_node(known["info"]),
    ]


def of_input(workloads: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those that can be seen without asking the node. ``metadata``: by their names, the files that are there."""
    names = [workload["name"] for workload in workloads]
    found: list[dict[str, Any]] = []
    for place, workload in enumerate(workloads):
        name = workload["name"]
        if name not in names[:place]:
            found += [_problem(name, *said) for said in _of_name(name, names.count(name))]
        found += [_problem(name, *said) for said in _of_options(workload, metadata)]
    return found


def _of_name(name: str, times: int) -> Iterator[tuple[str, str]]:
    if times > 1:
        yield (
            "workload_duplicate",
            f"The name {name} stands {times} times in restore_node_workloads. Give each workload a name of its own.",
        )
    if not _NAME.search(str(name)) or len(str(name)) > _LONGEST:
        yield (
            "workload_name_invalid",
            f"The name {name} is not one that containerd takes. "
            f"Use up to {_LONGEST} letters and digits, with single dots, dashes or underscores between them.",
        )


def _of_options(workload: Mapping[str, Any], metadata: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    probe = workload.get("probe") or {}
    probes = [kind for kind in _PROBES if kind in probe]
    if probe and len(probes) != 1:
        has = " and ".join(probes) or "none of command, file and http"
        yield "probe_invalid", f"The probe has {has}. Give exactly one of them."
    file = workload.get("metadata")
    if file and file not in metadata:
        yield (
            "metadata_unreadable",
            f"The metadata file {file} is not on the controller. Give an absolute path, or one relative to "
            "the inventory, the playbook or the working directory.",
        )


def reported(
    found: Mapping[str, Mapping[str, Any]], workloads: Iterable[Mapping[str, Any]], pull: str
) -> list[dict[str, Any]]:
    """What containerd_checkpoint_info said (``found``, by workload), less what bringing an image will solve."""
    by_name = first_of_each(workloads)
    problems: list[dict[str, Any]] = []
    for name, answer in found.items():
        if "problems" not in answer:
            said = results.message(answer, "containerd_checkpoint_info")
            problems.append({**_problem(name, results.code(answer), said), "outcome": results.outcome(answer)})
            continue
        for problem in answer["problems"]:
            brings = _BROUGHT.get(problem["code"])
            if not (brings and brings(by_name[name], pull)):
                problems.append({**_remedied(name, problem), "outcome": problem["outcome"]})
    return problems


def of_one(
    name: str, found: Mapping[str, Mapping[str, Any]], workloads: Iterable[Mapping[str, Any]], pull: str
) -> list[dict[str, Any]]:
    """Those of :func:`reported` that the workload has."""
    return reported({name: found[name]}, workloads, pull) if name in found else []


def of_archives(opened: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of archives that could not be read. ``opened``: the results of a loop over them."""
    return [
        _problem(answer[ARCHIVE]["workload"], results.code(answer), results.message(answer, "containerd_image"))
        for answer in opened.get("results", [])
        if not results.skipped(answer) and ("failure" in answer or "image" not in answer)
    ]


def of_resources(checked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What lacks for all of them together, as containerd_restore has checked it."""
    found = [_remedied(problem["workload"], problem) for problem in checked.get("problems", [])]
    if not results.skipped(checked) and "problems" not in checked and "msg" in checked:
        found.append(_problem(NODE, results.code(checked), str(checked["msg"])))
    return found


def of_node(info: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Why containerd gives no answer, if it gives none."""
    if "containerd" in info:
        return []
    return [_problem(NODE, results.code(info), results.message(info, "containerd_info"))]


def of_workload(problems: Iterable[Mapping[str, Any]], name: str) -> list[str]:
    """The messages of those that the workload has, its own and the node's."""
    return [str(problem["message"]) for problem in problems if problem["workload"] in (name, NODE)]


def first_of_each(workloads: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The workloads by name; of those that share one, the first."""
    found: dict[str, Mapping[str, Any]] = {}
    for workload in workloads:
        found.setdefault(workload["name"], workload)
    return found


def _problem(workload: str, code: str, message: str) -> dict[str, Any]:
    return {"workload": workload, "code": code, "message": message}


def _remedied(workload: str, problem: Mapping[str, Any]) -> dict[str, Any]:
    return _problem(workload, problem["code"], f"{problem['message']} {problem['remedy']}".strip())
