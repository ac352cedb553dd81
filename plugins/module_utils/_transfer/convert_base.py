# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The base image of a checkpoint that another tool made, on this node."""

from __future__ import annotations

from .._archive.reader import normalized_name
from .._checkpoint import reader as checkpoint_reader
from .._containerd import images
from .._containerd.client import Client
from .._containerd.images import Image
from .._core.errors import ConflictError, InputError
from .._image import unpack


def find(client: Client, path: str, name: str, recorded: str) -> Image:
    """The image of that name, which has to be the ``recorded`` one ('' for any): by index, manifest or config.

    ``path`` is the checkpoint's, for what is said of it. Raises InputError ``base_image_unknown``,
    ``base_image_absent``, ConflictError ``base_image_moved``.
    """
    if not name:
        raise InputError(
            "base_image_unknown",
            f"Nothing says which image the container of {path} was made from.",
            "Give image, or metadata with originalImage.",
        )
    named = images.get(client, name) or images.get(client, normalized_name(name))
    if named is not None and (not recorded or _is(client, named, recorded)):
        return named
    same = images.by_digest(client, recorded) if recorded else []
    if same:
        return same[0]  # under another name, or none that people use
    if named is None:
        return checkpoint_reader.base_image(client, None, normalized_name(name))
    raise ConflictError(
        "base_image_moved",
        f"The base image {named.name} is {named.target.digest} on this node, but {path} was taken from {recorded}.",
        "Pull or import the recorded image; image names another one, force: true takes what is there.",
        details={"name": named.name, "recorded": recorded, "found": named.target.digest},
    )


def _is(client: Client, image: Image, digest: str) -> bool:
    if image.target.digest == digest:
        return True
    rootfs = unpack.rootfs(client, image.target, image.name)
    return digest in (rootfs.manifest.digest, rootfs.config.digest)
