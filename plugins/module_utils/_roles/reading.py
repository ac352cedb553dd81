# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What containerd_checkpoint_info is asked of all workloads in one call, and what it has said of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from . import results
from .problems import first_of_each

#: What that module has of a workload.
_OPTIONS = (
    "digest",
    "image",
    "snapshotter",
    "mounts",
    "added_mounts",
    "limits",
    "memory_volumes",
    "network",
    "network_command",
    "verify_key",
    "stdout",
    "stderr",
)


def asked(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of the workloads in ``names``. ``metadata``: contents of the files, by their names."""
    by_name = first_of_each(known["workloads"])
    return [_asked(known, by_name[name]) for name in known["names"]]


def _asked(known: Mapping[str, Any], workload: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: workload[key] for key in _OPTIONS if key in workload and (key != "digest" or workload[key])}
    content = known["metadata"].get(workload.get("metadata") or "")
    return {
        "container_id": workload["name"],
        "checkpoint": workload["checkpoint"],
        "verify_key": known["verify_key"],
        **given,
        **({} if content is None else {"metadata_content": content}),
    }


def found(before: Mapping[str, Any], names: Iterable[str], answer: Mapping[str, Any]) -> dict[str, Any]:
    """``before`` with the answer, by workload; what kept the module from answering is said of each."""
    if results.skipped(answer):
        return dict(before)
    told = answer.get("workloads", {})
    return {**before, **{name: told.get(name, answer) for name in names}}
