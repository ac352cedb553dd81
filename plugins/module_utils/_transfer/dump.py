# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A dump that another tool wrote: its documents, and its CRIU images and writable layer as streams.

What is to be stored is read twice: once to check it and to learn its digest, before anything is created, and once to
store it. Nothing is unpacked.

Facts: checkpointctl's metadata package (``config.dump`` of the kubelet's runtimes) and podman's own container
configuration, which podman writes under the same name; ``deleted.files`` is a JSON list of paths.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import tarfile
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Callable

from .._archive.compression import gzipped
from .._archive.members import ArchiveFile
from .._checkpoint import reader as checkpoint_reader, volumes as memory_volumes, writer as checkpoint_writer
from .._checkpoint.staged import REQUIRED
from .._checkpoint.volumes import MemoryVolume
from .._core import strict_json
from .._core.errors import InputError
from .._core.strict_json import StrictJsonError
from .._oci import spec_validate
from .._oci.image import Descriptor
from .._streams.decompression import Expansion, decompressed
from .._streams.streams import ChunkSource, file_chunks
from .._streams.tar_reader import Limits, members, safe_name

#: Kinds of dumps, as the result ``archive.kind`` names them.
KUBELET, PODMAN, DIRECTORY, OCI = "kubelet", "podman", "directory", "oci"
MAX_DELETED = 65536
_DIGEST = re.compile(r"(?:.*@)?(?:sha256:)?([0-9a-f]{64})\Z", re.DOTALL)
_LIMITS = Limits()
#: Members of a checkpoint archive.
SPEC, CONFIG, DELETED, LAYER = "spec.dump", "config.dump", "deleted.files", "rootfs-diff.tar"
SHM = "devshm-checkpoint.tar"
_SHM_PLACE = "/dev/shm"
_PAGE = 4096
_IMAGES = "checkpoint/"
#: Bytes of a tar with nothing but its top directory.
_EMPTY_TAR = 1536
_MAX_DOCUMENT = 8 << 20
_BLOCK = 512
_MAX_IMAGES = 65536

Chunks = Callable[[], Iterator[bytes]]


@dataclass(frozen=True)
class Origin:
    """Where a checkpoint comes from. Empty strings stand for what its documents do not say."""

    #: The tool, or the form.
    kind: str
    #: Reference of the image that the container was made from.
    image_name: str = ""
    #: Of its index, manifest or config.
    image_digest: str = ""
    snapshotter: str = ""


@dataclass(frozen=True)
class Stored:
    """A blob that is to be stored."""

    descriptor: Descriptor
    #: Its bytes, as often as it is called.
    chunks: Chunks


@dataclass(frozen=True)
class Dump:
    """A checkpoint of another tool, checked."""

    origin: Origin
    spec: dict[str, Any]
    criu: Stored
    #: Files that the container had changed; None where there were none, or nobody recorded them.
    layer: Stored | None = None
    #: What podman keeps of /dev/shm, and what it was.
    shm: tuple[Stored, MemoryVolume] | None = None
    warnings: list[str] = field(default_factory=list)


def from_archive(file: ArchiveFile, bound: int | None) -> Dump:
    """Read and check an archive of the kubelet, CRI-O or podman; ``bound``: bytes that may come out of it.

    Raises InputError ``dump_invalid``, ``criu_images_incomplete``, ``archive_link`` and what the readers of archives,
    tars and compressed streams raise.
    """
    present = [name for name in (SPEC, CONFIG, DELETED) if name in file.entries]
    missing = [name for name in (SPEC, CONFIG) if name not in present]
    if missing:
        raise invalid(file.what, f"it has no {' and no '.join(missing)}, so it is no checkpoint archive")
    images = _image_names(file)
    _refuse_links(file, [*present, *images, *(name for name in (LAYER, SHM) if name in file.entries)])
    texts = file.read(present, _MAX_DOCUMENT)
    spec = read_object(texts[SPEC], f"{SPEC} of {file.path}")
    origin = read_origin(read_object(texts[CONFIG], f"{CONFIG} of {file.path}"))
    deleted = read_document(texts[DELETED], f"{DELETED} of {file.path}") if DELETED in texts else None
    prefix = whiteouts(deleted, f"{DELETED} of {file.path}")
    total = sum(file.entries[name].size for name in images)
    if bound is not None and total > bound:
        raise _too_large(file.what, bound)
    criu = _store(checkpoint_reader.CRIU, lambda: _criu_tar(file, images))
    layer = None
    if LAYER in file.entries or prefix:
        layer = _layer(prefix, lambda: _member_chunks(file, LAYER), f"{LAYER} of {file.path}", bound)
    shm = _shm(file, spec, read_object(texts[CONFIG], f"{CONFIG} of {file.path}"), bound)
    return Dump(origin, spec, criu, layer, shm, [*storage_warnings(spec, file.path), *_warnings(file, shm is None)])


