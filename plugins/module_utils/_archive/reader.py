# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Image archives, OCI layout or Docker, checkpoint images included.

Nothing is unpacked: blobs stream to whoever uploads them, each verified against its descriptor. Sizes and
presence of all blobs are checked before the first one streams.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass

from .._core.errors import InputError
from .._oci.image import (
    MAX_MANIFEST,
    Descriptor,
    Platform,
    host_platform,
    invalid,
    missing,
    parse_descriptors,
    parse_object,
    walk,
    walk_all,
)
from .._streams.decompression import Expansion
from .._streams.streams import verified
from .._streams.tar_reader import Limits
from . import docker
from .members import ArchiveFile

_LAYOUT = "oci-layout"
_INDEX = "index.json"
_MAX_INDEX = 4 << 20
_LIMITS = Limits()
_EXPANSION = Expansion()
_SPARE = 64 << 20  # bytes of a compressed archive that no image in it accounts for
_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


@dataclass(frozen=True)
class ArchiveImage:
    """An image of the archive."""

    #: As the archive gives it; None when it gives none.
    name: str | None
    #: Of its index or manifest.
    descriptor: Descriptor


def normalized_name(name: str) -> str:
    """A name as containerd keeps it: ``busybox`` is ``docker.io/library/busybox:latest``."""
    first, slash, _rest = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        name = f"docker.io/{name}" if slash else f"docker.io/library/{name}"
    tail = name.rpartition("/")[2]
    return name if ":" in tail or "@" in tail else f"{name}:latest"


def open_archive(
    path: str,
    *,
    limits: Limits = _LIMITS,
    expansion: Expansion = _EXPANSION,
    zstd_program: str | None = None,
) -> Archive:
    """Read the table of contents of an archive: plain, gzip or zstd. Close it, or use it in a ``with`` block.

    Raises as ``_archive.members.ArchiveFile``; InputError ``archive_layout_unknown``, ``archive_bomb`` and what
    parsing its index raises.
    """
    file = ArchiveFile(path, limits, expansion, zstd_program)
    try:
        archive = Archive(file)
        if file.compression != "none":
            archive.check_expansion()
        return archive
    except BaseException:
        file.close()
        raise


