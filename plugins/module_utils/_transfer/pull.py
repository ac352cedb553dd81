# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A checkpoint comes from a registry into containerd's content store.

Nothing that the registry says is believed: every document is read by size, digest and type before what it names is
asked for, and every blob is verified on its way, by us and by the daemon.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from .._checkpoint import on_node, reader as checkpoint_reader
from .._containerd import content, images, leases, space
from .._containerd.client import Client
from .._containerd.images import Image
from .._core import labels as core_labels
from .._core.errors import AlreadyExistsError, ConflictError, InputError
from .._core.text import check_digest
from .._image import state as image_state, tree
from .._oci import image as oci_image
from .._oci.image import Descriptor
from .._registry.repository import Repository, digest_of
from .._streams import streams
from . import base_image, node_files, registry_manifest
from .common import TransferResult, from_store, in_store
from .node_files import NodeFiles
from .registry import RegistryParams
from .registry_manifest import Collected, Manifest

_TASK_LABEL = "containerd.io/checkpoint"


@dataclass(frozen=True)
class _Plan:
    """What a pull will do."""

    manifest: Manifest
    collected: Collected
    #: Digest of each index and manifest -> its children.
    graph: Mapping[str, list[Descriptor]]
    #: Digest of each index and manifest -> its bytes.
    documents: Mapping[str, bytes]
    #: Blobs to fetch.
    absent: tuple[Descriptor, ...]
    #: Whether documents are without labels that keep what they name from garbage collection.
    unprotected: bool
    base: base_image.Plan
    #: Of a checkpoint whose memory is not in its image.
    files: NodeFiles | None = None

    @property
    def files_bytes(self) -> int:
        """What of them has to come."""
        return 0 if self.files is None or self.files.there else self.files.size

    @property
    def digest(self) -> str:
        return self.manifest.target.digest


def run(client: Client, repository: Repository, params: RegistryParams, check: bool) -> TransferResult:
    """Have the checkpoint, whole, under its name, and its base image where it came with it.

    Raises InputError, ConflictError ``image_other_digest``, ``image_not_ours`` and NodeError. After a failure no record
    and no content of this call is left, unless it was under a lease of the caller's.
    """
    if params.digest:
        check_digest(params.digest, "The option digest")
    result = TransferResult()
    with result.timed():
        _run(client, repository, params, check, result)
    return result


def _run(client: Client, repository: Repository, params: RegistryParams, check: bool, result: TransferResult) -> None:
    found = images.get(client, params.name)
    if found is not None and params.digest == found.target.digest and _is_complete(client, params, found):
        # What it is and that it is there is known: the registry need not even be up.
        result.digest = params.digest
        result.before = result.after = {"digest": params.digest}
        unknown = dict.fromkeys(("manifest_digest", "blobs", "kept"))
        result.transferred = {"reference": str(params.reference), **unknown, "bytes": 0}
        return
    data = repository.manifest()
    if data is None:
        raise InputError(
            "registry_not_found",
            f"The registry has no {params.reference}.",
            "Correct the reference, or push the checkpoint first.",
        )
    manifest = registry_manifest.read(data, str(params.reference))
    if params.digest not in ("", manifest.target.digest):
        what = f"The checkpoint {params.reference} is {manifest.target.digest}"
        raise image_state.digest_mismatch(what, params.digest, found=manifest.target.digest)
    _require_movable(found, params, manifest.target.digest)
    plan = _plan(client, repository, params, manifest)
    result.digest = plan.digest
    result.before = {"digest": found.target.digest} if found else {}
    result.after = {"digest": plan.digest}
    _announce(params, plan, found, result)
    result.changed = bool(result.actions)
    result.transferred = {"reference": str(params.reference), "manifest_digest": digest_of(data)}
    _count(result, plan, plan.absent, plan.files_bytes)
    in_store_bytes = result.transferred["bytes"] - plan.files_bytes
    space.require(client, f"The checkpoint {params.reference} brings", in_store_bytes)
    if result.changed and not check:
        client.track.phase("pull", result.transferred["bytes"])
        seconds = client.seconds_for(result.transferred["bytes"], slow_end=True)
        with leases.hold(client, params.lease or None, f"pull {params.name}", seconds, goes_on=True):
            size = plan.files_bytes
            fetched = _fetch(client, repository, plan)
            with node_files.arrived(client, repository, plan.files) if plan.files else nullcontext():
                _record(client, params, plan, found)
            _count(result, plan, fetched, size)


