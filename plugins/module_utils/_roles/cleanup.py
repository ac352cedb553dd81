# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a cleanup deletes: decided before anything is gone, so that check mode chooses alike."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from . import images
from .problems import first_of_each
from .results import mapping

#: What a loop over the names of workloads puts its item into.
NAME = "__restore_node_name"

#: When a directory of evidence was made, at the end of its name.
_MOMENT = r"-[0-9]{8}T[0-9]{6}Z$"


def choose(known: Mapping[str, Any]) -> dict[str, list[str]]:
    """The ``paths`` to remove, the ``checkpoints`` whose staged form goes, and the ``images``."""
    own = dict(_own_receipts(known))
    receipts = {name: receipt for name, (_path, receipt) in own.items()}
    going = {
        known["receipt_dir"]: [path for path, _receipt in own.values()],
        known["debug_dir"]: _evidence(known) if known["evidence"] else [],
    }
    return {
        "paths": [
            *(path for directory, inside in going.items() for path in _whole(directory, inside, known["traces"])),
            *(_outputs(known["workloads"], receipts) if known["output"] else []),
        ],
        "checkpoints": _unique(_checkpoint(workload, receipts) for workload in known["workloads"]),
        "images": _unique(
            image for workload in known["workloads"] for image in _images(workload, receipts, known["found"])
        ),
    }


def _own_receipts(known: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, Mapping[str, Any]]]]:
    """Path and content of each workload's receipt, less those of a container of the same name in another namespace.

    Earlier releases had one receipt for all namespaces.
    """
    for answer in known["receipts"]:
        if "content" in answer:
            receipt = json.loads(base64.b64decode(answer["content"]))
            if (mapping(receipt.get("container")).get("namespace") or known["namespace"]) == known["namespace"]:
                yield answer[NAME], (answer["source"], receipt)


def _evidence(known: Mapping[str, Any]) -> list[str]:
    """What is kept of failures of these workloads."""
    prefix = f"{known['debug_dir']}/{known['prefix']}"
    patterns = [re.compile(re.escape(prefix + name) + _MOMENT) for name in first_of_each(known["workloads"])]
    return [path for path in known["traces"] if any(pattern.match(path) for pattern in patterns)]


def _whole(directory: str, going: Sequence[str], traces: Iterable[str]) -> list[str]:
    """What goes of a directory: all of it where nothing would be left inside."""
    there = list(traces)
    inside = [path for path in there if path.startswith(directory + "/")]
    return [directory] if directory in there and set(inside) <= set(going) else list(going)


def _outputs(workloads: Iterable[Mapping[str, Any]], receipts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Files with what workloads have written: those that a workload asks for and those that its receipt names."""
    found: list[str] = []
    for workload in workloads:
        found += [workload.get("stdout") or "", workload.get("stderr") or ""]
        found += receipts.get(workload["name"], {}).get("output", [])
    return _unique(path for path in found if path.startswith("/"))


def _checkpoint(workload: Mapping[str, Any], receipts: Mapping[str, Mapping[str, Any]]) -> str:
    """By digest where a receipt has it, for the image may be gone."""
    checkpoint = mapping(receipts.get(workload["name"], {}).get("checkpoint"))
    return str(checkpoint.get("digest") or workload["checkpoint"])


def _images(
    workload: Mapping[str, Any], receipts: Mapping[str, Mapping[str, Any]], found: Mapping[str, Any]
) -> Iterator[str]:
    receipt = receipts.get(workload["name"], {})
    yield workload["checkpoint"]
    yield workload.get("image") or ""
    yield images.base_of(receipt).get("name") or ""
    # A base image that was staged and never used stands in no receipt.
    yield images.base_of(images.checkpoint_of(found, workload["name"])).get("name") or ""
    yield from receipt.get("images_imported", [])


def _unique(items: Iterable[str]) -> list[str]:
    return [item for item in dict.fromkeys(items) if item]
