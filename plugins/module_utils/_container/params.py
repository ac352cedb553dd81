# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The container that is wanted, and what was done for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._checkpoint import original
from .._core import labels, state_dir
from .._criu import config as criu_config


@dataclass(frozen=True)
class ContainerParams:
    """The container that is wanted. ``mounts`` maps old bind sources to new ones; see the module's documentation."""

    container_id: str
    source: original.Source
    snapshot_id: str = ""
    mounts: Mapping[str, str] = field(default_factory=dict)
    network: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cgroups_path: str = ""
    allow_hooks: bool = False
    allow_annotations: tuple[str, ...] = ()
    criu: criu_config.CriuOptions = field(default_factory=criu_config.CriuOptions)
    staging_dir: str = state_dir.STATE_ROOT
    owner: str = labels.DEFAULT_OWNER
    lease: str | None = None
    rebuild: bool = False
    force: bool = False
    assume_prepared: bool = False


@dataclass
class ContainerResult:
    """What was, or in check mode would be, done."""

    changed: bool = False
    created: bool = False
    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    spec_changes: list[str] = field(default_factory=list)
    spec_before: dict[str, Any] = field(default_factory=dict)
    spec_after: dict[str, Any] = field(default_factory=dict)
    container: dict[str, Any] = field(default_factory=dict)
