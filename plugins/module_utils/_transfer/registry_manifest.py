# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A checkpoint as an ordinary OCI image manifest, which every registry takes.

containerd's checkpoint is an index whose children are no manifests, and registries look at children. Here the index and
all that it names are layers, blobs with the digests that they have in containerd, so the way back loses nothing: the
index is one of them. Indexes and manifests among the layers have a neutral media type, and their own in an annotation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from .._checkpoint import reader
from .._core import labels
from .._core.errors import InputError
from .._oci import image as oci_image
from .._oci.image import Descriptor
from .._registry.repository import MANIFEST, digest_of

ARTIFACT = "application/vnd.gpuops.restore.checkpoint.v1"
#: The media type of documents among the layers: under their own a registry might look for what they name.
DOCUMENT = "application/vnd.gpuops.restore.document.v1+json"
ROLE = labels.PREFIX + "role"
MEDIA_TYPE = labels.PREFIX + "media-type"
#: ``task`` for the layout of ``ctr tasks checkpoint``, which an image label tells apart in containerd.
LAYOUT = labels.PREFIX + "layout"
_BASE_NAME = "org.opencontainers.image.base.name"
_BASE_DIGEST = "org.opencontainers.image.base.digest"
INDEX_ROLE, BASE_PREFIX = "index", "base-"
_ROLES = (
    ("criu.checkpoint.criu.tar", "criu"),
    ("criu-files", "criu-files"),
    ("checkpoint.config", "spec"),
    ("checkpoint.options", "options"),
    ("checkpoint.runtime.options", "runtime-options"),
    ("layer.v1.tar", "writable-layer"),
    ("rootfs.diff.tar", "writable-layer"),
    ("container.rw.tar", "writable-layer"),
    ("memory-volume.v1.tar", "memory-volume"),
    ("restore.written", "written"),
)
#: What the OCI image specification 1.1 has as config of that which is no container image.
EMPTY = b"{}"
CONFIG = Descriptor("application/vnd.oci.empty.v1+json", digest_of(EMPTY), len(EMPTY))


@dataclass(frozen=True)
class Part:
    """A blob of the checkpoint."""

    #: What it is in it, such as ``criu`` or ``base-layer``.
    role: str
    descriptor: Descriptor


@dataclass(frozen=True)
class Collected:
    """The parts of a checkpoint."""

    #: Each once, documents before what they name.
    parts: tuple[Part, ...]
    #: Whether the base image is among them.
    base_whole: bool


@dataclass(frozen=True)
class Manifest:
    """A manifest in the registry, taken apart."""

    #: The index of the checkpoint.
    target: Descriptor
    #: Every blob by its digest.
    blobs: Mapping[str, Descriptor]
    has_base: bool
    #: ``container`` or ``task``, as ``_checkpoint.reader.Checkpoint`` has it.
    layout: str
    #: Of the index's digest; "" where nobody signed. Not verified.
    signature: str = ""


Graph = Mapping[str, Sequence[Descriptor]]


def collect(target: Descriptor, graph: Graph, present: Callable[[Descriptor], bool], base: bool) -> Collected:
    """What makes up the checkpoint, of all that ``graph`` (documents and their children) names.

    Of the base image, each manifest of which nothing is missing. Raises InputError ``blob_missing`` for the
    checkpoint's own parts.
    """
    if target.digest not in graph:
        raise missing(target)
    found = [Part(INDEX_ROLE, target)]
    whole = False
    for child in graph[target.digest]:
        if child.has_children:
            below = _base(child, graph, present) if base else []
            whole = whole or bool(below)
            found += below
        elif not child.is_foreign:
            if not present(child):
                raise missing(child)
            found.append(Part(_role(child), child))
    unique = {part.descriptor.digest: part for part in reversed(found)}
    ordered = tuple(part for part in found if unique.pop(part.descriptor.digest, None) is not None)
    return Collected(ordered, whole)


def _base(top: Descriptor, graph: Graph, present: Callable[[Descriptor], bool]) -> list[Part]:
    """The document and what is below it; nothing if that is not whole."""
    if top.digest not in graph:
        return []
    children = graph[top.digest]
    if top.is_index:
        below = [part for child in children if child.has_children for part in _base(child, graph, present)]
        return [Part("base-index", top), *below] if below else []
    needed = [child for child in children if not child.is_foreign]
    if not all(present(child) for child in needed):
        return []
    # The first child of a manifest is its config.
    roles = ["base-config"] + ["base-layer"] * len(children)
    parts = [Part(role, child) for role, child in zip(roles, children) if not child.is_foreign]
    return [Part("base-manifest", top), *parts]


