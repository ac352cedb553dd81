# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checkpoints that were captured on this node go by a rule: how many stay, how old they become.

Nothing else deletes them unasked, since the node may have the only copy. What is in use stays whatever the rule says.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .._checkpoint import reader, stage, staged as staged_checkpoint
from .._containerd import containers, images
from .._containerd.client import Client
from .._core import labels, state_dir
from .._core.errors import ConflictError, InputError
from .._image import image as image_steps, state as image_state
from . import mark as capture_mark

_TIME = "%Y-%m-%dT%H:%M:%S%z"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGE = re.compile(r"([0-9]+)([smhdw])")


@dataclass(frozen=True)
class PruneParams:
    """The rule; at least one of ``keep`` and ``older_than``."""

    #: How many of each container stay, the newest; None: any number.
    keep: int | None = None
    #: Seconds; younger ones stay; None: of any age.
    older_than: int | None = None
    #: Only captures of these containers; empty: of all.
    containers: tuple[str, ...] = ()
    staging_dir: str = state_dir.STATE_ROOT
    owner: str = labels.DEFAULT_OWNER
    marks_root: str = field(default_factory=capture_mark.default_root)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> PruneParams:
        """From the options of ``containerd_checkpoint_prune``. Raises InputError ``retention_invalid``."""
        keep, age = options["keep"], options["older_than"]
        if keep is not None and keep < 0:
            raise _invalid(f"keep is {keep}", "Give the number of checkpoints that stay, zero or more.")
        return cls(
            keep=keep,
            older_than=None if age is None else seconds_of(age),
            containers=tuple(options["containers"]),
            staging_dir=options["staging_dir"],
            owner=options["owner"],
        )


@dataclass(frozen=True)
class Captured:
    """A checkpoint that was captured on this node."""

    name: str
    digest: str
    container: str
    #: RFC 3339; empty where the checkpoint does not say.
    taken_at: str
    #: Why it stays; empty for one that goes.
    kept: str = ""
    #: The digest that it had before its image was written; empty where it had none.
    earlier: str = ""
    #: Why it cannot be restored; it is no copy of anything, but what it lacks may lie elsewhere.
    lacks: str = ""

    def result(self) -> dict[str, str]:
        """As modules return it."""
        return {"name": self.name, "digest": self.digest, "container": self.container, "taken_at": self.taken_at}


@dataclass
class PruneResult:
    """What was, or in check mode would be, done."""

    removed: list[Captured] = field(default_factory=list)
    kept: list[Captured] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def seconds_of(age: str) -> int:
    """``7d`` and the like in seconds. Raises InputError ``retention_invalid``."""
    match = _AGE.fullmatch(age.strip())
    if match is None:
        raise _invalid(f"older_than is {age!r}", "Give a number and one of s, m, h, d, w, such as 14d.")
    return int(match.group(1)) * _UNITS[match.group(2)]


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def prune(client: Client, params: PruneParams, check: bool, now: Callable[[], datetime.datetime] = _now) -> PruneResult:
    """Delete the captures that the rule gives up, with what is staged of them. Those of other owners are not looked at.

    With both ``keep`` and ``older_than`` one goes that neither keeps. Raises InputError ``retention_invalid``.
    """
    if params.keep is None and params.older_than is None:
        raise _invalid("neither keep nor older_than is given", "Give at least one of them.")
    result = PruneResult()
    used = _in_use(client, params)
    # Before anything is deleted, since what is staged goes last.
    staged_checkpoint.root_exists(params.staging_dir)
    for found in judge(captured(client, params), params, now(), used):
        if found.lacks:
            result.warnings.append(
                f"The checkpoint {found.name} of {found.container} stays and counts for nothing: {found.lacks}. Give "
                "the staging_dir that it was captured with, or delete it by name (containerd_image)."
            )
        if found.kept:
            result.kept.append(found)
        else:
            _remove(client, params, found, check, result)
    return result


