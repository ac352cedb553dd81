# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The container that is wanted, and what was done for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._checkpoint import metadata, original, volumes
from .._checkpoint.differences import Difference
from .._containerd.runtimes import Runtime
from .._core import labels, state_dir
from .._criu import config as criu_config
from .limits import KEEP
from .policy import Policy


@dataclass(frozen=True)
class ContainerParams:
    """The container that is wanted; see the documentation of ``containerd_container``."""

    container_id: str
    source: original.Source
    snapshot_id: str = ""
    #: Sources of bind mounts, old to new.
    mounts: Mapping[str, str] = field(default_factory=dict)
    #: Binds that the original had and its spec does not name, by their places in the container.
    added_mounts: Mapping[str, str] = field(default_factory=dict)
    #: KEEP or FIT of ``limits``.
    limits: str = KEEP
    #: Destinations, or AUTO or NONE of _checkpoint.volumes alone.
    memory_volumes: tuple[str, ...] = (volumes.AUTO,)
    #: Whose content counts, by the old source, where several workloads of a call had the same memory volume.
    shared_volumes: Mapping[str, volumes.MemoryVolume] = field(default_factory=dict)
    network: str | None = None
    #: Of the operator, which makes it anew.
    network_command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cgroups_path: str = ""
    allow_hooks: bool = False
    allow_annotations: tuple[str, ...] = ()
    #: Those that may run it; empty for the node's default and io.containerd.runc.v2.
    runtimes: tuple[Runtime, ...] = ()
    #: What of the host it may have.
    policy: Policy = field(default_factory=Policy)
    criu: criu_config.CriuOptions = field(default_factory=criu_config.CriuOptions)
    staging_dir: str = state_dir.STATE_ROOT
    owner: str = labels.DEFAULT_OWNER
    lease: str | None = None
    rebuild: bool = False
    force: bool = False
    assume_prepared: bool = False

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> ContainerParams:
        """As a module's options have it; what some modules lack has its default. Raises InputError ``metadata_*``."""
        criu = options.get("criu") or {}
        return cls(
            container_id=options.get("container_id") or "",
            source=original.Source(
                checkpoint=options["checkpoint"],
                metadata=metadata.from_parameters(options),
                image=options.get("image") or "",
                snapshotter=options.get("snapshotter") or "",
                digest=options.get("digest") or "",
                verify_key=tuple(options.get("verify_key") or ()),
            ),
            snapshot_id=options.get("snapshot_id") or "",
            mounts=texts(options.get("mounts")),
            added_mounts=texts(options.get("added_mounts")),
            limits=options.get("limits") or KEEP,
            memory_volumes=tuple(options.get("memory_volumes") or (volumes.AUTO,)),
            network=options.get("network"),
            network_command=tuple(options.get("network_command") or ()),
            env=texts(options.get("env")),
            cgroups_path=options.get("cgroups_path") or "",
            allow_hooks=bool(options.get("allow_hooks")),
            allow_annotations=tuple(options.get("allow_annotations") or ()),
            runtimes=Runtime.from_options(options.get("runtimes")),
            policy=Policy.from_options(options.get("policy")),
            criu=criu_config.CriuOptions(**{name: value for name, value in criu.items() if value is not None}),
            staging_dir=options["staging_dir"],
            owner=options["owner"],
            lease=options.get("lease"),
            rebuild=options["rebuild"],
            force=options["force"],
            assume_prepared=bool(options.get("assume_prepared")),
        )


@dataclass
class ContainerResult:
    """What was, or in check mode would be, done."""

    changed: bool = False
    created: bool = False
    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    #: What of the files is not as it was.
    differences: list[Difference] = field(default_factory=list)
    spec_changes: list[str] = field(default_factory=list)
    spec_before: dict[str, Any] = field(default_factory=dict)
    spec_after: dict[str, Any] = field(default_factory=dict)
    container: dict[str, Any] = field(default_factory=dict)


def texts(given: Mapping[Any, Any] | None) -> dict[str, str]:
    """An option that maps texts, of which YAML may have made numbers."""
    return {str(key): str(value) for key, value in (given or {}).items()}
