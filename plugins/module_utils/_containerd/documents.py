# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The JSON documents of an image in containerd's content store: indexes, manifests and configs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._core import strict_json
from .._core.errors import InputError
from .._core.strict_json import StrictJsonError
from .._oci import image as oci_image
from . import content
from .client import Client
from .images import Descriptor

INDEXES = frozenset(oci_image.INDEX_TYPES)
MANIFESTS = frozenset(oci_image.MANIFEST_TYPES)
#: What fits the size field of containerd's descriptor, an int64.
_MAX_SIZE = 2**63 - 1


def read(client: Client, descriptor: Descriptor) -> dict[str, Any]:
    """A manifest, index or config as a dict. Raises InputError ``blob_*`` and ``document_invalid``."""
    data = content.read_all(client, descriptor.digest, descriptor.size)
    try:
        return strict_json.parse_object(data)
    except StrictJsonError as error:
        raise _invalid(descriptor.digest, str(error)) from error


def mapping(document: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    """The object under ``key``, empty when there is none. Raises InputError ``document_invalid``."""
    found = document.get(key)
    if found is not None and not isinstance(found, dict):
        raise _invalid(where, f"{key} is not an object")
    return found or {}


def objects(document: Mapping[str, Any], key: str, where: str) -> list[Any]:
    """The list under ``key``, empty when there is none. Raises InputError ``document_invalid``."""
    found = document.get(key)
    if found is not None and not isinstance(found, list):
        raise _invalid(where, f"{key} is not a list")
    return found or []


def descriptor(entry: Any, where: str) -> Descriptor:
    """A descriptor out of a JSON document. Raises InputError ``document_invalid``."""
    if not isinstance(entry, dict):
        raise _invalid(where, "a descriptor is not an object")
    digest, size = entry.get("digest"), entry.get("size")
    good_digest = isinstance(digest, str) and digest.startswith("sha256:") and len(digest) == 71
    if not good_digest or not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_SIZE:
        raise _invalid(where, f"it has a descriptor with digest {digest!r} and size {str(size)[:40]}")
    annotations = {str(key): str(value) for key, value in mapping(entry, "annotations", where).items()}
    return Descriptor(str(entry.get("mediaType") or ""), str(digest), size, annotations)


def _invalid(what: str, why: str) -> InputError:
    return InputError(
        "document_invalid",
        f"The document {what} of the image is not valid: {why}.",
        "The image is damaged: make, import or pull it again.",
    )
