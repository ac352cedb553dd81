# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checkpoints are offered to one other node, for one run, straight out of containerd's content store and staging."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._containerd import daemon
from .._containerd.client import Client
from .._core.errors import InputError, NodeError
from .._oci import image as oci_image
from .._oci.image import Descriptor
from .._registry.repository import MANIFEST
from . import certificate, node_files, registry_manifest, servers
from .common import from_store, in_store, load

#: Choices of the option ``state``.
STARTED, STOPPED = "started", "stopped"
#: The repository that the server has, whose tags are digests without what they begin with.
REPOSITORY = "checkpoint"
_SHORTEST_TOKEN = 24


@dataclass(frozen=True)
class ServeParams:
    """What is to be served; see the documentation of ``containerd_checkpoint_serve``."""

    id: str
    checkpoints: Sequence[str] = ()
    #: What the other node reaches this one by.
    hosts: Sequence[str] = ()
    #: From where it may be asked; empty: from anywhere.
    clients: Sequence[str] = ()
    listen: str = "0.0.0.0"
    port: int = 0
    token: str = field(default="", repr=False)
    base: bool = True
    idle: float = 600.0
    #: Where checkpoints lie that live on this node.
    staging_dir: str = ""

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> ServeParams:
        """As the module's options have it. Raises InputError ``serve_token_short``, ``serve_port_invalid``."""
        if options["state"] == STARTED and len(options["token"]) < _SHORTEST_TOKEN:
            raise InputError(
                "serve_token_short",
                f"The token has less than {_SHORTEST_TOKEN} characters, and it alone keeps others from the memory.",
                "Have it made for this run, as by lookup('ansible.builtin.password', '/dev/null', length=48).",
            )
        if not 0 <= options["port"] < 65536 or options["idle"] <= 0:
            raise InputError(
                "serve_port_invalid",
                f"port {options['port']} is no port, or {options['idle']} no seconds for idle.",
                "Give a port from 1 to 65535, or 0 for one that is free, and seconds above zero.",
            )
        names = ("id", "checkpoints", "hosts", "clients", "listen", "port", "base", "idle", "staging_dir")
        return cls(**{name: options[name] for name in names}, token=options["token"] or "")


@dataclass
class ServeResult:
    """What was, or in check mode would be, done."""

    changed: bool = False
    port: int | None = None
    certificate: str | None = None
    #: Name of each checkpoint -> ``digest`` and ``reference``.
    checkpoints: dict[str, dict[str, Any]] = field(default_factory=dict)
    actions: list[str] = field(default_factory=list)

    def rendered(self) -> dict[str, Any]:
        """As the module returns it."""
        return dict(vars(self))


def started(client: Client, params: ServeParams, check: bool, place: str) -> ServeResult:
    """Have a server of these checkpoints. Raises InputError and NodeError."""
    certificate.alternative_names(params.hosts)
    store = _store(client)
    digests: dict[str, str] = {}
    contents: dict[str, dict[str, Any]] = {"/v2/": {"data": ""}}
    for name in params.checkpoints:
        digests[name] = _offer(client, name, params, store, contents)
    wish = {
        "contents": contents,
        "clients": _networks(params.clients),
        "listen": params.listen,
        "port": params.port,
        "token": params.token,
        "idle": params.idle,
        "limit": params.idle + client.seconds_for(sum(entry.get("size", 0) for entry in contents.values()), True),
    }
    # All contents have digests in their names; where the files lie changes with the daemon's process.
    asked = [{**wish, "contents": sorted(contents)}, list(params.hosts)]
    known = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    if not check:
        servers.tidy(place)
    running = servers.find(place, params.id)
    result = ServeResult()
    if running is None or running.wish != known:
        result.changed = True
        result.actions.append(f"serve {', '.join(params.checkpoints) or 'nothing yet'} as {params.id}")
        if not check:
            servers.stop(place, params.id)
            if params.port:
                servers.give_way(place, params.port)
            made, key = certificate.make(params.hosts, os.environ.get("PATH", os.defpath))
            given = {**wish, "certificate": made, "key": key}
            running = servers.start(place, params.id, given, known, bool(digests))
    if running is not None and running.wish == known:
        result.port, result.certificate = running.port, running.certificate
    for name, digest in digests.items():
        reference = f"{_host(params.hosts[0])}:{result.port}/{REPOSITORY}:{_tag(digest)}" if result.port else None
        result.checkpoints[name] = {"digest": digest, "reference": reference}
    return result


