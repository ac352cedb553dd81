# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Descriptors, indexes and manifests of images, parsed with bounds.

Shapes: OCI image specification 1.1 (descriptor, image index, image manifest) and Docker's image manifest v2,
schema 2.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Callable

from .._core import strict_json
from .._core.errors import InputError
from .._core.strict_json import StrictJsonError
from .._core.text import is_digest

INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
MAX_MANIFEST = strict_json.MAX_BYTES
MAX_INDEX_DEPTH = 4
MAX_BLOBS = 10000
_MAX_BLOB_SIZE = 1 << 50
_RETRY = "Export or build the archive again with a tool you trust."
#: What containerd reads of a document, of a descriptor and of a platform (image-spec, specs-go/v1).
_DOCUMENT_KEYS = (
    "schemaVersion", "mediaType", "artifactType", "manifests", "config", "layers", "subject", "annotations",
)  # fmt: skip
_DESCRIPTOR_KEYS = ("mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType")
_PLATFORM_KEYS = ("architecture", "os", "os.version", "os.features", "variant")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386", "i386": "386"}


@dataclass(frozen=True)
class Platform:
    """``os``, ``architecture`` and ``variant`` in Go's words: ``linux``, ``amd64``, ``""``."""

    os: str
    architecture: str
    variant: str = ""

    def runs_on(self, host: Platform) -> bool:
        """Whether an image for this platform runs on ``host``; an absent variant fits every one."""
        same = (self.os, self.architecture) == (host.os, host.architecture)
        return same and (not self.variant or not host.variant or self.variant == host.variant)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def host_platform() -> Platform:
    """The platform of this machine."""
    uname = os.uname()
    return Platform(uname.sysname.lower(), _MACHINES.get(uname.machine, uname.machine))


@dataclass(frozen=True)
class Descriptor:
    """What one thing says of another. Two of the same type, digest and size are equal."""

    media_type: str
    #: ``sha256:`` and 64 hexadecimal digits.
    digest: str
    #: In bytes.
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, compare=False)
    platform: Platform | None = field(default=None, compare=False)

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEX_TYPES

    @property
    def is_manifest(self) -> bool:
        return self.media_type in MANIFEST_TYPES

    @property
    def has_children(self) -> bool:
        return self.is_index or self.is_manifest

    @property
    def is_foreign(self) -> bool:
        """A layer that its licence keeps out of archives and registries."""
        return ".foreign." in self.media_type or ".nondistributable." in self.media_type

    def bare(self) -> Descriptor:
        """Type, digest and size alone, as records and documents of ours name it."""
        return Descriptor(self.media_type, self.digest, self.size)


class DocumentError(ValueError):
    """What is wrong with a document; ``code`` is the failure's where archives and registries are read."""

    def __init__(self, detail: str, code: str = "manifest_invalid") -> None:
        super().__init__(detail)
        self.code = code


def read_descriptor(value: Any) -> Descriptor:
    """One descriptor out of JSON. Raises DocumentError ``descriptor_invalid`` or ``digest_invalid``."""
    if not isinstance(value, dict):
        raise DocumentError("a descriptor in it is not an object", "descriptor_invalid")
    _require_spelling(value, _DESCRIPTOR_KEYS, "a descriptor in it")
    media_type, size, digest = value.get("mediaType"), value.get("size"), value.get("digest")
    if not isinstance(media_type, str) or not media_type or len(media_type) > 255 or not media_type.isprintable():
        raise DocumentError("a descriptor in it has no media type", "descriptor_invalid")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_BLOB_SIZE:
        raise DocumentError("a descriptor in it has an impossible size", "descriptor_invalid")
    if not isinstance(digest, str) or not is_digest(digest):
        raise DocumentError(f"the digest {str(digest)[:80]!r} of a descriptor in it is not a sha256", "digest_invalid")
    annotations = value.get("annotations") or {}
    if not isinstance(annotations, dict) or not all(isinstance(item, str) for item in annotations.values()):
        raise DocumentError("the annotations of a descriptor in it are not strings", "descriptor_invalid")
    return Descriptor(media_type, digest, size, annotations, _platform(value.get("platform")))


def _platform(value: Any) -> Platform | None:
    if value is None:
        return None
    if isinstance(value, dict):
        _require_spelling(value, _PLATFORM_KEYS, "a platform in it")
    parts = [value.get(key) or "" for key in ("os", "architecture", "variant")] if isinstance(value, dict) else [0]
    if not all(isinstance(part, str) for part in parts):
        raise DocumentError("the platform of a descriptor in it is malformed", "descriptor_invalid")
    return Platform(*parts)


def _require_spelling(value: Mapping[str, Any], names: Collection[str], what: str) -> None:
    try:
        strict_json.require_spelling(value, names, what)
    except StrictJsonError as error:
        raise DocumentError(str(error)) from error


