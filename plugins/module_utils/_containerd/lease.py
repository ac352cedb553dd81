# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A lease is present, or absent."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Callable

from .._core import labels as core_labels
from .._core.errors import ConflictError, InputError
from . import leases
from .client import Client
from .leases import Lease

_RESERVED = (core_labels.PREFIX, "containerd.io/gc.")
_FORMATS = ("%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S.%f%z")


@dataclass(frozen=True)
class LeaseParams:
    """The lease that is wanted."""

    lease_id: str
    expire_seconds: int = 3600
    labels: Mapping[str, str] = field(default_factory=dict)
    owner: str = core_labels.DEFAULT_OWNER
    force: bool = False


@dataclass
class LeaseResult:
    """What was, or in check mode would be, done."""

    changed: bool = False
    before: str = "absent"
    after: str = "absent"
    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    lease: dict[str, Any] = field(default_factory=dict)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def present(
    client: Client, params: LeaseParams, check: bool, now: Callable[[], datetime.datetime] = _now
) -> LeaseResult:
    """Have the lease. One that has expired, and only still waits to be collected, is made anew.

    Raises InputError ``lease_invalid``, ConflictError ``lease_not_ours``.
    """
    _check(params)
    found = leases.get(client, params.lease_id)
    result = LeaseResult(before="present" if found else "absent", after="present")
    if found is not None:
        _require_ours(found, params)
        if not expired(found, now()):
            result.lease = describe(found)
            lacking = sorted(name for name, value in params.labels.items() if found.labels.get(name) != value)
            if lacking:
                # containerd has no call to change a lease.
                result.warnings.append(
                    f"The lease {params.lease_id} was made without the labels {', '.join(lacking)}; they stay out."
                )
            return result
        result.before = "expired"
    result.changed = True
    result.actions.append(f"create the lease {params.lease_id} for {params.expire_seconds} s")
    if check:
        result.lease = {"id": params.lease_id, "expires": None, "labels": dict(params.labels), "owner": params.owner}
        return result
    if found is not None:
        leases.delete(client, params.lease_id, sync=False)
    labels = {**params.labels, core_labels.OWNER: params.owner}
    result.lease = describe(leases.create(client, params.lease_id, params.expire_seconds, labels))
    return result


def absent(client: Client, params: LeaseParams, check: bool) -> LeaseResult:
    """Have no such lease, and nothing that only it kept. Raises ConflictError ``lease_not_ours``."""
    found = leases.get(client, params.lease_id)
    if found is None:
        return LeaseResult()
    _require_ours(found, params)
    result = LeaseResult(changed=True, before="present", actions=[f"delete the lease {params.lease_id}"])
    if not check:
        leases.delete(client, params.lease_id)
    return result


def describe(lease: Lease) -> dict[str, Any]:
    """As modules return it; ``expires`` is an RFC 3339 time, or None for a lease that does not expire."""
    labels = {name: value for name, value in lease.labels.items() if not name.startswith(_RESERVED)}
    return {
        "id": lease.id,
        "expires": lease.expires or None,
        "labels": labels,
        "owner": core_labels.owner_of(lease.labels),
    }


def expired(lease: Lease, now: datetime.datetime) -> bool:
    """Whether its time is over: containerd may collect it any moment."""
    if not lease.expires:
        return False
    text = lease.expires[:-1] + "+0000" if lease.expires.endswith("Z") else lease.expires
    for pattern in _FORMATS:
        try:
            return datetime.datetime.strptime(text, pattern) <= now
        except ValueError:
            continue
    # containerd itself ignores an expiry that it cannot read.
    return False


def _check(params: LeaseParams) -> None:
    if not params.lease_id or "/" in params.lease_id:
        raise InputError(
            "lease_invalid", f"{params.lease_id!r} is no name for a lease.", "Use letters, digits and - . _ only."
        )
    if params.expire_seconds <= 0:
        raise InputError(
            "lease_invalid",
            f"The lease {params.lease_id} would expire after {params.expire_seconds} s, which protects nothing.",
            "Give expire_seconds a number above zero.",
        )
    reserved = sorted(name for name in params.labels if name.startswith(_RESERVED))
    if reserved:
        raise InputError(
            "lease_invalid",
            f"The label {reserved[0]} of the lease {params.lease_id} is set by this collection itself.",
            "Leave it out of labels; expire_seconds and owner are options of their own.",
        )


def _require_ours(found: Lease, params: LeaseParams) -> None:
    owner = core_labels.owner_of(found.labels)
    if owner == params.owner or params.force:
        return
    raise ConflictError(
        "lease_not_ours",
        f"The lease {found.id} "
        + (f"belongs to {owner}" if owner else "was not made by this collection")
        + f"; this run's owner is {params.owner}.",
        "Choose another name; force: true acts on it all the same.",
        details={"lease": found.id, "owner": owner, "wanted_owner": params.owner},
    )
