# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What all ways of a checkpoint to and from a node share."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .._checkpoint import reader as checkpoint_reader
from .._checkpoint.reader import Checkpoint
from .._containerd import content, images
from .._containerd.client import Client
from .._core.errors import InputError
from .._image import state as image_state
from .._oci.image import Descriptor

#: Choices of the option ``base``.
INCLUDE, OMIT = "include", "omit"


@dataclass
class TransferResult:
    """What was, or in check mode would be, done."""

    changed: bool = False
    #: Digest of the checkpoint image.
    digest: str = ""
    #: The result ``archive`` or ``registry``; see the documentation of the modules.
    transferred: dict[str, Any] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Notes how long the block takes."""
        began = time.monotonic()
        yield
        self.seconds = round(time.monotonic() - began, 3)

    def rendered(self, key: str) -> dict[str, Any]:
        """As a module returns it, with what was transferred under ``key``."""
        return {
            "changed": self.changed,
            "digest": self.digest,
            key: self.transferred,
            "actions": self.actions,
            "seconds": self.seconds,
            "diff": {"before": self.before, "after": self.after},
        }


def load(client: Client, name: str, digest: str, on_node: bool = False) -> tuple[Checkpoint, Descriptor]:
    """The checkpoint image that leaves the node, and the descriptor of its index.

    ``digest``: the one that it must have; empty: any. ``on_node``: also one whose memory is not in it.
    Raises InputError ``image_digest_mismatch`` and as its reader.
    """
    checkpoint = checkpoint_reader.load(client, name)
    if not on_node:
        checkpoint_reader.require_image(checkpoint)
    if digest not in ("", checkpoint.digest):
        what = f"The image {name} is {checkpoint.digest}"
        raise image_state.digest_mismatch(what, digest, found=checkpoint.digest)
    record = images.get(client, name)
    if record is None or record.target.digest != checkpoint.digest:
        raise InputError("checkpoint_absent", f"The image {name} changed while it was read.", "Run again.")
    return checkpoint, record.target


def from_store(client: Client, level: Iterable[Descriptor]) -> Mapping[str, bytes]:
    """Those of the documents that the content store has, verified."""
    return {item.digest: content.read_all(client, item.digest, item.size) for item in level if in_store(client, item)}


def in_store(client: Client, descriptor: Descriptor) -> bool:
    """Whether the content store has the blob, in its size."""
    blob = content.stat(client, descriptor.digest)
    return blob is not None and blob.size == descriptor.size
