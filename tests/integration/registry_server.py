# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Debian's docker-registry in a lab node, with TLS and basic auth, and a way to it from other nodes.

Nodes have no network but their loopback: a relay of this process takes connections in one and ends them in the other.
It can also break one of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Callable, TypeVar

from gpuops_lab.config import Node
from gpuops_lab.node import output, run

HOST, PORT = "registry.test", 5443
USER, PASSWORD = "trainer", "correct horse"
DIRECTORY = "/var/lib/gpuops-lab/registry"
CA_FILE = f"{DIRECTORY}/ca.pem"
_CONFIG = f"""\
version: 0.1
storage:
  filesystem: {{rootdirectory: {DIRECTORY}/data}}
  delete: {{enabled: true}}
auth:
  htpasswd: {{realm: lab, path: {DIRECTORY}/htpasswd}}
http:
  addr: 127.0.0.1:{PORT}
  tls: {{certificate: {CA_FILE}, key: {DIRECTORY}/key.pem}}
"""
#: libxcrypt's bcrypt, which is what the registry reads, without a further package.
_HASH = ["perl", "-e", "print crypt($ARGV[0], q($2y$05$abcdefghijklmnopqrstuu))", PASSWORD]
_CERTIFICATE = [
    *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
    *("-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST},IP:127.0.0.1"),
    *("-keyout", f"{DIRECTORY}/key.pem", "-out", CA_FILE),
]
T = TypeVar("T")


@contextlib.contextmanager
def serving(node: Node) -> Iterator[None]:
    """The registry runs in that node, and the node knows its name."""
    node.inside(DIRECTORY).mkdir(parents=True)
    output(node, _CERTIFICATE)
    node.inside(f"{DIRECTORY}/htpasswd").write_text(f"{USER}:{output(node, _HASH)}\n")
    node.inside(f"{DIRECTORY}/config.yml").write_text(_CONFIG)
    introduce(node)
    server = subprocess.Popen(
        [str(node.directory / "enter"), "docker-registry", "serve", f"{DIRECTORY}/config.yml"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        give_up = time.monotonic() + 15
        probe = f"import socket; socket.create_connection(('127.0.0.1', {PORT})).close()"
        while run(node, ["python3", "-c", probe]).returncode:
            assert time.monotonic() < give_up and server.poll() is None, "the registry does not start"
            time.sleep(0.1)
        yield
    finally:
        server.terminate()
        server.wait()


def introduce(node: Node, certificate: pathlib.Path | None = None) -> None:
    """Tell the node the registry's name and give it the certificate."""
    with open(node.inside("/etc/hosts"), "a", encoding="ascii") as hosts:
        hosts.write(f"127.0.0.1 {HOST}\n")
    if certificate is not None:
        node.inside(DIRECTORY).mkdir(parents=True)
        shutil.copyfile(certificate, node.inside(CA_FILE))


class Relay:
    """Connections to the port in ``front`` reach it in ``back``, until :meth:`close`."""

    def __init__(self, front: Node, back: Node, port: int, back_port: int) -> None:
        self._back = back
        self._back_port = back_port
        self._left = -1
        self._first: Callable[[], object] = int
        self.broken = 0
        self._listener = _in_network(front, lambda: socket.create_server(("127.0.0.1", port)))
        threading.Thread(target=self._accept, daemon=True).start()

    def break_after(self, count: int, first: Callable[[], object] = int) -> None:
        """Break the connection that passes this many further bytes, once; before that, call ``first``."""
        self._first = first
        self._left = count

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                outer, _peer = self._listener.accept()
                inner = _in_network(self._back, lambda: socket.create_connection(("127.0.0.1", self._back_port)))
                for source, sink in ((outer, inner), (inner, outer)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                data = source.recv(1 << 18)
                if not data:
                    break
                sink.sendall(data)
                if self._left >= 0:
                    self._left -= len(data)
                    if self._left < 0:
                        self.broken += 1
                        self._first()
                        break
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _in_network(node: Node, make: Callable[[], T]) -> T:
    """Call it in a thread within the node's network namespace, to which its sockets then belong."""
    found: list[T] = []

    def work() -> None:
        descriptor = os.open(f"/proc/{node.pid}/ns/net", os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0x40000000):
                raise OSError(ctypes.get_errno(), "cannot enter the node's network")
            found.append(make())
        finally:
            os.close(descriptor)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if not found:
        raise OSError("nobody answers there")
    return found[0]
