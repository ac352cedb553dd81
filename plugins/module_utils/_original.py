# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The original container, put together from checkpoint, metadata and parameters. Private.

What an operator gives wins over the metadata file, that over the checkpoint image, that over defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.gpuops.restore.plugins.module_utils import (
    _checkpoint,
    _node,
    _spec,
    _spec_generate,
    _unpack,
)
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import Checkpoint
from ansible_collections.gpuops.restore.plugins.module_utils._client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._images import Image
from ansible_collections.gpuops.restore.plugins.module_utils._metadata import Metadata


@dataclass(frozen=True)
class Source:
    """Where the original is described: a checkpoint image and what overrides it."""

    checkpoint: str
    metadata: Metadata | None = None
    image: str = ""
    snapshotter: str = ""


@dataclass(frozen=True)
class Original:
    """The original container. ``spec_source`` is ``metadata``, ``checkpoint`` or ``generated``."""

    checkpoint: Checkpoint
    image_name: str
    snapshotter: str
    runtime: str
    runtime_options: Any
    cgroup_driver: str
    stored_spec: Mapping[str, Any] | None
    spec_source: str


def read(client: Client, source: Source) -> Original:
    """Read what the checkpoint and the metadata say; nothing is created. Raises InputError."""
    checkpoint = _checkpoint.load(client, source.checkpoint)
    metadata = source.metadata or Metadata()
    options = _checkpoint.runtime_options(client, checkpoint)
    stored = metadata.oci_spec
    origin = "metadata"
    if stored is None:
        stored, origin = _checkpoint.spec(client, checkpoint), "checkpoint"
    return Original(
        checkpoint=checkpoint,
        image_name=source.image or metadata.original_image,
        snapshotter=source.snapshotter or metadata.snapshotter or checkpoint.snapshotter,
        runtime=checkpoint.runtime,
        runtime_options=options,
        cgroup_driver=_node.cgroup_driver(options),
        stored_spec=stored,
        spec_source=origin if stored is not None else "generated",
    )


def base_image(client: Client, original: Original) -> Image:
    """The base image on this node. Raises InputError or ConflictError ``base_image_*``."""
    return _checkpoint.base_image(client, original.checkpoint, original.image_name)


def spec(client: Client, original: Original, image: Image, container_id: str) -> Mapping[str, Any]:
    """The original OCI spec, generated from the image's config where nobody recorded one. Raises InputError."""
    if original.stored_spec is not None:
        return original.stored_spec
    config = _unpack.rootfs(client, image.target, image.name).config_document
    return _spec_generate.generate(config, container_id)


def adapted(original_spec: Mapping[str, Any], adaptation: _spec.Adaptation) -> _spec.Adapted:
    """The spec for this node. Raises InputError ``spec_invalid``, ``mount_mapping_unused`` and others."""
    return _spec.adapt(original_spec, adaptation)
