# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A checkpoint that another tool made becomes a checkpoint image. Private: for this collection's own modules only."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from .._archive.members import ArchiveFile
from .._archive.reader import normalized_name
from .._checkpoint import metadata as checkpoint_metadata, reader as checkpoint_reader, writer as checkpoint_writer
from .._containerd import containers, content, daemon, images, leases, messages
from .._containerd.client import Client
from .._containerd.images import Descriptor, Image
from .._core import labels
from .._core.errors import RETRYABLE, InputError, NodeError, RpcError
from .._image import state as image_state, tree as image_tree
from .._oci import spec_validate
from .._streams.streams import Expansion
from .._streams.tar_reader import Limits
from . import convert_base, dump as transfer_dump, dump_documents, import_archive
from .dump import Dump
from .dump_documents import Origin
from .export_archive import INCLUDE, OMIT, Outcome, timeout_for

#: Annotation of the index: which kind of dump the image was converted from.
CONVERTED = labels.PREFIX + "converted-from"
_RUNC = "io.containerd.runc.v2"
_RUNC_OPTIONS = "containerd.runc.v1.Options"
_DOCUMENT_LIMIT = 8 << 20
_TOO_LARGE = ("tar_too_large", "archive_bomb", "expansion_limit")


@dataclass(frozen=True)
class Wish:
    """What is to be converted; empty strings stand for what the dump says, or the default."""

    name: str
    path: str
    base: str = INCLUDE
    image: str = ""
    spec: str = ""
    metadata: str = ""
    rootfs_diff: str = ""
    snapshotter: str = ""
    runtime: str = _RUNC
    systemd_cgroup: bool = False
    max_bytes: int | None = None
    lease: str = ""
    owner: str = labels.DEFAULT_OWNER
    force: bool = False


@dataclass(frozen=True)
class Made:
    """All parts of the image, known before one of them is written. ``small``: bytes of the small ones, by digest."""

    parts: checkpoint_writer.Parts
    small: dict[str, bytes]
    digest: str


def run(client: Client, wish: Wish, check: bool) -> Outcome:
    """Have the checkpoint image.

    Raises InputError ``dump_invalid``, ``convert_spec_missing`` and what the readers raise, ConflictError
    ``image_other_digest``, ``base_image_moved``, NodeError ``content_no_space``. Before everything is checked nothing
    is created; after a failure nothing of it is left.
    """
    try:
        return _run(client, wish, check)
    except InputError as error:
        # Without an option it is the disk that bounds it.
        if wish.max_bytes is None and error.code in _TOO_LARGE and "max_ratio" not in error.details:
            raise _no_space(wish, None, _free(client), None) from error
        raise


def _run(client: Client, wish: Wish, check: bool) -> Outcome:
    began = time.monotonic()
    outcome = Outcome()
    if not os.path.isdir(wish.path):
        with _opened(client, wish) as file:
            if "oci-layout" not in file.entries:
                outcome.archive = _result(wish.path, file.compression, os.stat(wish.path).st_size)
                dump = transfer_dump.of_archive(file, _bound(client, wish))
                _have(client, wish, dump, check, outcome)
                outcome.seconds = round(time.monotonic() - began, 3)
                return outcome
        return _import(client, wish, check)
    outcome.archive = _result(wish.path, None, None)
    _have(client, wish, _of_directory(client, wish), check, outcome)
    outcome.seconds = round(time.monotonic() - began, 3)
    return outcome


def _import(client: Client, wish: Wish, check: bool) -> Outcome:
    """An archive that containerd's own tools wrote needs no conversion."""
    done = import_archive.run(
        client,
        import_archive.Wish(
            name=wish.name,
            path=wish.path,
            base=wish.base,
            max_bytes=wish.max_bytes,
            lease=wish.lease,
            owner=wish.owner,
            force=wish.force,
        ),
        check,
    )
    done.archive["kind"] = dump_documents.OCI
    return done


def _result(path: str, packing: str | None, size: int | None) -> dict[str, Any]:
    return {"path": path, "compression": packing, "size": size, "blobs": None, "kept": None}


@contextmanager
def _opened(client: Client, wish: Wish) -> Iterator[ArchiveFile]:
    bound = _bound(client, wish)
    limits = Limits() if bound is None else Limits(max_total=bound)
    file = ArchiveFile(wish.path, limits, Expansion(bound), None)
    try:
        yield file
    finally:
        file.close()


def _bound(client: Client, wish: Wish) -> int | None:
    """Bytes that a dump may have: the option, else what is free where it goes."""
    if wish.max_bytes is not None:
        return wish.max_bytes
    return _free(client)


def _free(client: Client) -> int | None:
    root = daemon.data_roots(daemon.plugins(client))["content"]
    return daemon.free_bytes(root) if root else None


def _of_directory(client: Client, wish: Wish) -> Dump:
    origin = Origin(dump_documents.DIRECTORY)
    if wish.metadata:
        metadata = checkpoint_metadata.load(wish.metadata)
        spec = dict(metadata.oci_spec) if metadata.oci_spec is not None else None
        origin = replace(origin, image_name=metadata.original_image, snapshotter=metadata.snapshotter)
    else:
        spec = _read_spec(wish.spec) if wish.spec else None
    if spec is None:
        raise InputError(
            "convert_spec_missing",
            f"Nothing gives the OCI spec of the container that {wish.path} was dumped from.",
            "Give spec, or metadata with ociSpec: CRIU needs its mounts and namespaces.",
        )
    return transfer_dump.of_directory(wish.path, origin, spec, wish.rootfs_diff, _bound(client, wish))


