# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A test double of a registry, for what a real one does not do on demand: to lie, to break off, to lead elsewhere."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._registry import reference as registry_reference
from ansible_collections.gpuops.restore.plugins.module_utils._registry.credentials import Credentials
from ansible_collections.gpuops.restore.plugins.module_utils._registry.http import Settings, Transport
from ansible_collections.gpuops.restore.plugins.module_utils._registry.repository import Repository

PREFIX = "/v2/team/app/"
USER = Credentials("trainer", "correct horse")


@dataclass
class Seen:
    """A request that arrived."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Rule:
    """What to do instead of answering a request; a rule that returns False lets it pass."""

    method: str
    part: str
    act: Callable[[Handler], object]
    times: int


class FakeRegistry:
    """Start it with :func:`running`. ``authorization``: what it wants in that header, else it gives ``challenge``."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.uploads: dict[str, bytearray] = {}
        self.seen: list[Seen] = []
        self.authorization = ""
        self.challenge = ""
        self.knows_uploads = True
        self._rules: list[Rule] = []
        fake = self

        class Bound(Handler):
            registry = fake

        self._server = _Server(("127.0.0.1", 0), Bound)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """None of its threads goes on."""
        self._server.shutdown()
        self._thread.join()
        self._server.end_connections()
        self._server.server_close()

    def on(self, method: str, part: str, act: Callable[[Handler], object], times: int = 1000) -> None:
        """Call ``act`` for requests whose path has ``part``, instead of answering them."""
        self._rules.append(Rule(method, part, act, times))

    def answer(self, method: str, part: str, status: int, times: int = 1000, body: bytes = b"", **headers: str) -> None:
        """Answer such requests with this."""
        self.on(method, part, lambda handler: handler.reply(status, body, **headers), times)

    def due(self, method: str, path: str) -> Rule | None:
        for rule in self._rules:
            if rule.times > 0 and rule.method == method and rule.part in path:
                rule.times -= 1
                return rule
        return None

    def count(self, method: str, part: str) -> int:
        return len([seen for seen in self.seen if seen.method == method and part in seen.path])

    def put(self, data: bytes) -> str:
        digest = digest_of(data)
        self.blobs[digest] = data
        return digest


class _Server(ThreadingHTTPServer):
    """Waits for the threads of its connections when it is closed; a client that goes away is no error."""

    daemon_threads = False

    def __init__(self, *arguments: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def end_connections(self) -> None:
        """Who still reads from one, or writes to it, finds it closed."""
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    registry: FakeRegistry

    def log_message(self, *_unused: Any) -> None:
        """Say nothing."""

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"Content-Length": str(len(body)), **names}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def take(self, count: int | None = None) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        return self.rfile.read(length if count is None else min(count, length))

    def error(self, status: int, code: str) -> None:
        self.reply(status, json.dumps({"errors": [{"code": code, "message": "it is so"}]}).encode())

    def _serve(self) -> None:
        fake = self.registry
        fake.seen.append(Seen(self.command, self.path, dict(self.headers.items())))
        rule = fake.due(self.command, self.path)
        if rule is not None and rule.act(self) is not False:
            self.close_connection = True
            return
        if fake.authorization and self.headers.get("Authorization") != fake.authorization:
            self.take()
            self.reply(401, WWW_Authenticate=fake.challenge)
            return
        path, _mark, query = self.path.partition("?")
        kind, _slash, name = path[len(PREFIX) :].partition("/")
        if not path.startswith(PREFIX):
            self.error(404, "NAME_UNKNOWN")
        elif kind == "manifests":
            self._manifest(name)
        elif name.startswith("uploads/"):
            self._upload(name[len("uploads/") :], urllib.parse.parse_qs(query))
        else:
            self._blob(name)

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = _serve  # noqa: N815

    def _manifest(self, name: str) -> None:
        fake = self.registry
        if self.command == "PUT":
            data = self.take()
            fake.manifests[name] = data
            self.reply(201, Docker_Content_Digest=digest_of(data))
            return
        if self.command == "DELETE":
            self.reply(202 if fake.manifests.pop(name, None) is not None else 404)
            return
        named = {digest_of(data): data for data in fake.manifests.values()}
        found = fake.manifests.get(name, named.get(name))
        if found is None:
            self.error(404, "MANIFEST_UNKNOWN")
        else:
            self.reply(200, found, Docker_Content_Digest=digest_of(found))

    def _blob(self, digest: str) -> None:
        data = self.registry.blobs.get(digest)
        if data is None:
            self.error(404, "BLOB_UNKNOWN")
            return
        wanted = self.headers.get("Range", "")
        if wanted:
            start = int(wanted[len("bytes=") : -1])
            self.reply(206, data[start:], Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.reply(200, data)

    def _upload(self, name: str, query: dict[str, list[str]]) -> None:
        fake = self.registry
        if self.command == "POST":
            name = f"upload{fake.count('POST', '/uploads/') - 1}"
            fake.uploads[name] = bytearray()
        elif name not in fake.uploads or (self.command == "GET" and not fake.knows_uploads):
            self.error(404, "BLOB_UPLOAD_UNKNOWN")
            return
        elif self.command == "DELETE":
            del fake.uploads[name]
        elif self.command == "PATCH":
            # Not put there again: it may have been cancelled by another connection while this one still sent.
            fake.uploads[name].extend(self.take())
        elif self.command == "PUT":
            data = bytes(fake.uploads.pop(name)) + self.take()
            if query["digest"] != [digest_of(data)]:
                self.error(400, "DIGEST_INVALID")
                return
            fake.put(data)
        status = {"POST": 202, "PATCH": 202, "PUT": 201, "GET": 204, "DELETE": 204}[self.command]
        held = len(fake.uploads.get(name, b""))
        self.reply(status, Location=f"{PREFIX}blobs/uploads/{name}?state=1", Range=f"0-{max(0, held - 1)}")


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def running() -> Iterator[FakeRegistry]:
    """A started one, on the loopback, by plain HTTP."""
    fake = FakeRegistry()
    try:
        yield fake
    finally:
        fake.stop()


def repository(registry: FakeRegistry, credentials: Credentials = USER) -> Repository:
    """A client of it that does not wait between attempts."""
    reference = registry_reference.parse(f"{registry.host}/team/app:1")
    settings = Settings(registry.url, credentials, "repository:team/app:pull", timeout=5.0)
    return Repository(Transport(settings), reference, sleep=lambda _seconds: None)


def refusal(act: Callable[..., object], *arguments: object) -> RestoreError:
    """The error of a call that has to fail; it says what to do, and not the password."""
    with pytest.raises(RestoreError) as caught:
        act(*arguments)
    assert caught.value.remedy and USER.password not in caught.value.sentence()
    return caught.value
