# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A checkpoint in a registry: what is wanted there, and how the registry is reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._core import labels
from .._registry import credentials as registry_credentials, reference as registry_reference
from .._registry.credentials import Credentials
from .._registry.http import Settings, Transport
from .._registry.reference import Reference
from .._registry.repository import Repository

#: Choices of the option ``state``.
PUSHED, PULLED, ABSENT = "pushed", "pulled", "absent"
#: What is asked of the registry for each of them, as its tokens call it.
_SCOPES = {PUSHED: "pull,push", PULLED: "pull", ABSENT: "pull,push,delete"}


@dataclass(frozen=True)
class RegistryParams:
    """What is to be pushed or pulled; see the documentation of ``containerd_checkpoint_registry``."""

    #: Of the checkpoint in containerd.
    name: str
    #: Where it goes to or comes from.
    reference: Reference
    #: Whether the base image goes along.
    base: bool = True
    #: Whether a pulled base image gets the name that the checkpoint has for it, else a private one.
    tag_base: bool = False
    #: The digest that the checkpoint must have; empty: any.
    digest: str = ""
    #: The lease to work under; empty: one of our own for the call.
    lease: str = ""
    owner: str = labels.DEFAULT_OWNER
    force: bool = False
    #: Where the memory goes of a checkpoint that lives on a node.
    staging_dir: str = ""
    #: The one that the server has to have, see :class:`Access`.
    certificate: str = ""

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> RegistryParams:
        """As the module's options have it. Raises InputError ``registry_reference_invalid``."""
        named = options["reference"] or options["name"]
        # Only what has a tag can be pushed, or taken away.
        push = options["state"] != PULLED
        return cls(
            name=options["name"],
            reference=registry_reference.for_push(named) if push else registry_reference.parse(named),
            base=options["base"],
            tag_base=options["tag_base"],
            digest=options["digest"] or "",
            lease=options["lease"] or "",
            owner=options["owner"],
            force=options["force"],
            staging_dir=options["staging_dir"],
            certificate=options["certificate"] or "",
        )


@dataclass(frozen=True)
class Access:
    """How a registry is reached."""

    #: URL of the registry where it is not that of the reference.
    server: str = ""
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    auth_file: str = ""
    ca_file: str = ""
    #: PEM of the one certificate that the server must have.
    certificate: str = ""
    #: Whether plain HTTP to other machines is allowed.
    insecure: bool = False
    #: Seconds that the registry may be silent.
    timeout: float = 60.0

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Access:
        """As the module's options have it."""
        texts = ("server", "username", "password", "token", "auth_file", "ca_file", "certificate")
        return cls(
            **{name: options[name] or "" for name in texts},
            insecure=options["insecure"],
            timeout=float(options["timeout"]),
        )


def open_repository(reference: Reference, access: Access, state: str) -> Repository:
    """Nothing is asked of the registry yet. Raises InputError ``registry_*`` for options that cannot be used."""
    if access.auth_file:
        credentials = registry_credentials.from_file(access.auth_file, reference)
    else:
        credentials = Credentials(access.username, access.password, access.token)
    settings = Settings(
        server=registry_reference.server_url(reference, access.server, access.insecure),
        credentials=credentials,
        scope=f"repository:{reference.repository}:{_SCOPES[state]}",
        ca_file=access.ca_file,
        certificate=access.certificate,
        insecure=access.insecure,
        timeout=access.timeout,
    )
    return Repository(Transport(settings), reference)
