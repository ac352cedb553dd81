# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""containerd's content store: stat, streaming read, streaming write; and the JSON documents of images in it."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .._core import strict_json
from .._core.errors import AlreadyExistsError, InputError, NotFoundError, RestoreError
from .._core.strict_json import StrictJsonError
from .._oci import image as oci_image
from .._oci.image import Descriptor, DocumentError
from . import messages
from .client import Client

_SERVICE = "containerd.services.content.v1.Content"
_WRITE, _COMMIT = 1, 2
#: Bytes per write message; well below gRPC's 4 MiB limit on the daemon's side.
CHUNK = 1024 * 1024


@dataclass(frozen=True)
class Blob:
    """A blob in the store; ``size`` in bytes."""

    digest: str
    size: int
    labels: Mapping[str, str]


def stat(client: Client, digest: str) -> Blob | None:
    """The blob's size and labels, None when it is not in the store (of this namespace)."""
    try:
        info = client.call(f"{_SERVICE}/Info", digest=digest).info
    except NotFoundError:
        return None
    return Blob(info.digest, info.size, dict(info.labels))


def read(client: Client, digest: str, size: int, seconds: float | None = None) -> Iterator[bytes]:
    """Stream a blob of ``size`` bytes. Raises InputError ``blob_missing`` or ``blob_truncated``.

    The daemon does not verify on reading: whoever consumes the chunks has to compare the digest. ``seconds``: how long
    it may take; None: as long as its size allows.
    """
    seen = 0
    seconds = client.seconds_for(size) if seconds is None else seconds
    try:
        for response in client.server_stream(f"{_SERVICE}/Read", seconds, digest=digest):
            seen += len(response.data)
            if seen > size:
                # Who reads a document into memory goes by the size that was claimed.
                break
            client.track.add(len(response.data))
            yield response.data
    except NotFoundError as error:
        raise missing(digest, size) from error
    if seen != size:
        raise InputError(
            "blob_truncated",
            f"The blob {digest} has {seen} bytes{' or more' if seen > size else ''} in containerd's content store "
            f"instead of {size}.",
            "Delete the image, then import or pull it again.",
            details={"digest": digest, "expected": size, "found": seen},
        )


def head(client: Client, digest: str, size: int) -> bytes:
    """The first ``size`` bytes of a blob, or all of a smaller one. Raises InputError ``blob_missing``."""
    try:
        return b"".join(
            response.data for response in client.server_stream(f"{_SERVICE}/Read", digest=digest, size=size)
        )
    except NotFoundError as error:
        raise missing(digest, size) from error


def read_at(client: Client, digest: str, offset: int, size: int) -> bytes:
    """``size`` bytes of a blob from ``offset`` on, fewer at its end. Raises InputError ``blob_missing``."""
    try:
        found = client.server_stream(f"{_SERVICE}/Read", digest=digest, offset=offset, size=size)
        return b"".join(response.data for response in found)
    except NotFoundError as error:
        raise missing(digest, size) from error


def ingested(client: Client, ref: str) -> int | None:
    """Bytes that a write ``ref`` which is under way has put into the store; None where there is none."""
    try:
        return int(client.call(f"{_SERVICE}/Status", ref=ref).status.offset)
    except NotFoundError:
        return None


def missing(digest: str, size: int) -> InputError:
    """The error ``blob_missing``; ``size`` in bytes."""
    return InputError(
        "blob_missing",
        f"The blob {digest} ({size} bytes) is not in containerd's content store.",
        "Import or pull the image again.",
        details={"digest": digest},
    )


def read_all(client: Client, digest: str, size: int, limit: int = 8 * 1024 * 1024) -> bytes:
    """A small blob (a manifest, a config) whole and verified.

    Raises InputError ``blob_too_large`` above ``limit`` bytes, ``blob_missing``, ``blob_truncated``, ``blob_digest``.
    """
    if size > limit:
        raise InputError(
            "blob_too_large",
            f"The blob {digest} claims {size} bytes; documents of this kind have at most {limit}.",
            "The image is damaged or hostile: make it again.",
            details={"digest": digest, "size": size},
        )
    data = b"".join(read(client, digest, size))
    _require_digest(digest, "sha256:" + hashlib.sha256(data).hexdigest())
    return data