def captured(client: Client, params: PruneParams) -> list[Captured]:
    """The captures of this node, the newest of each container first."""
    found = []
    for image in images.list_all(client):
        ours = labels.owner_of(image.labels) == params.owner
        if not ours or image.labels.get(labels.CAPTURED) != image.target.digest:
            continue
        try:
            checkpoint = reader.load(client, image.name)
        except InputError:
            # Damaged: it cannot be restored, so it is no copy of anything, but neither does it say whose it was.
            continue
        facts = checkpoint.facts
        if not params.containers or facts.container in params.containers:
            found.append(
                Captured(
                    image.name,
                    checkpoint.digest,
                    facts.container,
                    facts.taken_at,
                    earlier=checkpoint.earlier,
                    lacks=_lacks(checkpoint, params.staging_dir),
                )
            )
    return sorted(found, key=lambda one: (one.container, one.taken_at, one.name), reverse=True)


def judge(
    found: Sequence[Captured], params: PruneParams, now: datetime.datetime, used: Mapping[str, str]
) -> list[Captured]:
    """Each with why it stays. ``found``: the newest of each container first; ``used``: why, by digest or name."""
    judged, seen = [], dict.fromkeys((one.container for one in found), 0)
    for one in found:
        if one.lacks:
            judged.append(replace(one, kept=one.lacks))
            continue
        seen[one.container] += 1
        why = used.get(one.digest) or used.get(one.earlier) or used.get(one.name) or ""
        if not why and params.keep is not None and seen[one.container] <= params.keep:
            why = f"one of the {params.keep} newest of {one.container}"
        if not why and params.older_than is not None:
            age = _age(one, now)
            if age is None:
                why = "its age is not known"
            elif age < params.older_than:
                why = "not old enough"
        judged.append(replace(one, kept=why))
    return judged


def _lacks(checkpoint: reader.Checkpoint, staging_dir: str) -> str:
    if not checkpoint.on_node or staged_checkpoint.find(staging_dir, checkpoint.key) is not None:
        return ""
    return f"its memory lies on the node alone, and is not (whole) below {staging_dir}"


def _in_use(client: Client, params: PruneParams) -> dict[str, str]:
    """What has to stay: what a container was restored from, and what keeps a workload paused."""
    used = {}
    for container_id, digest in containers.restored(client).items():
        used[digest] = f"the container {container_id} was restored from it"
    for namespace, container_id, mark in capture_mark.every(params.marks_root):
        if namespace == client.namespace and mark.name:
            used[mark.name] = f"its capture keeps {container_id} paused or is not through"
    return used


def _remove(client: Client, params: PruneParams, found: Captured, check: bool, result: PruneResult) -> None:
    wanted = image_state.ImageParams(found.name, digest=found.digest, owner=params.owner)
    try:
        result.actions += image_steps.absent(client, wanted, check).actions
    except ConflictError as error:
        # Another run restores from it.
        result.warnings.append(error.sentence())
        result.kept.append(replace(found, kept=error.message))
        return
    result.removed.append(found)
    key = found.digest.split(":", 1)[1]
    try:
        # Of a checkpoint on the node this is all that there is, and another name may lead to it.
        staged = stage.absent(client, key, params.staging_dir, check, keep_captured=True, deleted=found.name)
    except ConflictError as error:
        # containerd_leftovers takes it away.
        result.warnings.append(error.sentence())
        return
    if staged.changed:
        result.actions.append(f"remove what is staged of {found.name}")
    result.warnings += staged.warnings


def _age(one: Captured, now: datetime.datetime) -> float | None:
    text = one.taken_at[:-1] + "+0000" if one.taken_at.endswith("Z") else one.taken_at
    try:
        return (now - datetime.datetime.strptime(text, _TIME)).total_seconds()
    except ValueError:
        return None


def _invalid(what: str, remedy: str) -> InputError:
    return InputError("retention_invalid", f"The rule says nothing that can be done: {what}.", remedy)