def stopped(params: ServeParams, check: bool, place: str) -> ServeResult:
    """Have no server of that id."""
    result = ServeResult()
    if servers.find(place, params.id) is not None:
        result.changed = True
        result.actions.append(f"stop serving as {params.id}")
    if not check:
        servers.stop(place, params.id)
    return result


def _offer(client: Client, name: str, params: ServeParams, store: str, contents: dict[str, dict[str, Any]]) -> str:
    """Add all of one checkpoint to ``contents``; its digest."""
    base = params.base
    checkpoint, target = load(client, name, "", on_node=True)
    graph = oci_image.walk(target, lambda level: from_store(client, level), None)
    collected = registry_manifest.collect(target, graph, lambda item: in_store(client, item), base)
    top = next((child for child in graph[target.digest] if child.has_children), None)
    if base and top is not None and not collected.base_whole:
        raise registry_manifest.missing(top)
    data = registry_manifest.document(collected, checkpoint.base_name, checkpoint.layout, checkpoint.signature)
    below = f"/v2/{REPOSITORY}"
    manifest = {"data": base64.b64encode(data).decode(), "type": MANIFEST}
    contents[f"{below}/manifests/{_tag(checkpoint.digest)}"] = manifest
    for part in collected.parts:
        contents[f"{below}/blobs/{part.descriptor.digest}"] = _file(store, part.descriptor)
    if checkpoint.on_node:
        files = node_files.served(client, checkpoint, params.staging_dir)
        contents.update({f"{below}/{path}": entry for path, entry in files.items()})
    return checkpoint.digest


def _store(client: Client) -> str:
    """Where the blobs lie, as the daemon sees it. Raises NodeError ``serve_store_unknown``."""
    root = daemon.data_roots(daemon.plugins(client))["content"]
    try:
        found = f"/proc/{client.peer_pid()}/root{root}/blobs/sha256" if root else ""
    except OSError:
        found = ""
    if not os.path.isdir(found):
        raise _no_store("is not told by this containerd, or cannot be read here")
    return found


def _file(store: str, blob: Descriptor) -> dict[str, Any]:
    path = os.path.join(store, blob.digest.partition(":")[2])
    if not os.path.isfile(path) or os.path.getsize(path) != blob.size:
        raise _no_store(f"does not have the blob {blob.digest} as a file of {blob.size} bytes")
    return {"path": path, "size": blob.size}


def _no_store(why: str) -> NodeError:
    return NodeError(
        "serve_store_unknown",
        f"The directory of containerd's content store {why}.",
        "Let the checkpoint go another way: containerd_checkpoint_archive or containerd_checkpoint_registry.",
    )


def _networks(clients: Sequence[str]) -> list[str]:
    """Addresses and networks, names resolved. Raises InputError ``serve_client_unknown``."""
    found: set[str] = set()
    for client in clients:
        try:
            found.add(str(ipaddress.ip_network(client, strict=False)))
            continue
        except ValueError:
            pass
        try:
            found.update(str(ipaddress.ip_network(entry[4][0])) for entry in socket.getaddrinfo(client, None))
        except (OSError, ValueError, UnicodeError) as error:
            raise InputError(
                "serve_client_unknown",
                f"This node does not know the address of {client[:80]!r}, which is to be served.",
                "Give its address, or a network, as in 192.0.2.0/24.",
            ) from error
    return sorted(found)


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _tag(digest: str) -> str:
    return digest.partition(":")[2]
