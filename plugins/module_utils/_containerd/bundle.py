# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bundle that runc ran a container from, whose ``config.json`` is the spec that counts.

containerd writes its record's spec there; a runtime that is called in runc's place (nvidia-container-runtime in its
modes cdi, csv and auto, any other BinaryName) adds mounts, devices, hooks and environment to it before it calls runc,
and the record has none of them. Facts: a shim's working directory is a bundle of its own, and all bundles of a
namespace lie side by side, also those of one pod, which has one shim (containerd's core/runtime/v2).
"""

from __future__ import annotations

import copy
import os
import stat as stat_module
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .._core import strict_json
from .._core.errors import NodeError
from .._core.strict_json import StrictJsonError
from .._oci import spec_validate
from . import leftovers
from .client import MAX_RECEIVE
from .containers import Container


@dataclass(frozen=True)
class Bundle:
    """Where a container runs from."""

    #: Ways that lead there through the shim's own root and mounts.
    directory: str
    #: The shim's part of /proc.
    shim: str
    spec: Mapping[str, Any]

    @property
    def rootfs(self) -> str:
        """The root file system without the mounts in it, as runc looks at it when it tells CRIU of them."""
        return f"{self.directory}/rootfs"


@dataclass(frozen=True)
class Edits:
    """What a runtime has added to the spec that containerd gave it."""

    #: Destinations.
    mounts: tuple[str, ...] = ()
    #: Paths.
    devices: tuple[str, ...] = ()
    #: Names of variables.
    env: tuple[str, ...] = ()
    #: Programs.
    hooks: tuple[str, ...] = field(default=())

    def result(self) -> dict[str, list[str]]:
        """As modules return it."""
        return {kind: list(getattr(self, kind)) for kind in ("mounts", "devices", "env", "hooks")}


def find(namespace: str, container_id: str, task_pid: int, proc: str = "/proc") -> Bundle | None:
    """The bundle of a container that runs; None where its shim, or a bundle beside it, cannot be told.

    Raises NodeError ``bundle_unreadable``.
    """
    for shim in (_parent(task_pid, proc), *leftovers.shim_pids(namespace, container_id, proc)):
        if not shim:
            continue
        directory = f"{proc}/{shim}/cwd/../{container_id}"
        path = f"{directory}/config.json"
        if not os.path.lexists(path):
            continue
        try:
            return Bundle(directory, f"{proc}/{shim}", strict_json.parse_object(_read(path), MAX_RECEIVE))
        except (OSError, ValueError, StrictJsonError) as error:
            raise NodeError(
                "bundle_unreadable",
                f"The spec that {container_id} runs with cannot be read from its bundle ({path}): {error}.",
                "Look at that file; it is written when the container starts, so a restart makes it anew.",
            ) from error
    return None


def as_it_runs(container: Container, bundle: Bundle | None) -> Container:
    """The container with the spec that runc runs; resources, which may have been changed since, as they are now.

    Raises InputError ``spec_invalid``.
    """
    if bundle is None:
        return container
    spec_validate.check(bundle.spec)
    spec = copy.deepcopy(dict(bundle.spec))
    # CRI changes limits while a container runs, in the record alone; which devices are allowed, nobody changes there.
    recorded = (container.spec.get("linux") or {}).get("resources")
    if isinstance(recorded, dict):
        begun_with = spec["linux"].get("resources") or {}
        devices = {key: begun_with[key] for key in ("devices",) if key in begun_with}
        spec["linux"]["resources"] = {**begun_with, **copy.deepcopy(recorded), **devices}
    return replace(container, spec=spec)


def edits(recorded: Mapping[str, Any], running: Mapping[str, Any]) -> Edits:
    """What the spec that runs has beyond containerd's."""

    def more(of: Any) -> tuple[str, ...]:
        known = set(of(recorded))
        return tuple(dict.fromkeys(one for one in of(running) if one not in known))

    return Edits(
        mounts=more(lambda spec: [str(mount.get("destination")) for mount in spec.get("mounts") or ()]),
        devices=more(lambda spec: [str(one.get("path")) for one in (spec.get("linux") or {}).get("devices") or ()]),
        env=more(lambda spec: [str(line).partition("=")[0] for line in (spec.get("process") or {}).get("env") or ()]),
        hooks=more(hook_programs),
    )


def hook_programs(spec: Mapping[str, Any]) -> list[str]:
    """The programs that a spec has run as hooks."""
    return [str(hook.get("path")) for entries in (spec.get("hooks") or {}).values() for hook in entries or ()]


def _parent(pid: int, proc: str) -> int:
    """The parent of a process, 0 where it cannot be told (proc_pid_stat(5), the second field after the name)."""
    try:
        with open(f"{proc}/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            return int(stream.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _read(path: str) -> bytes:
    """A plain file that is the administrator's."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        if not stat_module.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()):
            raise ValueError("it is no file of root's")
        return stream.read(MAX_RECEIVE + 1)