def verify(client: Client, digest: str, size: int) -> None:
    """Read a blob through, for a reader that does not verify it itself, as the daemon's Diff.Apply.

    Raises InputError ``blob_missing``, ``blob_truncated``, ``blob_digest``.
    """
    hasher = hashlib.sha256()
    for chunk in read(client, digest, size):
        hasher.update(chunk)
    _require_digest(digest, "sha256:" + hasher.hexdigest())


def _require_digest(digest: str, found: str) -> None:
    if found != digest:
        raise InputError(
            "blob_digest",
            f"The blob {digest} has the digest {found} in containerd's content store.",
            "The store is damaged: delete the image, then import or pull it again.",
            details={"expected": digest, "found": found},
        )


def write(
    client: Client,
    chunks: Iterable[bytes],
    digest: str,
    size: int,
    labels: Mapping[str, str],
    slow_end: bool = False,
) -> bool:
    """Stream a blob into the store; the daemon verifies digest and size. False if it was there already.

    A write that fails is aborted, so it leaves no ingest behind. ``slow_end``: ``chunks`` come from a network.
    """
    ref = f"gpuops-restore-{digest}-{uuid.uuid4().hex}"
    fields: dict[str, Any] = {"ref": ref, "total": size, "expected": digest}

    def requests() -> Iterator[Any]:
        kind = "containerd.services.content.v1.WriteContentRequest"
        offset = 0
        for chunk in chunks:
            for start in range(0, len(chunk), CHUNK):
                data = chunk[start : start + CHUNK]
                yield messages.message(kind, action=_WRITE, offset=offset, data=data, **fields)
                client.track.add(len(data))
                offset += len(data)
        yield messages.message(kind, action=_COMMIT, offset=offset, labels=dict(labels), **fields)

    return _send(client, ref, requests(), client.seconds_for(size, slow_end))


def _send(client: Client, ref: str, requests: Iterator[Any], timeout: float) -> bool:
    """Carry out a write; False if the blob was there already. A write that fails is aborted."""
    source = _Relay(requests)
    try:
        for _response in client.bidi_stream(f"{_SERVICE}/Write", source, timeout):
            pass
    except AlreadyExistsError:
        return False
    except BaseException:
        _abort(client, ref)
        if source.error is not None:
            # gRPC reports a failing request iterator as a cancelled call; the reason is what we kept.
            raise source.error from None
        raise
    return True


def set_labels(client: Client, digest: str, labels: Mapping[str, str]) -> None:
    """Add labels to a blob, keeping the others."""
    info = messages.message("containerd.services.content.v1.Info", digest=digest, labels=dict(labels))
    mask = messages.message("google.protobuf.FieldMask", paths=[f"labels.{name}" for name in labels])
    client.call(f"{_SERVICE}/Update", info=info, update_mask=mask)


class _Relay:
    """An iterator that keeps the exception of the one below, which gRPC swallows."""

    def __init__(self, below: Iterator[Any]) -> None:
        self._below = below
        self.error: BaseException | None = None

    def __iter__(self) -> _Relay:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._below)
        except StopIteration:
            raise
        except BaseException as error:
            self.error = error
            raise


def _abort(client: Client, ref: str) -> None:
    try:
        client.call(f"{_SERVICE}/Abort", ref=ref)
    except RestoreError:
        # Best effort on the way out of another failure; the lease's expiry collects the ingest otherwise.
        return


def read_document(client: Client, descriptor: Descriptor) -> dict[str, Any]:
    """A manifest, index or config as a dict. Raises InputError ``blob_*`` and ``document_invalid``."""
    data = read_all(client, descriptor.digest, descriptor.size)
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
