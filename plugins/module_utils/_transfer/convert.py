# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A checkpoint that another tool made becomes a checkpoint image."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from .._archive.members import ArchiveFile
from .._archive.reader import normalized_name
from .._checkpoint import metadata as checkpoint_metadata, reader as checkpoint_reader, writer as checkpoint_writer
from .._containerd import containers, content, images, leases, messages, space
from .._containerd.client import Client
from .._core import labels
from .._core.errors import InputError
from .._image import state as image_state, tree as image_tree
from .._oci import spec_validate
from .._oci.image import Descriptor
from .._streams.decompression import Expansion
from .._streams.tar_reader import Limits
from . import base_image, dump, import_archive
from .common import INCLUDE, OMIT, TransferResult
from .dump import Dump, Origin, Stored

#: Annotation of the index: which kind of dump the image was converted from.
CONVERTED = labels.PREFIX + "converted-from"
_RUNC = "io.containerd.runc.v2"
_RUNC_OPTIONS = "containerd.runc.v1.Options"
_DOCUMENT_LIMIT = 8 << 20
_TOO_LARGE = ("tar_too_large", "archive_bomb", "expansion_limit")


@dataclass(frozen=True)
class ConvertParams:
    """What is to be converted; see the documentation of ``containerd_checkpoint_archive``.

    Empty strings stand for what the dump says, or the default.
    """

    #: Of the checkpoint image that is made.
    name: str
    #: Absolute path of the dump.
    path: str
    base: str = INCLUDE
    #: As of an import.
    tag_base: bool = False
    #: Reference of the base image.
    image: str = ""
    #: Paths on the node, for a directory of CRIU images.
    spec: str = ""
    metadata: str = ""
    rootfs_diff: str = ""
    snapshotter: str = ""
    runtime: str = _RUNC
    systemd_cgroup: bool = False
    #: Bytes that a dump may have; None: what fits on the disk.
    max_bytes: int | None = None
    #: The lease to work under; empty: one of our own for the call.
    lease: str = ""
    owner: str = labels.DEFAULT_OWNER
    force: bool = False

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> ConvertParams:
        """As the module's options have it."""
        texts = ("image", "spec", "metadata", "rootfs_diff", "snapshotter", "lease")
        return cls(
            name=options["name"],
            path=os.path.abspath(options["path"]),
            base=options["base"],
            tag_base=options["tag_base"],
            runtime=options["runtime"],
            systemd_cgroup=options["systemd_cgroup"],
            max_bytes=options["max_bytes"],
            owner=options["owner"],
            force=options["force"],
            **{name: options[name] or "" for name in texts},
        )


@dataclass(frozen=True)
class _Assembly:
    """A checkpoint image, known before one of its parts is written."""

    parts: checkpoint_writer.Parts
    #: The bytes of its small parts, by digest.
    small: dict[str, bytes]
    digest: str


def run(client: Client, params: ConvertParams, check: bool) -> TransferResult:
    """Have the checkpoint image.

    Raises InputError ``dump_invalid``, ``convert_spec_missing`` and what the readers raise, ConflictError
    ``image_other_digest``, ``base_image_moved``, NodeError ``content_no_space``. Before everything is checked nothing
    is created; after a failure nothing of it is left.
    """
    result = TransferResult()
    try:
        with result.timed():
            if os.path.isdir(params.path):
                result.transferred = _transferred(params.path, None, None)
                _converge(client, params, _of_directory(client, params), check, result)
                return result
            with _opened(client, params) as file:
                if "oci-layout" not in file.entries:
                    result.transferred = _transferred(params.path, file.compression, os.stat(params.path).st_size)
                    found = dump.from_archive(file, _bound(client, params))
                    _converge(client, params, found, check, result)
                    return result
        return _import(client, params, check)
    except InputError as error:
        # Without an option it is the disk that bounds it.
        if params.max_bytes is None and error.code in _TOO_LARGE and "max_ratio" not in error.details:
            store = space.content_store(client)
            raise space.shortage(store, f"The checkpoint {params.path} needs", None) from error
        raise


def _import(client: Client, params: ConvertParams, check: bool) -> TransferResult:
    """An archive that containerd's own tools wrote needs no conversion."""
    wanted = import_archive.ImportParams(
        name=params.name,
        path=params.path,
        base=params.base,
        tag_base=params.tag_base,
        max_bytes=params.max_bytes,
        lease=params.lease,
        owner=params.owner,
        force=params.force,
    )
    result = import_archive.run(client, wanted, check)
    result.transferred["kind"] = dump.OCI
    return result


def _transferred(path: str, compression: str | None, size: int | None) -> dict[str, Any]:
    return {"path": path, "compression": compression, "size": size, "blobs": None, "kept": None}


@contextmanager
def _opened(client: Client, params: ConvertParams) -> Iterator[ArchiveFile]:
    bound = _bound(client, params)
    limits = Limits() if bound is None else Limits(max_total=bound)
    file = ArchiveFile(params.path, limits, Expansion(bound), None)
    try:
        yield file
    finally:
        file.close()


def _bound(client: Client, params: ConvertParams) -> int | None:
    """Bytes that a dump may have: the option, else what is free where it goes."""
    if params.max_bytes is not None:
        return params.max_bytes
    return space.content_store(client).free


def _of_directory(client: Client, params: ConvertParams) -> Dump:
    origin = Origin(dump.DIRECTORY)
    if params.metadata:
        metadata = checkpoint_metadata.load(params.metadata)
        spec = dict(metadata.oci_spec) if metadata.oci_spec is not None else None
        origin = replace(origin, image_name=metadata.original_image, snapshotter=metadata.snapshotter)
    else:
        spec = _read_spec(params.spec) if params.spec else None
    if spec is None:
        raise InputError(
            "convert_spec_missing",
            f"Nothing gives the OCI spec of the container that {params.path} was dumped from.",
            "Give spec, or metadata with ociSpec: CRIU needs its mounts and namespaces.",
        )
    return dump.from_directory(params.path, origin, spec, params.rootfs_diff, _bound(client, params))