class Archive:
    """An opened archive."""

    def __init__(self, file: ArchiveFile) -> None:
        self._file = file
        self.path = file.path
        #: ``none``, ``gzip`` or ``zstd``.
        self.compression = file.compression
        #: ``oci`` or ``docker``.
        self.layout = "oci"
        #: What it holds.
        self.images: list[ArchiveImage] = []
        #: Manifests that were made for images of a Docker archive; they have to be uploaded after their blobs.
        self.synthesized: list[tuple[Descriptor, bytes]] = []
        self._documents: dict[str, bytes] = {}
        self._members = {
            "sha256:" + name[len("blobs/sha256/") :]: name for name in file.entries if name.startswith("blobs/sha256/")
        }
        if _LAYOUT in file.entries and _INDEX in file.entries:
            self._read_oci()
        elif docker.MANIFEST in file.entries:
            self._read_docker()
        else:
            raise InputError(
                "archive_layout_unknown",
                f"{file.what} has neither {_LAYOUT} and {_INDEX} nor {docker.MANIFEST}.",
                "Give an image archive as ctr images export, docker save or skopeo write it.",
            )

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_oci(self) -> None:
        documents = self._file.read([_LAYOUT, _INDEX], _MAX_INDEX)
        version = parse_object(documents[_LAYOUT], f"{_LAYOUT} of {self.path}").get("imageLayoutVersion")
        if not isinstance(version, str) or not version.startswith("1."):
            raise invalid(
                self._file.what,
                f"its layout version {str(version)[:40]!r} is unknown",
                "archive_layout_unknown",
            )
        what = f"{_INDEX} of {self.path}"
        images: list[ArchiveImage] = []
        for descriptor in parse_descriptors(parse_object(documents[_INDEX], what).get("manifests"), what):
            names = [descriptor.annotations[key] for key in _NAME_ANNOTATIONS if key in descriptor.annotations]
            images.append(ArchiveImage(names[0] if names else None, descriptor))
        self.images = list(dict.fromkeys(images))

    def _read_docker(self) -> None:
        self.layout = "docker"
        self._members = {}
        for image in docker.read_images(self._file, _MAX_INDEX):
            self._members.update(image.members)
            names: Iterable[str | None] = image.names or (None,)
            self.images.extend(ArchiveImage(name, image.descriptor) for name in names)
            if image.descriptor.digest not in self._documents:
                self._documents[image.descriptor.digest] = image.manifest
                self.synthesized.append((image.descriptor, image.manifest))

    def select(self, name: str | None = None) -> ArchiveImage:
        """The image of that name (short names as Docker means them), or without a name the only one there is.

        InputError ``archive_name_missing`` or ``archive_name_ambiguous``, naming what there is.
        """
        offered = ", ".join(sorted({image.name or f"{image.descriptor.digest} (no name)" for image in self.images}))
        details = {"images": [image.name for image in self.images][:100]}
        found = self.images
        if name is not None:
            found = [image for image in self.images if image.name == name]
            wanted = normalized_name(name)
            found = found or [item for item in self.images if item.name and normalized_name(item.name) == wanted]
        if not found:
            raise InputError(
                "archive_name_missing",
                f"{self._file.what} has no image {name or ''}".rstrip() + f"; it has {offered[:500] or 'none'}.",
                "Give the name of an image that is in the archive, or the right archive.",
                details=details,
            )
        if len({image.descriptor.digest for image in found}) > 1:
            raise InputError(
                "archive_name_ambiguous",
                f"{self._file.what} has several images that fit: {offered[:500]}.",
                "Give the name of one of them; if they share one name, an archive with that one image.",
                details=details,
            )
        return found[0]

    def graph(
        self, image: ArchiveImage, platform: Platform | None = None, allow_missing: Container[str] = ()
    ) -> dict[str, list[Descriptor]]:
        """Digest of each index and manifest of the image -> the children that it has here, in their order.

        Only what ``platform`` (default: this machine's) needs; foreign layers and digests in
        ``allow_missing`` may be missing and are left out then. InputError ``blob_missing``, ``blob_size_mismatch``,
        ``archive_no_platform``, ``archive_too_deep``, ``digest_mismatch`` and as ``_oci.image.children``.
        """
        graph = walk(image.descriptor, self._load, platform or host_platform(), allow_missing)
        self._check(image.descriptor)
        return {
            digest: [child for child in below if self._check(child, allow_missing)] for digest, below in graph.items()
        }

    def document(self, descriptor: Descriptor) -> bytes:
        """An index or manifest of the archive, verified. InputError ``blob_missing`` and as :meth:`graph`."""
        found = self._load([descriptor])
        if descriptor.digest not in found:
            raise missing(descriptor)
        return found[descriptor.digest]

    def blobs(
        self, image: ArchiveImage, platform: Platform | None = None, allow_missing: Container[str] = ()
    ) -> Iterator[tuple[Descriptor, Iterator[bytes]]]:
        """What :meth:`graph` names, once each, in the order of the archive, in one pass; not ``synthesized``.

        A blob's iterator has to be exhausted before the next blob is asked for: only then is it verified, and
        raises InputError ``size_mismatch`` or ``digest_mismatch`` at its end. A blob whose iterator is left
        alone (the content store has it) is passed over.
        """
        graph = self.graph(image, platform, allow_missing)
        wanted: dict[str, Descriptor] = {}
        for descriptor in (image.descriptor, *(child for below in graph.values() for child in below)):
            if descriptor.digest in self._members:
                wanted.setdefault(self._members[descriptor.digest], descriptor)
        for member, chunks in self._file.stream(wanted):
            descriptor = wanted.pop(member)
            what = f"The blob {descriptor.digest} in {self.path}"
            yield descriptor, verified(chunks, digest=descriptor.digest, size=descriptor.size, what=what)
        for descriptor in wanted.values():  # the file changed under us
            raise missing(descriptor)

    def check_expansion(self) -> None:
        """InputError ``archive_bomb`` if much of the archive belongs to none of its images."""
        accounted = {_LAYOUT, _INDEX, docker.MANIFEST}
        tops = [image.descriptor for image in self.images if image.descriptor.has_children]
        graph = walk_all(tops, self._file.what, self._load, None)
        for item in (*tops, *(child for below in graph.values() for child in below)):
            if item.digest in self._members:
                accounted.add(self._members[item.digest])
        entries = self._file.entries
        spare = sum(
            entry.size for name, entry in entries.items() if self._file.real(name) == name and name not in accounted
        )
        if spare > _SPARE:
            raise InputError(
                "archive_bomb",
                f"{self._file.what} expands to {spare} bytes that belong to no image in it.",
                "Export the image again with a tool you trust.",
                details={"unaccounted_bytes": spare},
            )

    def _check(self, descriptor: Descriptor, tolerated: Container[str] = ()) -> bool:
        """Whether the blob is there, with the size that its descriptor gives."""
        if descriptor.digest in self._documents and descriptor.digest not in self._members:
            return True  # made by us
        member = self._members.get(descriptor.digest)
        if member is None:
            if descriptor.is_foreign or descriptor.digest in tolerated:
                return False
            raise missing(descriptor)
        actual = self._file.entries[member].size
        if actual != descriptor.size:
            raise InputError(
                "blob_size_mismatch",
                f"The blob {descriptor.digest} in {self.path} has {actual} bytes, not {descriptor.size}.",
                "Export the image again: the archive is damaged or was changed.",
                details={"expected": descriptor.size, "actual": actual},
            )
        return True

    def _load(self, descriptors: Iterable[Descriptor]) -> dict[str, bytes]:
        """Documents by digest, verified; those that are not in the archive are left out."""
        wanted = {item.digest: item for item in descriptors}
        result = {digest: self._documents[digest] for digest in wanted if digest in self._documents}
        absent = [digest for digest in wanted if digest not in result and digest in self._members]
        for digest in absent:
            self._check(wanted[digest])
        found = self._file.read([self._members[digest] for digest in absent], MAX_MANIFEST)
        for digest in absent:
            data = found[self._members[digest]]
            if "sha256:" + hashlib.sha256(data).hexdigest() != digest:
                raise InputError(
                    "digest_mismatch",
                    f"The manifest {digest} in {self.path} has another digest.",
                    "Export the image again: the archive is damaged or was changed.",
                )
            result[digest] = data
        return result
