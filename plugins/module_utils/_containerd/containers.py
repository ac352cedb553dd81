# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""containerd's container service: the record, not the process; whose it is, and what may be done to it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._core import labels, strict_json
from .._core.errors import ConflictError, InputError, NotFoundError
from .._core.strict_json import StrictJsonError
from . import messages, snapshots
from .client import MAX_RECEIVE, Client

_SERVICE = "containerd.services.containers.v1.Containers"
#: The type URL under which containerd stores an OCI runtime spec; the value is its JSON.
SPEC_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Spec"


@dataclass(frozen=True)
class Container:
    """A container record."""

    id: str
    image: str
    labels: Mapping[str, str]
    runtime: str
    #: A google.protobuf.Any, None where there are none.
    runtime_options: Any
    spec: Mapping[str, Any]
    snapshotter: str
    snapshot_key: str


def get(client: Client, container_id: str) -> Container | None:
    """The record, None when there is none. Raises InputError ``spec_unreadable``."""
    try:
        return _read(client.call(f"{_SERVICE}/Get", id=container_id).container)
    except NotFoundError:
        return None


def list_all(client: Client) -> list[Container]:
    """All records of the namespace whose specs can be read."""
    found = []
    for record in client.call(f"{_SERVICE}/List").containers:
        with contextlib.suppress(InputError):
            found.append(_read(record))
    return found


def _read(record: Any) -> Container:
    options = record.runtime.options
    return Container(
        id=record.id,
        image=record.image,
        labels=dict(record.labels),
        runtime=record.runtime.name,
        runtime_options=options if options.type_url else None,
        spec=_spec(record.id, record.spec.value),
        snapshotter=record.snapshotter,
        snapshot_key=record.snapshot_key,
    )


def restored(client: Client) -> dict[str, str]:
    """The digest of the checkpoint that each restored container is from, by the container's id."""
    found = client.call(f"{_SERVICE}/List", filters=[f'labels."{labels.CHECKPOINT}"']).containers
    return {container.id: container.labels[labels.CHECKPOINT] for container in found}


def _spec(container_id: str, data: bytes) -> dict[str, Any]:
    try:
        return strict_json.parse_object(data or b"{}", MAX_RECEIVE)
    except StrictJsonError as error:
        raise InputError(
            "spec_unreadable",
            f"The OCI spec in containerd's record of the container {container_id} cannot be read: {error}.",
            "Remove the container with the tool that made it, and have it made again.",
        ) from error


def create(client: Client, container: Container) -> None:
    """Create the record. Raises AlreadyExistsError."""
    runtime = messages.message("containerd.services.containers.v1.Container.Runtime", name=container.runtime)
    if container.runtime_options is not None:
        runtime.options.CopyFrom(container.runtime_options)
    record = messages.message(
        "containerd.services.containers.v1.Container",
        id=container.id,
        image=container.image,
        labels=dict(container.labels),
        runtime=runtime,
        spec=messages.pack(SPEC_TYPE, json.dumps(container.spec).encode()),
        snapshotter=container.snapshotter,
        snapshot_key=container.snapshot_key,
    )
    client.call(f"{_SERVICE}/Create", container=record)


def delete(client: Client, container_id: str) -> bool:
    """Delete the record; False if there was none. The daemon does not refuse while a task runs: check before."""
    try:
        client.call(f"{_SERVICE}/Delete", id=container_id)
    except NotFoundError:
        return False
    return True


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
