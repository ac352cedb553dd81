# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""containerd's messages and methods, built at run time in a private descriptor pool.

The pool is our own, so that nothing clashes with other users of protobuf in the same process, and any protobuf from
3.12 on can build the classes.
"""

from __future__ import annotations

import base64
import functools
import zlib
from dataclasses import dataclass
from typing import Any

from .._core.dependencies import descriptor_modules
from .descriptors import DESCRIPTORS


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
        descriptor_pb2, descriptor_pool, message_factory = descriptor_modules()
        self._pool = descriptor_pool.DescriptorPool()
        self._methods: dict[str, Method] = {}
        files = descriptor_pb2.FileDescriptorSet.FromString(zlib.decompress(base64.b64decode(DESCRIPTORS)))
        for file in files.file:
            self._pool.AddSerializedFile(file.SerializeToString())
        # protobuf before 4.22 has no GetMessageClass; since 5.x the factory class has no GetPrototype.
        if hasattr(message_factory, "GetMessageClass"):
            self._class_of = message_factory.GetMessageClass
        else:
            self._class_of = message_factory.MessageFactory(self._pool).GetPrototype

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
        # The descriptor's own streaming attributes exist only in newer protobuf; its proto form has them always.
        service_proto = descriptor_modules()[0].ServiceDescriptorProto()
        found.containing_service.CopyToProto(service_proto)
        proto = next(entry for entry in service_proto.method if entry.name == name)
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
