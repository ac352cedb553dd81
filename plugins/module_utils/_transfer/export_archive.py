# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A checkpoint image is written to an archive on the node."""

from __future__ import annotations

import contextlib
import json
import os
import stat as stat_module
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._archive import (
    compression as archive_compression,
    existing,
    record as archive_record,
    tar_writer,
    writer as archive_writer,
)
from .._archive.tar_writer import Item
from .._checkpoint.reader import Checkpoint
from .._containerd import content
from .._containerd.client import Client
from .._core import files, labels
from .._core.errors import ConflictError, InputError
from .._image import tree
from .._oci.image import Descriptor
from .._streams.streams import verified
from .common import INCLUDE, OMIT, TransferResult, in_store, load

#: Annotation of the checkpoint in an archive's index: whether the base image is in the archive.
BASE = labels.PREFIX + "base"
_NAME = "io.containerd.image.name"
_REF_NAME = "org.opencontainers.image.ref.name"
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_BY_SUFFIX = {".gz": "gzip", ".tgz": "gzip", ".zst": "zstd", ".zstd": "zstd"}


@dataclass(frozen=True)
class ExportParams:
    """What is to be exported; see the documentation of ``containerd_checkpoint_archive``."""

    #: Of the checkpoint in containerd.
    name: str
    #: Absolute path of the archive.
    path: str
    #: ``none``, ``gzip`` or ``zstd``; empty: as the path's ending says.
    compression: str = ""
    base: str = INCLUDE
    #: The digest that the checkpoint must have; empty: any.
    digest: str = ""
    force: bool = False

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> ExportParams:
        """As the module's options have it."""
        return cls(
            name=options["name"],
            path=os.path.abspath(options["path"]),
            compression=options["compression"] or "",
            base=options["base"],
            digest=options["digest"] or "",
            force=options["force"],
        )


def run(client: Client, params: ExportParams, check: bool) -> TransferResult:
    """Have the archive. Raises InputError, ConflictError (``archive_other_content``, ``archive_busy``) and NodeError.

    A file that already holds the image with this digest, whole and compressed as it should be, is left alone.
    """
    result = TransferResult()
    with result.timed():
        _run(client, params, check, result)
    return result


def _run(client: Client, params: ExportParams, check: bool, result: TransferResult) -> None:
    compression = params.compression or compression_of(params.path)
    checkpoint, target = load(client, params.name, params.digest)
    items = _items(client, checkpoint, target, params.base)
    result.digest = checkpoint.digest
    result.after = {"digest": checkpoint.digest, "compression": compression, "base": params.base}
    blobs = len(items) - 2  # without the layout's own two
    result.transferred = {"path": params.path, "compression": compression, "size": None, "blobs": blobs, "kept": 0}
    if _is_there(params, items, compression, check, result):
        result.before = result.after
        result.transferred.update(size=os.stat(params.path).st_size, kept=blobs)
        _tighten(params.path, check, result)
        if not check:
            # Left by a run that was killed while it wrote the same archive another time.
            archive_writer.remove_partial(params.path)
        return
    _require_space(params.path, tar_writer.tar_size(items) if compression == archive_compression.NONE else 0)
    result.changed = True
    result.actions.append(f"write {checkpoint.digest} to {params.path}")
    if not check:
        client.track.phase("export", sum(item.size for item in items))
        written = archive_writer.write(params.path, checkpoint.digest, items, _reader(client), compression)
        result.transferred["size"] = written.size


def remove(path: str, check: bool) -> TransferResult:
    """Have no archive there. Raises as ``_archive.writer.remove``."""
    result = TransferResult()
    with result.timed():
        gone = archive_writer.remove(os.path.abspath(path), check)
        result.changed, result.actions = bool(gone), [f"remove {name}" for name in gone]
        result.transferred = {"path": path, "compression": None, "size": None, "blobs": None, "kept": None}
    return result


def compression_of(path: str) -> str:
    """What the ending of the name says: ``gzip``, ``zstd`` or ``none``."""
    return _BY_SUFFIX.get(os.path.splitext(path)[1], archive_compression.NONE)


