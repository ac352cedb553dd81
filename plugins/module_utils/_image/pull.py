# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An image comes from a registry, by containerd's own transfer service (1.7 and newer).

Type URLs as containerd registers them (core/transfer): the bare names of its API's messages.
"""

from __future__ import annotations

import os
import re
import uuid

from .._containerd import images, messages, space
from .._containerd.client import Client
from .._core.errors import (
    RETRYABLE,
    TERMINAL,
    UNKNOWN,
    DeadlineError,
    InputError,
    NodeError,
    NotFoundError,
    RestoreError,
    RpcError,
    UnavailableError,
    UnimplementedError,
)
from .._host import processes
from .._oci.image import host_platform

#: Seconds that a pull may take, and what it brought needs protection: how much it is only containerd learns.
SECONDS = 24 * 3600
#: How names begin that images have while they are pulled; what follows is the process that pulls.
_TEMPORARY = "pull.gpuops-restore.invalid/"
_SOURCE = "containerd.types.transfer.OCIRegistry"
_STORE = "containerd.types.transfer.ImageStore"
_TRANSIENT = re.compile(
    r"connection (refused|reset)|i/o timeout|timed? ?out|no such host|server misbehaving|unexpected EOF"
    r"|no route to host|network is unreachable|temporary failure|too many requests|\b(429|500|502|503|504)\b",
    re.IGNORECASE,
)
_DENIED = re.compile(r"unauthorized|forbidden|authorization failed|access denied|\b40[13]\b", re.IGNORECASE)


def reference(name: str, digest: str) -> str:
    """What to ask the registry for: pinned to the digest where one is expected."""
    return f"{name}@{digest}" if digest and "@" not in name else name


def fetch(client: Client, wanted: str, hosts_dir: str) -> images.Image:
    """Pull a reference under a name of its own, which the caller deletes. Call it under a lease.

    Only afterwards is it known what the registry has, so the real name is not touched before. Raises NodeError
    ``pull_unsupported``, ``pull_failed``, InputError ``pull_denied``, ``pull_not_found``.
    """
    name = f"{_TEMPORARY}{processes.identity(os.getpid())}/{uuid.uuid4().hex}:latest"
    resolver = messages.message("containerd.types.transfer.RegistryResolver", host_dir=hosts_dir)
    source = messages.message(_SOURCE, reference=wanted, resolver=resolver)
    host = host_platform()
    platform = messages.message(
        "containerd.types.Platform", os=host.os, architecture=host.architecture, variant=host.variant
    )
    store = messages.message(_STORE, name=name, platforms=[platform])
    try:
        client.call(
            "containerd.services.transfer.v1.Transfer/Transfer",
            timeout=SECONDS,
            source=messages.pack(_SOURCE, source.SerializeToString()),
            destination=messages.pack(_STORE, store.SerializeToString()),
        )
        found = images.get(client, name)
        if found is None:
            raise NodeError(
                "pull_failed",
                f"containerd pulled {wanted}, but its image record is gone again.",
                "Look whether something deletes images on this node, then run again.",
                outcome=RETRYABLE,
            )
    except RpcError as error:
        images.delete(client, name)
        raise explain(wanted, error) from error
    return found


def abandoned(client: Client) -> list[images.Image]:
    """What runs that were killed have left under the name of a pull; earlier releases named no process."""
    return [
        image
        for image in images.list_all(client)
        if image.name.startswith(_TEMPORARY) and not processes.lives(image.name[len(_TEMPORARY) :].rpartition("/")[0])
    ]


def explain(wanted: str, error: RpcError) -> RestoreError:
    """The failure of a pull as an operator understands it."""
    text = str(error.details.get("text", ""))
    if isinstance(error, UnimplementedError):
        return NodeError(
            "pull_unsupported",
            f"This node's containerd cannot pull {wanted} for us: it is older than 1.7 or has no transfer service.",
            "Give archive, or pull it beforehand (crictl pull, ctr images pull), or use a newer containerd.",
            rpc=error.rpc,
        )
    if isinstance(error, (DeadlineError, UnavailableError)) or space.ran_out(error):
        return error
    if isinstance(error, NotFoundError) or "not found" in text:
        return InputError(
            "pull_not_found",
            f"The registry has no {wanted}: {text}.",
            "Correct name or digest, or push the image first.",
            rpc=error.rpc,
        )
    if _DENIED.search(text):
        return InputError(
            "pull_denied",
            f"The registry does not give {wanted} without credentials: {text}.",
            "Give archive, or pull it beforehand with credentials (crictl pull --creds, ctr images pull --user).",
            rpc=error.rpc,
        )
    if "server gave HTTP response" in text:
        return NodeError(
            "pull_failed",
            f"The registry of {wanted} speaks plain HTTP, and containerd expects HTTPS: {text}.",
            "Describe it in a hosts.toml and give hosts_dir (containerd 2), or give archive.",
            rpc=error.rpc,
        )
    transient = bool(_TRANSIENT.search(text))
    return NodeError(
        "pull_failed",
        f"containerd could not pull {wanted}: {text}.",
        "Run again once the registry answers."
        if transient
        else "Check the reference and the registry from this node (ctr images pull), or give archive.",
        outcome=RETRYABLE if transient else (UNKNOWN if error.outcome == UNKNOWN else TERMINAL),
        rpc=error.rpc,
        details=error.details,
    )