def _role(child: Descriptor) -> str:
    return next((role for part, role in _ROLES if part in child.media_type), "other")


def document(collected: Collected, base_name: str, layout: str, signature: str = "") -> bytes:
    """The manifest. The same parts give the same bytes."""
    parts = collected.parts
    annotations = {labels.CHECKPOINT: parts[0].descriptor.digest, LAYOUT: layout}
    top = next((part.descriptor.digest for part in parts if part.role.startswith(BASE_PREFIX)), "")
    if top:
        annotations[_BASE_DIGEST] = top
    if base_name:
        annotations[_BASE_NAME] = base_name
    if signature:
        annotations[labels.SIGNATURE] = signature
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": _entry(CONFIG, CONFIG.media_type, {}),
        "layers": [_layer(part) for part in parts],
        "annotations": annotations,
    }
    return json.dumps(manifest, separators=(",", ":"), sort_keys=True).encode()


def _layer(part: Part) -> dict[str, Any]:
    if part.descriptor.has_children:
        return _entry(part.descriptor, DOCUMENT, {ROLE: part.role, MEDIA_TYPE: part.descriptor.media_type})
    return _entry(part.descriptor, part.descriptor.media_type, {ROLE: part.role})


def _entry(descriptor: Descriptor, media_type: str, annotations: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {"mediaType": media_type, "digest": descriptor.digest, "size": descriptor.size}
    return {**found, "annotations": annotations} if annotations else found


def read(data: bytes, name: str) -> Manifest:
    """Take a manifest apart. Raises InputError ``registry_not_a_checkpoint``, and as the readers of archives do."""
    what = f"The manifest of {name} in the registry"
    found = oci_image.parse_object(data, what)
    if "manifests" in found or found.get("mediaType", MANIFEST) != MANIFEST:
        raise _other(name, "is an index, or another kind of manifest")
    if found.get("artifactType") != ARTIFACT:
        _refuse_others(found, name, what)
        raise _other(name, "is an image of another kind")
    blobs: dict[str, Descriptor] = {}
    indexes: list[Descriptor] = []
    has_base = False
    for layer in oci_image.parse_descriptors(found.get("layers"), what):
        role = layer.annotations.get(ROLE, "")
        media_type = layer.media_type
        if media_type == DOCUMENT:
            media_type = layer.annotations.get(MEDIA_TYPE, "")
        descriptor = Descriptor(media_type, layer.digest, layer.size)
        if blobs.setdefault(layer.digest, descriptor).size != layer.size:
            raise oci_image.invalid(what, f"it gives the blob {layer.digest} two sizes")
        if role == INDEX_ROLE:
            indexes.append(descriptor)
        has_base = has_base or role.startswith(BASE_PREFIX)
    if len(indexes) != 1 or not indexes[0].is_index:
        raise _other(name, f"names {len(indexes)} usable indexes of a checkpoint, not one")
    given = found.get("annotations")
    annotations = given if isinstance(given, dict) else {}
    layout = "task" if annotations.get(LAYOUT) == "task" else "container"
    return Manifest(indexes[0], blobs, has_base, layout, labels.signature_in(annotations))


def _refuse_others(document: dict[str, Any], name: str, what: str) -> None:
    annotations = document.get("annotations")
    if not isinstance(annotations, dict) or not reader.is_another_tools(annotations):
        return
    layers = oci_image.parse_descriptors(document.get("layers"), what)
    bring = f"Have containerd_image pull {name}, then run"
    error = reader.another_tools(f"What the registry has as {name}", annotations, layers, "NAMESPACE", bring)
    if error is not None:
        raise error


def missing(descriptor: Descriptor) -> InputError:
    """The error for a part that is named and not there."""
    return InputError(
        "blob_missing",
        f"The blob {descriptor.digest} ({descriptor.media_type}) is named by the checkpoint and not there.",
        "Where it is the base image's, base: false moves the checkpoint without it; else take or push it again.",
        details={"digest": descriptor.digest, "size": descriptor.size},
    )


def _other(name: str, why: str) -> InputError:
    return InputError(
        "registry_not_a_checkpoint",
        f"What the registry has as {name} {why}, and no checkpoint that this module pushed.",
        "Correct the reference; ordinary images, and checkpoint indexes, are pulled by containerd_image.",
    )
