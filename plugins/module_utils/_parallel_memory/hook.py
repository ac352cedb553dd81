# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Has CRIU start :mod:`_parallel_memory.writer_worker` when a tree is restored and not let go yet.

CRIU runs the action script that its configuration names at each of its steps, with the step in CRTOOLS_SCRIPT_ACTION.
At "post-restore" all processes have their mappings and wait, and if the script fails then, CRIU kills them
(criu.org/Action_scripts, criu/cr-restore.c). Beside runc's own notifications scripts run since CRIU 3.19; before, CRIU
aborts (criu/action-scripts.c). It reads its configuration twice, and so has each script twice: the report tells the
second that all is done. The container's configuration serves its later dumps too, so the line is in it for the restore
alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from typing import Any

from .._core import helper_process, state_dir
from .._core.errors import RestoreError
from .._criu import config as criu_config
from . import policy, writer_worker
from .split import Split

_SCRIPT, _WRITER, _REPORT = "memory.sh", "memory.py", "memory.json"
_TEXT = """\
#!/bin/sh
[ "$CRTOOLS_SCRIPT_ACTION" = post-restore ] || exit 0
[ ! -e {report} ] || exit 0
exec {command} "$CRTOOLS_INIT_PID"
"""


def require_memory_written(container_id: str, work: str) -> None:
    """Raise RestoreError ``memory_unwritten`` if the process runs and a run that was killed did not see to its memory.

    CRIU lets no process go before the writer is done; this is for a runtime that does not ask it to start one.
    """
    if os.path.exists(os.path.join(work, _SCRIPT)) and "bytes" not in _read(os.path.join(work, _REPORT)):
        raise RestoreError(
            "memory_unwritten",
            f"The process of {container_id} runs, but a run that was killed has not seen its memory written.",
            "End it (containerd_task with state: absent), set parallel_memory to never, and run again.",
        )


def clear(work: str) -> None:
    """Take away what a run that was killed has left in ``work``."""
    for name in (_SCRIPT, _WRITER, _REPORT):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(work, name))


class Hook:
    """To be entered while a restore runs; ``report`` is the writer's afterwards, and nothing else is left.

    ``config``: the container's CRIU configuration; ``work``: its directory. Entering raises NodeError and OSError.
    """

    def __init__(self, config: str, work: str, split: Split) -> None:
        self._config = config
        self._before = ""
        self._work = work
        self._split = split
        self._script, self._writer, self._report = (os.path.join(work, name) for name in (_SCRIPT, _WRITER, _REPORT))
        self.report: dict[str, Any] = {}

    def __enter__(self) -> Hook:
        clear(self._work)
        self._before = state_dir.read_text(self._config) or ""
        writers = str(policy.writers())
        command = [sys.executable, "-I", "-S", self._writer, self._split.plan, self._report, writers]
        _write(self._writer, helper_process.source_of(writer_worker), 0o600)
        _write(self._script, _TEXT.format(command=shlex.join(command), report=shlex.quote(self._report)), 0o700)
        criu_config.write(self._config, self._before + criu_config.action_script(self._script))
        return self

    def __exit__(self, *_unused: object) -> None:
        criu_config.write(self._config, self._before)
        self.report = _read(self._report)
        clear(self._work)

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


def _write(path: str, text: str, mode: int) -> None:
    with open(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "w", encoding="utf-8"
    ) as stream:
        stream.write(text)


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
