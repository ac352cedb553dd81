# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""containerd's leases."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .._core import labels as core_labels
from .._core.errors import NotFoundError, RestoreError
from .client import Client

_SERVICE = "containerd.services.leases.v1.Leases"


@dataclass(frozen=True)
class Lease:
    """A lease; ``expires`` is an RFC 3339 time or empty."""

    id: str
    labels: Mapping[str, str]

    @property
    def expires(self) -> str:
        """When the daemon drops it by itself."""
        return self.labels.get(core_labels.GC_EXPIRE, "")


def list_all(client: Client) -> list[Lease]:
    """All leases of the namespace."""
    return [Lease(found.id, dict(found.labels)) for found in client.call(f"{_SERVICE}/List").leases]


def get(client: Client, lease_id: str) -> Lease | None:
    """The lease, None when there is none."""
    return next((lease for lease in list_all(client) if lease.id == lease_id), None)


def create(client: Client, lease_id: str, expire_seconds: int, labels: Mapping[str, str]) -> Lease:
    """Create a lease that the daemon drops after ``expire_seconds``. Raises AlreadyExistsError."""
    expires = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=expire_seconds)
    wanted = dict(labels)
    wanted[core_labels.GC_EXPIRE] = expires.strftime("%Y-%m-%dT%H:%M:%SZ")
    client.call(f"{_SERVICE}/Create", id=lease_id, labels=wanted)
    return Lease(lease_id, wanted)


def delete(client: Client, lease_id: str, sync: bool = True) -> bool:
    """Delete a lease; with ``sync`` garbage is collected before the daemon answers. False if there was none."""
    try:
        client.call(f"{_SERVICE}/Delete", id=lease_id, sync=sync, timeout=max(client.timeout, 300.0))
    except NotFoundError:
        return False
    return True


def own_id(purpose: str) -> str:
    """The id of the lease that :func:`hold` makes for a purpose."""
    return "gpuops-restore-" + hashlib.sha256(purpose.encode()).hexdigest()[:32]


def drop_abandoned(client: Client, purpose: str, check: bool) -> bool:
    """Whether a run that was killed when all was made left its lease from :func:`hold`; it goes, unless ``check``."""
    there = get(client, own_id(purpose)) is not None
    if there and not check:
        delete(client, own_id(purpose))
    return there


@contextlib.contextmanager
def hold(client: Client, lease_id: str | None, purpose: str, expire_seconds: int = 3600) -> Iterator[None]:
    """Protect what the block creates: under the given lease, or under one of its own that ends with the block.

    The lease's own id is derived from ``purpose`` (what is being made), so that a run that was killed leaves one that
    the next run takes over and, with it, collects what was half made. Raises NotFoundError ``lease_absent``.
    """
    if lease_id is not None:
        if get(client, lease_id) is None:
            raise NotFoundError(
                "lease_absent",
                f"There is no lease {lease_id} in the namespace {client.namespace}.",
                "Make it with containerd_lease first, or leave lease out.",
                details={"status": "NOT_FOUND"},
            )
        with client.using_lease(lease_id):
            yield
        return
    own = own_id(purpose)
    # Half-made things have to be collected before anything is reported or tried again.
    delete(client, own, sync=True)
    create(client, own, expire_seconds, {core_labels.OWNER: core_labels.DEFAULT_OWNER})
    try:
        with client.using_lease(own):
            yield
    except BaseException as error:
        _release(client, own, error)
        raise
    _release(client, own, None)


def _release(client: Client, lease_id: str, reason: BaseException | None) -> None:
    """Delete a lease of our own; that this fails must neither hide a failure nor make one: it expires by itself."""
    try:
        delete(client, lease_id, sync=reason is not None)
    except RestoreError as error:
        if isinstance(reason, RestoreError):
            reason.left_behind(f"the lease {lease_id}, which expires by itself: {error.message}")
