# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A checkpoint goes to a registry, blob by blob out of containerd's content store."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable
from typing import Any

from .._checkpoint import reader as checkpoint_reader
from .._containerd import content, images
from .._containerd.client import Client
from .._core.errors import ConflictError, InputError
from .._oci import image as oci_image
from .._oci.image import Descriptor
from .._registry.repository import Repository, digest_of
from .._streams.streams import verified
from . import registry_manifest
from .registry import RegistryParams, RegistryResult, digest_mismatch, from_store, in_store


def run(client: Client, repository: Repository, params: RegistryParams, check: bool) -> RegistryResult:
    """Have the checkpoint under the reference. The manifest comes last, when all blobs are there.

    Raises InputError, ConflictError ``registry_tag_taken`` and NodeError.
    """
    began = time.monotonic()
    checkpoint = checkpoint_reader.load(client, params.name)
    if params.digest not in ("", checkpoint.digest):
        raise digest_mismatch(f"The image {params.name}", checkpoint.digest, params.digest)
    collected = _collect(client, checkpoint, params)
    data = registry_manifest.document(collected, checkpoint.base_name, checkpoint.layout)
    result = RegistryResult(digest=checkpoint.digest, after=_brief(checkpoint.digest, data))
    there = repository.manifest()
    kept = there is not None and _is_kept(there, data, checkpoint.digest, params, result)
    if kept and there is not None:
        data, result.after = there, result.before
    wanted = [part.descriptor for part in collected.parts] + [registry_manifest.CONFIG]
    lacking = [blob for blob in wanted if not repository.has_blob(blob.digest, blob.size)]
    if lacking or not kept:
        result.changed = True
        result.actions.append(f"push {checkpoint.digest} to {params.reference}")
    if not check:
        for blob in lacking:
            repository.upload(blob.digest, blob.size, functools.partial(_bytes, client, blob))
        if result.changed:
            repository.put_manifest(data)
    result.registry = {
        "reference": str(params.reference),
        "manifest_digest": digest_of(data),
        "blobs": len(wanted),
        "kept": len(wanted) - len(lacking),
        "bytes": sum(blob.size for blob in lacking),
    }
    result.seconds = round(time.monotonic() - began, 3)
    return result


def _collect(
    client: Client, checkpoint: checkpoint_reader.Checkpoint, params: RegistryParams
) -> registry_manifest.Collected:
    record = images.get(client, params.name)
    if record is None or record.target.digest != checkpoint.digest:
        raise InputError("checkpoint_absent", f"The image {params.name} changed while it was read.", "Run again.")
    target = record.target
    graph = oci_image.walk(target, lambda level: from_store(client, level), None)
    collected = registry_manifest.collect(target, graph, lambda item: in_store(client, item), params.base)
    top = next((child for child in graph[target.digest] if child.has_children), None)
    if params.base and top is not None and not collected.base_whole:
        raise registry_manifest.lacking(top)
    return collected


def _is_kept(there: bytes, data: bytes, digest: str, params: RegistryParams, result: RegistryResult) -> bool:
    """Whether what the tag stands for will do. Raises ConflictError ``registry_tag_taken``."""
    if there == data:
        result.before = result.after
        return True
    try:
        form = registry_manifest.read(there, str(params.reference))
    except InputError:
        form = None
    result.before = _brief(form.target.digest if form else None, there)
    if form is not None and form.target.digest == digest:
        return form.has_base or not params.base
    if not params.force:
        raise ConflictError(
            "registry_tag_taken",
            f"The tag {params.reference} stands for "
            f"{f'the checkpoint {form.target.digest}' if form else 'something else'}, not for {digest}.",
            "Push to another tag; force: true moves this one.",
            details={"found": form.target.digest if form else None, "wanted": digest},
        )
    return False


def _brief(digest: str | None, data: bytes) -> dict[str, Any]:
    return {"digest": digest, "manifest_digest": digest_of(data)}


def _bytes(client: Client, blob: Descriptor) -> Iterable[bytes]:
    if blob.digest == registry_manifest.CONFIG.digest:
        return [registry_manifest.EMPTY]
    chunks = content.read(client, blob.digest, blob.size)
    what = f"The blob {blob.digest} in containerd's content store"
    return verified(chunks, digest=blob.digest, size=blob.size, what=what)