def _count(result: TransferResult, plan: _Plan, fetched: Sequence[Descriptor], files: int) -> None:
    """``files``: bytes beside the blobs."""
    blobs = len(plan.collected.parts)
    size = sum(blob.size for blob in fetched) + files
    result.transferred.update({"blobs": blobs, "kept": blobs - len(fetched), "bytes": size})


def _is_complete(client: Client, params: RegistryParams, found: Image) -> bool:
    """Whether everything of the image is in the store, and its base image has a name."""
    target = found.target
    graph = oci_image.walk(target, lambda level: from_store(client, level), None)
    try:
        collected = registry_manifest.collect(target, graph, lambda item: in_store(client, item), params.base)
    except InputError:
        return False
    if not node_files.is_whole(client, node_files.list_of(graph[target.digest]), target.digest, params.staging_dir):
        return False
    top = next((child for child in graph[target.digest] if child.has_children), None)
    return not params.base or top is None or (collected.base_whole and base_image.is_named(client, top.digest))


def _require_movable(found: Image | None, params: RegistryParams, digest: str) -> None:
    """Another digest under the name is only replaced by force."""
    if found is None or found.target.digest == digest or params.force:
        return
    raise image_state.other_digest(
        image_state.ImageParams(name=params.name, owner=params.owner), found.target.digest, digest
    )


def _plan(client: Client, repository: Repository, params: RegistryParams, manifest: Manifest) -> _Plan:
    documents: dict[str, bytes] = {}

    def load(level: Iterable[Descriptor]) -> Mapping[str, bytes]:
        wanted = [item for item in level if _offered(manifest, item)]
        found = dict(from_store(client, wanted))
        for item in wanted:
            if item.digest not in found:
                found[item.digest] = _document(repository, item)
        documents.update(found)
        return found

    graph = oci_image.walk(manifest.target, load, None)
    if not tree.is_checkpoint(graph.get(manifest.target.digest, ())):
        raise InputError(
            "not_a_checkpoint",
            f"The index {manifest.target.digest} of {params.reference} names no parts of a checkpoint.",
            "Give the reference of a checkpoint that this module pushed.",
        )
    collected = registry_manifest.collect(manifest.target, graph, lambda item: _offered(manifest, item), params.base)
    absent = tuple(part.descriptor for part in collected.parts if not in_store(client, part.descriptor))
    unprotected = any(_gc_labels(client, graph, collected, part.descriptor) for part in collected.parts)
    top = next((child for child in graph[manifest.target.digest] if child.has_children), None)
    annotations = _annotations(documents[manifest.target.digest])
    name = checkpoint_reader.base_name(annotations)
    wanted = top if params.base else None
    base = base_image.plan(client, wanted, name, params.owner, collected.base_whole, params.tag_base)
    files, listed = None, node_files.list_of(graph[manifest.target.digest])
    if listed is not None:
        node_files.require_known_server(params.reference, params.certificate)
        data = _document(repository, listed, on_node.MAX_LIST)
        documents[listed.digest] = data
        files = node_files.read(manifest.target.digest, listed, data, annotations, params.staging_dir)
    return _Plan(manifest, collected, graph, documents, absent, unprotected, base, files)


def _gc_labels(
    client: Client, graph: registry_manifest.Graph, collected: Collected, item: Descriptor
) -> dict[str, str]:
    """Those that a document has not in the store, or would not have when it comes there."""
    if not item.has_children:
        return {}
    taken = {part.descriptor.digest for part in collected.parts}
    below = [child for child in graph[item.digest] if child.digest in taken]
    blob = content.stat(client, item.digest)
    return tree.gc_labels(below, blob.labels if blob else {}, not item.is_index)


def _offered(manifest: Manifest, item: Descriptor) -> bool:
    blob = manifest.blobs.get(item.digest)
    return blob is not None and blob.size == item.size


