# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A checkpoint comes out of an archive, its base image with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._archive.reader import Archive, ArchiveImage, open_archive
from .._checkpoint import reader as checkpoint_reader
from .._containerd import content, images, leases
from .._containerd.client import Client
from .._core import labels as core_labels
from .._core.errors import InputError
from .._core.text import check_digest
from .._image import archive_import, image as image_steps, state as image_state, tree as image_tree
from .._oci import image as oci_image
from .._oci.image import Descriptor
from .._streams.decompression import Expansion
from .._streams.tar_reader import Limits
from . import base_image
from .common import INCLUDE, TransferResult


@dataclass(frozen=True)
class ImportParams:
    """What is to be imported; see the documentation of ``containerd_checkpoint_archive``."""

    #: Of the checkpoint in containerd.
    name: str
    #: Absolute path of the archive.
    path: str
    base: str = INCLUDE
    #: Whether the base image gets the name that the checkpoint has for it, else a private one.
    tag_base: bool = False
    #: The digest that the checkpoint must have; empty: any.
    digest: str = ""
    #: Bytes that a compressed archive may expand to; None: what fits on the disk.
    max_bytes: int | None = None
    #: The lease to work under; empty: one of our own for the call.
    lease: str = ""
    owner: str = core_labels.DEFAULT_OWNER
    force: bool = False

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> ImportParams:
        """As the module's options have it."""
        return cls(
            name=options["name"],
            path=os.path.abspath(options["path"]),
            base=options["base"],
            tag_base=options["tag_base"],
            digest=options["digest"] or "",
            max_bytes=options["max_bytes"],
            lease=options["lease"] or "",
            owner=options["owner"],
            force=options["force"],
        )


@dataclass(frozen=True)
class _Found:
    """The checkpoint that is meant."""

    digest: str
    #: Its base image; None when it names none.
    base: Descriptor | None
    base_name: str
    #: Whether the base image surely comes along.
    comes: bool


def run(client: Client, params: ImportParams, check: bool) -> TransferResult:
    """Have the checkpoint, and with ``base: include`` a record of its base image where its content is there.

    Raises as ``_image.image.present``; InputError ``not_a_checkpoint`` for an archive without one.
    """
    if params.digest:
        check_digest(params.digest, "The option digest")
    result = TransferResult()
    with result.timed():
        _run(client, params, check, result)
    return result


def _run(client: Client, params: ImportParams, check: bool, result: TransferResult) -> None:
    result.transferred = {"path": params.path, "compression": None, "size": None, "blobs": None, "kept": None}
    found = _look(client, params, result)
    base = _plan_base(client, params, found, result)
    before = images.get(client, params.name)
    image = image_state.ImageParams(
        name=params.name,
        archive=params.path,
        unpack=False,
        digest=found.digest,
        lease=params.lease,
        owner=params.owner,
        force=params.force,
    )
    done = image_steps.present(client, image, check)
    result.changed, result.actions = done.changed, done.actions
    result.warnings.extend(done.warnings)
    result.digest, result.before, result.after = found.digest, done.before, done.after
    if base.image is not None:
        result.changed = True
        result.actions += base.actions
        if not check:
            _name_base(client, params, base, fresh=before is None and done.created)


