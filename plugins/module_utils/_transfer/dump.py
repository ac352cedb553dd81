# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The CRIU images and the writable layer of a dump that other tools wrote, as streams.

What is to be stored is read twice: once to check it and to learn its digest, before anything is created, and once to
store it. Nothing is unpacked.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Callable

from .._archive.compression import gzipped
from .._archive.members import ArchiveFile
from .._checkpoint import reader as checkpoint_reader, staging, writer as checkpoint_writer
from .._core.errors import InputError
from .._oci.image import Descriptor
from .._streams.streams import ChunkSource, Expansion, decompressed, file_chunks
from .._streams.tar_reader import Limits, members
from . import dump_documents
from .dump_documents import Origin

SPEC, CONFIG, DELETED, LAYER = "spec.dump", "config.dump", "deleted.files", "rootfs-diff.tar"
SHM = "devshm-checkpoint.tar"
_IMAGES = "checkpoint/"
#: Bytes of a tar with nothing but its top directory.
_EMPTY_TAR = 1536
_MAX_DOCUMENT = 8 << 20
_BLOCK = 512
_MAX_IMAGES = 65536

Chunks = Callable[[], Iterator[bytes]]


@dataclass(frozen=True)
class Stored:
    """A blob to be: its descriptor, and its bytes as often as they are asked for."""

    descriptor: Descriptor
    chunks: Chunks


@dataclass(frozen=True)
class Dump:
    """A checkpoint of another tool, checked. ``layer`` is None where no file was changed or nobody recorded it."""

    origin: Origin
    spec: dict[str, Any]
    criu: Stored
    layer: Stored | None = None
    warnings: list[str] = field(default_factory=list)


def of_archive(file: ArchiveFile, bound: int | None) -> Dump:
    """Read and check an archive of the kubelet, CRI-O or podman; ``bound``: bytes that may come out of it.

    Raises InputError ``dump_invalid``, ``criu_images_incomplete``, ``archive_link`` and what the readers of archives,
    tars and compressed streams raise.
    """
    present = [name for name in (SPEC, CONFIG, DELETED) if name in file.entries]
    lacking = [name for name in (SPEC, CONFIG) if name not in present]
    if lacking:
        raise dump_documents.unusable(
            file.what, f"it has no {' and no '.join(lacking)}, so it is no checkpoint archive"
        )
    images = _image_names(file)
    _refuse_links(file, [*present, *images, *([LAYER] if LAYER in file.entries else [])])
    texts = file.read(present, _MAX_DOCUMENT)
    spec = dump_documents.mapping(texts[SPEC], f"{SPEC} of {file.path}")
    origin = dump_documents.origin(dump_documents.mapping(texts[CONFIG], f"{CONFIG} of {file.path}"))
    deleted = dump_documents.document(texts[DELETED], f"{DELETED} of {file.path}") if DELETED in texts else None
    prefix = dump_documents.whiteouts(deleted, f"{DELETED} of {file.path}")
    total = sum(file.entries[name].size for name in images)
    if bound is not None and total > bound:
        raise _too_large(file.what, bound)
    criu = _stored(checkpoint_reader.CRIU, lambda: _criu_tar(file, images))
    layer = None
    if LAYER in file.entries or prefix:
        layer = _layer(prefix, lambda: _only(file, LAYER), f"{LAYER} of {file.path}", bound)
    return Dump(origin, spec, criu, layer, [*dump_documents.storage_warnings(spec, file.path), *_warnings(file)])


def of_directory(path: str, origin: Origin, spec: dict[str, Any], diff: str, bound: int | None) -> Dump:
    """Check a directory of CRIU images, and the tar ``diff`` of changed files ('' for none) beside it.

    Raises InputError ``criu_images_*``, ``archive_missing`` and as :func:`of_archive`.
    """
    criu = _stored(checkpoint_reader.CRIU, lambda: checkpoint_writer.tar_chunks(path))
    if bound is not None and criu.descriptor.size > bound:
        raise _too_large(f"The directory {path}", bound)
    layer = None
    warnings = []
    if diff:
        layer = _layer(b"", lambda: _file(diff), f"The archive {diff}", bound)
    else:
        warnings.append(
            f"The directory {path} comes without rootfs_diff: files that the container changed are those of the image, "
            "and a process that has one of them open is not restored."
        )
    return Dump(origin, spec, criu, layer, warnings)


