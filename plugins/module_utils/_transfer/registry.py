# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What pushing and pulling a checkpoint share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .._containerd import content
from .._containerd.client import Client
from .._core import labels
from .._core.errors import InputError
from .._oci.image import Descriptor
from .._registry import credentials as registry_credentials, reference as registry_reference
from .._registry.credentials import Credentials
from .._registry.http import Settings, Transport
from .._registry.reference import Reference
from .._registry.repository import Repository


@dataclass(frozen=True)
class RegistryParams:
    """The checkpoint ``name`` in containerd, and where it goes to or comes from."""

    name: str
    reference: Reference
    base: bool = True
    digest: str = ""
    lease: str = ""
    owner: str = labels.DEFAULT_OWNER
    force: bool = False


@dataclass
class RegistryResult:
    """What was, or in check mode would be, done. ``registry``: see the module's documentation."""

    changed: bool = False
    digest: str = ""
    registry: dict[str, Any] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Access:
    """The options by which a registry is reached."""

    server: str = ""
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    auth_file: str = ""
    ca_file: str = ""
    insecure: bool = False
    timeout: float = 60.0


def open_repository(reference: Reference, access: Access, push: bool) -> Repository:
    """Nothing is asked of the registry yet. Raises InputError ``registry_*`` for options that cannot be used."""
    if access.auth_file:
        credentials = registry_credentials.from_file(access.auth_file, reference)
    else:
        credentials = Credentials(access.username, access.password, access.token)
    settings = Settings(
        server=registry_reference.server_url(reference, access.server, access.insecure),
        credentials=credentials,
        scope=f"repository:{reference.repository}:{'pull,push' if push else 'pull'}",
        ca_file=access.ca_file,
        insecure=access.insecure,
        timeout=access.timeout,
    )
    return Repository(Transport(settings), reference)


def from_store(client: Client, level: Iterable[Descriptor]) -> Mapping[str, bytes]:
    """Those of the documents that the content store has, verified."""
    return {item.digest: content.read_all(client, item.digest, item.size) for item in level if in_store(client, item)}


def in_store(client: Client, descriptor: Descriptor) -> bool:
    """Whether the content store has the blob, in its size."""
    blob = content.stat(client, descriptor.digest)
    return blob is not None and blob.size == descriptor.size


def digest_mismatch(what: str, found: str, wanted: str) -> InputError:
    """Another checkpoint than the one that the option ``digest`` names."""
    return InputError(
        "image_digest_mismatch",
        f"{what} is {found}, but {wanted} is expected.",
        "Correct name, reference or digest.",
        details={"found": found, "wanted": wanted},
    )
