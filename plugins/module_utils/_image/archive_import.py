# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An image archive goes into containerd's content store."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .._archive.reader import Archive, ArchiveImage
from .._containerd import content, space
from .._containerd.client import Client
from .._core.errors import InputError
from .._oci import image as oci_image
from . import tree

_BARE_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")


@dataclass(frozen=True)
class Plan:
    """What an import will do."""

    entry: ArchiveImage
    #: Digest of each index and manifest in the archive -> its children.
    graph: Mapping[str, Sequence[oci_image.Descriptor]]
    #: Whether blobs are not in the archive: the base image of a checkpoint.
    partial: bool
    #: Digests that are not in the content store yet.
    absent: frozenset[str]
    #: Bytes of the image.
    size: int

    @property
    def digest(self) -> str:
        """The image's digest."""
        return self.entry.descriptor.digest

    @property
    def is_checkpoint(self) -> bool:
        """Whether the image is a checkpoint."""
        return tree.is_checkpoint(self.graph.get(self.digest, ()))


def choose(archive: Archive, name: str, digest: str) -> ArchiveImage:
    """The archive's image for the reference ``name``.

    That is the one of that name; else the one with the expected ``digest``, whatever its name; else the only one, if it
    has no name or just a tag (as skopeo writes it). Raises InputError ``archive_name_missing``,
    ``archive_name_ambiguous``.
    """
    try:
        return archive.select(name)
    except InputError as error:
        if error.code != "archive_name_missing":
            raise
        same = [image for image in archive.images if image.descriptor.digest == digest]
        descriptors = {image.descriptor.digest: image for image in archive.images}
        if same:
            return same[0]
        if len(descriptors) == 1:
            only = next(iter(descriptors.values()))
            if only.name is None or _BARE_TAG.match(only.name):
                return only
        raise


def plan(client: Client, archive: Archive, entry: ArchiveImage) -> Plan:
    """Read the archive's documents and compare with the store. Nothing is changed.

    A checkpoint's archive may lack its base image. Raises InputError as ``Archive.graph``, NodeError
    ``content_no_space``.
    """
    partial = False
    try:
        graph = archive.graph(entry)
    except InputError as error:
        if error.code != "blob_missing":
            raise
        graph = archive.graph(entry, allow_missing=tree.Anything())
        partial = True
        if not tree.is_checkpoint(graph.get(entry.descriptor.digest, ())):
            raise
    descriptors = {entry.descriptor.digest: entry.descriptor}
    descriptors.update((child.digest, child) for children in graph.values() for child in children)
    absent = frozenset(digest for digest in descriptors if content.stat(client, digest) is None)
    space.require(client, f"The archive {archive.path} brings", sum(descriptors[digest].size for digest in absent))
    return Plan(entry, graph, partial, absent, sum(item.size for item in descriptors.values()))


def upload(client: Client, archive: Archive, wanted: Plan) -> None:
    """Stream what is missing into the store, each document with its gc labels. Call it under a lease.

    Raises InputError ``digest_mismatch``, ``size_mismatch``, NodeError ``content_no_space``.
    """
    allow_missing = tree.Anything() if wanted.partial else ()
    with space.explained(f"while {archive.path} was imported"):
        for descriptor, chunks in archive.blobs(wanted.entry, allow_missing=allow_missing):
            _store(client, wanted, descriptor, chunks)
        for descriptor, data in archive.synthesized:
            if descriptor.digest == wanted.digest:
                _store(client, wanted, descriptor, (data,))


def _store(client: Client, wanted: Plan, descriptor: oci_image.Descriptor, chunks: Iterable[bytes]) -> None:
    if content.stat(client, descriptor.digest) is not None:
        # It is there: to offer it again, without data, is what puts it under the lease.
        content.write(client, (), descriptor.digest, descriptor.size, {})
        return
    children = wanted.graph.get(descriptor.digest, ())
    labels = tree.gc_labels(children, {}, not descriptor.is_index) if descriptor.has_children else {}
    content.write(client, chunks, descriptor.digest, descriptor.size, labels)
