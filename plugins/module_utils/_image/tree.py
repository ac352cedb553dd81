# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An image as containerd's content store has it: what is missing, what garbage collection could take.

Label names as containerd's own clients write them (core/images, ChildGCLabels): ``.m.<i>`` for manifests, ``.config``,
``.l.<i>`` for layers, ``.<i>`` for anything else, all after ``containerd.io/gc.ref.content``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .._containerd import content
from .._containerd.client import Client
from .._core import labels
from .._oci import image as oci_image
from .._oci.image import Descriptor

#: Part of the media type of everything in a checkpoint that is not an image.
_CHECKPOINT_PART = "containerd.container."
#: Part of the media type of what stands for memory that is staged on the node alone.
_ON_NODE = ".criu-files."


class Anything:
    """A container of every digest: all blobs may be missing."""

    def __contains__(self, _digest: object) -> bool:
        return True


@dataclass(frozen=True)
class Tree:
    """What the content store has of one image."""

    target: Descriptor
    #: Digest of each index and manifest in the store -> the children that this machine needs.
    documents: Mapping[str, Sequence[Descriptor]]
    #: Blobs that are indispensable and not in the store.
    missing: tuple[Descriptor, ...]
    #: Layers that are not in the store. Once the image is unpacked it does without (containerd can discard them then).
    missing_layers: tuple[Descriptor, ...]
    #: Digest -> gc labels to add.
    unlabelled: Mapping[str, Mapping[str, str]]
    #: Bytes of all blobs that are in the store.
    size: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing, no layer either."""
        return not self.missing and not self.missing_layers

    @property
    def is_checkpoint(self) -> bool:
        """Whether it is a checkpoint, which is not unpacked."""
        return is_checkpoint(self.documents.get(self.target.digest, ()))

    @property
    def is_on_node(self) -> bool:
        """Whether it is a checkpoint whose memory is staged on the node alone."""
        return any(_ON_NODE in child.media_type for child in self.documents.get(self.target.digest, ()))


def is_checkpoint(children: Iterable[Descriptor]) -> bool:
    """Whether an index with these children is a checkpoint's."""
    return any(_CHECKPOINT_PART in child.media_type for child in children)


def survey(client: Client, target: Descriptor) -> Tree:
    """Walk an image in the store. The base image that a checkpoint names may lack.

    Raises InputError ``blob_digest`` for a damaged document, and as ``_oci.image.walk``.
    """
    blobs: dict[str, content.Blob | None] = {}

    def present(item: Descriptor) -> bool:
        if item.digest not in blobs:
            blobs[item.digest] = content.stat(client, item.digest)
        blob = blobs[item.digest]
        return blob is not None and blob.size == item.size

    def load(level: Iterable[Descriptor]) -> Mapping[str, bytes]:
        return {item.digest: content.read_all(client, item.digest, item.size) for item in level if present(item)}

    documents = oci_image.walk(target, load, oci_image.host_platform(), Anything())
    checkpoint = is_checkpoint(documents.get(target.digest, ()))
    indexes = {item.digest for children in documents.values() for item in [target, *children] if item.is_index}
    missing: dict[str, Descriptor] = {}
    layers: dict[str, Descriptor] = {}
    if not documents:
        missing[target.digest] = target
    unlabelled = {}
    for digest, children in documents.items():
        for position, child in enumerate(children):
            part_of_base = checkpoint and (child.has_children or digest != target.digest)
            if not present(child) and not child.is_foreign and not part_of_base:
                (layers if digest not in indexes and position > 0 else missing)[child.digest] = child
        blob = blobs[digest]
        wanted = gc_labels(children, blob.labels if blob else {}, digest not in indexes)
        if wanted:
            unlabelled[digest] = wanted
    size = sum(blob.size for blob in blobs.values() if blob is not None)
    return Tree(target, documents, tuple(missing.values()), tuple(layers.values()), unlabelled, size)


def gc_labels(children: Sequence[Descriptor], present: Mapping[str, str], manifest: bool) -> dict[str, str]:
    """The labels that a document with these children needs beyond those that it has.

    ``manifest``: the first child is the config, the others are layers.
    """
    prefix = labels.GC_CONTENT
    kept = {value for name, value in present.items() if name == prefix or name.startswith((f"{prefix}.", f"{prefix}/"))}
    wanted: dict[str, str] = {}
    for position, child in enumerate(children):
        if child.digest in kept:
            continue
        kept.add(child.digest)
        if manifest:
            name = f"{prefix}.config" if position == 0 else f"{prefix}.l.{position - 1}"
        else:
            name = f"{prefix}.m.{position}" if child.has_children else f"{prefix}.{position}"
        # Somebody else's numbering may differ from ours.
        wanted[name if name not in present else f"{prefix}.restore.{position}"] = child.digest
    return wanted
