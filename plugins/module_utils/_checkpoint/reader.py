# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a checkpoint image holds.

Two layouts are read: the one of ``ctr containers checkpoint`` (annotations ``io.containerd.checkpoint.*`` on the
index) and the poorer one of ``ctr tasks checkpoint`` (image label ``containerd.io/checkpoint``, annotation
``image.name``). Media types and annotations as in containerd's core/images and client packages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._containerd import content, daemon, images, messages
from .._containerd.client import Client
from .._containerd.images import Image
from .._core import labels, strict_json
from .._core.errors import ConflictError, InputError
from .._criu.config import RECORDED
from .._oci.facts import Facts
from .._oci.image import Descriptor
from . import volumes
from .task_state import TaskState
from .volumes import MemoryVolume

#: Media types of the parts, as containerd's client writes them.
CRIU = "application/vnd.containerd.container.criu.checkpoint.criu.tar"
#: In place of CRIU's images: the list of their files, which lie staged on the node that captured them and nowhere else.
CRIU_FILES = "application/vnd.gpuops.restore.criu-files.v1+json"
#: Of that list's descriptor: what the files add up to.
BYTES_ANNOTATION = labels.PREFIX + "bytes"
#: Of an index that was written later: the digest by which the node knew the checkpoint before.
COMPLETES_ANNOTATION = labels.PREFIX + "completes"
CONFIG = "application/vnd.containerd.container.checkpoint.config.v1+proto"
OPTIONS = "application/vnd.containerd.container.checkpoint.options.v1+proto"
RUNTIME_OPTIONS = "application/vnd.containerd.container.checkpoint.runtime.options+proto"
#: What a capture of this collection has beside the writable layer.
WRITTEN = "application/vnd.gpuops.restore.written.v1+jsonl+gzip"
_LAYERS = frozenset(
    {
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.containerd.container.rw.tar",
    }
)
#: Annotations of the index; the base image's name is under another one where ``ctr tasks checkpoint`` wrote it.
RUNTIME_ANNOTATION = "io.containerd.checkpoint.runtime"
SNAPSHOTTER_ANNOTATION = "io.containerd.checkpoint.snapshotter"
BASE_NAME_ANNOTATION = "org.opencontainers.image.ref.name"
_TASK_BASE_NAME_ANNOTATION = "image.name"
_RUNC_OPTIONS = "containerd.runc.v1.Options"
_CHECKPOINT_OPTIONS = "containerd.runc.v1.CheckpointOptions"
#: Bytes of the options for a checkpoint.
_LONGEST_OPTIONS = 1 << 16
#: Annotations of a manifest by which other tools know a checkpoint.
_OTHERS = (
    "io.kubernetes.cri-o.annotations.checkpoint.",
    "io.podman.annotations.checkpoint.",
    "org.criu.checkpoint.",
)
DEFAULT_SNAPSHOTTER = "overlayfs"
#: Registry and path of an image (distribution/reference), roughly.
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*\Z")
_BYTES = re.compile(r"[0-9]{1,18}\Z")
#: For a base image of which nobody says a name that could be one.
_NAMELESS = "gpuops.restore/base"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint image, taken apart. Descriptors are None where the image lacks the part."""

    name: str
    digest: str
    #: ``container`` or ``task``: which command of ``ctr`` writes it so.
    layout: str
    #: Reference of the base image; may be empty.
    base_name: str
    base: Descriptor | None
    runtime: str
    snapshotter: str
    #: The tar of CRIU's images; where they lie on the node alone, their list's digest and the bytes of the files.
    criu: Descriptor | None
    config: Descriptor | None
    options: Descriptor | None
    runtime_options: Descriptor | None
    writable_layer: Descriptor | None
    #: What a capture of this collection recorded about the node and the process, {} for others' checkpoints.
    facts: Facts = field(default_factory=Facts)
    #: What the processes had of the kernel; None where that was not recorded.
    state: TaskState | None = field(default=None, repr=False)
    #: Of the digest, as ``signature`` has it; "" where nobody signed.
    signature: str = field(default="", repr=False)
    #: By a capture on this node, as its record in containerd says, which no archive and no registry brings.
    captured_here: bool = False
    memory_volumes: tuple[MemoryVolume, ...] = ()
    #: What the writable layer cannot say, see ``written``.
    written: Descriptor | None = None
    #: The digest by which this node knew it before its image was written; "" for others, whoever says so.
    earlier: str = ""

    @property
    def key(self) -> str:
        """The hexadecimal digest, by which its staged directory is named."""
        return self.digest.split(":", 1)[-1]

    @property
    def on_node(self) -> bool:
        """Whether CRIU's images lie in a staging directory of this node alone."""
        return self.criu is not None and self.criu.media_type == CRIU_FILES

    def digest_for(self, known: str) -> str:
        """Its digest, for a comparison with one that was noted: the earlier one, where it is that."""
        return known if known and known == self.earlier else self.digest


