# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The JSON metadata file that may accompany a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._core import strict_json
from .._core.errors import InputError
from .._core.strict_json import StrictJsonError

_KEYS = {"originalImage": str, "snapshotter": str, "snapshotID": str, "ociSpec": dict}


@dataclass(frozen=True)
class Metadata:
    """What the file says about the original container; empty or None where it says nothing."""

    original_image: str = ""
    snapshotter: str = ""
    snapshot_id: str = ""
    oci_spec: Mapping[str, Any] | None = None


def parse(text: str, source: str = "metadata") -> Metadata:
    """Read the metadata. ``originalImage`` is required; ``snapshotter``, ``snapshotID``, ``ociSpec`` are optional.

    Raises InputError ``metadata_not_json``, ``metadata_incomplete``, ``metadata_invalid``.
    """
    try:
        found = strict_json.parse(text)
    except StrictJsonError as error:
        raise InputError(
            "metadata_not_json",
            f"The {source} is not JSON: {error}.",
            "Give a JSON object with originalImage and, where known, snapshotter, snapshotID and ociSpec.",
        ) from error
    if not isinstance(found, dict):
        raise InputError(
            "metadata_invalid",
            f"The {source} is a JSON {type(found).__name__}, not an object.",
            "Give a JSON object with originalImage and, where known, snapshotter, snapshotID and ociSpec.",
        )
    try:
        strict_json.require_spelling(found, _KEYS)
    except StrictJsonError as error:
        raise InputError(
            "metadata_invalid",
            f"The {source} is not usable: {error}.",
            f"Write the key as it is meant, or remove it; the keys are {', '.join(_KEYS)}.",
        ) from error
    if "originalImage" not in found:
        raise InputError(
            "metadata_incomplete",
            f"The {source} lacks the key originalImage; it has {', '.join(sorted(map(str, found))) or 'no key'}.",
            "Add the reference of the image that the checkpointed container was made from.",
        )
    for key, kind in _KEYS.items():
        if key in found and (not isinstance(found[key], kind) or not found[key]):
            raise InputError(
                "metadata_invalid",
                f"In the {source} the key {key} is not a non-empty {'object' if kind is dict else 'string'}.",
                f"Correct {key}, or leave it out where it is not known.",
            )
    return Metadata(
        original_image=found["originalImage"],
        snapshotter=found.get("snapshotter", ""),
        snapshot_id=found.get("snapshotID", ""),
        oci_spec=found.get("ociSpec"),
    )


def load(path: str) -> Metadata:
    """Read the metadata from a file on the node. Raises InputError ``metadata_unreadable`` and those of parse."""
    try:
        with open(path, encoding="utf-8") as stream:
            # One more than is accepted: the parser refuses it.
            text = stream.read(strict_json.MAX_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "metadata_unreadable",
            f"The metadata file {path} cannot be read: {error}.",
            "Check the path on the node, or give the text in metadata_content.",
        ) from error
    return parse(text, f"metadata file {path}")


def from_parameters(parameters: Mapping[str, Any]) -> Metadata | None:
    """The metadata of a module's ``metadata`` (a path) or ``metadata_content`` (the text); None without either."""
    if parameters.get("metadata"):
        return load(parameters["metadata"])
    return parse(parameters["metadata_content"]) if parameters.get("metadata_content") else None
