# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The restore itself: who goes on, with what, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import images, results
from .problems import NODE
from .results import mapping

#: Options of a workload that are the role's own; containerd_restore does not have them.
_OWN = ("metadata", "checkpoint_archive", "image_archive")


def going(
    names: Iterable[str], failures: Mapping[str, Any], problems: Sequence[Mapping[str, Any]], planning: bool
) -> list[str]:
    """Those that go on. A plan leaves out those with a problem, its own or the node's."""
    kept = {problem["workload"] for problem in problems} if planning else set()
    return [] if NODE in kept else [name for name in names if name not in failures and name not in kept]


def jobs(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The workloads as containerd_restore takes them. ``metadata``: contents of the files, by their names."""
    on = set(known["going"])
    return [_job(known, workload) for workload in known["workloads"] if workload["name"] in on]


def _job(known: Mapping[str, Any], workload: Mapping[str, Any]) -> dict[str, Any]:
    stage = mapping(known["stages"].get(workload["name"]))
    base = images.base_of(images.checkpoint_of(known["found"], workload["name"]))
    content = known["metadata"].get(workload.get("metadata") or "")
    record = {
        "seconds": {"preflight": float(known["preflight_seconds"]), "stage": float(stage.get("seconds", 0.0))},
        "images_imported": stage.get("images", []),
        "base_image": {"digest": base.get("digest") or ""},
    }
    return {
        "verify_key": known["verify_key"],
        **{key: value for key, value in workload.items() if key not in _OWN},
        "record": record,
        **({} if content is None else {"metadata_content": content}),
    }


def failures(restored: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """What containerd_restore says of those that failed; of all if it did not get so far."""
    if results.skipped(restored):
        return {}
    if "workloads" not in restored:
        failure = {
            "step": "containerd_restore",
            "code": results.code(restored),
            "outcome": results.outcome(restored),
            "msg": results.message(restored, "containerd_restore"),
            "failure": restored.get("failure", {}),
            "evidence": "",
            "left_behind": "",
        }
        return dict.fromkeys(names, failure)
    return {name: restored["workloads"][name]["failure"] for name in names if restored["workloads"][name]["failure"]}


def receipts(restored: Mapping[str, Any]) -> dict[str, Any]:
    """The receipts of those that run."""
    return {name: result["receipt"] for name, result in restored.get("workloads", {}).items() if not result["failure"]}
