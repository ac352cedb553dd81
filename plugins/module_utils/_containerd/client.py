# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The channel to containerd: namespace and lease metadata, a deadline on every call, one error tree."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from typing import Any, Callable

from .._core.errors import (
    RETRYABLE,
    TERMINAL,
    UNKNOWN,
    AlreadyExistsError,
    DeadlineError,
    NodeError,
    NotFoundError,
    PreconditionError,
    RpcError,
    UnavailableError,
    UnimplementedError,
)
from .._core.progress import Board, Track
from . import messages
from .messages import Method, api

#: CRI specs make ``Containers.List`` large; the gRPC default of 4 MiB is too small.
MAX_RECEIVE = 64 * 1024 * 1024
#: Seconds that calls which move data (apply a layer, restore memory) may take, however little it is.
DATA_TIMEOUT = 1800.0
#: Bytes a second below which moving data counts as stuck, unless a client is told otherwise.
MINIMUM_RATE = 50e6
#: The same where the other end may be slow: a compressor or a network.
_SLOW_END_RATE = float(1 << 20)
#: How many bytes a compressed layer or tar may stand for, on the average.
COMPRESSED = 4
#: Seconds that a restarting daemon is waited for.
RECONNECT_SECONDS = 20.0
#: Seconds that another run on the node is waited for.
BUSY_SECONDS = 30.0
_ABSENT_SECONDS = 3.0
#: How exactly gRPC keeps a deadline.
_COARSE_SECONDS = 0.05
#: How every gRPC release begins its text for a call for which there was no connection to send it on. Other texts that
#: speak of connections ("Connection reset by peer") may stand for a call that the daemon has carried out.
_NEVER_LEFT = "failed to connect to all addresses"
#: What opens an HTTP/2 connection (RFC 9113, 3.4): the preface and an empty SETTINGS frame.
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
#: Method names without an effect, safe to send again when the connection broke half-way.
_READS = frozenset({"Get", "List", "Stat", "Info", "Mounts", "Plugins", "Server", "Version"})

_BY_STATUS: dict[str, tuple[type[RpcError], str, str]] = {
    "NOT_FOUND": (NotFoundError, "not_found", TERMINAL),
    "ALREADY_EXISTS": (AlreadyExistsError, "already_exists", TERMINAL),
    "FAILED_PRECONDITION": (PreconditionError, "failed_precondition", TERMINAL),
    "UNAVAILABLE": (UnavailableError, "daemon_unavailable", RETRYABLE),
    "DEADLINE_EXCEEDED": (DeadlineError, "deadline_exceeded", UNKNOWN),
    "UNIMPLEMENTED": (UnimplementedError, "not_implemented", TERMINAL),
    "PERMISSION_DENIED": (RpcError, "permission_denied", TERMINAL),
    "RESOURCE_EXHAUSTED": (RpcError, "resource_exhausted", RETRYABLE),
    "ABORTED": (RpcError, "aborted", RETRYABLE),
    "CANCELLED": (RpcError, "cancelled", UNKNOWN),
}

#: How the kernel's ENOSPC and EDQUOT read in containerd's texts, which come without a status of their own.
_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
#: Where the kernel says the same of what is no disk: a cpuset without processors, watches that are used up.
_NO_DISK = re.compile(r"cgroup|cpuset|add watch|inotify", re.IGNORECASE)


