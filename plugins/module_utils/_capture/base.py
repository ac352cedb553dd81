# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which image a container really was made of.

The name in its record may have been moved to another image since, and a checkpoint that names that one would bring the
process back onto other files. What cannot lie is the snapshot that the container's own stands on.
"""

from __future__ import annotations

from .._checkpoint import reader as checkpoint_reader
from .._containerd import images, snapshots
from .._containerd.client import Client
from .._containerd.containers import Container
from .._containerd.images import Image
from .._core.errors import ConflictError, InputError
from .._image import unpack


def of(client: Client, container: Container) -> Image | None:
    """The base image; None for a container that names none, or whose image is gone altogether.

    Raises ConflictError ``base_image_moved``.
    """
    if not container.image:
        return None
    named = images.get(client, container.image)
    own = snapshots.stat(client, container.snapshotter, container.snapshot_key)
    parent = own.parent if own else ""
    if named is None or not parent or _fits(client, named, parent) is not False:
        return named
    for other in images.list_all(client):
        if _fits(client, other, parent) and not _is_checkpoint(client, other):
            return other
    raise ConflictError(
        "base_image_moved",
        f"The container {container.id} was made of {container.image}, but that name stands for another image now "
        f"({named.target.digest}), and none on this node has the container's root file system ({parent}).",
        "Pull or import the image that the container was made of, under any name, then run again.",
        details={"name": container.image, "found": named.target.digest, "parent": parent},
    )


def _fits(client: Client, image: Image, parent: str) -> bool | None:
    """Whether a snapshot stands on the image's layers; None where the image does not tell."""
    try:
        chain = unpack.rootfs(client, image.target, image.name).chain_id
    except InputError:
        return None
    # With an id mapping, containerd appends that to the chain id.
    return parent == chain or parent.startswith(chain + "-")


def _is_checkpoint(client: Client, image: Image) -> bool:
    """A checkpoint's index names its base image, too."""
    try:
        checkpoint_reader.load(client, image.name)
    except InputError:
        return False
    return True
