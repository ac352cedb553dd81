# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wanted of a capture, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .._containerd.client import DATA_TIMEOUT
from .._core import labels, state_dir
from .._gpu import devices, driver, forks, state as gpu_state
from .._gpu.access import GpuAccess
from .._host import huge_pages as host_huge_pages
from . import mark
from .preflight import CriuOptions

RUNNING, PAUSED, STOPPED = "running", "paused", "stopped"


@dataclass(frozen=True)
class CaptureParams:
    """The checkpoint that is wanted. Times in seconds; ``lease`` empty: one of its own, which expires after
    ``lease_seconds`` should this run be killed."""

    container_id: str
    name: str
    leave: str = RUNNING
    gpu: str = devices.AUTO
    #: What becomes of what forks of CUDA processes inherited: forks.DETACH or forks.REFUSE.
    cuda_forks: str = forks.DETACH
    criu: CriuOptions = field(default_factory=CriuOptions)
    staging_dir: str = state_dir.STATE_ROOT
    keep_staged: bool = False
    lease: str | None = None
    lease_seconds: int = 7200
    checkpoint_timeout: float = DATA_TIMEOUT
    owner: str = labels.DEFAULT_OWNER
    force: bool = False
    huge_pages: str = host_huge_pages.KEEP
    marks_root: str = field(default_factory=mark.default_root)
    access: GpuAccess = field(default_factory=GpuAccess)

    def cuda(self, state: str = driver.CHECKPOINTED) -> gpu_state.StateParams:
        """What is asked of the CUDA processes. Whose the container is was decided before."""
        return gpu_state.StateParams(
            state=state,
            container_id=self.container_id,
            force=True,
            access=self.access,
        )


@dataclass
class CaptureResult:
    """What was, or in check mode would be, done. ``sizes`` in bytes by part, ``seconds`` by phase."""

    changed: bool = False
    recovered: bool = False
    digest: str = ""
    staged: str = ""
    #: The processes that gave up what they inherited of a CUDA process, as Fork.result.
    detached: list[dict[str, Any]] = field(default_factory=list)
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    huge_pages: dict[str, Any] = field(default_factory=dict)