def read_descriptors(value: Any) -> list[Descriptor]:
    """A list of at most ``MAX_BLOBS`` descriptors. Raises DocumentError ``too_many_blobs`` and as above."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise DocumentError("its list of descriptors is not a list")
    if len(value) > MAX_BLOBS:
        raise DocumentError(f"it names more than {MAX_BLOBS} blobs", "too_many_blobs")
    return [read_descriptor(item) for item in value]


def read_children(descriptor: Descriptor, document: Mapping[str, Any]) -> list[Descriptor]:
    """What an index or a manifest (config first) names, in order. Raises DocumentError."""
    _require_spelling(document, _DOCUMENT_KEYS, "it")
    claimed = document.get("mediaType") or descriptor.media_type
    if claimed != descriptor.media_type:
        raise DocumentError(f"it says that it is {str(claimed)[:80]!r}, its descriptor {descriptor.media_type!r}")
    # A document that is both would mean one thing to us and another to containerd.
    if "manifests" in document and ("config" in document or "layers" in document):
        raise DocumentError("it is an index and a manifest at once")
    if descriptor.is_index:
        return read_descriptors(document.get("manifests"))
    return [read_descriptor(document.get("config")), *read_descriptors(document.get("layers"))]


def invalid(what: str, detail: str, code: str = "manifest_invalid") -> InputError:
    """The error for a document of an archive or a registry that is not what it should be."""
    return InputError(code, f"{what} is not usable: {detail}.", _RETRY)


@contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        yield
    except StrictJsonError as error:
        raise invalid(what, f"it is not proper JSON ({error})") from error
    except DocumentError as error:
        raise invalid(what, str(error), error.code) from error


def parse_json(data: bytes, what: str) -> Any:
    """A document of any kind. Raises InputError ``manifest_invalid``."""
    with _reading(what):
        return strict_json.parse(data)


def parse_object(data: bytes, what: str) -> dict[str, Any]:
    """As :func:`parse_json`, and it has to be an object."""
    document = parse_json(data, what)
    if not isinstance(document, dict):
        raise invalid(what, "it is not a JSON object")
    return document


def parse_descriptors(value: Any, what: str) -> list[Descriptor]:
    """:func:`read_descriptors` with InputError in place of DocumentError."""
    with _reading(what):
        return read_descriptors(value)


def children(descriptor: Descriptor, data: bytes) -> list[Descriptor]:
    """:func:`read_children` of a document's bytes, with InputError in place of DocumentError."""
    what = f"The {'index' if descriptor.is_index else 'manifest'} {descriptor.digest}"
    document = parse_object(data, what)
    with _reading(what):
        return read_children(descriptor, document)


Load = Callable[[Iterable[Descriptor]], Mapping[str, bytes]]


def walk(
    top: Descriptor, load: Load, platform: Platform | None, allow_missing: Container[str] = ()
) -> dict[str, list[Descriptor]]:
    """Every index and manifest below ``top`` (itself first) with the children that ``platform`` needs.

    ``load`` gives the verified bytes of documents by digest, and may leave out what is not there.
    ``platform`` None: all platforms, and whatever is missing is passed over. Children under another platform
    are left out; so are those in ``allow_missing`` that are missing. Raises InputError ``blob_missing``,
    ``archive_too_deep``, ``archive_no_platform``, ``too_many_blobs``, ``manifest_unsupported`` and as
    :func:`children`.
    """
    if not top.has_children:
        raise invalid(f"The image {top.digest}", f"its type {top.media_type!r} is unknown", "manifest_unsupported")
    return walk_all([top], f"The image {top.digest}", load, platform, allow_missing)


def walk_all(
    tops: Sequence[Descriptor],
    what: str,
    load: Load,
    platform: Platform | None,
    allow_missing: Container[str] = (),
) -> dict[str, list[Descriptor]]:
    """:func:`walk` for several images at once: the bounds are for all together, each document is read once."""
    graph: dict[str, list[Descriptor]] = {}
    level = list({top.digest: top for top in tops}.values())
    depth, total = 0, 0
    while level:
        depth += 1
        if depth > MAX_INDEX_DEPTH and (depth > MAX_INDEX_DEPTH + 1 or any(item.is_index for item in level)):
            raise invalid(what, "its indexes are nested too deeply", "archive_too_deep")
        documents = load(level)
        following: dict[str, Descriptor] = {}
        for node in level:
            if node.digest not in documents:
                if platform is None or node.digest in allow_missing:
                    continue
                raise missing(node)
            below = _needed(node, children(node, documents[node.digest]), platform)
            total += len(below)
            if total > MAX_BLOBS:
                raise invalid(what, f"it names more than {MAX_BLOBS} blobs", "too_many_blobs")
            graph[node.digest] = below
            following.update((item.digest, item) for item in below if item.has_children)
        level = [item for digest, item in following.items() if digest not in graph]
    return graph


def _needed(node: Descriptor, below: list[Descriptor], platform: Platform | None) -> list[Descriptor]:
    if platform is None or not node.is_index:
        return below
    fitting = [item for item in below if item.platform is None or item.platform.runs_on(platform)]
    if below and not any(item.has_children or item.platform is None for item in fitting):
        offered = sorted({str(item.platform) for item in below})
        raise invalid(f"The index {node.digest}", f"it has {', '.join(offered)}, not {platform}", "archive_no_platform")
    return fitting


def missing(descriptor: Descriptor) -> InputError:
    """The error for a blob that is named and not there."""
    return InputError(
        "blob_missing",
        f"The blob {descriptor.digest} ({descriptor.media_type}) is named in the archive and not in it.",
        "Export the image again with everything that it needs for this platform.",
        details={"digest": descriptor.digest, "size": descriptor.size},
    )
