# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The parts of a checkpoint image go into the content store, and an index and an image record over them.

The layout is the one of ``ctr containers checkpoint`` (containerd's client package), so that ``ctr containers
restore`` understands it, with additional annotations of our own. Everything is written under the lease of the client.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat as stat_module
import tarfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._containerd import containers, content, images, messages, snapshots
from .._containerd.client import Client
from .._containerd.images import Image
from .._core import labels as core_labels
from .._core.errors import RETRYABLE, AlreadyExistsError, InputError, NodeError
from .._oci import image as oci_image
from .._oci.image import Descriptor
from .reader import (
    BASE_NAME_ANNOTATION,
    CONFIG,
    CRIU,
    OPTIONS,
    RUNTIME_ANNOTATION,
    RUNTIME_OPTIONS,
    SNAPSHOTTER_ANNOTATION,
)
from .reclaim import Reclaim
from .staged import REQUIRED
from .volumes import MemoryVolume

#: The one kind of layer that ``ctr containers restore --rw`` looks for.
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
INDEX = "application/vnd.oci.image.index.v1+json"
_PLAIN_TAR = "application/vnd.oci.image.layer.v1.tar"
_RUNC_CHECKPOINT = "containerd.runc.v1.CheckpointOptions"
_BLOCK = 512
_READ = 1024 * 1024


@dataclass(frozen=True)
class Parts:
    """What a checkpoint image is made of."""

    criu: Descriptor
    config: Descriptor
    options: Descriptor
    runtime_options: Descriptor | None = None
    writable_layer: Descriptor | None = None
    #: What that one cannot say, see ``written``.
    written: Descriptor | None = None
    memory_volumes: tuple[MemoryVolume, ...] = ()
    #: The base image's own descriptor, and its reference.
    base: Descriptor | None = None
    base_name: str = ""
    runtime: str = ""
    snapshotter: str = ""
    #: Beyond those that containerd's clients read.
    annotations: Mapping[str, str] = field(default_factory=dict)

    def children(self) -> list[Descriptor]:
        """All that there are, in the order of the index."""
        every = (
            self.base,
            self.criu,
            self.config,
            self.options,
            self.runtime_options,
            self.writable_layer,
            self.written,
            *(volume.annotated() for volume in self.memory_volumes),
        )
        return [part for part in every if part is not None]


def packed_by_daemon(client: Client, directory: str, spent: bool = False) -> Descriptor:
    """A flat directory of CRIU images as one tar, packed by the daemon, which has to see the directory.

    A quarter of the time of :func:`tar_chunks`, since nothing of it goes through the socket. The tar is the one of
    ``ctr``, with the files' times and owners. For directories of our own. ``spent``: nobody needs the files any more,
    and they give their disk back while they are packed. Raises InputError ``criu_images_incomplete`` and
    ``criu_images_not_plain``, NodeError ``dump_freed_too_early``.
    """
    size = 0
    for name in _files(directory):
        path = os.path.join(directory, name)
        found = os.lstat(path)
        if not stat_module.S_ISREG(found.st_mode):
            raise not_plain(path)
        size += found.st_size
    mount = messages.message("containerd.types.Mount", type="bind", source=directory, options=["rbind", "ro"])
    ref = f"gpuops-restore-criu-{uuid.uuid4().hex}"
    if not spent:
        packed = snapshots.diff(client, [], [mount], _PLAIN_TAR, ref, size)
    else:
        reclaim = Reclaim(directory)
        with reclaim.during(client, ref):
            packed = snapshots.diff(client, [], [mount], _PLAIN_TAR, ref, size)
        reclaim.require_packed(client, packed)
    return Descriptor(CRIU, packed.digest, packed.size)


def tar_chunks(directory: str) -> Iterator[bytes]:
    """A flat directory of CRIU images as one tar, without a copy of it anywhere.

    Names are sorted, and times and owners are left out: the same files give the same digest. Raises InputError
    ``criu_images_incomplete``, ``criu_images_not_plain`` and ``criu_images_changed``.
    """
    for name in _files(directory):
        yield from _member(directory, name)
    yield bytes(2 * _BLOCK)


def blob(client: Client, data: bytes, media_type: str) -> Descriptor:
    """A small part, as it is."""
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    content.write(client, [data], digest, len(data), {})
    return Descriptor(media_type, digest, len(data), {})


def spec_blob(client: Client, spec: Mapping[str, Any]) -> Descriptor:
    """The OCI spec as containerd writes it: a marshalled Any whose value is JSON."""
    packed = messages.pack(containers.SPEC_TYPE, json.dumps(spec, separators=(",", ":")).encode())
    return blob(client, packed.SerializeToString(), CONFIG)


def options_blob(client: Client, options: Any = None) -> Descriptor:
    """The options of the dump, a ``containerd.runc.v1.CheckpointOptions`` (None: all of them off)."""
    found = options if options is not None else messages.message(_RUNC_CHECKPOINT)
    return blob(client, messages.pack(_RUNC_CHECKPOINT, found.SerializeToString()).SerializeToString(), OPTIONS)


def runtime_options_blob(client: Client, options: Any) -> Descriptor | None:
    """The container's runtime options, a google.protobuf.Any or None."""
    if options is None or not options.type_url:
        return None
    return blob(client, options.SerializeToString(), RUNTIME_OPTIONS)


def index(
    client: Client, name: str, parts: Parts, labels: Mapping[str, str] | None = None, captured: bool = False
) -> str:
    """Write the index, with a gc label for every child, and the image record ``name``; returns its digest.

    As :func:`store_index` and :func:`record`.
    """
    target = store_index(client, name, index_document(parts), parts.children())
    record(client, name, target, labels, captured)
    return target.digest


def store_index(client: Client, name: str, document: Mapping[str, Any], children: Sequence[Descriptor]) -> Descriptor:
    """Write the index, with a gc label for every child. Raises NodeError ``checkpoint_collected``."""
    for part in children:
        # A lease that has expired protects nothing any more; and the base image may lack.
        if not part.has_children and content.stat(client, part.digest) is None:
            raise NodeError(
                "checkpoint_collected",
                f"The part {part.digest} of the checkpoint {name} is gone from containerd's content store before the "
                "checkpoint was whole: its lease has expired or was deleted.",
                "Run again; if it took longer than expected, lower minimum_rate.",
                outcome=RETRYABLE,
            )
    data = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    keep = gc_labels(children)
    if not content.write(client, [data], digest, len(data), keep):
        # It was there, perhaps by a hand that set no labels.
        content.set_labels(client, digest, keep)
    return Descriptor(INDEX, digest, len(data), {})


def record(
    client: Client, name: str, target: Descriptor, labels: Mapping[str, str] | None = None, captured: bool = False
) -> None:
    """Write the image record ``name`` for an index.

    A record of that name is moved to it: whether it may be is the caller's to decide. ``captured``: the record says
    that this node took the checkpoint.
    """
    marks = {**(labels or {}), **({core_labels.CAPTURED: target.digest} if captured else {})}
    image = Image(name, target, marks)
    try:
        images.create(client, image)
    except AlreadyExistsError:
        images.update(client, image, ["target", "labels"])


def index_document(parts: Parts) -> dict[str, Any]:
    """The index as JSON has it."""
    platform = {"architecture": oci_image.host_platform().architecture, "os": "linux"}
    manifests = []
    for part in parts.children():
        entry: dict[str, Any] = {"mediaType": part.media_type, "digest": part.digest, "size": part.size}
        if part.annotations:
            entry["annotations"] = dict(part.annotations)
        if part is not parts.base:
            entry["platform"] = platform
        manifests.append(entry)
    annotations = dict(parts.annotations)
    named = {
        BASE_NAME_ANNOTATION: parts.base_name,
        RUNTIME_ANNOTATION: parts.runtime,
        SNAPSHOTTER_ANNOTATION: parts.snapshotter,
    }
    annotations.update({key: value for key, value in named.items() if value})
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests, "annotations": annotations}