def from_directory(path: str, origin: Origin, spec: dict[str, Any], diff: str, bound: int | None) -> Dump:
    """Check a directory of CRIU images, and the tar ``diff`` of changed files ('' for none) beside it.

    Raises InputError ``criu_images_*``, ``archive_missing`` and as :func:`from_archive`.
    """
    criu = _store(checkpoint_reader.CRIU, lambda: checkpoint_writer.tar_chunks(path))
    if bound is not None and criu.descriptor.size > bound:
        raise _too_large(f"The directory {path}", bound)
    layer = None
    warnings = []
    if diff:
        layer = _layer(b"", lambda: _file_chunks(diff), f"The archive {diff}", bound)
    else:
        warnings.append(
            f"The directory {path} comes without rootfs_diff: files that the container changed are those of the image, "
            "and a process that has one of them open is not restored."
        )
    return Dump(origin, spec, criu, layer, warnings=warnings)


def _image_names(file: ArchiveFile) -> list[str]:
    found = [name for name in file.entries if name.startswith(_IMAGES)]
    nested = [name for name in found if "/" in name[len(_IMAGES) :]]
    if nested:
        raise invalid(file.what, f"{nested[0]!r} lies below the directory of CRIU images")
    missing = [name for name in REQUIRED if _IMAGES + name not in found]
    if missing:
        raise InputError(
            "criu_images_incomplete",
            f"{file.what} lacks {' and '.join(missing)}, without which nothing can be restored.",
            "Take the checkpoint again, and look for errors in the dump log of that time.",
            details={"missing": missing, "files": len(found)},
        )
    if len(found) > _MAX_IMAGES:
        raise invalid(file.what, f"it has more than {_MAX_IMAGES} CRIU images")
    return found


def _refuse_links(file: ArchiveFile, names: list[str]) -> None:
    for name in names:
        if file.real(name) != name:
            raise InputError(
                "archive_link",
                f"{file.what} is refused: {name!r} is a link.",
                "Take the checkpoint again with a tool you trust: such archives have no links.",
            )


def _shm(
    file: ArchiveFile, spec: Mapping[str, Any], config: Mapping[str, Any], bound: int | None
) -> tuple[Stored, MemoryVolume] | None:
    """The content of /dev/shm, where the spec has it from outside; its tar is one of a whole tree as it is."""
    if SHM not in file.entries or file.entries[SHM].size <= _EMPTY_TAR:
        return None
    mounts = spec.get("mounts")
    sources = [
        posixpath.normpath(mount["source"])
        for mount in (mounts if isinstance(mounts, list) else ())
        if isinstance(mount, dict)
        and mount.get("destination") == _SHM_PLACE
        and str(mount.get("source")).startswith("/")
        and spec_validate.is_bind(mount)
    ]
    if not sources:
        return None
    what = f"{SHM} of {file.path}"
    limits = Limits.of_tree(file.entries[SHM].size if bound is None else min(bound, file.entries[SHM].size))
    used = 0
    for member in members(ChunkSource(_member_chunks(file, SHM)), limits, what):
        used += member.size + -member.size % _PAGE
    stored = _store(memory_volumes.MEDIA_TYPE, lambda: _member_chunks(file, SHM))
    size, container = config.get("shmSize"), config.get("id")
    volume = MemoryVolume(
        descriptor=stored.descriptor,
        destination=_SHM_PLACE,
        source=sources[-1],
        used=used,
        size=size if isinstance(size, int) and 0 < size < 1 << 62 else None,
        container=container if isinstance(container, str) else "",
    )
    return stored, volume


