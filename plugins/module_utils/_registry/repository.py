# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Manifests and blobs of one repository, by the OCI distribution specification 1.1.

Uploads go as one request per blob, the way that Docker, Podman and skopeo do and every registry takes. Where a
connection breaks, a read is resumed by a range, and a write at the offset that the registry reports, or from the start.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
import urllib.parse
from collections.abc import Generator, Iterable, Iterator
from typing import Callable, TypeVar

from .._core.errors import RETRYABLE, InputError, RestoreError
from .http import Response, Transport, redirect_refused, response_invalid, unreachable
from .reference import Reference, origin

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
#: What else may stand under a tag: asked for to be able to say so.
_OTHERS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
#: Registries promise no more (distribution specification, "Pushing Manifests").
MAX_MANIFEST = 4 << 20
#: Seconds that a registry may take over what it got, and bytes a second beyond that: it computes the digest, and moves
#: the blob to its place.
_COMMIT_TIMEOUT = 1800.0
_COMMIT_RATE = 50e6
#: Seconds that it may take to respond when the last byte of a blob has come.
_LAST_BYTE_TIMEOUT = 300.0
_MAX_TRIES = 5
_MAX_PAUSE = 30.0
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})\Z")
_OCTETS = {"Content-Type": "application/octet-stream"}

Source = Callable[[], Iterable[bytes]]
T = TypeVar("T")