def _read_spec(path: str) -> dict[str, Any]:
    what = f"The spec {path}"
    try:
        with open(path, "rb") as stream:
            data = stream.read(_DOCUMENT_LIMIT + 1)
    except OSError as error:
        raise dump.invalid(what, f"it cannot be read ({error.strerror})") from error
    if len(data) > _DOCUMENT_LIMIT:
        raise dump.invalid(what, f"it has more than {_DOCUMENT_LIMIT} bytes")
    return dump.read_object(data, what)


def _converge(client: Client, params: ConvertParams, found: Dump, check: bool, result: TransferResult) -> None:
    spec_validate.check(found.spec)
    image = _assemble(client, params, found)
    stored = [part for part in (found.criu, found.layer, found.shm[0] if found.shm else None) if part is not None]
    absent = [part for part in stored if content.stat(client, part.descriptor.digest) is None]
    result.digest = image.digest
    result.warnings.extend(found.warnings)
    result.transferred.update(kind=found.origin.kind, blobs=len(image.parts.children()), kept=len(stored) - len(absent))
    record = images.get(client, params.name)
    result.before = {"digest": record.target.digest} if record else {}
    result.after = {"digest": image.digest}
    base = base_image.plan(
        client, image.parts.base, image.parts.base_name, params.owner, comes=False, tag=params.tag_base
    )
    if base.warning:
        result.warnings.append(base.warning)
    same = record is not None and record.target.digest == image.digest
    if record is not None and same and image_tree.survey(client, record.target).is_whole:
        _name_base(client, params, base, check, result)
        return
    if record is not None and not same and not params.force:
        raise image_state.other_digest(image_state.ImageParams(params.name), record.target.digest, image.digest)
    space.require(client, f"The checkpoint {params.path} needs", sum(part.descriptor.size for part in absent))
    result.changed = True
    result.actions.append(f"make {image.digest} of {params.path}")
    if record is not None and not same:
        result.actions.append(f"move {params.name} from {record.target.digest} to {image.digest}")
    result.actions += base.actions
    if not check:
        _write(client, params, image, stored, base)


def _name_base(
    client: Client, params: ConvertParams, base: base_image.Plan, check: bool, result: TransferResult
) -> None:
    result.changed, result.actions = base.image is not None, base.actions
    if base.image is not None and not check:
        with leases.hold(client, params.lease or None, f"base image {base.image.name}"):
            base_image.make(client, base)


def _assemble(client: Client, params: ConvertParams, found: Dump) -> _Assembly:
    """The index and all that it names, by digest."""
    small: dict[str, bytes] = {}

    def part(media_type: str, data: bytes) -> Descriptor:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        small[digest] = data
        return Descriptor(media_type, digest, len(data), {})

    spec = json.dumps(found.spec, separators=(",", ":")).encode()
    dumped = messages.message("containerd.runc.v1.CheckpointOptions").SerializeToString()
    runtime_options = None
    if params.systemd_cgroup:
        options = messages.message(_RUNC_OPTIONS, systemd_cgroup=True).SerializeToString()
        runtime_options = part(
            checkpoint_reader.RUNTIME_OPTIONS, messages.pack(_RUNC_OPTIONS, options).SerializeToString()
        )
    base, base_name = _base(client, params, found)
    parts = checkpoint_writer.Parts(
        criu=found.criu.descriptor,
        config=part(checkpoint_reader.CONFIG, messages.pack(containers.SPEC_TYPE, spec).SerializeToString()),
        options=part(
            checkpoint_reader.OPTIONS,
            messages.pack("containerd.runc.v1.CheckpointOptions", dumped).SerializeToString(),
        ),
        runtime_options=runtime_options,
        writable_layer=found.layer.descriptor if found.layer else None,
        memory_volumes=(found.shm[1],) if found.shm else (),
        base=base,
        base_name=base_name,
        runtime=params.runtime,
        snapshotter=params.snapshotter or found.origin.snapshotter or checkpoint_reader.DEFAULT_SNAPSHOTTER,
        annotations={CONVERTED: found.origin.kind},
    )
    document = json.dumps(checkpoint_writer.index_document(parts), separators=(",", ":"), sort_keys=True).encode()
    return _Assembly(parts, small, "sha256:" + hashlib.sha256(document).hexdigest())


def _base(client: Client, params: ConvertParams, found: Dump) -> tuple[Descriptor | None, str]:
    """The base image on this node, and its name. With ``base: omit`` it is only named."""
    name = params.image or found.origin.image_name
    if params.base == OMIT and name:
        return None, normalized_name(name)
    recorded = "" if params.image or params.force else found.origin.image_digest
    base, base_name = base_image.find(client, params.path, name, recorded)
    return base.bare(), base_name


def _write(
    client: Client, params: ConvertParams, image: _Assembly, stored: list[Stored], base: base_image.Plan
) -> None:
    seconds = client.seconds_for(sum(part.descriptor.size for part in stored))
    with leases.hold(client, params.lease or None, f"image {params.name}", seconds, goes_on=True):
        with space.explained(f"while {params.path} was converted"):
            for part in stored:
                target = part.descriptor
                content.write(client, part.chunks(), target.digest, target.size, {})
        for child in image.parts.children():
            if child.digest in image.small:
                checkpoint_writer.blob(client, image.small[child.digest], child.media_type)
        with base_image.made(client, base):
            checkpoint_writer.index(client, params.name, image.parts, {labels.OWNER: params.owner})
