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
from .._oci.image import Descriptor, DocumentError
from . import content
from .client import Client


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


def children(descriptor: Descriptor, document: Mapping[str, Any], where: str) -> list[Descriptor]:
    """What an index or a manifest names, its config first. Raises InputError ``document_invalid``."""
    try:
        return oci_image.read_children(descriptor, document)
    except DocumentError as error:
        raise _invalid(where, str(error)) from error


def _invalid(what: str, why: str) -> InputError:
    return InputError(
        "document_invalid",
        f"The document {what} of the image is not valid: {why}.",
        "The image is damaged: make, import or pull it again.",
    )
