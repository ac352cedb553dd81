# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Manifests and blobs of one repository, by the OCI distribution specification 1.1.

Uploads go as one request per blob, the way that Docker, Podman and skopeo do and every registry takes. Where a
connection breaks, a read goes on by a range, and a write where the registry says that it stands, or from the start.
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
from .errors import answer_invalid, redirect_refused, unreachable
from .http import Answer, Transport
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
#: Seconds that a registry may take over what it got: it computes the digest, and moves the blob to its place.
_COMMIT_SECONDS = 1800.0
#: Seconds that it may take to answer when the last byte of a blob has come.
_SETTLE_SECONDS = 300.0
_TRIES = 5
_LONGEST_PAUSE = 30.0
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
        return self._patiently(self._manifest)

    def put_manifest(self, data: bytes) -> None:
        """Have the tag stand for this manifest."""

        def put() -> None:
            url = f"{self._base}/manifests/{self._reference.tag}"
            headers = {"Content-Type": MANIFEST}
            with self._transport.send("PUT", url, (200, 201), headers, lambda: [data], len(data)) as answer:
                told = answer.header("Docker-Content-Digest")
            wanted = digest_of(data)
            if told and told != wanted:
                raise answer_invalid(url, f"it took the manifest {wanted} for {told[:80]!r}")

        self._patiently(put)

    def has_blob(self, digest: str, size: int) -> bool:
        """Whether the blob is there, with that size."""

        def ask() -> bool:
            url = f"{self._base}/blobs/{digest}"
            with self._transport.send("HEAD", url, (200, 404)) as answer:
                if answer.status == 404:
                    return False
                told = answer.header("Content-Length")
            if told and told != str(size):
                raise answer_invalid(url, f"it has {told[:20]} bytes where {size} are expected")
            return True

        return self._patiently(ask)

    def blob(self, digest: str, size: int) -> Generator[bytes, None, None]:
        """The bytes of a blob, gone on with where a connection broke; digest and size are the consumer's to verify.

        Raises InputError ``registry_blob_missing``, ``registry_answer_invalid``.
        """
        at, failed = 0, 0
        while at < size:
            before = at
            try:
                for chunk in self._part(digest, size, at):
                    at += len(chunk)
                    yield chunk
                if at < size:
                    raise unreachable(f"{self._base}/blobs/{digest}", f"only {at} of {size} bytes came")
            except RestoreError as error:
                failed = 1 if at > before else failed + 1
                self._pause(error, failed)

    def upload(self, digest: str, size: int, source: Source) -> None:
        """Bring a blob in. ``source`` gives its bytes from the start, as often as it is called, and verifies them.

        What was begun is cancelled after a failure, so that no memory stays in the registry unnamed.
        """
        location, at, failed = "", 0, 0
        try:
            while True:
                try:
                    location = location or self._begin()
                    if at < size:
                        location = self._patch(location, at, size, source)
                        at = size
                    self._commit(location, digest)
                    return
                except RestoreError as error:
                    before = at
                    location, at = self._standing(location, size) if error.outcome == RETRYABLE else (location, at)
                    failed = 1 if location and at > before else failed + 1
                    self._pause(error, failed)
                if not location and self.has_blob(digest, size):
                    return  # the answer to the last step was lost, not the step
        except BaseException:
            self._cancel(location)
            raise

    def _manifest(self) -> bytes | None:
        url = f"{self._base}/manifests/{self._reference.target}"
        accept = ", ".join((MANIFEST, *_OTHERS))
        with self._transport.send("GET", url, (200, 404), {"Accept": accept}) as answer:
            if answer.status == 404:
                return None
            data = answer.read(MAX_MANIFEST)
            told, length = answer.header("Docker-Content-Digest"), answer.header("Content-Length")
        if len(data) > MAX_MANIFEST:
            raise InputError(
                "manifest_too_large",
                f"The manifest of {self._reference} in the registry has more than {MAX_MANIFEST} bytes.",
                "A checkpoint's has a few thousand: see that the reference is the right one.",
            )
        if length.isdecimal() and length != str(len(data)):
            raise unreachable(url, f"only {len(data)} of {length[:20]} bytes came")
        found = digest_of(data)
        for wanted in (self._reference.digest, told):
            if wanted.startswith("sha256:") and wanted != found:
                raise InputError(
                    "digest_mismatch",
                    f"The registry's manifest of {self._reference} has the digest {found}, not {wanted[:80]}.",
                    "Correct the digest of the reference; if it is right, the registry is damaged or hostile.",
                    details={"expected": wanted[:80], "actual": found},
                )
        return data

    def _part(self, digest: str, size: int, at: int) -> Iterator[bytes]:
        """The blob from ``at`` on; a server without ranges sends it from its start."""
        url = f"{self._base}/blobs/{digest}"
        headers = {"Range": f"bytes={at}-"} if at else {}
        with self._transport.send("GET", url, (200, 206, 404), headers) as answer:
            if answer.status == 404:
                raise InputError(
                    "registry_blob_missing",
                    f"The registry names the blob {digest} of {self._reference} and does not have it.",
                    "Push the checkpoint again.",
                    details={"digest": digest},
                )
            skip = 0 if answer.status == 206 else at
            _check_length(answer, size - at if answer.status == 206 else size)
            if answer.status == 206 and not answer.header("Content-Range").startswith(f"bytes {at}-"):
                raise answer_invalid(url, f"asked from byte {at} on, it has {answer.header('Content-Range')[:60]!r}")
            for chunk in answer.chunks():
                fresh = chunk[skip:]
                skip -= len(chunk) - len(fresh)
                if fresh:
                    yield fresh

    def _begin(self) -> str:
        url = f"{self._base}/blobs/uploads/"
        with self._transport.send("POST", url, (202,), {}, list, 0) as answer:
            return self._location(answer)

    def _patch(self, location: str, at: int, size: int, source: Source) -> str:
        headers = dict(_OCTETS)
        if at:
            headers["Content-Range"] = f"{at}-{size - 1}"
        rest = size - at

        def body() -> Iterable[bytes]:
            return _skipping(source(), at)

        with self._transport.send("PATCH", location, (202,), headers, body, rest, _SETTLE_SECONDS) as answer:
            told = _RANGE.match(answer.header("Range"))
            if told is not None and int(told.group(1)) != size - 1:
                raise answer_invalid(location, f"it has {int(told.group(1)) + 1} bytes of the {size} that were sent")
            return self._location(answer)

    def _commit(self, location: str, digest: str) -> None:
        url = location + ("&" if "?" in location else "?") + urllib.parse.urlencode({"digest": digest})
        self._transport.send("PUT", url, (201, 204), _OCTETS, list, 0, _COMMIT_SECONDS).close()

    def _standing(self, location: str, size: int) -> tuple[str, int]:
        """Where to go on with an upload that broke off; ("", 0) where it has to begin anew."""
        if not location:
            return "", 0
        with contextlib.suppress(RestoreError), self._transport.send("GET", location, (204,)) as answer:
            told = _RANGE.match(answer.header("Range"))
            # "0-0" is one byte or none: no registry tells them apart.
            if told is not None and 0 < int(told.group(1)) < size:
                return self._location(answer), int(told.group(1)) + 1
        self._cancel(location)
        return "", 0

    def _cancel(self, location: str) -> None:
        """Best effort, on the way out of another failure; registries purge uploads that nobody ends."""
        if location:
            with contextlib.suppress(RestoreError):
                self._transport.send("DELETE", location, (200, 202, 204, 404)).close()

    def _location(self, answer: Answer) -> str:
        """Where an upload goes on: never elsewhere, for it is memory that is sent there."""
        found = urllib.parse.urljoin(answer.url, answer.header("Location"))
        if not answer.header("Location"):
            raise answer_invalid(answer.url, "it does not say where to upload to")
        if origin(found) != origin(answer.url):
            raise redirect_refused(answer.url, found, "memory is not uploaded to another server")
        return found

    def _patiently(self, act: Callable[[], T]) -> T:
        """Again after failures that may pass; for what may be done twice."""
        failed = 0
        while True:
            try:
                return act()
            except RestoreError as error:
                failed += 1
                self._pause(error, failed)

    def _pause(self, error: RestoreError, failed: int) -> None:
        """Wait before the next try, or raise what there is to raise."""
        if error.outcome != RETRYABLE or failed >= _TRIES:
            raise error
        asked = str(error.details.get("retry_after", ""))
        seconds = float(asked) if asked.isdecimal() else 0.25 * 2**failed
        self._sleep(min(seconds, _LONGEST_PAUSE))


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _check_length(answer: Answer, expected: int) -> None:
    told = answer.header("Content-Length")
    if told and told != str(expected):
        raise InputError(
            "size_mismatch",
            f"The registry announces {told[:20]} bytes of a blob where {expected} were declared.",
            "Push the checkpoint again: the registry is damaged or hostile.",
            details={"expected": expected, "actual": told[:20]},
        )


def _skipping(chunks: Iterable[bytes], count: int) -> Iterator[bytes]:
    """Without the first ``count`` bytes, which are still read: their digest counts."""
    for chunk in chunks:
        fresh = chunk[count:]
        count -= len(chunk) - len(fresh)
        if fresh:
            yield fresh
