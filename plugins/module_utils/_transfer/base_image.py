# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A name for the base image that came with a checkpoint, without which a restore does not find it."""

from __future__ import annotations

from dataclasses import dataclass

from .._containerd import images
from .._containerd.client import Client
from .._containerd.images import Image
from .._core import labels
from .._core.errors import AlreadyExistsError
from .._oci.image import Descriptor


@dataclass(frozen=True)
class Plan:
    """``image``: the record to make, None when there is nothing to do. ``warning``: why a name is not given."""

    image: Image | None = None
    warning: str = ""

    @property
    def action(self) -> str:
        return f"name the base image {self.image.name} ({self.image.target.digest})" if self.image else ""


def plan(client: Client, base: Descriptor | None, name: str, owner: str) -> Plan:
    """What a whole base image needs to be found: by its digest under any name, else by ``name``."""
    if base is None or not name or images.by_digest(client, base.digest):
        return Plan()
    other = images.get(client, name)
    if other is not None:
        return Plan(
            warning=f"The name {name} of the base image belongs to {other.target.digest} here; the checkpoint needs "
            f"{base.digest}, which gets no name."
        )
    return Plan(Image(name, base.bare(), {labels.OWNER: owner}))


def make(client: Client, wanted: Plan) -> bool:
    """Make the record; False if somebody else was faster. Call it under the lease that protects the content."""
    if wanted.image is None:
        return False
    try:
        images.create(client, wanted.image)
    except AlreadyExistsError:
        return False
    return True