def load(client: Client, name: str) -> Checkpoint:
    """Read the checkpoint image of that name.

    Raises InputError ``checkpoint_absent``, ``not_a_checkpoint``, ``memory_volume_invalid`` and those of reading a
    blob. Whether the parts that a restore needs are there is asked separately (:func:`require_criu`).
    """
    image = images.get(client, name)
    if image is None:
        raise InputError(
            "checkpoint_absent",
            f"There is no image {name} in containerd's namespace {client.namespace}.",
            "Import or pull the checkpoint image first (containerd_image), or correct checkpoint or namespace.",
        )
    if not image.target.is_index:
        _refuse_others(client, image)
        raise _not_a_checkpoint(name, f"its media type is {image.target.media_type}, not an OCI index")
    document = content.read_document(client, image.target)
    children = content.children(image.target, document, name)
    annotations = content.mapping(document, "annotations", name)
    task_layout = image.labels.get("containerd.io/checkpoint") == "true"
    marked = task_layout or RUNTIME_ANNOTATION in annotations
    if not marked and not any("containerd.container" in child.media_type for child in children):
        _refuse_others(client, image)
        raise _not_a_checkpoint(name, "its index names no checkpoint parts")

    def first(kinds: frozenset[str]) -> Descriptor | None:
        return next((child for child in children if child.media_type in kinds), None)

    captured_here = image.labels.get(labels.CAPTURED) == image.target.digest
    completes = annotations.get(COMPLETES_ANNOTATION)
    return Checkpoint(
        name=name,
        digest=image.target.digest,
        layout="task" if task_layout else "container",
        base_name=base_name(annotations),
        base=next((child for child in children if child.has_children), None),
        runtime=str(annotations.get(RUNTIME_ANNOTATION) or daemon.DEFAULT_RUNTIME),
        snapshotter=str(annotations.get(SNAPSHOTTER_ANNOTATION) or DEFAULT_SNAPSHOTTER),
        criu=first(frozenset({CRIU})) or _listed(first(frozenset({CRIU_FILES}))),
        config=first(frozenset({CONFIG})),
        options=first(frozenset({OPTIONS})),
        runtime_options=first(frozenset({RUNTIME_OPTIONS})),
        writable_layer=first(_LAYERS),
        facts=Facts.parse(str(annotations.get(labels.FACTS) or "{}")),
        state=TaskState.parse(str(annotations.get(labels.STATE) or "")),
        signature=image.labels.get(labels.SIGNATURE, ""),
        captured_here=captured_here,
        written=first(frozenset({WRITTEN})),
        memory_volumes=tuple(MemoryVolume.read(child) for child in children if child.media_type == volumes.MEDIA_TYPE),
        earlier=completes if captured_here and isinstance(completes, str) else "",
    )


def _listed(files: Descriptor | None) -> Descriptor | None:
    """CRIU's images on the node: the digest of their list, and the bytes of the files."""
    if files is None:
        return None
    size = files.annotations.get(BYTES_ANNOTATION, "")
    return Descriptor(CRIU_FILES, files.digest, int(size) if _BYTES.match(size) else 0)


def _refuse_others(client: Client, image: Image) -> None:
    """Raise InputError ``checkpoint_of_another_tool`` for an archive of the kubelet or podman that is the layer of an
    image, as Kubernetes' documents have buildah make it and ``podman container checkpoint --create-image`` does."""
    target = image.target
    try:
        if target.is_index:
            children = content.children(target, content.read_document(client, target), image.name)
            manifests = [child for child in children if child.has_children and not child.is_index]
            if len(manifests) != 1 or len(children) != 1:
                return
            target = manifests[0]
        document = content.read_document(client, target)
        children = content.children(target, document, image.name)
        annotations = content.mapping(document, "annotations", image.name)
    except InputError:
        # What is wrong with it is said when it is read for what it may be.
        return
    # The first child is the config.
    found = another_tools(f"The image {image.name}", annotations, children[1:], client.namespace)
    if found is not None:
        raise found