def _look(client: Client, params: ImportParams, result: TransferResult) -> _Found:
    """Which checkpoint is meant, from the archive's documents, or from the store where it is whole there."""
    known = images.get(client, params.name)
    if known is not None and params.digest == known.target.digest and image_tree.survey(client, known.target).is_whole:
        checkpoint = checkpoint_reader.load(client, params.name)
        return _Found(params.digest, checkpoint.base, checkpoint.base_name, comes=False)
    limits = Limits() if params.max_bytes is None else Limits(max_total=params.max_bytes)
    with open_archive(params.path, limits=limits, expansion=Expansion(params.max_bytes)) as archive:
        entry = _entry(archive, params)
        plan = archive_import.plan(client, archive, entry)
        if not plan.is_checkpoint:
            _refuse_others(client, archive, plan, params.path)
            raise InputError(
                "not_a_checkpoint",
                f"The archive {params.path} has {entry.name or entry.descriptor.digest}, which is no checkpoint.",
                "Give an archive of a checkpoint; containerd_image imports ordinary images.",
            )
        every = {child.digest for children in plan.graph.values() for child in children} | {plan.digest}
        result.transferred.update(
            compression=archive.compression,
            size=os.stat(params.path).st_size,
            blobs=len(every),
            kept=len(every) - len(plan.absent),
        )
        index = oci_image.parse_object(archive.document(entry.descriptor), f"The index {plan.digest}")
        annotations = content.mapping(index, "annotations", plan.digest)
        children = oci_image.parse_descriptors(index.get("manifests"), f"The index {plan.digest}")
        brought = {child.digest for child in plan.graph[plan.digest]}
        for child in children:
            # Only the base image may come another way.
            if not child.has_children and child.digest not in brought and content.stat(client, child.digest) is None:
                raise oci_image.missing(child)
        base = next((child.bare() for child in children if child.has_children), None)
        return _Found(plan.digest, base, checkpoint_reader.base_name(annotations), comes=not plan.partial)


def _refuse_others(client: Client, archive: Archive, plan: archive_import.Plan, path: str) -> None:
    """An image of another tool's archive, as buildah and podman write it out."""
    target = plan.entry.descriptor
    if target.is_index:
        manifests = [child for child in plan.graph[target.digest] if child.has_children]
        if len(manifests) != 1:
            return
        target = manifests[0]
    what = f"The manifest {target.digest}"
    document = oci_image.parse_object(archive.document(target), what)
    annotations = content.mapping(document, "annotations", target.digest)
    if not checkpoint_reader.is_another_tools(annotations):
        return
    layers = oci_image.parse_descriptors(document.get("layers"), what)
    bring = f"Have containerd_image import {path}, then run"
    error = checkpoint_reader.another_tools(
        f"The image in the archive {path}", annotations, layers, client.namespace, bring
    )
    if error is not None:
        raise error


def _entry(archive: Archive, params: ImportParams) -> ArchiveImage:
    """The image with the digest that is wanted, else with the name, else the only checkpoint that there is."""
    found = [image for image in archive.images if image.descriptor.digest == params.digest]
    if found:
        return found[0]
    if params.digest:
        images_there = [image.descriptor.digest for image in archive.images][:100]
        what = f"The archive {params.path} has {', '.join(images_there[:3]) or 'no image'}"
        raise image_state.digest_mismatch(what, params.digest, images=images_there)
    named = [image for image in archive.images if image.name == params.name]
    every = {image.descriptor.digest: image for image in (named or archive.images) if image.descriptor.is_index}
    if len(every) > 1:
        every = {digest: image for digest, image in every.items() if _is_checkpoint(archive, image)}
    if len(every) == 1:
        return next(iter(every.values()))
    return archive_import.choose(archive, params.name, params.digest)


def _is_checkpoint(archive: Archive, image: ArchiveImage) -> bool:
    graph = archive.graph(image, allow_missing=image_tree.Anything())
    return image_tree.is_checkpoint(graph.get(image.descriptor.digest, ()))


def _plan_base(client: Client, params: ImportParams, found: _Found, result: TransferResult) -> base_image.Plan:
    """What the base image needs for a restore to find it."""
    base = found.base if params.base == INCLUDE else None
    plan = base_image.plan(client, base, found.base_name, params.owner, found.comes, params.tag_base)
    if base is not None and plan.absent:
        result.warnings.append(
            f"The base image {found.base_name or base.digest} is neither in {params.path} nor on this node; it has to "
            "come another way before a restore."
        )
    if plan.warning:
        result.warnings.append(plan.warning)
    return plan


def _name_base(client: Client, params: ImportParams, plan: base_image.Plan, fresh: bool) -> None:
    """Make the record; a failure takes the checkpoint's, if ``fresh``, back."""
    try:
        with leases.hold(client, params.lease or None, f"base image of {params.name}"):
            base_image.make(client, plan)
    except BaseException:
        if fresh:
            images.delete(client, params.name)
        raise