class Repository:
    """One repository of a registry. Raises NodeError and InputError ``registry_*``."""

    def __init__(self, transport: Transport, reference: Reference, sleep: Callable[[float], None] = time.sleep) -> None:
        self._transport = transport
        self._reference = reference
        self._base = transport.url(f"/v2/{reference.repository}")
        self._sleep = sleep

    def manifest(self) -> bytes | None:
        """The manifest that the reference names, None when there is none; verified if a digest names it."""
        return self._retried(self._manifest)

    def put_manifest(self, data: bytes) -> None:
        """Make the tag name this manifest."""

        def put() -> None:
            url = f"{self._base}/manifests/{self._reference.tag}"
            headers = {"Content-Type": MANIFEST}
            with self._transport.send("PUT", url, (200, 201), headers, lambda: [data], len(data)) as response:
                announced = response.header("Docker-Content-Digest")
            wanted = digest_of(data)
            if announced and announced != wanted:
                raise response_invalid(url, f"it took the manifest {wanted} for {announced[:80]!r}")

        self._retried(put)

    def delete_tag(self) -> bool:
        """Take the tag away, and nothing else that stands for the same manifest. False if the registry cannot do that.

        By the digest every registry could, and would take the tags of others along.
        """

        def delete() -> bool:
            url = f"{self._base}/manifests/{self._reference.tag}"
            with self._transport.send("DELETE", url, (200, 202, 204, 400, 404, 405)) as response:
                return response.status not in (400, 405)

        return self._retried(delete)

    def has_blob(self, digest: str, size: int) -> bool:
        """Whether the blob is there, with that size."""

        def head() -> bool:
            url = f"{self._base}/blobs/{digest}"
            with self._transport.send("HEAD", url, (200, 404)) as response:
                if response.status == 404:
                    return False
                announced = response.header("Content-Length")
            if announced and announced != str(size):
                raise response_invalid(url, f"it has {announced[:20]} bytes where {size} are expected")
            return True

        return self._retried(head)

    def blob(self, digest: str, size: int) -> Generator[bytes, None, None]:
        """The bytes of a blob, resumed where a connection broke; the consumer verifies digest and size.

        Raises InputError ``registry_blob_missing``, ``registry_answer_invalid``.
        """
        return self.file(f"blobs/{digest}", size)

    def file(self, path: str, size: int) -> Generator[bytes, None, None]:
        """The same of what else a server has below the repository, under its path there."""
        offset, failed = 0, 0
        while offset < size:
            before = offset
            try:
                for chunk in self._part(path, size, offset):
                    offset += len(chunk)
                    yield chunk
                if offset < size:
                    raise unreachable(f"{self._base}/{path}", f"only {offset} of {size} bytes came")
            except RestoreError as error:
                failed = 1 if offset > before else failed + 1
                self._pause(error, failed)

    def upload(self, digest: str, size: int, source: Source) -> None:
        """Upload a blob. ``source`` gives its bytes from the start, as often as it is called, and verifies them.

        What was begun is cancelled after a failure, so that no memory stays in the registry unnamed.
        """
        location, offset, failed = "", 0, 0
        try:
            while True:
                try:
                    location = location or self._begin()
                    if offset < size:
                        location = self._patch(location, offset, size, source)
                        offset = size
                    self._commit(location, digest, size)
                    return
                except RestoreError as error:
                    before = offset
                    if error.outcome == RETRYABLE:
                        location, offset = self._resume_point(location, size)
                    failed = 1 if location and offset > before else failed + 1
                    self._pause(error, failed)
                if not location and self.has_blob(digest, size):
                    return  # the response to the last step was lost, not the step
        except BaseException:
            self._cancel(location)
            raise

    def _manifest(self) -> bytes | None:
        url = f"{self._base}/manifests/{self._reference.target}"
        accept = ", ".join((MANIFEST, *_OTHERS))
        with self._transport.send("GET", url, (200, 404), {"Accept": accept}) as response:
            if response.status == 404:
                return None
            data = response.read(MAX_MANIFEST)
            announced, length = response.header("Docker-Content-Digest"), response.header("Content-Length")
        if len(data) > MAX_MANIFEST:
            raise InputError(
                "manifest_too_large",
                f"The manifest of {self._reference} in the registry has more than {MAX_MANIFEST} bytes.",
                "A checkpoint's has a few thousand: see that the reference is the right one.",
            )
        if length.isdecimal() and length != str(len(data)):
            raise unreachable(url, f"only {len(data)} of {length[:20]} bytes came")
        found = digest_of(data)
        for wanted in (self._reference.digest, announced):
            if wanted.startswith("sha256:") and wanted != found:
                raise InputError(
                    "digest_mismatch",
                    f"The registry's manifest of {self._reference} has the digest {found}, not {wanted[:80]}.",
                    "Correct the digest of the reference; if it is right, the registry is damaged or hostile.",
                    details={"expected": wanted[:80], "actual": found},
                )
        return data

    def _part(self, path: str, size: int, offset: int) -> Iterator[bytes]:
        """What is there from ``offset`` on; a server without ranges sends it from its start."""
        url = f"{self._base}/{path}"
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self._transport.send("GET", url, (200, 206, 404), headers) as response:
            if response.status == 404:
                what = f"the {path.partition('/')[0].rstrip('s')} {path.partition('/')[2]}"
                raise InputError(
                    "registry_blob_missing",
                    f"The registry names {what} of {self._reference} and does not have it.",
                    "Push the checkpoint again.",
                    details={"digest": path.rpartition("/")[2]},
                )
            skip = 0 if response.status == 206 else offset
            _check_length(response, size - offset if response.status == 206 else size)
            if response.status == 206 and not response.header("Content-Range").startswith(f"bytes {offset}-"):
                sent = response.header("Content-Range")[:60]
                raise response_invalid(url, f"asked from byte {offset} on, it has {sent!r}")
            for chunk in response.chunks():
                unread = chunk[skip:]
                skip -= len(chunk) - len(unread)
                if unread:
                    yield unread

    def _begin(self) -> str:
        url = f"{self._base}/blobs/uploads/"
        with self._transport.send("POST", url, (202,), {}, list, 0) as response:
            return self._location(response)

    def _patch(self, location: str, offset: int, size: int, source: Source) -> str:
        headers = dict(_OCTETS)
        if offset:
            headers["Content-Range"] = f"{offset}-{size - 1}"
        rest = size - offset

        def body() -> Iterable[bytes]:
            return _skipping(source(), offset)

        with self._transport.send("PATCH", location, (202,), headers, body, rest, _LAST_BYTE_TIMEOUT) as response:
            announced = _RANGE.match(response.header("Range"))
            if announced is not None and int(announced.group(1)) != size - 1:
                received = int(announced.group(1)) + 1
                raise response_invalid(location, f"it has {received} bytes of the {size} that were sent")
            return self._location(response)

    def _commit(self, location: str, digest: str, size: int) -> None:
        url = location + ("&" if "?" in location else "?") + urllib.parse.urlencode({"digest": digest})
        seconds = max(_COMMIT_TIMEOUT, size / _COMMIT_RATE)
        self._transport.send("PUT", url, (201, 204), _OCTETS, list, 0, seconds).close()

    def _resume_point(self, location: str, size: int) -> tuple[str, int]:
        """Location and offset at which to resume an upload that broke off; ("", 0) where it has to start again."""
        if not location:
            return "", 0
        with contextlib.suppress(RestoreError), self._transport.send("GET", location, (204,)) as response:
            announced = _RANGE.match(response.header("Range"))
            # "0-0" is one byte or none: no registry tells them apart.
            if announced is not None and 0 < int(announced.group(1)) < size:
                return self._location(response), int(announced.group(1)) + 1
        self._cancel(location)
        return "", 0

    def _cancel(self, location: str) -> None:
        """Best effort, on the way out of another failure; registries purge uploads that nobody ends."""
        if location:
            with contextlib.suppress(RestoreError):
                self._transport.send("DELETE", location, (200, 202, 204, 404)).close()

    def _location(self, response: Response) -> str:
        """Where an upload continues: never on another server, since process memory is sent there."""
        found = urllib.parse.urljoin(response.url, response.header("Location"))
        if not response.header("Location"):
            raise response_invalid(response.url, "it does not say where to upload to")
        if origin(found) != origin(response.url):
            raise redirect_refused(response.url, found, "memory is not uploaded to another server")
        return found

    def _retried(self, request: Callable[[], T]) -> T:
        """Repeat a request after transient failures; for requests that may be sent twice."""
        failed = 0
        while True:
            try:
                return request()
            except RestoreError as error:
                failed += 1
                self._pause(error, failed)

    def _pause(self, error: RestoreError, failed: int) -> None:
        """Wait before the next attempt, or raise the error where there is none."""
        if error.outcome != RETRYABLE or failed >= _MAX_TRIES:
            raise error
        retry_after = str(error.details.get("retry_after", ""))
        seconds = float(retry_after) if retry_after.isdecimal() else 0.25 * 2**failed
        self._sleep(min(seconds, _MAX_PAUSE))


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _check_length(response: Response, expected: int) -> None:
    announced = response.header("Content-Length")
    if announced and announced != str(expected):
        raise InputError(
            "size_mismatch",
            f"The registry announces {announced[:20]} bytes of a blob where {expected} were declared.",
            "Push the checkpoint again: the registry is damaged or hostile.",
            details={"expected": expected, "actual": announced[:20]},
        )


def _skipping(chunks: Iterable[bytes], count: int) -> Iterator[bytes]:
    """Without the first ``count`` bytes, which are still read: their digest counts."""
    for chunk in chunks:
        unread = chunk[count:]
        count -= len(chunk) - len(unread)
        if unread:
            yield unread