def gc_labels(children: Sequence[Descriptor]) -> dict[str, str]:
    """What keeps the children for containerd's garbage collection, as containerd's clients name them."""
    found = {}
    for position, child in enumerate(children):
        middle = "m." if child.has_children else ""
        found[f"{core_labels.GC_CONTENT}.{middle}{position}"] = child.digest
    return found


def _files(directory: str) -> list[str]:
    files = sorted(os.listdir(directory))
    missing = [name for name in REQUIRED if name not in files]
    if missing:
        raise InputError(
            "criu_images_incomplete",
            f"The directory {directory} lacks {' and '.join(missing)}, without which nothing can be restored.",
            "Take the checkpoint again, and look for errors in the dump log of that time.",
            details={"missing": missing},
        )
    return files


def _member(directory: str, name: str) -> Iterator[bytes]:
    """Header, content and padding of one file, whose size must not change meanwhile."""
    path = os.path.join(directory, name)
    try:
        # O_NONBLOCK: a named pipe must not hold us up before it is refused.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if not os.path.islink(path) and stat_module.S_ISREG(os.lstat(path).st_mode):
            raise
        raise not_plain(path) from error
    try:
        found = os.fstat(descriptor)
        if not stat_module.S_ISREG(found.st_mode):
            raise not_plain(path)
        header = tarfile.TarInfo(name)
        header.size, header.mode = found.st_size, 0o600
        yield header.tobuf(tarfile.PAX_FORMAT)
        left = found.st_size
        while left:
            chunk = os.read(descriptor, min(_READ, left))
            if not chunk:
                break
            left -= len(chunk)
            yield chunk
        if left or os.fstat(descriptor).st_size != found.st_size:
            raise InputError(
                "criu_images_changed",
                f"The CRIU image {path} changed while it was read.",
                "See that nothing writes into that directory, then run again.",
                details={"path": path},
            )
        yield bytes(-found.st_size % _BLOCK)
    finally:
        os.close(descriptor)


def not_plain(path: str) -> InputError:
    """The error for a path that is no file of CRIU's."""
    return InputError(
        "criu_images_not_plain",
        f"{path} is not a regular file, so it is no CRIU image.",
        "Give a directory that holds the files of one CRIU dump and nothing else.",
        details={"path": path},
    )
