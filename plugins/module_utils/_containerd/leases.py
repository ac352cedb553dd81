# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""containerd's leases: the service, the lease that protects what a step makes, and a lease as a state."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Callable

from .._core import labels as core_labels
from .._core.errors import ConflictError, InputError, NotFoundError, RestoreError, UnavailableError
from .._host import processes
from .client import Client

_SERVICE = "containerd.services.leases.v1.Leases"
#: Labels that callers cannot set.
_RESERVED = (core_labels.PREFIX, "containerd.io/gc.")
_HOUR = 3600
#: RFC 3339, as strptime reads it.
_FORMATS = ("%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S.%f%z")


@dataclass(frozen=True)
class Lease:
    """A lease of containerd's."""

    id: str
    labels: Mapping[str, str]

    @property
    def expires(self) -> str:
        """When the daemon drops it by itself: an RFC 3339 time, empty for never."""
        return self.labels.get(core_labels.GC_EXPIRE, "")


@dataclass(frozen=True)
class LeaseParams:
    """The lease that is wanted."""

    lease_id: str
    expire_seconds: int = _HOUR
    labels: Mapping[str, str] = field(default_factory=dict)
    #: Moved under it.
    bytes: int = 0
    owner: str = core_labels.DEFAULT_OWNER
    force: bool = False

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> LeaseParams:
        """From the options of ``containerd_lease``."""
        return cls(
            lease_id=options["id"],
            expire_seconds=options["expire_seconds"],
            bytes=options["bytes"],
            labels={str(name): str(value) for name, value in options["labels"].items()},
            owner=options["owner"],
            force=options["force"],
        )


@dataclass
class LeaseResult:
    """What was, or in check mode would be, done."""

    changed: bool = False
    before: str = "absent"
    after: str = "absent"
    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    lease: dict[str, Any] = field(default_factory=dict)


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
    """Delete a lease; with ``sync`` garbage is collected before the daemon answers. False if there was none.

    Asked for twice where the daemon went away meanwhile: what is deleted already is as good.
    """
    wanted: dict[str, Any] = {"id": lease_id, "sync": sync, "timeout": max(client.timeout, 300.0)}
    try:
        client.call(f"{_SERVICE}/Delete", **wanted)
    except NotFoundError:
        return False
    except UnavailableError:
        with contextlib.suppress(NotFoundError):
            client.call(f"{_SERVICE}/Delete", **wanted)
    return True


def own_id(purpose: str) -> str:
    """The id of the lease that :func:`hold` makes for a purpose in this process."""
    return f"{_purpose_id(purpose)}-{os.getpid()}-{processes.start_time(os.getpid())}"


def _purpose_id(purpose: str) -> str:
    """How the ids of all leases for a purpose begin; those of earlier releases were no longer."""
    return "gpuops-restore-" + hashlib.sha256(purpose.encode()).hexdigest()[:32]


def abandoned(client: Client) -> list[Lease]:
    """Leases from :func:`hold` whose process has ended, whatever they were for."""
    return [lease for lease in list_all(client) if _is_abandoned(lease)]


def _is_abandoned(lease: Lease) -> bool:
    return core_labels.PROCESS in lease.labels and not processes.lives(lease.labels[core_labels.PROCESS])


def _abandoned(client: Client, purpose: str) -> list[Lease]:
    """:func:`abandoned`, and that of earlier releases for this purpose, which names no process."""
    known = (_purpose_id(purpose), own_id(purpose))
    return [lease for lease in list_all(client) if lease.id in known or _is_abandoned(lease)]


def drop_abandoned(client: Client, purpose: str, check: bool) -> bool:
    """Whether a run that was killed when all was made left its lease from :func:`hold`; it goes, unless ``check``."""
    found = [lease for lease in _abandoned(client, purpose) if lease.id.startswith(_purpose_id(purpose))]
    for lease in found:
        if not check:
            delete(client, lease.id)
    return bool(found)


