# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A test double of containerd: a gRPC server on a Unix socket, in this process.

It is no containerd and proves nothing about one: it is there for the errors that a real daemon does not give on
demand. Each method can be told to fail with a status, to hang, to drop the connection, or to do something first.
Its state is in :mod:`fake_state`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Callable

import grpc

from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import MAX_RECEIVE
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.messages import api
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_state import AnswerError, Leased, State

Call = Callable[[Any], Any]


@dataclass
class Seen:
    """One call that arrived. ``name`` is ``Service/Method``; ``request`` None where the client streams."""

    name: str
    request: Any
    metadata: dict[str, str]
    #: That the caller gave it, None for no limit.
    seconds: float | None


@dataclass
class Rule:
    """What to do instead of, or before, answering a method; ``after`` calls pass first, then ``times`` are hit."""

    act: Callable[[Any], object]
    times: int
    after: int


class FakeContainerd:
    """Start it with :func:`running`. ``state`` may be looked at and changed between calls."""

    def __init__(self, directory: str, without: tuple[str, ...] = ()) -> None:
        self.address = os.path.join(directory, "containerd.sock")
        self.state = State()
        self.seen: list[Seen] = []
        self._inner = os.path.join(directory, "inner.sock")
        self._without = without
        self._rules: dict[str, list[Rule]] = {}
        self._failing = -1
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._server: Any = None
        self._workers: ThreadPoolExecutor
        self._relay: Relay | None = None

    def start(self) -> None:
        """Listen; a second time on the same socket after :meth:`stop`."""
        self._closing.clear()
        limit = [
            ("grpc.max_receive_message_length", MAX_RECEIVE),
            ("grpc.max_send_message_length", MAX_RECEIVE),
        ]
        self._workers = ThreadPoolExecutor(max_workers=8)
        self._server = grpc.server(self._workers, options=limit)
        self._server.add_generic_rpc_handlers((_Handlers(self),))
        self._server.add_insecure_port(f"unix://{self._inner}")
        self._server.start()
        self._relay = Relay(self.address, self._inner)

    def stop(self) -> None:
        """End as a killed daemon does: connections break, the socket file stays and refuses. No thread goes on."""
        self._closing.set()
        if self._relay is not None:
            self._relay.close()
        if self._server is not None:
            self._server.stop(None).wait()
            self._workers.shutdown()

    def drop_connections(self) -> None:
        """Break every connection; new ones are accepted."""
        assert self._relay is not None
        self._relay.drop()

    def fail(
        self, name: str, status: str = "INTERNAL", text: str = "made to fail", times: int = 1000, after: int = 0
    ) -> None:
        """Have the method (``Tasks/Start``) answer with this gRPC status."""

        def act(_context: Any) -> None:
            raise AnswerError(status, text)

        self.on(name, act, times, after)

    def fail_call(self, position: int) -> None:
        """Have the call at this position, counted over all methods from the last :meth:`heal`, fail."""
        self._failing = position

    def hang(self, name: str, times: int = 1000) -> None:
        """Have the method never answer."""

        def act(context: Any) -> None:
            gone = threading.Event()
            context.add_callback(gone.set)
            while not gone.wait(0.02) and not self._closing.is_set():
                continue
            raise AnswerError("CANCELLED", "was hanging")

        self.on(name, act, times)

    def drop(self, name: str, times: int = 1000) -> None:
        """Have the connection break while the method runs, before any effect."""

        def act(_context: Any) -> None:
            self.drop_connections()
            raise AnswerError("CANCELLED", "was dropped")

        self.on(name, act, times)

    def on(self, name: str, act: Callable[[Any], object], times: int = 1000, after: int = 0) -> None:
        """Call ``act`` with the call's context before the method is answered."""
        self._rules.setdefault(name, []).append(Rule(act, times, after))

    def heal(self) -> None:
        """Forget every rule, and what was seen."""
        self._rules.clear()
        self._failing = -1
        self.seen.clear()

    def count(self, name: str) -> int:
        """How often the method was called."""
        return Counter(call.name for call in self.seen)[name]

    def names(self) -> list[str]:
        """The methods that were called, in order."""
        return [call.name for call in self.seen]

    def seconds(self, name: str) -> list[float]:
        """The time limits of the method's calls, in order; gRPC rounds long ones to whole minutes or hours."""
        return [call.seconds or 0.0 for call in self.seen if call.name == name]

    def serves(self, name: str) -> bool:
        """Whether this daemon has the method's service."""
        return name.split("/")[0] not in self._without

    def enter(self, name: str, request: Any, context: Any) -> Leased:
        """Note a call and carry out the rules for it."""
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        with self._lock:
            position = len(self.seen)
            self.seen.append(Seen(name, request, metadata, context.time_remaining()))
            if position == self._failing:
                raise AnswerError("INTERNAL", "made to fail")
            due = []
            for rule in self._rules.get(name, []):
                if rule.after > 0:
                    rule.after -= 1
                elif rule.times > 0:
                    rule.times -= 1
                    due.append(rule)
        for rule in due:
            rule.act(context)
        return Leased(metadata.get("containerd-lease", ""))

    def answer(self, name: str, request: Any, leased: Leased, context: Any) -> Any:
        """The method's effect and response."""
        if name == "Tasks/Wait":
            return self._wait(request, context)
        with self._lock:
            return self.state.handle(name, request, leased)

    def _wait(self, request: Any, context: Any) -> Any:
        while context.is_active() and not self._closing.is_set():
            with self._lock:
                status = self.state.exit_status(request)
            if status is not None:
                return api().message("containerd.services.tasks.v1.WaitResponse")(exit_status=status)
            time.sleep(0.005)
        raise AnswerError("CANCELLED", "the caller went away")


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Handlers for whatever our own descriptors name."""

    def __init__(self, fake: FakeContainerd) -> None:
        self._fake = fake

    def service(self, details: Any) -> Any:
        path = details.method.lstrip("/")
        name = ".".join(path.split("/")[:-1]).rsplit(".", 1)[-1] + "/" + path.rsplit("/", 1)[-1]
        if not self._fake.serves(name):
            return None
        method = api().method(path)
        form = {
            (False, False): (grpc.unary_unary_rpc_method_handler, self._unary),
            (False, True): (grpc.unary_stream_rpc_method_handler, self._server_stream),
            (True, True): (grpc.stream_stream_rpc_method_handler, self._both),
        }
        make, behaviour = form[(method.client_streaming, method.server_streaming)]
        return make(
            lambda request, context: behaviour(name, request, context),
            request_deserializer=method.request.FromString,
            response_serializer=method.response.SerializeToString,
        )

    def _unary(self, name: str, request: Any, context: Any) -> Any:
        try:
            leased = self._fake.enter(name, request, context)
            return self._fake.answer(name, request, leased, context)
        except AnswerError as answer:
            context.abort(grpc.StatusCode[answer.status], answer.text)

    def _server_stream(self, name: str, request: Any, context: Any) -> Iterator[Any]:
        try:
            leased = self._fake.enter(name, request, context)
            yield from self._fake.answer(name, request, leased, context)
        except AnswerError as answer:
            context.abort(grpc.StatusCode[answer.status], answer.text)

    def _both(self, name: str, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        try:
            leased = self._fake.enter(name, None, context)
            for request in requests:
                yield self._fake.answer(name, request, leased, context)
        except AnswerError as answer:
            context.abort(grpc.StatusCode[answer.status], answer.text)


class Relay:
    """Passes bytes between the public socket and the server's, so that connections can really break."""

    def __init__(self, outside: str, inside: str) -> None:
        self._inside = inside
        self._open: list[socket.socket] = []
        self._pumps: list[threading.Thread] = []
        self._lock = threading.Lock()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(outside)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(outside)
        self._listener.listen(16)
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def drop(self) -> None:
        """Break what is connected."""
        with self._lock:
            broken, self._open = self._open, []
        for end in broken:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Refuse from now on. No thread goes on."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        self.drop()
        for pump in self._pumps:
            pump.join()

    def _accept(self) -> None:
        while True:
            try:
                outer, _peer = self._listener.accept()
            except OSError:
                return
            inner = socket.socket(socket.AF_UNIX)
            try:
                inner.connect(self._inside)
            except OSError:
                outer.close()
                continue
            with self._lock:
                self._open += [outer, inner]
            for source, sink in ((outer, inner), (inner, outer)):
                self._pumps.append(threading.Thread(target=_pump, args=(source, sink), daemon=True))
                self._pumps[-1].start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            data = source.recv(1 << 18)
            if not data:
                break
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def running(directory: str, without: tuple[str, ...] = ()) -> Iterator[FakeContainerd]:
    """A started fake whose sockets lie in ``directory``; ``without`` names services that it lacks."""
    fake = FakeContainerd(directory, without)
    fake.start()
    try:
        yield fake
    finally:
        fake.stop()
