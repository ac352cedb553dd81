# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""gRPC and protobuf as the node has them, and containerd's messages and methods, built at run time.

The descriptor pool is our own, so that nothing clashes with other users of protobuf in the same process, and any
protobuf from 3.12 on can build the classes.
"""

from __future__ import annotations

import base64
import functools
import importlib
import os
import sys
import traceback
import zlib
from dataclasses import dataclass
from typing import Any

from .._core.errors import NodeError
from .descriptors import DESCRIPTORS

# gRPC's C core writes to stderr, which Ansible takes for a broken module.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# Forked helpers (probes) must not inherit gRPC's fork handlers.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

grpc: Any
GRPC_TRACEBACK: str | None = None
try:
    grpc = importlib.import_module("grpc")
except ImportError:
    grpc = None
    GRPC_TRACEBACK = traceback.format_exc()

PROTOBUF_TRACEBACK: str | None = None
try:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
except ImportError:
    PROTOBUF_TRACEBACK = traceback.format_exc()


def require_grpc() -> None:
    """Raise NodeError ``dependency_missing`` unless grpcio and protobuf can be imported."""
    missing = [name for name, why in (("grpcio", GRPC_TRACEBACK), ("protobuf", PROTOBUF_TRACEBACK)) if why]
    if missing:
        raise NodeError(
            "dependency_missing",
            f"{sys.executable} on this node cannot import {' and '.join(missing)}.",
            "Run gpuops.restore.prepare, which brings them (restore_node_dependency_source says how), or install them.",
            details={"missing": missing, "traceback": GRPC_TRACEBACK or PROTOBUF_TRACEBACK},
        )


@dataclass(frozen=True)
class Method:
    """One gRPC method: its path on the wire, message classes and which sides stream."""

    path: str
    request: Any
    response: Any
    client_streaming: bool
    server_streaming: bool


class Api:
    """The message classes and methods of the descriptors in :mod:`._descriptors`."""

    def __init__(self) -> None:
        require_grpc()
        self._pool = descriptor_pool.DescriptorPool()
        self._methods: dict[str, Method] = {}
        files = descriptor_pb2.FileDescriptorSet.FromString(zlib.decompress(base64.b64decode(DESCRIPTORS)))
        for file in files.file:
            self._pool.AddSerializedFile(file.SerializeToString())
        self._services = {f"{file.package}.{service.name}": service for file in files.file for service in file.service}
        # protobuf before 4.22 has no GetMessageClass; since 5.x the factory class has no GetPrototype.
        factory: Any = message_factory
        if hasattr(factory, "GetMessageClass"):
            self._class_of = factory.GetMessageClass
        else:
            self._class_of = factory.MessageFactory(self._pool).GetPrototype

    def message(self, name: str) -> Any:
        """The class of a message by its full name, e.g. ``containerd.types.Mount``. Raises KeyError."""
        return self._class_of(self._pool.FindMessageTypeByName(name))

    def method(self, path: str) -> Method:
        """A method by ``<service full name>/<method>``, e.g. ``containerd.services.tasks.v1.Tasks/Get``."""
        known = self._methods.get(path)
        if known is None:
            known = self._methods[path] = self._find_method(path)
        return known

    def _find_method(self, path: str) -> Method:
        service, name = path.split("/")
        found = self._pool.FindServiceByName(service).methods_by_name[name]
        # The descriptor's own streaming attributes exist only in newer protobuf, and one in pure Python, which Debian
        # has for Python 3.14, cannot make a proto of it again.
        proto = next(entry for entry in self._services[service].method if entry.name == name)
        return Method(
            path=f"/{path}",
            request=self._class_of(found.input_type),
            response=self._class_of(found.output_type),
            client_streaming=proto.client_streaming,
            server_streaming=proto.server_streaming,
        )


@functools.lru_cache(maxsize=1)
def api() -> Api:
    """The process's one Api; building the classes takes milliseconds, so it is done once and on first use."""
    return Api()


def message(kind: str, /, **fields: Any) -> Any:
    """A new message by its full name with the given fields."""
    return api().message(kind)(**fields)


def pack(type_url: str, value: bytes) -> Any:
    """A google.protobuf.Any as containerd writes it: the type URL is bare, without a host prefix."""
    return message("google.protobuf.Any", type_url=type_url, value=value)
