# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A checkpoint goes to a registry, blob by blob out of containerd's content store. Private: this collection's only."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable
from typing import Any

from ansible_collections.gpuops.restore.plugins.module_utils import _archive_oci as _oci
from ansible_collections.gpuops.restore.plugins.module_utils import (
    _checkpoint,
    _content,
    _image_tree,
    _images,
    _registry_form,
)
from ansible_collections.gpuops.restore.plugins.module_utils._archive_oci import Descriptor
from ansible_collections.gpuops.restore.plugins.module_utils._client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._errors import ConflictError, InputError
from ansible_collections.gpuops.restore.plugins.module_utils._registry_api import Repository, digest_of
from ansible_collections.gpuops.restore.plugins.module_utils._registry_step import (
    Outcome,
    Wish,
    digest_mismatch,
    from_store,
    in_store,
    patience,
)
from ansible_collections.gpuops.restore.plugins.module_utils._streams import verified


def run(client: Client, repository: Repository, wish: Wish, check: bool) -> Outcome:
    """Have the checkpoint under the reference. The manifest comes last, when all blobs are there.

    Raises InputError, ConflictError ``registry_tag_taken`` and NodeError.
    """
    began = time.monotonic()
    checkpoint = _checkpoint.load(client, wish.name)
    if wish.digest not in ("", checkpoint.digest):
        raise digest_mismatch(f"The image {wish.name}", checkpoint.digest, wish.digest)
    collected = _collect(client, checkpoint, wish)
    data = _registry_form.document(collected, checkpoint.base_name, checkpoint.layout)
    outcome = Outcome(digest=checkpoint.digest, after=_brief(checkpoint.digest, data))
    there = repository.manifest()
    kept = there is not None and _is_kept(there, data, checkpoint.digest, wish, outcome)
    if kept and there is not None:
        data, outcome.after = there, outcome.before
    wanted = [part.descriptor for part in collected.parts] + [_registry_form.CONFIG]
    lacking = [blob for blob in wanted if not repository.has_blob(blob.digest, blob.size)]
    if lacking or not kept:
        outcome.changed = True
        outcome.actions.append(f"push {checkpoint.digest} to {wish.reference}")
    if not check:
        for blob in lacking:
            repository.upload(blob.digest, blob.size, functools.partial(_bytes, client, blob))
        if outcome.changed:
            repository.put_manifest(data)
    outcome.registry = {
        "reference": str(wish.reference),
        "manifest_digest": digest_of(data),
        "blobs": len(wanted),
        "kept": len(wanted) - len(lacking),
        "bytes": sum(blob.size for blob in lacking),
    }
    outcome.seconds = round(time.monotonic() - began, 3)
    return outcome


def _collect(client: Client, checkpoint: _checkpoint.Checkpoint, wish: Wish) -> _registry_form.Collected:
    record = _images.get(client, wish.name)
    if record is None or record.target.digest != checkpoint.digest:
        raise InputError("checkpoint_absent", f"The image {wish.name} changed while it was read.", "Run again.")
    target = _image_tree.from_record(record.target)
    graph = _oci.walk(target, lambda level: from_store(client, level), None)
    collected = _registry_form.collect(target, graph, lambda item: in_store(client, item), wish.base)
    top = next((child for child in graph[target.digest] if child.has_children), None)
    if wish.base and top is not None and not collected.base_whole:
        raise _registry_form.lacking(top)
    return collected


def _is_kept(there: bytes, data: bytes, digest: str, wish: Wish, outcome: Outcome) -> bool:
    """Whether what the tag stands for will do. Raises ConflictError ``registry_tag_taken``."""
    if there == data:
        outcome.before = outcome.after
        return True
    try:
        form = _registry_form.read(there, str(wish.reference))
    except InputError:
        form = None
    outcome.before = _brief(form.target.digest if form else None, there)
    if form is not None and form.target.digest == digest:
        return form.has_base or not wish.base
    if not wish.force:
        raise ConflictError(
            "registry_tag_taken",
            f"The tag {wish.reference} stands for "
            f"{f'the checkpoint {form.target.digest}' if form else 'something else'}, not for {digest}.",
            "Push to another tag; force: true moves this one.",
            details={"found": form.target.digest if form else None, "wanted": digest},
        )
    return False


def _brief(digest: str | None, data: bytes) -> dict[str, Any]:
    return {"digest": digest, "manifest_digest": digest_of(data)}


def _bytes(client: Client, blob: Descriptor) -> Iterable[bytes]:
    if blob.digest == _registry_form.CONFIG.digest:
        return [_registry_form.EMPTY]
    chunks = _content.read(client, blob.digest, blob.size, patience(blob.size))
    what = f"The blob {blob.digest} in containerd's content store"
    return verified(chunks, digest=blob.digest, size=blob.size, what=what)