def _image_names(file: ArchiveFile) -> list[str]:
    found = [name for name in file.entries if name.startswith(_IMAGES)]
    nested = [name for name in found if "/" in name[len(_IMAGES) :]]
    if nested:
        raise dump_documents.unusable(file.what, f"{nested[0]!r} lies below the directory of CRIU images")
    lacking = [name for name in staging.REQUIRED if _IMAGES + name not in found]
    if lacking:
        raise InputError(
            "criu_images_incomplete",
            f"{file.what} lacks {' and '.join(lacking)}, without which nothing can be restored.",
            "Take the checkpoint again, and look for errors in the dump log of that time.",
            details={"missing": lacking, "files": len(found)},
        )
    if len(found) > _MAX_IMAGES:
        raise dump_documents.unusable(file.what, f"it has more than {_MAX_IMAGES} CRIU images")
    return found


def _refuse_links(file: ArchiveFile, names: list[str]) -> None:
    for name in names:
        if file.real(name) != name:
            raise InputError(
                "archive_link",
                f"{file.what} is refused: {name!r} is a link.",
                "Take the checkpoint again with a tool you trust: such archives have no links.",
            )


def _warnings(file: ArchiveFile) -> list[str]:
    found = []
    volumes = sorted(name for name in file.entries if name.startswith("volumes/"))
    if volumes:
        found.append(f"The volumes in {file.path} are not carried over: {', '.join(volumes)[:300]}.")
    if SHM in file.entries and file.entries[SHM].size > _EMPTY_TAR:
        found.append(
            f"The contents of /dev/shm in {file.path} ({SHM}) are not carried over: unpack it into what mounts gives "
            "the restored container there."
        )
    return found


def _criu_tar(file: ArchiveFile, names: list[str]) -> Iterator[bytes]:
    """The CRIU images as containerd keeps them: one flat tar, in the order of the archive."""
    for name, chunks in file.stream(names):
        size = file.entries[name].size
        header = tarfile.TarInfo(name[len(_IMAGES) :])
        header.size, header.mode = size, 0o600
        yield header.tobuf(tarfile.PAX_FORMAT)
        yield from chunks
        yield bytes(-size % _BLOCK)
    yield bytes(2 * _BLOCK)


def _only(file: ArchiveFile, name: str) -> Iterator[bytes]:
    if name not in file.entries:
        yield bytes(2 * _BLOCK)
        return
    for _name, chunks in file.stream([name]):
        yield from chunks


def _file(path: str) -> Iterator[bytes]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InputError(
            "archive_missing",
            f"The archive {path} cannot be opened: {error.strerror}.",
            "Check the path on the node.",
        ) from error
    try:
        yield from file_chunks(descriptor)
    finally:
        os.close(descriptor)


def _layer(prefix: bytes, raw: Chunks, what: str, bound: int | None) -> Stored:
    """The writable layer, gzipped, since ``ctr containers restore`` looks for no other; whiteouts come first.

    Only regular files, directories and links are let in; that links stay in the container is containerd's care, as
    with any layer that was pulled.
    """

    def plain() -> Generator[bytes, None, None]:
        with closing(decompressed(raw(), expansion=Expansion(bound), what=what)) as chunks:
            yield from chunks

    def packed() -> Iterator[bytes]:
        return gzipped(_joined(prefix, plain()))

    limits = Limits() if bound is None else Limits(max_total=bound)
    with closing(plain()) as chunks:
        for _member in members(ChunkSource(chunks), limits, what):
            continue
    return _stored(checkpoint_writer.LAYER, packed)


def _joined(prefix: bytes, chunks: Iterable[bytes]) -> Iterator[bytes]:
    if prefix:
        yield prefix
    yield from chunks


def _stored(media_type: str, chunks: Chunks) -> Stored:
    """Read the stream once for its digest and size."""
    hasher = hashlib.sha256()
    size = 0
    for chunk in chunks():
        hasher.update(chunk)
        size += len(chunk)
    return Stored(Descriptor(media_type, f"sha256:{hasher.hexdigest()}", size, {}), chunks)


def _too_large(what: str, bound: int) -> InputError:
    return InputError(
        "expansion_limit",
        f"{what} has more than {bound} bytes of CRIU images.",
        "Free space in containerd's content store, or raise max_bytes if this size is expected.",
        details={"bound": bound},
    )
