# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The original container, put together from checkpoint, metadata and parameters.

What an operator gives wins over the metadata file, that over the checkpoint image, that over defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._containerd import daemon
from .._containerd.client import Client
from .._containerd.images import Image
from .._core.errors import InputError
from .._core.text import check_digest
from .._host import cgroup
from .._image import unpack
from .._oci import spec_generate
from . import reader, signature
from .metadata import Metadata
from .reader import Checkpoint


@dataclass(frozen=True)
class Source:
    """Where the original is described: a checkpoint image and what overrides it."""

    #: Name of the checkpoint image.
    checkpoint: str
    metadata: Metadata | None = None
    #: Reference of the base image; empty: as metadata or checkpoint say.
    image: str = ""
    #: Empty: as metadata or checkpoint say.
    snapshotter: str = ""
    #: That the checkpoint must have, since the operator names it; empty: any.
    digest: str = ""
    #: Public SSH keys one of which has to have signed the checkpoint; none: nobody asks.
    verify_key: tuple[str, ...] = ()


@dataclass(frozen=True)
class Original:
    """The original container."""

    checkpoint: Checkpoint
    #: Reference of the base image where operator or metadata give one; else the checkpoint's counts.
    image_name: str
    snapshotter: str
    #: As recorded; which one runs the container is decided by ``_containerd.runtimes``.
    runtime: str
    #: A google.protobuf.Any or None; as recorded.
    runtime_options: Any
    #: ``systemd`` or ``cgroupfs``; the latter where systemd does not run on this node.
    cgroup_driver: str
    #: None where nobody recorded it.
    stored_spec: Mapping[str, Any] | None
    #: ``metadata``, ``checkpoint`` or ``generated``.
    spec_source: str
    #: The operator names the checkpoint by its digest, or it is signed by a key of the operator's.
    vouched: bool = False
    #: What CRIU was told for the dump, by its own names.
    dump_options: tuple[str, ...] = ()


def read(client: Client, source: Source) -> Original:
    """Read what the checkpoint and the metadata say; nothing is created. Raises InputError and NodeError.

    ``image_digest_mismatch`` where the checkpoint is not the one that the operator names by ``digest``.
    """
    if source.digest:
        check_digest(source.digest, "The option digest")
    checkpoint = reader.load(client, source.checkpoint)
    if source.digest not in ("", checkpoint.digest, checkpoint.earlier):
        raise InputError(
            "image_digest_mismatch",
            f"The checkpoint {checkpoint.name} is {checkpoint.digest}, but {source.digest} is expected.",
            "Give the reference of the checkpoint that is meant, or the digest that its capture returned.",
            details={"wanted": source.digest, "found": checkpoint.digest},
        )
    signature.require(checkpoint.name, checkpoint.digest, checkpoint.signature, source.verify_key)
    metadata = source.metadata or Metadata()
    options = reader.runtime_options(client, checkpoint)
    stored = metadata.oci_spec
    origin = "metadata"
    if stored is None:
        stored, origin = reader.spec(client, checkpoint), "checkpoint"
    return Original(
        checkpoint=checkpoint,
        image_name=source.image or metadata.original_image,
        snapshotter=source.snapshotter or metadata.snapshotter or checkpoint.snapshotter,
        runtime=checkpoint.runtime,
        runtime_options=options,
        # As runtimes.choose has it.
        cgroup_driver=daemon.cgroup_driver(options) if daemon.systemd_runs() else cgroup.CGROUPFS,
        stored_spec=stored,
        spec_source=origin if stored is not None else "generated",
        vouched=bool(source.digest or source.verify_key),
        dump_options=reader.dump_options(client, checkpoint),
    )


def captured_spec(client: Client, original: Original) -> Mapping[str, Any] | None:
    """The spec that is part of the checkpoint, also where metadata give another one; None where none can be read."""
    if original.spec_source == "checkpoint":
        return original.stored_spec
    try:
        return reader.spec(client, original.checkpoint)
    except InputError:
        return None


def base_image(client: Client, original: Original) -> Image:
    """The base image on this node. Raises InputError or ConflictError ``base_image_*``."""
    return reader.base_image(client, original.checkpoint, original.image_name)


def spec(client: Client, original: Original, image: Image, container_id: str) -> Mapping[str, Any]:
    """The original OCI spec, generated from the image's config where nobody recorded one. Raises InputError."""
    if original.stored_spec is not None:
        return original.stored_spec
    config = unpack.rootfs(client, image.target, image.name).config_document
    return spec_generate.generate(config, container_id)