def is_another_tools(annotations: Mapping[str, Any]) -> bool:
    """Whether the annotations of a manifest are those of :func:`another_tools`."""
    return any(name.startswith(_OTHERS) for name in annotations)


def another_tools(
    what: str, annotations: Mapping[str, Any], layers: Sequence[Descriptor], namespace: str, bring: str = ""
) -> InputError | None:
    """The error ``checkpoint_of_another_tool`` where a manifest's annotations say that its layer is an archive of the
    kubelet or podman. ``bring``: what has the image come into containerd first, and ends in "then"."""
    mark = next((name for name in annotations if name.startswith(_OTHERS)), "")
    if not mark or not layers:
        return None
    return InputError(
        "checkpoint_of_another_tool",
        f"{what} is a checkpoint of CRI-O, the kubelet or podman, packed into an image ({mark}), which has to be "
        "converted before it can be restored.",
        f"{bring or 'Run'} ctr --namespace {namespace} content get {layers[0].digest} > checkpoint.tar, then "
        "containerd_checkpoint_archive with operation: convert, that path and the name of the new checkpoint.",
        details={"annotation": mark, "layer": layers[0].digest},
    )


def base_name(annotations: Mapping[str, Any]) -> str:
    """The reference of the base image, as the annotations of a checkpoint's index give it; '' where they do not."""
    return str(annotations.get(BASE_NAME_ANNOTATION) or annotations.get(_TASK_BASE_NAME_ANNOTATION) or "")


def private_name(name: str, digest: str) -> str:
    """A name for a base image under which nobody runs it by its tag: ``NAME@sha256:...``.

    ``name`` is what a checkpoint calls it, and so a stranger's word: a tag of that name would be what the next pod gets
    that asks for it and finds it here.
    """
    repository = name.partition("@")[0]
    if ":" in repository.rpartition("/")[2]:
        repository = repository.rpartition(":")[0]
    return f"{repository if _REPOSITORY.match(repository) else _NAMELESS}@{digest}"


def require_criu(checkpoint: Checkpoint) -> Descriptor:
    """The descriptor of the CRIU images. Raises InputError ``checkpoint_without_criu``."""
    if checkpoint.criu is None:
        raise InputError(
            "checkpoint_without_criu",
            f"The checkpoint {checkpoint.name} ({checkpoint.digest}) holds no CRIU images: no process can be "
            "restored from it.",
            "Take it again with the task (ctr: --task); containerd 1.6 and 1.7 leave the images out when one "
            "container is checkpointed a second time.",
        )
    return checkpoint.criu


def gone(checkpoint: Checkpoint, root: str) -> InputError:
    """The error for a checkpoint whose files are not where they should be."""
    return InputError(
        "node_checkpoint_gone",
        f"The memory of the checkpoint {checkpoint.name} ({checkpoint.digest}) lies on the node alone, and not (whole) "
        f"below {root}.",
        "Give the staging_dir that it was captured with; if its files are gone, capture the workload again.",
        details={"digest": checkpoint.digest, "path": root},
    )


def require_image(checkpoint: Checkpoint) -> None:
    """Raise InputError ``checkpoint_on_node`` for one that cannot leave the node yet."""
    if checkpoint.on_node:
        raise InputError(
            "checkpoint_on_node",
            f"The memory of the checkpoint {checkpoint.name} lies staged on the node, not in its image.",
            "Run containerd_checkpoint with state: completed first, which writes the image.",
            details={"digest": checkpoint.digest},
        )


def spec(client: Client, checkpoint: Checkpoint) -> Mapping[str, Any] | None:
    """The original OCI spec, None when the image has none. Raises InputError ``spec_unreadable``."""
    if checkpoint.config is None:
        return None
    data = content.read_all(client, checkpoint.config.digest, checkpoint.config.size)
    try:
        wrapped = messages.message("google.protobuf.Any")
        wrapped.ParseFromString(data)
        return strict_json.parse_object(wrapped.value)
    except Exception as error:  # protobuf's DecodeError has no common base over its versions
        raise InputError(
            "spec_unreadable",
            f"The OCI spec in the checkpoint {checkpoint.name} cannot be read: {error}.",
            "Take the checkpoint again, or give the spec in metadata (ociSpec).",
        ) from error


