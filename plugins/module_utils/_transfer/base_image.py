# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The base image of a checkpoint: which one it is, and a name for it, without which a restore does not find it.

A record that CRI made for itself is no name: it goes when the last name of the image does, or when kubelet cleans up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .._archive.reader import normalized_name
from .._checkpoint import reader as checkpoint_reader
from .._containerd import content, images
from .._containerd.client import Client
from .._containerd.images import Image
from .._core import labels
from .._core.errors import AlreadyExistsError, ConflictError, InputError, RestoreError
from .._image import cri, tree, unpack
from .._oci.image import Descriptor


@dataclass(frozen=True)
class Plan:
    """What there is to do for the name of a base image."""

    #: The record to make; None when there is nothing to do.
    image: Image | None = None
    #: The image neither comes along nor is it on this node.
    absent: bool = False
    #: Why a name is not given; empty otherwise.
    warning: str = ""

    @property
    def actions(self) -> list[str]:
        """What will be done, for the module's result."""
        return [f"name the base image {self.image.name} ({self.image.target.digest})"] if self.image else []


def is_named(client: Client, digest: str) -> bool:
    """Whether the image has a name of somebody's."""
    return _name(images.by_digest(client, digest)) is not None


def plan(client: Client, base: Descriptor | None, name: str, owner: str, comes: bool, tag: bool = False) -> Plan:
    """What the base image needs to be found: any name of somebody's, else a private one, made of ``name``.

    ``comes``: it is brought along whole. ``tag``: the operator wants it under ``name`` itself, where that is free.
    """
    if base is None:
        return Plan()
    records = images.by_digest(client, base.digest)
    if _name(records) is not None:
        return Plan()
    # CRI keeps an image that is unpacked also without its layers.
    if not comes and not records and not tree.survey(client, base).is_whole:
        return Plan(absent=True)
    if not name or any(record.name == name for record in records):
        return Plan()
    if not tag:
        name = checkpoint_reader.private_name(name, base.digest)
    other = images.get(client, name)
    if other is not None:
        return Plan(
            warning=f"The name {name} of the base image belongs to {other.target.digest} here; the checkpoint needs "
            f"{base.digest}, which gets no name."
        )
    return Plan(Image(name, base.bare(), {labels.OWNER: owner}))


def make(client: Client, wanted: Plan) -> bool:
    """Make the record; False if somebody else was faster. Call it under a lease, with the content in the store."""
    if wanted.image is None:
        return False
    for digest, missing in tree.survey(client, wanted.image.target).unlabelled.items():
        content.set_labels(client, digest, missing)
    try:
        images.create(client, wanted.image)
    except AlreadyExistsError:
        return False
    return True


@contextmanager
def made(client: Client, wanted: Plan) -> Iterator[None]:
    """As :func:`make`; if the block fails, the record goes again."""
    created = make(client, wanted)
    try:
        yield
    except BaseException:
        if created and wanted.image is not None:
            with contextlib.suppress(RestoreError):
                cri.remove(client, wanted.image, True)
        raise


def find(client: Client, path: str, name: str, recorded: str) -> tuple[Descriptor, str]:
    """The image of that name, which has to be the ``recorded`` one ('' for any): by index, manifest or config.

    It is given with the name by which a checkpoint should record it. ``path`` is the dump's, for what is said of it.
    Raises InputError ``base_image_unknown``, ``base_image_absent``, ConflictError ``base_image_moved``.
    """
    if not name:
        raise InputError(
            "base_image_unknown",
            f"Nothing says which image the container of {path} was made from.",
            "Give image, or metadata with originalImage.",
        )
    named = images.get(client, name) or images.get(client, normalized_name(name))
    if named is not None and (not recorded or _is(client, named, recorded)):
        if not cri.is_reference(named):
            return named.target, named.name
        return named.target, _public_name(images.by_digest(client, named.target.digest)) or ""
    same = images.by_digest(client, recorded) if recorded else []
    if same:
        return same[0].target, _public_name(same) or normalized_name(name)
    if named is None:
        found = checkpoint_reader.base_image(client, None, normalized_name(name))
        return found.target, found.name
    raise ConflictError(
        "base_image_moved",
        f"The base image {named.name} is {named.target.digest} on this node, but {path} was taken from {recorded}.",
        "Pull or import the recorded image; image names another one, force: true takes what is there.",
        details={"name": named.name, "recorded": recorded, "found": named.target.digest},
    )


def _name(records: list[Image]) -> str | None:
    """The first name that is not CRI's."""
    return next((record.name for record in records if not cri.is_reference(record)), None)


def _public_name(records: list[Image]) -> str | None:
    """The first name to write into a checkpoint. One that only has the digest is of this node's making."""
    return _name([record for record in records if not record.name.endswith(f"@{record.target.digest}")])


def _is(client: Client, image: Image, digest: str) -> bool:
    if image.target.digest == digest:
        return True
    rootfs = unpack.rootfs(client, image.target, image.name)
    return digest in (rootfs.manifest.digest, rootfs.config.digest)
