# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The server of a checkpoint for one run: a process of its own, which outlives the module and ends by itself.

It imports nothing of this collection (see :mod:`_core.helper_process`) and knows neither containerd nor checkpoints: it
is given documents, and files by path, which it opens before it says that it is ready. It answers GET and HEAD of
exactly these, over TLS, to who has the token and comes from where it may.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import ipaddress
import json
import os
import re
import resource
import signal
import socket
import socketserver
import ssl
import sys
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any, Callable

_CHUNK = 1 << 20
#: Seconds for a handshake, a request line, or a piece of a body to get anywhere.
_SILENT_SECONDS = 60.0
_MOST_AT_ONCE = 16
_RANGE = re.compile(r"bytes=([0-9]{1,18})-\Z")
_OCTETS = "application/octet-stream"

Now = Callable[[], float]


class Content:
    """What is under one path: bytes of ours, or a file that stays open."""

    def __init__(self, media_type: str, data: bytes = b"", path: str = "", size: int = 0) -> None:
        self.media_type = media_type
        self._data = data
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW) if path else -1
        self.size = os.fstat(self._file).st_size if path else len(data)
        if path and self.size != size:
            raise ValueError(f"{path} has {self.size} bytes, not {size}")

    def piece(self, offset: int) -> bytes:
        """The next bytes from there; empty at the end."""
        if self._file < 0:
            return self._data[offset : offset + _CHUNK]
        return os.pread(self._file, _CHUNK, offset)


class Deadline:
    """The end: a while after the last sign of anybody with the token, and in any case after a limit."""

    def __init__(self, idle: float, limit: float, now: Now = time.monotonic) -> None:
        self._idle, self._now = idle, now
        self._end = now() + limit
        self._quiet = now() + idle
        self._unsaid = False

    def used(self) -> None:
        """Somebody makes use of it."""
        self._quiet = self._now() + self._idle
        self._unsaid = True

    def was_used(self) -> bool:
        """Whether somebody has since this was last asked."""
        found, self._unsaid = self._unsaid, False
        return found

    def passed(self) -> bool:
        """Whether it is over."""
        return self._now() >= min(self._end, self._quiet)


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Listens on one address; a thread for each connection, the handshake in it."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, wish: Mapping[str, Any], context: ssl.SSLContext) -> None:
        self.address_family = socket.AF_INET6 if ":" in wish["listen"] else socket.AF_INET
        self.contents = {
            path: Content(entry.get("type", _OCTETS), base64.b64decode(entry["data"]))
            if "data" in entry
            else Content(_OCTETS, path=entry["path"], size=entry["size"])
            for path, entry in wish["contents"].items()
        }
        self.authorization = f"Bearer {wish['token']}".encode()
        self.deadline = Deadline(wish["idle"], wish["limit"])
        self._clients = [ipaddress.ip_network(text) for text in wish["clients"]]
        self._context = context
        self._record = wish.get("record", "")
        self._slots = threading.BoundedSemaphore(_MOST_AT_ONCE)
        super().__init__((wish["listen"], wish["port"]), Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            # :: is everything, whatever the node's own default is.
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether anybody there is talked to at all."""
        found = ipaddress.ip_address(client_address[0].partition("%")[0])
        found = getattr(found, "ipv4_mapped", None) or found
        return not self._clients or any(found in network for network in self._clients)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        if self._slots.acquire(blocking=False):
            try:
                super().process_request_thread(request, client_address)
            finally:
                self._slots.release()
        else:
            self.shutdown_request(request)

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(_SILENT_SECONDS)
        with contextlib.suppress(OSError), self._context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nobody reads what could be said of it."""

    def service_actions(self) -> None:
        if self.deadline.was_used():
            # By the record's time others know how long nobody has used it.
            with contextlib.suppress(OSError):
                os.utime(self._record)
        if self.deadline.passed():
            raise SystemExit


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    server_version, sys_version = "gpuops.restore", ""

    def log_message(self, *_unused: Any) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:  # noqa: N802
        given = (self.headers.get("Authorization") or "").encode("latin-1", "replace")
        if not hmac.compare_digest(given, self.server.authorization):
            self._answer(401, {"WWW-Authenticate": 'Bearer error="invalid_token"'})
            return
        self.server.deadline.used()
        content = self.server.contents.get(self.path)
        if content is None:
            self._answer(404, {})
            return
        asked = _RANGE.match(self.headers.get("Range") or "")
        begin = int(asked.group(1)) if asked else 0
        if asked and begin >= content.size:
            self._answer(416, {"Content-Range": f"bytes */{content.size}"})
            return
        headers = {"Content-Type": content.media_type, "Accept-Ranges": "bytes"}
        if asked:
            headers["Content-Range"] = f"bytes {begin}-{content.size - 1}/{content.size}"
        self._answer(206 if asked else 200, headers, content.size - begin)
        if self.command == "GET":
            self._send(content, begin)

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, status: int, headers: Mapping[str, str], length: int = 0) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, content: Content, offset: int) -> None:
        while offset < content.size:
            data = content.piece(offset)
            if not data:
                # Who reads sees that something lacks.
                return
            self.wfile.write(data)
            self.server.deadline.used()
            offset += len(data)


def tls(certificate: str, key: str) -> ssl.SSLContext:
    """For this certificate; neither lies on a disk."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    memory = os.memfd_create("certificate")
    try:
        os.write(memory, f"{key}\n{certificate}\n".encode())
        context.load_cert_chain(f"/proc/self/fd/{memory}")
    finally:
        os.close(memory)
    return context


def _say(answer: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    """One wish on the standard input, one answer on the standard output; the server is a child of its own then.

    It begins at a second line, when whoever has started it has noted it. Where none comes that one was killed.
    """
    wish = json.loads(sys.stdin.buffer.readline())
    # Each file of a dump stays open.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        server = Server(wish, tls(wish["certificate"], wish["key"]))
    except (OSError, ValueError, OverflowError) as error:
        _say({"error": str(getattr(error, "strerror", None) or error)})
        return
    child = os.fork()
    if child:
        _say({"pid": child, "port": server.server_address[1]})
        return
    if not sys.stdin.buffer.readline():
        os._exit(1)
    # Who started it waits for the end of these.
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        server.serve_forever(poll_interval=0.5)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(wish["record"])
        # Threads that still send are not waited for.
        os._exit(0)


if __name__ == "__main__":
    main()
