# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Has CRIU start :mod:`_parallel_memory.writer_worker` when a tree is restored and not let go yet; and whether to."""

from __future__ import annotations

import os

from .._core.errors import RestoreError
from .._criu import action_script
from .._criu.action_script import ActionScript
from . import writer_worker
from .split import Split

AUTO, ALWAYS, NEVER = "auto", "always", "never"
#: Bytes; below it CRIU is done before a helper has begun.
_WORTH_IT = 256 << 20
#: More do not get a host's memory to work harder.
_MOST_WRITERS = 16

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
        arguments = (split.plan, str(writers()), "huge" if split.huge else "small")
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


def refusal(mode: str, size: int, staged: bool, at_once: int = 1) -> str:
    """Why CRIU is to restore all ``size`` bytes, empty where it need not; ``staged``: from the staged files;
    ``at_once``: how many restores share the processors."""
    if mode == NEVER:
        return "parallel_memory is never"
    if not staged:
        return "the checkpoint is not restored from its staged files"
    if mode == AUTO and _processors() < 2 * at_once:
        # CRIU's own threads have them all to do.
        return f"the node has {_processors()} processor(s) for {at_once} restore(s) at a time"
    if mode == AUTO and size < _WORTH_IT:
        return f"the checkpoint is smaller than {_WORTH_IT >> 20} MiB"
    return ""


def writers() -> int:
    """How many threads will write."""
    return min(_MOST_WRITERS, _processors())


def _processors() -> int:
    return len(os.sched_getaffinity(0))