def runtime_options(client: Client, checkpoint: Checkpoint) -> Any:
    """The original runtime options as a google.protobuf.Any, None when the image has none.

    Raises InputError ``runtime_options_unreadable``.
    """
    if checkpoint.runtime_options is None:
        return None
    descriptor = checkpoint.runtime_options
    data = content.read_all(client, descriptor.digest, descriptor.size)
    found = messages.message("google.protobuf.Any")
    try:
        found.ParseFromString(data)
        # ``ctr`` wraps the options once more in an Any of type google.protobuf.Any on some versions.
        if found.type_url.rsplit("/", 1)[-1] == "google.protobuf.Any":
            inner = messages.message("google.protobuf.Any")
            inner.ParseFromString(found.value)
            found = inner
        if found.type_url.rsplit("/", 1)[-1] == _RUNC_OPTIONS:
            messages.message(_RUNC_OPTIONS).ParseFromString(found.value)
    except Exception as error:  # as in spec()
        raise InputError(
            "runtime_options_unreadable",
            f"The runtime options in the checkpoint {checkpoint.name} cannot be read: {error}.",
            "The image is damaged: take the checkpoint again.",
        ) from error
    return found if found.type_url else None


def dump_options(client: Client, checkpoint: Checkpoint) -> tuple[str, ...]:
    """What CRIU was told for the dump, by its own names: as a capture of this collection recorded it, else as others
    keep it; nothing where nobody did. Raises InputError ``document_invalid``."""
    if checkpoint.facts.criu_options is not None:
        return checkpoint.facts.criu_options
    if checkpoint.options is None or checkpoint.options.size > _LONGEST_OPTIONS:
        return ()
    data = content.read_all(client, checkpoint.options.digest, checkpoint.options.size)
    try:
        wrapped = messages.message("google.protobuf.Any")
        wrapped.ParseFromString(data)
        if wrapped.type_url.rsplit("/", 1)[-1] != _CHECKPOINT_OPTIONS:
            return ()
        found = messages.message(_CHECKPOINT_OPTIONS)
        found.ParseFromString(wrapped.value)
    except Exception as error:  # as in spec()
        raise InputError(
            "document_invalid",
            f"The options of the dump in the checkpoint {checkpoint.name} cannot be read: {error}.",
            "The image is damaged: take the checkpoint again.",
        ) from error
    told = zip(RECORDED, (found.open_tcp, found.file_locks, found.external_unix_sockets))
    return tuple(name for name, wanted in told if wanted)


def base_image(client: Client, checkpoint: Checkpoint | None, name: str) -> Image:
    """The base image: by the digest that the checkpoint recorded, else by name.

    ``name`` overrides the recorded reference. Raises InputError ``base_image_unknown``, ``base_image_absent``,
    ConflictError ``base_image_moved``.
    """
    wanted = name or (checkpoint.base_name if checkpoint else "")
    digest = checkpoint.base.digest if checkpoint and checkpoint.base else ""
    if not wanted and not digest:
        raise InputError(
            "base_image_unknown",
            f"The checkpoint {checkpoint.name if checkpoint else ''} does not say which image its container had.",
            "Give image, or metadata with originalImage.",
        )
    by_name = images.get(client, wanted) if wanted else None
    if by_name is not None and digest in ("", by_name.target.digest):
        return by_name
    same = images.by_digest(client, digest) if digest else []
    if same:
        # Identity is the digest: the same image under another name will do.
        return same[0]
    if by_name is not None:
        raise ConflictError(
            "base_image_moved",
            f"The base image {wanted} is {by_name.target.digest} on this node, but the checkpoint was taken from "
            f"{digest}.",
            "Pull or import the recorded digest (under any name); the root file system has to be the same.",
            details={"name": wanted, "recorded": digest, "found": by_name.target.digest},
        )
    raise InputError(
        "base_image_absent",
        f"The base image {wanted or digest} is not in containerd's namespace {client.namespace}.",
        "Import or pull it first (containerd_image; for the role image_archive or restore_node_pull).",
        details={"name": wanted, "digest": digest},
    )


def _not_a_checkpoint(name: str, why: str) -> InputError:
    return InputError(
        "not_a_checkpoint",
        f"The image {name} is no containerd checkpoint: {why}.",
        "Give the reference of an image made by containerd_checkpoint or ctr containers checkpoint.",
    )
