# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Has CRIU start :mod:`_parallel_memory.writer_worker` when a tree is restored and not let go yet."""

from __future__ import annotations

import os

from .._core.errors import RestoreError
from .._criu import action_script
from .._criu.action_script import ActionScript
from . import policy, writer_worker
from .split import Split

_NAME = "memory"


def require_memory_written(container_id: str, work: str) -> None:
    """Raise RestoreError ``memory_unwritten`` if the process runs and a run that was killed did not see to its memory.

    CRIU lets no process go before the writer is done; this is for a runtime that does not ask it to start one.
    """
    files = action_script.Files(work, _NAME)
    if os.path.exists(files.script) and "bytes" not in files.read_report():
        raise RestoreError(
            "memory_unwritten",
            f"The process of {container_id} runs, but a run that was killed has not seen its memory written.",
            "End it (containerd_task with state: absent), set parallel_memory to never, and run again.",
        )


def clear(work: str) -> None:
    """Take away what a run that was killed has left in ``work``."""
    action_script.Files(work, _NAME).remove()


class Hook(ActionScript):
    """To be entered while a restore runs; ``report`` is the writer's afterwards, and nothing else is left.

    ``config``: the container's CRIU configuration; ``work``: its directory. Entering raises NodeError and OSError.
    """

    def __init__(self, config: str, work: str, split: Split) -> None:
        arguments = (split.plan, str(policy.writers()))
        super().__init__(config, work, _NAME, action_script.POST_RESTORE, writer_worker, arguments)
        self._split = split

    def raise_failure(self, container_id: str) -> None:
        """Raise RestoreError ``memory_write_failed`` if the writer says that it has failed."""
        if "failed" in self.report:
            raise self._failure(container_id, str(self.report["failed"]))

    def require_written(self, container_id: str) -> None:
        """Raise it unless all is written: a process must not go on without its memory."""
        self.raise_failure(container_id)
        if self.report.get("bytes") != self._split.bytes:
            raise self._failure(container_id, "CRIU has not started what writes it")

    def _failure(self, container_id: str, why: str) -> RestoreError:
        return RestoreError(
            "memory_write_failed",
            f"The memory of {container_id} could not be written beside CRIU: {why}.",
            "Set parallel_memory to never: then CRIU restores all of it, which takes longer.",
        )
