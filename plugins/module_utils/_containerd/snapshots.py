# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""containerd's snapshot and diff services."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._core.errors import NotFoundError
from .._oci.image import Descriptor
from . import messages
from .client import COMPRESSED, Client
from .images import descriptor_message

_SERVICE = "containerd.services.snapshots.v1.Snapshots"


@dataclass(frozen=True)
class Snapshot:
    """A snapshot."""

    name: str
    parent: str
    #: ``view``, ``active`` or ``committed``.
    kind: str
    labels: Mapping[str, str]


def stat(client: Client, snapshotter: str, key: str) -> Snapshot | None:
    """The snapshot, None when there is none of that key."""
    try:
        info = client.call(f"{_SERVICE}/Stat", snapshotter=snapshotter, key=key).info
    except NotFoundError:
        return None
    kinds = {1: "view", 2: "active", 3: "committed"}
    return Snapshot(info.name, info.parent, kinds.get(info.kind, "unknown"), dict(info.labels))


def prepare(client: Client, snapshotter: str, key: str, parent: str, labels: Mapping[str, str]) -> list[Any]:
    """Make an active snapshot; returns its mounts. Raises AlreadyExistsError."""
    found = client.call(f"{_SERVICE}/Prepare", snapshotter=snapshotter, key=key, parent=parent, labels=dict(labels))
    return list(found.mounts)


def view(client: Client, snapshotter: str, key: str, parent: str, labels: Mapping[str, str]) -> list[Any]:
    """Make a read-only snapshot of a committed one; returns its mounts. Raises AlreadyExistsError."""
    found = client.call(f"{_SERVICE}/View", snapshotter=snapshotter, key=key, parent=parent, labels=dict(labels))
    return list(found.mounts)


def mounts(client: Client, snapshotter: str, key: str) -> list[Any]:
    """The mounts of an active snapshot, as ``containerd.types.Mount``."""
    return list(client.call(f"{_SERVICE}/Mounts", snapshotter=snapshotter, key=key).mounts)


def commit(client: Client, snapshotter: str, name: str, key: str, labels: Mapping[str, str]) -> None:
    """Turn an active snapshot into a committed one. Raises AlreadyExistsError."""
    client.call(f"{_SERVICE}/Commit", snapshotter=snapshotter, name=name, key=key, labels=dict(labels))


def remove(client: Client, snapshotter: str, key: str) -> bool:
    """Remove a snapshot. False if there was none."""
    try:
        client.call(f"{_SERVICE}/Remove", snapshotter=snapshotter, key=key, timeout=max(client.timeout, 300.0))
    except NotFoundError:
        return False
    return True


def set_labels(client: Client, snapshotter: str, key: str, labels: Mapping[str, str]) -> None:
    """Add labels to a snapshot, keeping the others."""
    info = messages.message("containerd.services.snapshots.v1.Info", name=key, labels=dict(labels))
    mask = messages.message("google.protobuf.FieldMask", paths=[f"labels.{name}" for name in labels])
    client.call(f"{_SERVICE}/Update", snapshotter=snapshotter, info=info, update_mask=mask)


def apply(client: Client, layer: Descriptor, onto: list[Any]) -> str:
    """Apply a layer to mounts; returns the diff id (digest of the uncompressed layer)."""
    found = client.call(
        "containerd.services.diff.v1.Diff/Apply",
        diff=descriptor_message(layer),
        mounts=onto,
        timeout=client.seconds_for(layer.size * COMPRESSED),
    )
    return str(found.applied.digest)


def diff(client: Client, lower: list[Any], upper: list[Any], media_type: str, ref: str, size: int) -> Descriptor:
    """Write what ``upper`` has beyond ``lower`` (mounts), about ``size`` bytes, as a layer into the content store."""
    found = client.call(
        "containerd.services.diff.v1.Diff/Diff",
        left=lower,
        right=upper,
        media_type=media_type,
        ref=ref,
        # The daemon compresses with one thread, at half the rate of a slow disk.
        timeout=client.seconds_for(size * (COMPRESSED if media_type.endswith("+gzip") else 1)),
    ).diff
    return Descriptor(found.media_type, found.digest, found.size)
