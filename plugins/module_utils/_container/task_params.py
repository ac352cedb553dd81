# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The task that is wanted, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._containerd.tasks import Task
from .._core import labels, state_dir
from .._gpu import devices, teardown
from .._gpu.access import GpuAccess
from .._parallel_memory.split import Split

#: The task is restored from the staged files, or from the checkpoint's blob.
STAGED, DESCRIPTOR = "staged", "descriptor"


@dataclass(frozen=True)
class TaskParams:
    """The task that is wanted; see the documentation of ``containerd_task``. Times in seconds."""

    container_id: str
    #: Empty for an ordinary start from the image.
    checkpoint: str = ""
    route: str = STAGED
    staging_dir: str = state_dir.STATE_ROOT
    stdout: str = ""
    stderr: str = ""
    alive_seconds: float = 1.0
    grace_seconds: float = 10.0
    #: 0: as long as the size of the checkpoint allows.
    restore_timeout: float = 0.0
    owner: str = labels.DEFAULT_OWNER
    force: bool = False
    assume_prepared: bool = False
    gpu: teardown.Policy = field(default_factory=teardown.Policy)
    #: Kinds of differences that fail a restore.
    fail_on: tuple[str, ...] = ()
    #: Of the staged checkpoint, where its memory is to be written beside CRIU.
    split: Split | None = None

    @classmethod
    def from_options(cls, options: Mapping[str, Any], access: GpuAccess | None = None) -> TaskParams:
        """As a module's options have it; what some modules lack has its default. ``access``: one that is known."""
        return cls(
            container_id=options["container_id"],
            checkpoint=options["checkpoint"] or "",
            route=options.get("route") or STAGED,
            staging_dir=options["staging_dir"],
            stdout=options.get("stdout") or "",
            stderr=options.get("stderr") or "",
            alive_seconds=options["alive_seconds"],
            grace_seconds=options.get("grace_seconds", cls.grace_seconds),
            restore_timeout=float(options["restore_timeout"]),
            owner=options["owner"],
            force=options["force"],
            assume_prepared=options["assume_prepared"],
            fail_on=tuple((options.get("differences") or {}).get("fail_on") or ()),
            gpu=teardown.Policy(options.get("gpu") or devices.AUTO, access or GpuAccess.from_options(options)),
        )


@dataclass
class TaskResult:
    """What was, or in check mode would be, done."""

    changed: bool = False
    created: bool = False
    before: str = "absent"
    after: str = "absent"
    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    task: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    output_created: list[str] = field(default_factory=list)
    #: What the restored task has otherwise than the captured one had; None where that cannot be told.
    differences: list[dict[str, Any]] | None = None
    #: Why it cannot be told, or not all of it.
    not_compared: str = ""
    #: What the writer of a split checkpoint's memory reported.
    memory: dict[str, Any] = field(default_factory=dict)


def shown(task: Task) -> dict[str, Any]:
    """As modules return it."""
    return {
        "id": task.container_id,
        "pid": task.pid,
        "status": task.status,
        "exit_status": task.exit_status if task.status == "STOPPED" else None,
    }