def _is_there(params: ExportParams, items: list[Item], compression: str, check: bool, result: TransferResult) -> bool:
    """Whether ``path`` is such an archive. Raises ConflictError ``archive_other_content`` for anything else there."""
    digest = result.digest
    try:
        found = os.lstat(params.path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _other(params, f"cannot be looked at: {error.strerror}") from error
    if not stat_module.S_ISREG(found.st_mode):
        raise _other(params, "is there and is no regular file")
    present = existing.kind(params.path)
    record = existing.find_export(params.path, digest, items)
    if record is not None:
        result.before = {**result.after, "compression": present}
        if present == compression and not check and record != archive_record.read(params.path):
            # It took reading the file through; where the record cannot be written, the next run does so again.
            with contextlib.suppress(OSError):
                archive_record.write(params.path, record)
        return present == compression
    if params.base == INCLUDE and present == compression and existing.holds(params.path, digest):
        return True  # written by another tool, with all of its base
    result.before = {"digest": None, "compression": present, "base": None}
    if not params.force:
        raise _other(params, f"is there and is no whole archive of {digest}")
    return False


def _other(params: ExportParams, why: str) -> ConflictError:
    return ConflictError(
        "archive_other_content",
        f"The file {params.path} {why}.",
        "Give another path; force: true replaces a regular file.",
        details={"path": params.path},
    )


def _tighten(path: str, check: bool, result: TransferResult) -> None:
    """It holds all memory of a process: nobody else's to read."""
    mode = stat_module.S_IMODE(os.stat(path).st_mode)
    if mode & 0o077:
        result.changed = True
        result.actions.append(f"set the mode of {path} from {mode:04o} to 0600")
        if not check:
            os.chmod(path, 0o600)


def _require_space(path: str, needed: int) -> None:
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        raise InputError(
            "archive_directory_missing",
            f"The archive {path} cannot be written: there is no directory {directory}.",
            "Make the directory first; it should be root's with mode 0700.",
        )
    for partial in archive_writer.partials(path):
        with contextlib.suppress(FileNotFoundError):
            needed -= os.lstat(partial).st_size  # removed before anything is written
    if needed > files.free_bytes(directory):
        raise archive_writer.no_space(path, needed)


def _items(client: Client, checkpoint: Checkpoint, target: Descriptor, base: str) -> list[Item]:
    """The members in their order: layout, index, then documents before the blobs that they name."""
    documents = tree.survey(client, target).documents
    omitted = base == OMIT
    wanted: dict[str, Descriptor] = {target.digest: target}
    _collect(documents, target, wanted, omitted, checkpoint.name)
    for child in wanted.values():
        if not in_store(client, child):
            raise _missing(child, checkpoint.name)
    ordered = sorted(wanted.values(), key=lambda child: not child.has_children)
    index = _index(checkpoint, target, documents.get(target.digest, ()), base)
    return [
        Item.from_bytes("oci-layout", _json({"imageLayoutVersion": "1.0.0"})),
        Item.from_bytes("index.json", _json(index)),
        *(Item(f"blobs/sha256/{child.digest.split(':', 1)[1]}", child.size, child.digest) for child in ordered),
    ]


def _collect(
    documents: Mapping[str, Sequence[Descriptor]],
    top: Descriptor,
    wanted: dict[str, Descriptor],
    omitted: bool,
    name: str,
) -> None:
    if top.digest not in documents:
        raise _missing(top, name)
    for child in documents[top.digest]:
        if child.is_foreign or (omitted and child.has_children) or child.digest in wanted:
            continue
        wanted[child.digest] = child
        if child.has_children:
            _collect(documents, child, wanted, omitted, name)


def _index(checkpoint: Checkpoint, target: Descriptor, children: Sequence[Descriptor], base: str) -> dict[str, Any]:
    """The layout's index: the checkpoint, and the base image under its own name, as importers make records."""
    signed = {labels.SIGNATURE: checkpoint.signature} if checkpoint.signature else {}
    manifests = [_entry(target, checkpoint.name, {BASE: base, **signed})]
    found = next((child for child in children if child.has_children), None)
    if base == INCLUDE and found is not None and checkpoint.base_name and checkpoint.base_name != checkpoint.name:
        manifests.append(_entry(found, checkpoint.base_name, {}))
    return {"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": manifests}


def _entry(target: Descriptor, name: str, annotations: Mapping[str, str]) -> dict[str, Any]:
    # As containerd's exporter names them: the whole reference, and its tag.
    tag = name.rpartition("/")[2].partition("@")[0].partition(":")[2] or name
    return {
        "mediaType": target.media_type,
        "digest": target.digest,
        "size": target.size,
        "annotations": {_NAME: name, _REF_NAME: tag, **annotations},
    }


def _missing(child: Descriptor, name: str) -> InputError:
    return InputError(
        "blob_missing",
        f"The blob {child.digest} ({child.media_type}) of {name} is not whole in containerd's content store.",
        "Import or pull it again; where the base image is what lacks, base: omit exports the checkpoint without it.",
        details={"digest": child.digest},
    )


def _reader(client: Client) -> tar_writer.Read:
    def read(item: Item) -> Iterable[bytes]:
        # A compressor may take its time.
        chunks = content.read(client, item.digest, item.size, client.seconds_for(item.size, slow_end=True))
        what = f"The blob {item.digest} in containerd's content store"
        return verified(chunks, digest=item.digest, size=item.size, what=what)

    return read


def _json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
