# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""containerd's image service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._core.errors import NotFoundError
from .._oci.image import Descriptor
from . import messages
from .client import Client

_SERVICE = "containerd.services.images.v1.Images"


@dataclass(frozen=True)
class Image:
    """An image record: a name for a descriptor."""

    name: str
    target: Descriptor
    labels: Mapping[str, str]


def descriptor_message(descriptor: Descriptor) -> Any:
    """The descriptor as ``containerd.types.Descriptor``."""
    return messages.message(
        "containerd.types.Descriptor",
        media_type=descriptor.media_type,
        digest=descriptor.digest,
        size=descriptor.size,
        annotations=dict(descriptor.annotations),
    )


def _read(record: Any) -> Image:
    target = record.target
    return Image(
        record.name,
        Descriptor(target.media_type, target.digest, target.size, dict(target.annotations)),
        dict(record.labels),
    )


def get(client: Client, name: str) -> Image | None:
    """The image of that name, None when there is none."""
    try:
        return _read(client.call(f"{_SERVICE}/Get", name=name).image)
    except NotFoundError:
        return None


def by_digest(client: Client, digest: str) -> list[Image]:
    """All images that name this digest."""
    found = client.call(f"{_SERVICE}/List", filters=[f"target.digest=={digest}"])
    return [_read(record) for record in found.images]


def list_all(client: Client) -> list[Image]:
    """All images of the namespace."""
    return [_read(record) for record in client.call(f"{_SERVICE}/List").images]


def create(client: Client, image: Image) -> Image:
    """Create the record. Raises AlreadyExistsError."""
    return _read(client.call(f"{_SERVICE}/Create", image=_record(image)).image)


def update(client: Client, image: Image, paths: list[str]) -> Image:
    """Replace these fields of the record (``target``, ``labels``, ``labels.<name>``)."""
    mask = messages.message("google.protobuf.FieldMask", paths=paths)
    return _read(client.call(f"{_SERVICE}/Update", image=_record(image), update_mask=mask).image)


def delete(client: Client, name: str, sync: bool = True) -> bool:
    """Delete the record; with ``sync`` the daemon collects garbage before it answers. False if there was none."""
    try:
        client.call(f"{_SERVICE}/Delete", name=name, sync=sync, timeout=max(client.timeout, 300.0))
    except NotFoundError:
        return False
    return True


def _record(image: Image) -> Any:
    return messages.message(
        "containerd.services.images.v1.Image",
        name=image.name,
        labels=dict(image.labels),
        target=descriptor_message(image.target),
    )