@contextlib.contextmanager
def hold(
    client: Client, lease_id: str | None, purpose: str, seconds: float = 0.0, goes_on: bool = False
) -> Iterator[None]:
    """Protect what the block creates: under the given lease, or under one of its own that ends with the block.

    ``seconds``: how long moving the block's data may take. A lease of its own lasts an hour more, should the run be
    killed: containerd drops one that has expired, and what was finished under it, while the block still works.

    Its own bears the process that works under it, so that nobody takes it away from a run that lives; what a killed run
    has half made is collected by the next one, whatever that makes. ``goes_on``: only after the block, which puts what
    a killed run has finished under its own lease. Raises NotFoundError ``lease_absent``.
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
    left = [lease.id for lease in _abandoned(client, purpose)]
    for lease_id in left:
        # Half-made things have to be collected before anything is reported or tried again.
        if lease_id == own or not goes_on:
            delete(client, lease_id, sync=True)
    labels = {
        core_labels.OWNER: core_labels.DEFAULT_OWNER,
        core_labels.PROCESS: processes.identity(os.getpid()),
    }
    create(client, own, _HOUR + math.ceil(seconds), labels)
    try:
        with client.using_lease(own):
            yield
    except BaseException as error:
        for lease_id in [*left, own] if goes_on else [own]:
            _release(client, lease_id, error)
        raise
    for lease_id in [*left, own] if goes_on else [own]:
        _release(client, lease_id, None)


def _release(client: Client, lease_id: str, reason: BaseException | None) -> None:
    """Delete a lease of our own; that this fails must neither hide a failure nor make one: it expires by itself."""
    try:
        delete(client, lease_id, sync=reason is not None)
    except RestoreError as error:
        if isinstance(reason, RestoreError):
            reason.left_behind(f"the lease {lease_id}, which expires by itself: {error.message}")


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def present(
    client: Client, params: LeaseParams, check: bool, now: Callable[[], datetime.datetime] = _now
) -> LeaseResult:
    """Have the lease, with at least half of the wanted time left.

    One that has expired, or will before the work can be done, is made anew; what only it kept is made once more.

    Raises InputError ``lease_invalid``, ConflictError ``lease_not_ours``.
    """
    _check(params)
    found = get(client, params.lease_id)
    seconds = params.expire_seconds + (math.ceil(client.seconds_for(params.bytes)) if params.bytes else 0)
    result = LeaseResult(before="present" if found else "absent", after="present")
    if found is not None:
        _require_ours(found, params)
        if not expired(found, now() + datetime.timedelta(seconds=seconds / 2)):
            result.lease = describe(found)
            lacking = sorted(name for name, value in params.labels.items() if found.labels.get(name) != value)
            if lacking:
                # containerd has no call to change a lease.
                result.warnings.append(
                    f"The lease {params.lease_id} was made without the labels {', '.join(lacking)}; they stay out."
                )
            return result
        result.before = "expired" if expired(found, now()) else "expiring"
    result.changed = True
    result.actions.append(f"create the lease {params.lease_id} for {seconds} s")
    if check:
        result.lease = {"id": params.lease_id, "expires": None, "labels": dict(params.labels), "owner": params.owner}
        return result
    if found is not None:
        delete(client, params.lease_id, sync=False)
    labels = {**params.labels, core_labels.OWNER: params.owner}
    result.lease = describe(create(client, params.lease_id, seconds, labels))
    return result


def absent(client: Client, params: LeaseParams, check: bool) -> LeaseResult:
    """Have no such lease, and nothing that only it kept. Raises ConflictError ``lease_not_ours``."""
    found = get(client, params.lease_id)
    if found is None:
        return LeaseResult()
    _require_ours(found, params)
    result = LeaseResult(changed=True, before="present", actions=[f"delete the lease {params.lease_id}"])
    if not check:
        delete(client, params.lease_id)
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
    if params.bytes < 0:
        raise InputError("lease_invalid", f"{params.bytes} is no number of bytes.", "Give bytes zero or more.")
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