def _document(repository: Repository, item: Descriptor, most: int = oci_image.MAX_MANIFEST) -> bytes:
    if item.size > most:
        raise InputError(
            "manifest_too_large",
            f"The document {item.digest} in the registry claims {item.size} bytes; at most {most} are usual.",
            "The checkpoint is damaged or hostile: push it again.",
        )
    return b"".join(_verified(repository, item))


def _verified(repository: Repository, item: Descriptor) -> Iterable[bytes]:
    what = f"The blob {item.digest} that the registry sent"
    return streams.verified(repository.blob(item.digest, item.size), digest=item.digest, size=item.size, what=what)


def _annotations(index: bytes) -> dict[str, Any]:
    found = oci_image.parse_object(index, "The index of the checkpoint").get("annotations")
    return found if isinstance(found, dict) else {}


def _announce(params: RegistryParams, plan: _Plan, found: Image | None, result: TransferResult) -> None:
    if plan.absent or plan.files_bytes or found is None or found.target.digest != plan.digest:
        result.actions.append(f"pull {plan.digest} from {params.reference}")
    elif plan.unprotected:
        result.actions.append(f"protect {plan.digest} from garbage collection")
    if plan.manifest.signature and found is not None and not _signature(plan, found):
        result.actions.append(f"sign {params.name} as it is in the registry")
    result.actions += plan.base.actions
    if found is not None and found.target.digest != plan.digest:
        result.actions.append(f"move {params.name} from {found.target.digest} to {plan.digest}")
    if plan.base.warning:
        result.warnings.append(plan.base.warning)
    if plan.base.absent:
        top = next(child.digest for child in plan.graph[plan.digest] if child.has_children)
        result.warnings.append(
            f"The checkpoint {params.reference} comes without its base image {top}, which has to come another way "
            "before a restore."
        )


def _fetch(client: Client, repository: Repository, plan: _Plan) -> list[Descriptor]:
    """Bring in what is missing, which may be more than planned: the lease of a killed run took what only it kept."""
    fetched = []
    with space.explained("during the pull"):
        # Children first: a document never stands for something that is not there.
        for part in reversed(plan.collected.parts):
            blob = part.descriptor
            labels = _gc_labels(client, plan.graph, plan.collected, blob)
            chunks: Iterable[bytes] = ()
            if not in_store(client, blob):
                fetched.append(blob)
                known = plan.documents.get(blob.digest)
                chunks = [known] if known is not None else _verified(repository, blob)
            # What is there is offered all the same, without data: that puts it under the lease.
            written = content.write(client, chunks, blob.digest, blob.size, labels, slow_end=True)
            if labels and not written:
                content.set_labels(client, blob.digest, labels)
    return fetched


def _record(client: Client, params: RegistryParams, plan: _Plan, found: Image | None) -> None:
    """The names come last, the checkpoint's after its base image's."""
    with base_image.made(client, plan.base):
        target = plan.manifest.target.bare()
        labels = {core_labels.OWNER: params.owner} if found is None else dict(found.labels)
        signature = _signature(plan, found) or plan.manifest.signature
        for name in (_TASK_LABEL, core_labels.SIGNATURE):
            labels.pop(name, None)
        if signature:
            labels[core_labels.SIGNATURE] = signature
        if plan.manifest.layout == "task":
            labels[_TASK_LABEL] = "true"
        if found is None:
            _create(client, params, Image(params.name, target, labels))
        elif found.target.digest != plan.digest or signature != _signature(plan, found):
            images.update(client, Image(params.name, target, labels), ["target", "labels"])


def _signature(plan: _Plan, found: Image | None) -> str:
    """The one that the checkpoint has here already."""
    if found is None or found.target.digest != plan.digest:
        return ""
    return found.labels.get(core_labels.SIGNATURE, "")


def _create(client: Client, params: RegistryParams, image: Image) -> None:
    try:
        images.create(client, image)
    except AlreadyExistsError as error:
        other = images.get(client, params.name)
        if other is None or other.target.digest != image.target.digest:
            raise ConflictError(
                "image_other_digest",
                f"The image {params.name} came into being with another digest during the pull.",
                "Run again, or use another name.",
            ) from error
