# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which images a restore brings to the node, and from where."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .results import mapping


def brings_checkpoint(workload: Mapping[str, Any], pull: str) -> bool:
    """Whether the checkpoint is brought where it is not there."""
    return "checkpoint_archive" in workload or pull != "never"


def brings_base(workload: Mapping[str, Any], pull: str) -> bool:
    """Whether the base image is brought where it is not there."""
    return "image_archive" in workload or pull != "never"


def checkpoint_of(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What containerd_checkpoint_info said of the workload's checkpoint; empty where that is not there."""
    return mapping(mapping(found.get(name)).get("checkpoint"))


def base_of(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the checkpoint says of its base image."""
    return mapping(checkpoint.get("base_image"))


def base_name(workload: Mapping[str, Any], checkpoint: Mapping[str, Any], metadata: str) -> str:
    """The reference under which the base image is looked for and kept.

    Of an image that the checkpoint alone names only its digest counts: a tag of its choice would be what the next pod
    gets. Raises ValueError for ``metadata`` that is needed and is no JSON.
    """
    base = base_of(checkpoint)
    return str(
        workload.get("image")
        or base.get("private_name")
        or base.get("name")
        or json.loads(metadata or "{}").get("originalImage")
        or ""
    )


def archives(workloads: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Archives of images that are not there yet.

    A base image that only the checkpoint can name is looked at when that is there.
    """
    wanted: list[dict[str, Any]] = []
    for workload in workloads:
        checkpoint = checkpoint_of(found, workload["name"])
        base = base_of(checkpoint)
        image = workload.get("image")
        if "checkpoint_archive" in workload and not checkpoint:
            wanted.append(
                {
                    "workload": workload["name"],
                    "name": workload["checkpoint"],
                    "archive": workload["checkpoint_archive"],
                    "digest": workload.get("digest") or "",
                    "unpack": False,
                }
            )
        if "image_archive" in workload and not base.get("present") and (image or base.get("name")):
            wanted.append(
                {
                    "workload": workload["name"],
                    "name": image or base.get("private_name") or base["name"],
                    "archive": workload["image_archive"],
                    "digest": base.get("digest") or "",
                    "unpack": True,
                }
            )
    return wanted
