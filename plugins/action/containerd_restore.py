# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signs of life of long modules: while one runs, what it notes on the node is shown here at an interval.

The modules of ``plugin_routing`` in meta/runtime.yml have it. The module itself runs as without it.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import threading
import uuid
from collections.abc import Iterator
from typing import Any

from ansible.plugins.action.normal import ActionModule as NormalAction
from ansible.utils.display import Display

from ansible_collections.gpuops.restore.plugins.module_utils import _options
from ansible_collections.gpuops.restore.plugins.module_utils._core import progress_lines

#: As ``_core.state_dir.runtime_dir`` has it: root's, and another user's.
_FILE = "/gpuops-restore/progress/{}.json"
_READ = 'cat "/run{0}" "${{XDG_RUNTIME_DIR:-/run/user/$(id -u)}}{0}" 2>/dev/null'
_SSH = ("ssh", "ansible.builtin.ssh")
_LOCAL = ("local", "ansible.builtin.local")


class ActionModule(NormalAction):  # type: ignore[misc]  # ansible has no types here
    """The module, and what it tells meanwhile."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Carry out the task."""
        given = self._task.args.get("progress", _options.PROGRESS["progress"]["default"])
        # What is no number is the module's to refuse.
        seconds = int(given) if str(given).strip().isdecimal() else 0
        if seconds <= 0 or not self._may_look():
            return self._module(tmp, task_vars)
        name = uuid.uuid4().hex
        self._task.args = {**self._task.args, "progress_id": name}
        with self._showing(name, seconds, str((task_vars or {}).get("inventory_hostname", ""))):
            return self._module(tmp, task_vars)

    def _module(self, tmp: str | None, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        answer: dict[str, Any] = super().run(tmp, task_vars)
        return answer

    def _may_look(self) -> bool:
        """Whether there is something to be shown, and a connection over which a look costs no other one."""
        if self._task.check_mode or self._task.no_log or self._task.async_val:
            return False
        if self._connection.transport in _LOCAL:
            return True
        given = ("ssh_args", "ssh_common_args", "ssh_extra_args")
        return self._connection.transport in _SSH and any(
            "ControlPersist" in str(self._connection.get_option(option) or "") for option in given
        )

    @contextlib.contextmanager
    def _showing(self, name: str, seconds: int, host: str) -> Iterator[None]:
        over, shown = threading.Event(), threading.Lock()
        looker = self._looker()
        command = _READ.format(_FILE.format(name))
        # Without a terminal, which sshd would take for a login each time; but sudo may need one where nothing is piped.
        given = b"\n" if self._connection.get_option("pipelining") else None

        def show() -> None:
            while not over.wait(seconds):
                try:
                    found = looker._low_level_execute_command(command, in_data=given)
                except Exception:  # noqa: BLE001
                    # The module's own connection tells what is wrong, if anything is.
                    return
                with shown:
                    # Nothing is under way on Ansible's queue when the process ends.
                    for line in () if over.is_set() else progress_lines.lines(found["stdout"]):
                        Display().display(f"{host}: {line}", stderr=True)

        # Not waited for: it may hang on a connection.
        threading.Thread(target=contextvars.copy_context().run, args=(show,), daemon=True).start()
        try:
            yield
        finally:
            with shown:
                over.set()

    def _looker(self) -> ActionModule:
        """Another one for the thread: connection and become keep what belongs to one command."""
        looker = copy.copy(self)
        looker._connection = copy.copy(self._connection)
        if self._connection.become is not None:
            looker._connection.set_become_plugin(copy.copy(self._connection.become))
        return looker
