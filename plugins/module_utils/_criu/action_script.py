# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Has CRIU run a program of ours at one of its steps.

CRIU runs the action scripts that its configuration names at each of its steps, with the step in CRTOOLS_SCRIPT_ACTION
and the pid of the tree's root, as CRIU sees it, in CRTOOLS_INIT_PID (criu.org/Action_scripts). Beside runc's own
notifications scripts run since CRIU 3.19; before, CRIU aborts (criu/action-scripts.c). It reads its configuration
twice, and so has each script twice: what the first has reported tells the second that all is done.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, TypeVar

from .._core import helper_process, state_dir
from . import config as criu_config, known_limits

#: All namespaces exist, and nothing is in them yet.
SETUP_NAMESPACES = "setup-namespaces"
#: All processes have their mappings and wait; if the script fails here, CRIU kills them (criu/cr-restore.c).
POST_RESTORE = "post-restore"
#: All processes are as they were, their credentials too, and are about to go on.
PRE_RESUME = "pre-resume"

_Script = TypeVar("_Script", bound="ActionScript")

_TEXT = """\
#!/bin/sh
[ "$CRTOOLS_SCRIPT_ACTION" = {step} ] || exit 0
[ ! -e {report} ] || exit 0
exec {command} "$CRTOOLS_INIT_PID"
"""


def problem(criu_version: str, work: str) -> str:
    """Why CRIU cannot run a script here, empty where it can; ``work``: where the script would be."""
    limit = known_limits.SCRIPTS.versions[known_limits.CRIU]
    if not known_limits.parse(criu_version) or limit.holds(criu_version):
        return f"CRIU {criu_version or 'of an unknown version'} runs no scripts under runc; {limit.below} does"
    while not os.path.isdir(work):
        work = os.path.dirname(work)
    if os.statvfs(work).f_flag & os.ST_NOEXEC:
        return f"the file system of {work} allows no programs (noexec)"
    return ""


class ActionScript:
    """To be entered while a restore runs. The container's configuration serves its later dumps too, so the script is in
    it for the restore alone.

    Three files in ``work``, by ``name``: the script, the program (the source of a module that imports nothing of this
    collection) and the report that it has to write, as JSON. Its last arguments are ``arguments``, the report's path
    and the root's pid. Entering raises NodeError and OSError.
    """

    def __init__(
        self, config: str, work: str, name: str, step: str, program: ModuleType, arguments: Sequence[str] = ()
    ) -> None:
        self._config = config
        self._before = ""
        self._step = step
        self._program = program
        self._arguments = arguments
        self._files = Files(work, name)
        self.report: dict[str, Any] = {}

    def __enter__(self: _Script) -> _Script:
        files = self._files
        files.remove()
        self._before = state_dir.read_text(self._config) or ""
        command = [sys.executable, "-I", "-S", files.program, *self._arguments, files.report]
        text = _TEXT.format(step=self._step, command=shlex.join(command), report=shlex.quote(files.report))
        _write(files.program, helper_process.source_of(self._program), 0o600)
        _write(files.script, text, 0o700)
        criu_config.write(self._config, self._before + criu_config.action_script(files.script))
        return self

    def __exit__(self, *_unused: object) -> None:
        criu_config.write(self._config, self._before)
        self.report = self._files.read_report()
        self._files.remove()


class Files:
    """The files of a script that is called ``name``."""

    def __init__(self, work: str, name: str) -> None:
        self.script, self.program, self.report = (
            os.path.join(work, f"{name}.{ending}") for ending in ("sh", "py", "json")
        )

    def remove(self) -> None:
        """Take away what is there of them, also what a run that was killed has left."""
        for path in (self.script, self.program, self.report):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def read_report(self) -> dict[str, Any]:
        """Empty where there is none."""
        try:
            with open(self.report, encoding="utf-8") as stream:
                found = json.load(stream)
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _write(path: str, text: str, mode: int) -> None:
    with open(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "w", encoding="utf-8"
    ) as stream:
        stream.write(text)
