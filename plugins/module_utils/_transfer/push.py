# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A checkpoint goes to a registry, blob by blob out of containerd's content store; or its tag goes from there again."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from .._checkpoint.reader import Checkpoint
from .._containerd import content
from .._containerd.client import Client
from .._core.errors import ConflictError, InputError, NodeError
from .._oci import image as oci_image
from .._oci.image import Descriptor
from .._registry.repository import Repository, digest_of
from .._streams.streams import verified
from . import registry_manifest
from .common import TransferResult, from_store, in_store, load
from .registry import RegistryParams


def run(client: Client, repository: Repository, params: RegistryParams, check: bool) -> TransferResult:
    """Have the checkpoint under the reference. The manifest comes last, when all blobs are there.

    Raises InputError, ConflictError ``registry_tag_taken`` and NodeError.
    """
    result = TransferResult()
    with result.timed():
        _run(client, repository, params, check, result)
    return result


def _run(client: Client, repository: Repository, params: RegistryParams, check: bool, result: TransferResult) -> None:
    checkpoint, target = load(client, params.name, params.digest)
    collected = _collect(client, target, params)
    data = registry_manifest.document(collected, checkpoint.base_name, checkpoint.layout, checkpoint.signature)
    result.digest, result.after = checkpoint.digest, _brief(checkpoint.digest, data)
    existing = repository.manifest()
    kept = existing is not None and _is_kept(existing, data, checkpoint, params, result)
    if kept and existing is not None:
        data, result.after = existing, result.before
    wanted = [part.descriptor for part in collected.parts] + [registry_manifest.CONFIG]
    missing = [blob for blob in wanted if not repository.has_blob(blob.digest, blob.size)]
    if missing or not kept:
        result.changed = True
        result.actions.append(f"push {checkpoint.digest} to {params.reference}")
    if not check:
        client.track.phase("push", sum(blob.size for blob in missing))
        for blob in missing:
            repository.upload(blob.digest, blob.size, functools.partial(_bytes, client, blob))
        if result.changed:
            repository.put_manifest(data)
    result.transferred = {
        "reference": str(params.reference),
        "manifest_digest": digest_of(data),
        "blobs": len(wanted),
        "kept": len(wanted) - len(missing),
        "bytes": sum(blob.size for blob in missing),
    }


def _collect(client: Client, target: Descriptor, params: RegistryParams) -> registry_manifest.Collected:
    graph = oci_image.walk(target, lambda level: from_store(client, level), None)
    collected = registry_manifest.collect(target, graph, lambda item: in_store(client, item), params.base)
    top = next((child for child in graph[target.digest] if child.has_children), None)
    if params.base and top is not None and not collected.base_whole:
        raise registry_manifest.missing(top)
    return collected


def _is_kept(
    existing: bytes, data: bytes, checkpoint: Checkpoint, params: RegistryParams, result: TransferResult
) -> bool:
    """Whether what the tag stands for will do. Raises ConflictError ``registry_tag_taken``."""
    if existing == data:
        result.before = result.after
        return True
    try:
        manifest = registry_manifest.read(existing, str(params.reference))
    except InputError:
        manifest = None
    result.before = _brief(manifest.target.digest if manifest else None, existing)
    digest = checkpoint.digest
    if manifest is not None and manifest.target.digest == digest:
        return (manifest.has_base or not params.base) and checkpoint.signature in ("", manifest.signature)
    if not params.force:
        raise _tag_taken(params, manifest.target.digest if manifest else None, digest)
    return False


def absent(repository: Repository, params: RegistryParams, check: bool) -> TransferResult:
    """Have the tag absent. The blobs are the registry's to collect, when no tag needs them any more.

    Raises ConflictError ``registry_tag_taken`` where it stands for something else than ``params.digest``.
    """
    result = TransferResult(digest=params.digest)
    with result.timed():
        existing = repository.manifest()
        if existing is not None:
            _take_away(repository, params, existing, check, result)
    return result


def _take_away(
    repository: Repository, params: RegistryParams, existing: bytes, check: bool, result: TransferResult
) -> None:
    try:
        found = registry_manifest.read(existing, str(params.reference)).target.digest
    except InputError:
        found = None
    if params.digest not in ("", found) and not params.force:
        raise _tag_taken(params, found, params.digest)
    result.changed = True
    result.actions.append(f"delete the tag {params.reference} ({found or 'no checkpoint'})")
    result.before, result.transferred = _brief(found, existing), {"reference": str(params.reference)}
    if not check and not repository.delete_tag():
        raise NodeError(
            "registry_delete_unsupported",
            f"The registry does not delete the tag {params.reference}.",
            "Allow it to (distribution: from version 3 on, with REGISTRY_STORAGE_DELETE_ENABLED=true), or delete the "
            "tag with the registry's own tool: it stands for the memory of processes.",
        )


def _tag_taken(params: RegistryParams, found: str | None, wanted: str) -> ConflictError:
    return ConflictError(
        "registry_tag_taken",
        f"The tag {params.reference} stands for "
        f"{f'the checkpoint {found}' if found else 'something else'}, not for {wanted}.",
        "Use another tag; force: true moves or deletes this one.",
        details={"found": found, "wanted": wanted},
    )


def _brief(digest: str | None, data: bytes) -> dict[str, Any]:
    return {"digest": digest, "manifest_digest": digest_of(data)}


def _bytes(client: Client, blob: Descriptor) -> Iterable[bytes]:
    if blob.digest == registry_manifest.CONFIG.digest:
        return [registry_manifest.EMPTY]
    chunks = content.read(client, blob.digest, blob.size, client.seconds_for(blob.size, slow_end=True))
    what = f"The blob {blob.digest} in containerd's content store"
    return verified(chunks, digest=blob.digest, size=blob.size, what=what)