class Client:
    """One channel to one containerd, for one namespace.

    ``address`` is the path of the daemon's Unix socket, ``timeout`` the seconds of every call that moves no data,
    ``rate`` the bytes a second that data has to move at (:meth:`seconds_for`), ``busy_seconds`` how long its user waits
    for other runs on this node (:mod:`_host.run_lock`), ``board`` where it is told how far things are.
    Raises NodeError ``socket_absent``, ``socket_permission``, ``daemon_unavailable`` or ``not_containerd`` when the
    daemon cannot be talked to; every call raises the classes of the error tree.
    """

    def __init__(
        self,
        address: str,
        namespace: str,
        timeout: float = 60.0,
        reconnect_seconds: float = RECONNECT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        rate: float = MINIMUM_RATE,
        busy_seconds: float = BUSY_SECONDS,
        board: Board | None = None,
    ) -> None:
        messages.require_grpc()
        self.address = address[len("unix://") :] if address.startswith("unix://") else address
        self.namespace = namespace
        self.timeout = timeout
        self.rate = rate
        self.busy_seconds = busy_seconds
        self.board = board or Board()
        #: What this client works on, for whoever waits for it.
        self.track = Track()
        self._lease: str | None = None
        self._reconnect_seconds = reconnect_seconds
        self._clock = clock
        self._sleep = sleep
        self._require_listener()
        self._channel = self._open()
        self._require_containerd()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_unused: object) -> None:
        self.close()

    def another(self) -> Client:
        """A client of its own for the same daemon and namespace, for another thread."""
        return Client(
            self.address,
            self.namespace,
            self.timeout,
            self._reconnect_seconds,
            self._clock,
            self._sleep,
            self.rate,
            self.busy_seconds,
            self.board,
        )

    def seconds_for(self, size: float, slow_end: bool = False) -> float:
        """Seconds that moving ``size`` bytes may take; ``slow_end``: from or to a compressor or a network."""
        return max(DATA_TIMEOUT, size / (min(self.rate, _SLOW_END_RATE) if slow_end else self.rate))

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    @contextlib.contextmanager
    def using_lease(self, lease: str | None) -> Iterator[None]:
        """Send this lease with every call inside the block, so that what they create is protected by it."""
        before, self._lease = self._lease, lease
        try:
            yield
        finally:
            self._lease = before

    @contextlib.contextmanager
    def following(self, name: str) -> Iterator[None]:
        """Inside the block it works on the workload ``name``, and tells how far that is."""
        before = self.track
        with self.board.track(name) as self.track:
            try:
                yield
            finally:
                self.track = before

    @contextlib.contextmanager
    def using_namespace(self, namespace: str) -> Iterator[None]:
        """Speak of another namespace of containerd's inside the block."""
        before, self.namespace = self.namespace, namespace
        try:
            yield
        finally:
            self.namespace = before

    def call(self, path: str, /, timeout: float | None = None, **fields: Any) -> Any:
        """Call a unary method, ``<service>/<method>``, with the request's fields; returns the response message.

        While the daemon restarts, reads are repeated and a call that never left is sent again, for at most
        ``reconnect_seconds``; a call that may have taken effect is not.
        """
        method = api().method(path)
        request = method.request(**fields)
        give_up = self._clock() + self._reconnect_seconds
        while True:
            try:
                return self._invoke(self._channel.unary_unary, method, request, timeout or self.timeout)
            except UnavailableError as error:
                never_left = str(error.details.get("text", "")).startswith(_NEVER_LEFT)
                name = path.split("/")[1]
                # Also before giving up: a call that follows at once could be put on the broken connection.
                self._reopen()
                if self._clock() >= give_up or not (never_left or name in _READS):
                    raise
                self._sleep(0.2)

    def server_stream(self, path: str, /, timeout: float | None = None, **fields: Any) -> Iterator[Any]:
        """Call a server-streaming method; yields response messages."""
        method = api().method(path)
        yield from self._stream(self._channel.unary_stream, method, method.request(**fields), timeout)

    def bidi_stream(self, path: str, requests: Iterable[Any], timeout: float | None = None) -> Iterator[Any]:
        """Call a method that streams both ways; yields response messages."""
        method = api().method(path)
        yield from self._stream(self._channel.stream_stream, method, iter(requests), timeout)

    def peer_pid(self) -> int:
        """The process that listens on the socket (SO_PEERCRED), 0 when the kernel does not tell."""
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
            probe.settimeout(self.timeout)
            probe.connect(self.address)
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[0])

    def _open(self) -> Any:
        options = [
            ("grpc.max_receive_message_length", MAX_RECEIVE),
            ("grpc.max_send_message_length", MAX_RECEIVE),
            ("grpc.default_authority", "localhost"),
            # Otherwise a new channel shares the connection of the one before, which may be the broken one.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
        ]
        return messages.grpc.insecure_channel(f"unix://{self.address}", options=options)

    def _reopen(self) -> None:
        self._channel.close()
        self._channel = self._open()

    def _metadata(self) -> list[tuple[str, str]]:
        found = [("containerd-namespace", self.namespace)]
        if self._lease:
            found.append(("containerd-lease", self._lease))
        return found

    def _invoke(self, kind: Any, method: Method, request: Any, timeout: float) -> Any:
        stub = kind(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        deadline = self._clock() + timeout
        try:
            return stub(request, timeout=timeout, metadata=self._metadata())
        except messages.grpc.RpcError as error:
            raise self._translate(error, method.path, deadline) from error

    def _stream(self, kind: Any, method: Method, request: Any, timeout: float | None) -> Iterator[Any]:
        deadline = self._clock() + (timeout or DATA_TIMEOUT)
        responses = self._invoke(kind, method, request, timeout or DATA_TIMEOUT)
        try:
            yield from responses
        except messages.grpc.RpcError as error:
            raise self._translate(error, method.path, deadline) from error
        finally:
            responses.cancel()

    def _translate(self, error: Any, path: str, deadline: float) -> RpcError:
        status = error.code().name
        text = error.details() or ""
        if status == "CANCELLED" and self._clock() >= deadline - _COARSE_SECONDS:
            # The daemon keeps the deadline too, and resets the stream; on a busy node that comes before our own timer.
            status = "DEADLINE_EXCEEDED"
        kind, code, outcome = _BY_STATUS.get(status, (RpcError, "rpc_failed", UNKNOWN))
        remedy = _REMEDIES.get(status, "")
        name = "/".join(part.rsplit(".", 1)[-1] for part in path.strip("/").split("/"))
        if _FULL.search(text) and not _NO_DISK.search(text):
            code, outcome = _no_space_code(name), RETRYABLE
            remedy = "Free space on the file system that it names, then run again."
        return kind(
            code,
            f"containerd at {self.address} answered {status} to {name}: {text.rstrip('.')}.",
            remedy,
            outcome=outcome,
            rpc=path.strip("/"),
            details={"status": status, "text": text},
        )

    def _await_socket(self) -> None:
        """containerd takes its socket away while it restarts, so one that is absent gets a moment to come."""
        give_up = self._clock() + min(_ABSENT_SECONDS, self._reconnect_seconds)
        while True:
            try:
                os.stat(self.address)
                return
            except PermissionError as error:
                raise self._no_permission() from error
            except OSError as error:
                if self._clock() >= give_up:
                    raise NodeError(
                        "socket_absent",
                        f"There is no containerd socket at {self.address}.",
                        "Start containerd, or set address to where its socket is.",
                    ) from error
            self._sleep(0.2)

    def _require_listener(self) -> None:
        """Tell apart, before gRPC hides it: no socket, no permission, nobody listening."""
        self._await_socket()
        give_up = self._clock() + self._reconnect_seconds
        while True:
            try:
                self.peer_pid()
                return
            except PermissionError as error:
                raise self._no_permission() from error
            except OSError as error:
                # EAGAIN: the listener's queue is full.
                waiting = error.errno in (errno.ECONNREFUSED, errno.ENOENT, errno.EAGAIN)
                if not waiting or self._clock() >= give_up:
                    raise self._unavailable(str(error.strerror or error)) from error
                self._sleep(0.2)

    def _no_permission(self) -> NodeError:
        return NodeError(
            "socket_permission",
            f"User id {os.geteuid()} may not open the containerd socket {self.address}.",
            "Run the task as root (become: true).",
        )

    def _unavailable(self, why: str) -> NodeError:
        return NodeError(
            "daemon_unavailable",
            f"Nobody answers on the containerd socket {self.address}: {why}.",
            "Look at the state of the containerd service on this node and start it.",
            outcome=RETRYABLE,
        )

    def _require_containerd(self) -> None:
        """Something listens; make sure that it is containerd before any other call."""
        try:
            self.call("containerd.services.version.v1.Version/Version", timeout=min(self.timeout, 15.0))
        except RpcError as error:
            self.close()
            if isinstance(error, DeadlineError):
                raise self._unavailable("it accepts connections but does not answer in time") from error
            if isinstance(error, UnavailableError):
                try:
                    silent = self._never_answers()
                except OSError as gone:
                    raise self._unavailable(str(gone.strerror or gone)) from error
                if silent:
                    raise self._unavailable("it accepts connections but does not answer in time") from error
            raise NodeError(
                "not_containerd",
                f"What listens on {self.address} does not answer as containerd does ({error.details['status']}).",
                "Set address to containerd's own socket, usually /run/containerd/containerd.sock.",
                rpc=error.rpc,
                details=error.details,
            ) from error

    def _never_answers(self) -> bool:
        """Whether the listener takes the preface of HTTP/2 and says nothing, as a daemon that hangs. Raises OSError."""
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
            probe.settimeout(min(self.timeout, 2.0))
            probe.connect(self.address)
            try:
                probe.sendall(_HTTP2_PREFACE)
                probe.recv(1)
            except socket.timeout:
                return True
            except ConnectionError:
                # It hung up, which is an answer.
                return False
        return False


def _no_space_code(name: str) -> str:
    """The code of a full disk by the call (``Service/Method``) that found it."""
    if name.startswith("Snapshots/") or name == "Diff/Apply":
        return "snapshots_no_space"
    if name.startswith(("Content/", "Diff/", "Transfer/")):
        return "content_no_space"
    return "containerd_no_space"


_REMEDIES = {
    "UNAVAILABLE": "Look at the state of the containerd service on this node, then run again.",
    "DEADLINE_EXCEEDED": "Whether it took effect is unknown. Run again: the step converges. Raise timeout if need be; "
    "for data that moves, lower minimum_rate.",
    "UNIMPLEMENTED": "This containerd is too old for the call, or the plugin is disabled in its configuration.",
    "PERMISSION_DENIED": "Run the task as root (become: true).",
    "RESOURCE_EXHAUSTED": "Free resources on the node, then run again.",
}
