# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a capture ends up: as an image in containerd, or as a checkpoint that lives on the node.

Both have the same parts but for the memory: the image has it as a tar in the content store, the other one leaves the
dump where it is and makes it the staged checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable

from .._checkpoint import (
    on_node,
    stage,
    staged as staged_checkpoint,
    staging,
    writer as checkpoint_writer,
)
from .._checkpoint.reader import BYTES_ANNOTATION
from .._checkpoint.volumes import MemoryVolume
from .._checkpoint.written import Record
from .._containerd import images
from .._containerd.client import Client
from .._containerd.containers import Container
from .._core import labels
from .._core.errors import ConflictError
from .._oci.facts import Facts
from .._oci.image import Descriptor
from . import layer as capture_layer
from .params import CaptureParams


@dataclass(frozen=True)
class Taken:
    """What was captured."""

    #: Of CRIU's files.
    images: str
    container: Container
    #: The base image, and what it is called.
    base: Descriptor | None
    base_name: str
    layer: Descriptor
    #: What the layer cannot say.
    written: Record
    volumes: tuple[MemoryVolume, ...]
    #: A ``containerd.runc.v1.CheckpointOptions``.
    options: Any
    facts: Facts
    #: Beside the facts.
    annotations: Mapping[str, str]
    #: Nobody needs the dump once its image is written, nor before.
    spent: bool = False


@dataclass(frozen=True)
class Stored:
    """The checkpoint that there is now. ``criu``: digest and size of what has the memory."""

    digest: str
    criu: Descriptor
    #: Where the dump is staged, empty where it is not.
    staged: str = ""
    warnings: tuple[str, ...] = ()


def image(client: Client, params: CaptureParams, taken: Taken, ready: Callable[[], None]) -> Stored:
    """Write the image; the dump stays where it is, spent unless it is to be kept. ``ready`` is called at the last
    moment at which to give up."""
    criu = checkpoint_writer.packed_by_daemon(client, taken.images, taken.spent)
    parts = _parts(client, taken, criu)
    ready()
    digest = checkpoint_writer.index(client, params.name, parts, {labels.OWNER: params.owner}, captured=True)
    return Stored(digest, criu)


def on_this_node(
    client: Client,
    params: CaptureParams,
    taken: Taken,
    ready: Callable[[], None],
    about_to: Callable[[str], None],
) -> Stored:
    """Make the dump the staged checkpoint, durable; nothing of it is copied.

    ``about_to`` is told the name of the staged directory before there is one, so that whoever comes after a kill finds
    it. The record in containerd comes last: before it there is no checkpoint, and the directory goes.
    """
    files = on_node.listed(client, taken.images)
    parts = _parts(client, taken, files)
    target = checkpoint_writer.store_index(
        client, params.name, checkpoint_writer.index_document(parts), parts.children()
    )
    key = target.digest.split(":", 1)[1]
    size = int(files.annotations[BYTES_ANNOTATION])
    before = images.get(client, params.name)
    about_to(key)
    try:
        staged = staging.adopt(
            taken.images,
            digest=files.digest,
            size=size,
            root=params.staging_dir,
            name=key,
            only_copy_of={"namespace": client.namespace, "container": params.container_id},
        )
        ready()
        checkpoint_writer.record(client, params.name, target, {labels.OWNER: params.owner}, captured=True)
    except BaseException:
        staging.remove(params.staging_dir, key)
        raise
    warnings = _remove_replaced(client, params, before, target.digest)
    return Stored(target.digest, Descriptor(files.media_type, files.digest, size), staged.directory, tuple(warnings))


def _remove_replaced(client: Client, params: CaptureParams, before: images.Image | None, digest: str) -> list[str]:
    """The checkpoint that had the name before lived here, and nothing leads to its memory any more."""
    old = before.target.digest if before else digest
    if old == digest or images.by_digest(client, old):
        return []
    key = old.split(":", 1)[1]
    if staged_checkpoint.only_copy_of(params.staging_dir, key) is None:
        return []
    try:
        stage.absent(client, key, params.staging_dir, check=False)
    except ConflictError as error:
        return [error.sentence()]
    return []


def _parts(client: Client, taken: Taken, criu: Descriptor) -> checkpoint_writer.Parts:
    container = taken.container
    return checkpoint_writer.Parts(
        criu=criu,
        config=checkpoint_writer.spec_blob(client, container.spec),
        # Without our paths, which mean nothing elsewhere.
        options=checkpoint_writer.options_blob(client, taken.options),
        runtime_options=checkpoint_writer.runtime_options_blob(client, container.runtime_options),
        writable_layer=taken.layer,
        written=capture_layer.store(client, taken.written),
        memory_volumes=taken.volumes,
        base=taken.base,
        base_name=taken.base_name,
        runtime=container.runtime,
        snapshotter=container.snapshotter,
        annotations={labels.FACTS: taken.facts.render(), **taken.annotations},
    )
