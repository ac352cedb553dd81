# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whose a container is, and what may be done to it."""

from __future__ import annotations

from .._core import labels
from .._core.errors import ConflictError
from . import snapshots
from .client import Client
from .containers import Container


def is_used(client: Client, container: Container) -> bool:
    """Whether a task has run on the container's snapshot, so that its files no longer fit the checkpoint."""
    found = snapshots.stat(client, container.snapshotter, container.snapshot_key)
    return found is not None and found.labels.get(labels.USED) == "true"


def used_snapshot(container: Container) -> ConflictError:
    """The refusal to start from a checkpoint on a used snapshot."""
    return ConflictError(
        "snapshot_used",
        f"A task has already run on the snapshot {container.snapshot_key} of {container.id}: its files no longer "
        "fit the memory in the checkpoint.",
        "Have containerd_container make it anew (rebuild: true; the role: restore_node_when_stopped: restore).",
    )


def require_ours(found: Container, owner: str, force: bool) -> None:
    """Raise ConflictError ``container_not_ours`` for a container of another owner."""
    present_owner = labels.owner_of(found.labels)
    if present_owner == owner or force:
        return
    whose = f"belongs to {present_owner}" if present_owner else "was not made by this collection"
    raise ConflictError(
        "container_not_ours",
        f"The container {found.id} exists and {whose}; this run's owner is {owner}.",
        "Choose another name, or remove that container with its own tool; force: true takes it over.",
        details={"container": found.id, "owner": present_owner, "wanted_owner": owner},
    )


def require_same_checkpoint(found: Container, digest: str, force: bool) -> None:
    """Raise ConflictError ``container_other_checkpoint`` for a container that was made from another one."""
    present_digest = found.labels.get(labels.CHECKPOINT, "")
    if present_digest != digest and not force:
        raise ConflictError(
            "container_other_checkpoint",
            f"The container {found.id} exists from the checkpoint {present_digest or '(none)'}, not from {digest}.",
            "Choose another name, clean the old one up, or set force: true.",
            details={"found": present_digest, "wanted": digest},
        )
