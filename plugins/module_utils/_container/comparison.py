# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A restored task is as the captured one was: its root mount gets the flags back that CRIU leaves out, and what it has
of the kernel is compared with what the capture recorded.

CRIU before 4.2 mounts a container's root as it is given, without the flags that it had (its issue 2632): a read-only
container could write its image. Both is done by programs that CRIU starts before the task goes on; where it cannot
start any, right afterwards, when what the processes have themselves may be other already.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .._checkpoint import differences, task_state
from .._checkpoint.differences import Difference, Expected
from .._checkpoint.task_state import TaskState
from .._core import helper_process
from .._core.errors import RestoreError
from .._criu import action_script
from .._criu.action_script import ActionScript
from .._host import task_worker
from .._oci import spec_validate
from . import root_flags_worker

#: An option's value for all kinds.
ALL = "all"
_ROOT_FLAGS, _STATE = "root-flags", "state"
_KEPT = ("ro", "nosuid", "nodev", "noexec")
_SECONDS = 60.0
#: As many differences stand in a sentence.
_NAMED = 5


def clear(work: str) -> None:
    """Take away what a run that was killed has left in ``work``."""
    for name in (_ROOT_FLAGS, _STATE):
        action_script.Files(work, name).remove()


class Comparison(contextlib.ExitStack):
    """To be entered while a restore runs, with what CRIU is to start; entering raises NodeError and OSError.

    ``recorded``: of the checkpoint; ``spec``: of the restored container; ``config`` and ``work``: its CRIU
    configuration and its directory; ``scripts``: CRIU can start programs.
    """

    def __init__(
        self, recorded: TaskState | None, spec: Mapping[str, Any], config: str, work: str, scripts: bool
    ) -> None:
        super().__init__()
        self._recorded = recorded
        self._spec = spec
        self._flags = _root_flags(recorded, spec)
        self._root: ActionScript | None = None
        self._look: ActionScript | None = None
        if scripts and self._flags:
            arguments = (",".join(self._flags),)
            step = action_script.POST_RESTORE
            self._root = ActionScript(config, work, _ROOT_FLAGS, step, root_flags_worker, arguments)
        if scripts and recorded is not None:
            step = action_script.PRE_RESUME
            self._look = ActionScript(config, work, _STATE, step, task_worker, self._sysctls())

    def __enter__(self) -> Comparison:
        super().__enter__()
        for script in (self._root, self._look):
            if script is not None:
                self.enter_context(script)
        return self

    def root_flags(self, container_id: str, pid: int) -> list[str]:
        """Have the root mount its flags back, where no program that CRIU has started did it; what to warn of."""
        if not self._flags or (self._root is not None and "flags" in self._root.report):
            return []
        report = _give_root_flags(self._flags, pid)
        if "flags" in report:
            return []
        return [
            f"The root file system of {container_id} was mounted {', '.join(self._flags)}, and cannot be made so "
            f"again: {report.get('failed') or 'the program that does it ended without a word'}."
        ]

    def differences(self, pid: int) -> tuple[list[Difference] | None, str]:
        """What is other than it was, None where that cannot be told; and why not, or not all of it."""
        if self._recorded is None:
            return None, differences.not_compared(None, None)
        observed = self._look.report if self._look is not None else {}
        found = task_state.seen(observed or task_worker.observe(pid, "/proc", self._sysctls()))
        why = differences.not_compared(self._recorded, found, running=not observed)
        if found is None:
            return None, why
        binds = frozenset(
            str(mount.get("destination")) for mount in self._spec.get("mounts") or () if spec_validate.is_bind(mount)
        )
        expected = Expected(binds, network=not _has_own_network(self._spec), running=not observed)
        return differences.compare(self._recorded, found, expected), why

    def _sysctls(self) -> list[str]:
        """Those that the spec sets, and those that were set when it was captured."""
        return sorted({*task_state.sysctls(self._spec), *task_state.recorded_sysctls(self._recorded)})


def fails(found: Collection[Difference], kinds: Collection[str]) -> list[Difference]:
    """Those that are not to be accepted, by the kinds that an option names."""
    return [one for one in found if ALL in kinds or one.kind in kinds]


def failure(container_id: str, found: Sequence[Difference]) -> RestoreError:
    """The proof has failed."""
    more = f" (and {len(found) - _NAMED} more)" if len(found) > _NAMED else ""
    return RestoreError(
        "task_differs",
        f"The restored task of {container_id} is not as the captured one was: "
        f"{' '.join(one.message for one in found[:_NAMED])}{more}",
        "See failure.details.differences; what may differ is to be left out of differences.fail_on.",
        details={"differences": differences.results(found)},
    )


def warnings(container_id: str, found: Sequence[Difference]) -> list[str]:
    """What an operator has to hear of differences that are accepted."""
    told = [f"Not as it was in {container_id}: {one.message}" for one in found[:_NAMED]]
    return told + (
        [f"{len(found) - _NAMED} more differences of {container_id}: see the result."] if found[_NAMED:] else []
    )


def _root_flags(recorded: TaskState | None, spec: Mapping[str, Any]) -> list[str]:
    """Those that the root mount has to have: as the capture saw it, else as the spec has it."""
    root = recorded.kinds.get(task_state.MOUNTS, {}).get("/") if recorded is not None else None
    if root is None:
        return ["ro"] if (spec.get("root") or {}).get("readonly") is True else []
    return [flag for flag in root.get("flags", "").split(",") if flag in _KEPT]


def _has_own_network(spec: Mapping[str, Any]) -> bool:
    """One that was there before is the operator's."""
    entries = (spec.get("linux") or {}).get("namespaces") or ()
    return any(entry.get("type") == "network" and not entry.get("path") for entry in entries)


def _give_root_flags(flags: Sequence[str], pid: int) -> dict[str, Any]:
    command = [sys.executable, "-I", "-S", "-c", helper_process.source_of(root_flags_worker), ",".join(flags)]
    try:
        # A step knows no AnsibleModule whose run_command it could use.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            [*command, "/dev/stdout", str(pid)], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        found = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return {"failed": str(error)}
    return found if isinstance(found, dict) else {}