def _read_spec(path: str) -> dict[str, Any]:
    what = f"The spec {path}"
    try:
        with open(path, "rb") as stream:
            data = stream.read(_DOCUMENT_LIMIT + 1)
    except OSError as error:
        raise dump_documents.unusable(what, f"it cannot be read ({error.strerror})") from error
    if len(data) > _DOCUMENT_LIMIT:
        raise dump_documents.unusable(what, f"it has more than {_DOCUMENT_LIMIT} bytes")
    return dump_documents.mapping(data, what)


def _have(client: Client, wish: Wish, dump: Dump, check: bool, outcome: Outcome) -> None:
    spec_validate.check(dump.spec)
    made = _make(client, wish, dump)
    stored = [part for part in (dump.criu, dump.layer) if part is not None]
    absent = [part for part in stored if content.stat(client, part.descriptor.digest) is None]
    outcome.digest = made.digest
    outcome.warnings.extend(dump.warnings)
    outcome.archive.update(kind=dump.origin.kind, blobs=len(made.parts.children()), kept=len(stored) - len(absent))
    record = images.get(client, wish.name)
    outcome.before = {"digest": record.target.digest} if record else {}
    outcome.after = {"digest": made.digest}
    if record is not None and record.target.digest == made.digest and _is_whole(client, record):
        return
    if record is not None and record.target.digest != made.digest and not wish.force:
        raise image_state.other_digest(image_state.Wish(wish.name), record.target.digest, made.digest)
    _require_space(client, wish, sum(part.descriptor.size for part in absent))
    outcome.changed = True
    outcome.actions.append(f"make {made.digest} of {wish.path}")
    if record is not None and record.target.digest != made.digest:
        outcome.actions.append(f"move {wish.name} from {record.target.digest} to {made.digest}")
    if not check:
        _write(client, wish, made, stored)


def _is_whole(client: Client, record: Image) -> bool:
    tree = image_tree.survey(client, image_tree.from_record(record.target))
    return not tree.missing and not tree.missing_layers


def _make(client: Client, wish: Wish, dump: Dump) -> Made:
    """The index and all that it names, by digest."""
    small: dict[str, bytes] = {}

    def part(media_type: str, data: bytes) -> Descriptor:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        small[digest] = data
        return Descriptor(media_type, digest, len(data), {})

    spec = json.dumps(dump.spec, separators=(",", ":")).encode()
    dumped = messages.message("containerd.runc.v1.CheckpointOptions").SerializeToString()
    runtime_options = None
    if wish.systemd_cgroup:
        options = messages.message(_RUNC_OPTIONS, systemd_cgroup=True).SerializeToString()
        runtime_options = part(
            checkpoint_writer.RUNTIME_OPTIONS, messages.pack(_RUNC_OPTIONS, options).SerializeToString()
        )
    base, base_name = _base(client, wish, dump)
    parts = checkpoint_writer.Parts(
        criu=dump.criu.descriptor,
        config=part(checkpoint_writer.CONFIG, messages.pack(containers.SPEC_TYPE, spec).SerializeToString()),
        options=part(
            checkpoint_writer.OPTIONS,
            messages.pack("containerd.runc.v1.CheckpointOptions", dumped).SerializeToString(),
        ),
        runtime_options=runtime_options,
        writable_layer=dump.layer.descriptor if dump.layer else None,
        base=base,
        base_name=base_name,
        runtime=wish.runtime,
        snapshotter=wish.snapshotter or dump.origin.snapshotter or checkpoint_reader.DEFAULT_SNAPSHOTTER,
        annotations={CONVERTED: dump.origin.kind},
    )
    document = json.dumps(checkpoint_writer.index_document(parts), separators=(",", ":"), sort_keys=True).encode()
    return Made(parts, small, "sha256:" + hashlib.sha256(document).hexdigest())


def _base(client: Client, wish: Wish, dump: Dump) -> tuple[Descriptor | None, str]:
    """The base image on this node, and its name. With ``base: omit`` it is only named."""
    name = wish.image or dump.origin.image_name
    if wish.base == OMIT and name:
        return None, normalized_name(name)
    recorded = "" if wish.image or wish.force else dump.origin.image_digest
    image = convert_base.find(client, wish.path, name, recorded)
    target = image.target
    return Descriptor(target.media_type, target.digest, target.size, {}), image.name


def _write(client: Client, wish: Wish, made: Made, stored: list[transfer_dump.Stored]) -> None:
    with leases.hold(client, wish.lease or None, f"image {wish.name}"):
        try:
            for part in stored:
                target = part.descriptor
                content.write(client, part.chunks(), target.digest, target.size, {}, timeout_for(target.size))
        except RpcError as error:
            if "no space left" not in str(error.details.get("text", "")):
                raise
            raise _no_space(wish, None, _free(client), error.rpc) from error
        for child in made.parts.children():
            if child.digest in made.small:
                checkpoint_writer.blob(client, made.small[child.digest], child.media_type)
        checkpoint_writer.index(client, wish.name, made.parts, {labels.OWNER: wish.owner})


def _require_space(client: Client, wish: Wish, needed: int) -> None:
    free = _free(client)
    if free is not None and needed > free:
        raise _no_space(wish, needed, free, None)


def _no_space(wish: Wish, needed: int | None, free: int | None, rpc: str | None) -> NodeError:
    amount = "more" if needed is None else f"{needed} bytes"
    return NodeError(
        "content_no_space",
        f"The checkpoint {wish.path} needs {amount}, but only {free} bytes are free in containerd's content store.",
        "Free space on that file system, then run again.",
        outcome=RETRYABLE,
        rpc=rpc,
        details={"needed": needed, "free": free},
    )