def _warnings(file: ArchiveFile, without_shm: bool) -> list[str]:
    found = []
    volumes = sorted(name for name in file.entries if name.startswith("volumes/"))
    if volumes:
        found.append(f"The volumes in {file.path} are not carried over: {', '.join(volumes)[:300]}.")
    if without_shm and SHM in file.entries and file.entries[SHM].size > _EMPTY_TAR:
        found.append(
            f"The contents of /dev/shm in {file.path} ({SHM}) are not carried over, since its spec has no bind there: "
            "unpack it into what mounts gives the restored container there."
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


def _member_chunks(file: ArchiveFile, name: str) -> Iterator[bytes]:
    if name not in file.entries:
        yield bytes(2 * _BLOCK)
        return
    for _name, chunks in file.stream([name]):
        yield from chunks


def _file_chunks(path: str) -> Iterator[bytes]:
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
        return gzipped(_concatenated(prefix, plain()))

    limits = Limits() if bound is None else Limits(max_total=bound)
    with closing(plain()) as chunks:
        for _member in members(ChunkSource(chunks), limits, what):
            continue
    return _store(checkpoint_writer.LAYER, packed)


def _concatenated(prefix: bytes, chunks: Iterable[bytes]) -> Iterator[bytes]:
    if prefix:
        yield prefix
    yield from chunks


def _store(media_type: str, chunks: Chunks) -> Stored:
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


def read_document(data: bytes, what: str) -> Any:
    """JSON that nobody vouches for. Raises InputError ``dump_invalid``."""
    try:
        return strict_json.parse(data)
    except StrictJsonError as error:
        raise invalid(what, f"it is not proper JSON ({error})") from error


def read_object(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object. Raises InputError ``dump_invalid``."""
    found = read_document(data, what)
    if not isinstance(found, dict):
        raise invalid(what, "it is not a JSON object")
    return found


def read_origin(config: Mapping[str, Any]) -> Origin:
    """What ``config.dump`` says. Podman gives the image's id, the others its reference by digest."""
    podman = isinstance(config.get("rootfsImageID"), str)
    names = [config.get(key) for key in ("rootfsImageName", "rootfsImage")]
    digests = [config.get(key) for key in ("rootfsImageID", "rootfsImageRef", "rootfsImage")]
    found = [_DIGEST.match(text) for text in digests if isinstance(text, str)]
    return Origin(
        kind=PODMAN if podman else KUBELET,
        image_name=next((text for text in names if isinstance(text, str) and text), ""),
        image_digest=next((f"sha256:{match.group(1)}" for match in found if match), ""),
    )


def storage_warnings(spec: Mapping[str, Any], path: str) -> list[str]:
    """What differs where containers/storage had the root file system, which is podman's and CRI-O's."""
    annotations = spec.get("annotations")
    manager = annotations.get("io.container.manager") if isinstance(annotations, dict) else None
    if manager not in ("libpod", "cri-o"):
        return []
    return [
        f"{path} is of {'podman' if manager == 'libpod' else 'CRI-O'}, where the root directory of a container has the "
        "mode 0555 if its image does not say; in containerd it has 0755, which CRIU refuses. Restore it with "
        "skip-file-rwx-check among criu.extra."
    ]


def whiteouts(paths: Any, what: str) -> bytes:
    """The head of a layer that removes these files: an empty entry ``.wh.<name>`` for each (OCI image spec, layers).

    Raises InputError ``dump_invalid``, ``tar_unsafe_name``.
    """
    if paths is None:
        return b""
    if not isinstance(paths, list) or len(paths) > MAX_DELETED or not all(isinstance(path, str) for path in paths):
        raise invalid(what, f"it is not a list of at most {MAX_DELETED} paths")
    blocks = []
    for path in sorted(set(paths)):
        try:
            raw = path[1:].encode() if path.startswith("/") else path.encode()
        except UnicodeEncodeError as error:
            raise invalid(what, "a path in it is not Unicode") from error
        directory, name = posixpath.split(safe_name(raw, _LIMITS, what))
        if not name or name.startswith(".wh."):
            raise invalid(what, f"it has the path {path[:120]!r}")
        entry = tarfile.TarInfo(posixpath.join(directory, f".wh.{name}"))
        entry.mode = 0o600
        blocks.append(entry.tobuf(tarfile.PAX_FORMAT))
    return b"".join(blocks)


def invalid(what: str, why: str) -> InputError:
    """The error for a checkpoint that cannot be converted."""
    return InputError(
        "dump_invalid",
        f"{what} is not usable: {why}.",
        "Take the checkpoint again, or transfer it again as a whole.",
    )
