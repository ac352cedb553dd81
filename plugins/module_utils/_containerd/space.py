# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Free space of containerd's content store: compared before something is written, explained when it ran out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .._core import files
from .._core.errors import RETRYABLE, NodeError, RpcError
from . import daemon
from .client import Client


@dataclass(frozen=True)
class ContentStore:
    """Where the content store lies."""

    #: Empty when the daemon does not tell.
    path: str
    #: Bytes; None when the path is not known.
    free: int | None


def content_store(client: Client) -> ContentStore:
    """Where the content store lies, and what is free there."""
    path = daemon.data_roots(daemon.plugins(client))["content"]
    return ContentStore(path, files.free_bytes(path) if path else None)


def require(client: Client, subject: str, needed: int) -> None:
    """Raise NodeError ``content_no_space`` unless the store has room; ``subject`` begins the message ("X brings")."""
    if needed <= 0:
        return
    store = content_store(client)
    if store.free is not None and needed > store.free:
        raise shortage(store, subject, needed)


def shortage(store: ContentStore, subject: str, needed: int | None) -> NodeError:
    """The error for what will not fit; ``needed`` in bytes, None where it is not known."""
    amount = "more" if needed is None else f"{needed} bytes"
    return _no_space(
        f"{subject} {amount}, but only {store.free} are free in containerd's content store {store.path}.",
        details={"needed": needed, "free": store.free, "path": store.path},
    )


def ran_out(error: RpcError) -> bool:
    """Whether a call failed for want of space on the daemon's side."""
    return error.code in ("content_no_space", "snapshots_no_space")


@contextmanager
def explained(activity: str) -> Iterator[None]:
    """A call that fails for want of space becomes NodeError ``content_no_space``; ``activity`` ends its message."""
    try:
        yield
    except RpcError as error:
        if not ran_out(error):
            raise
        raise _no_space(f"containerd's content store ran out of space {activity}.", rpc=error.rpc) from error


def _no_space(message: str, *, rpc: str | None = None, details: dict[str, Any] | None = None) -> NodeError:
    return NodeError(
        "content_no_space",
        message,
        "Free space on that file system, then run again.",
        outcome=RETRYABLE,
        rpc=rpc,
        details=details,
    )
