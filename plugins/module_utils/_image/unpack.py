# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Layers of an image become snapshots."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from typing import Any

from .._containerd import content, snapshots
from .._containerd.client import Client
from .._core import labels
from .._core.errors import AlreadyExistsError, InputError, RestoreError
from .._oci.image import Descriptor, Platform, host_platform


@dataclass(frozen=True)
class Rootfs:
    """An image for this node's platform; layers and their diff ids from the lowest to the uppermost."""

    manifest: Descriptor
    config: Descriptor
    config_document: dict[str, Any]
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]

    @property
    def chain_id(self) -> str:
        """The name of the snapshot that holds all layers."""
        return chain_ids(self.diff_ids)[-1] if self.diff_ids else ""


def chain_ids(diff_ids: tuple[str, ...]) -> list[str]:
    """The chain id of every layer (OCI image spec: sha256 of the parent's chain id, a space and the diff id)."""
    chain: list[str] = []
    for diff_id in diff_ids:
        joined = f"{chain[-1]} {diff_id}".encode() if chain else b""
        chain.append("sha256:" + hashlib.sha256(joined).hexdigest() if chain else diff_id)
    return chain


def rootfs(client: Client, target: Descriptor, name: str) -> Rootfs:
    """Resolve an image to this node's platform. Raises InputError ``not_an_image``, ``no_platform``, ``blob_*``."""
    manifest = _for_this_platform(client, target, name)
    document = content.read_document(client, manifest)
    config, *layers = content.children(manifest, document, name)
    config_document = content.read_document(client, config)
    stacked = content.objects(content.mapping(config_document, "rootfs", name), "diff_ids", name)
    diff_ids = tuple(str(found) for found in stacked)
    if not layers or len(layers) != len(diff_ids):
        raise InputError(
            "not_an_image",
            f"The image {name} has {len(layers)} layers and {len(diff_ids)} diff ids: it has no root file system.",
            "Give the reference of an ordinary container image.",
        )
    return Rootfs(manifest, config, config_document, tuple(layers), diff_ids)


def is_unpacked(client: Client, found: Rootfs, snapshotter: str) -> bool:
    """Whether all layers are there as snapshots."""
    return snapshots.stat(client, snapshotter, found.chain_id) is not None


def unpack(client: Client, found: Rootfs, snapshotter: str) -> bool:
    """Make the missing snapshots, verifying every diff id; False if none was missing. Call it under a lease.

    Raises InputError ``diff_id``. A layer that fails leaves no snapshot of its own behind.
    """
    changed = False
    parent = ""
    for layer, diff_id, chain_id in zip(found.layers, found.diff_ids, chain_ids(found.diff_ids)):
        if snapshots.stat(client, snapshotter, chain_id) is None:
            _extract(client, snapshotter, layer, diff_id, chain_id, parent)
            changed = True
        parent = chain_id
    label = f"{labels.GC_SNAPSHOT}.{snapshotter}"
    blob = content.stat(client, found.config.digest)
    if blob is not None and blob.labels.get(label) != found.chain_id:
        content.set_labels(client, found.config.digest, {label: found.chain_id})
        changed = True
    return changed


def forget(client: Client, found: Rootfs, snapshotter: str) -> None:
    """After :func:`unpack` under a lease that is about to end: let its snapshots go, where nothing else needs them."""
    if content.stat(client, found.config.digest) is not None:
        # An empty value takes the label away (containerd's metadata store).
        content.set_labels(client, found.config.digest, {f"{labels.GC_SNAPSHOT}.{snapshotter}": ""})


def _extract(client: Client, snapshotter: str, layer: Descriptor, diff_id: str, chain_id: str, parent: str) -> None:
    key = f"extract-{uuid.uuid4().hex} {chain_id}"
    onto = snapshots.prepare(client, snapshotter, key, parent, {})
    try:
        applied = snapshots.apply(client, layer, onto)
        if applied != diff_id:
            raise InputError(
                "diff_id",
                f"The layer {layer.digest} unpacks to {applied}, but the image's config says {diff_id}.",
                "The image is damaged: import or pull it again.",
            )
        try:
            snapshots.commit(client, snapshotter, chain_id, key, {})
        except AlreadyExistsError:
            # Somebody else (CRI) unpacked the same layer meanwhile.
            snapshots.remove(client, snapshotter, key)
    except BaseException:
        try:
            snapshots.remove(client, snapshotter, key)
        except RestoreError as error:
            raise RestoreError(
                "snapshot_left",
                f"The half-made snapshot {key} could not be removed: {error}.",
                "Remove it with ctr snapshots rm once the daemon answers.",
            ) from error
        raise


def _for_this_platform(client: Client, target: Descriptor, name: str) -> Descriptor:
    if target.is_manifest:
        return target
    if not target.is_index:
        raise InputError(
            "not_an_image",
            f"The image {name} has the media type {target.media_type}, which is no image.",
            "Give the reference of an ordinary container image.",
        )
    wanted = host_platform().architecture
    seen = []
    for child in content.children(target, content.read_document(client, target), name):
        platform = child.platform or Platform("", "")
        found = platform.architecture or wanted
        if child.has_children and found == wanted and platform.os in ("", "linux"):
            return _for_this_platform(client, child, name)
        seen.append(found)
    raise InputError(
        "no_platform",
        f"The image {name} has nothing for linux/{wanted}; it has {', '.join(seen) or 'no manifest'}.",
        "Use an image for this node's architecture.",
    )
