# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the controller shows of a long module.

In processes of its own: where a controller's code has been imported, modules no longer behave as on a node.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

STEP = {"name": "bert", "phase": "dump", "seconds": 3, "done": 0, "total": 0, "rate": None, "left": None}
#: Tasks on standard input: ``task``, ``args``, ``transport``, ``ssh_args``; the module ends when two looks were had.
RUN = """
import json, sys, threading
from types import SimpleNamespace
from ansible.plugins.action import normal
from ansible_collections.gpuops.restore.plugins.action import containerd_restore as follow

class Over(threading.Event):
    def wait(self, timeout=None):
        intervals.append(timeout)
        return self.is_set()

def look(self, command, in_data):
    assert self is not plugin and self._connection is not plugin._connection
    assert self._connection.become is not plugin._connection.become
    commands.append(command)
    piped.add((in_data or b"").decode())
    if len(commands) == 3:
        looked.set()
        raise OSError("the connection is gone")
    return {"stdout": given["found"]}

def module(self, tmp, task_vars):
    if given["looks"]:
        assert looked.wait(60)
    return {"args": self._task.args}

follow.threading = SimpleNamespace(Event=Over, Lock=threading.Lock, Thread=threading.Thread)
follow.Display = lambda: SimpleNamespace(display=lambda line, stderr: shown.append(line))
normal.ActionModule.run = module
follow.ActionModule._low_level_execute_command = look

class Connection(SimpleNamespace):
    def get_option(self, name):
        return {"ssh_args": given["ssh_args"], "pipelining": given["pipelining"]}.get(name)
    def set_become_plugin(self, plugin):
        self.become = plugin

answers = []
for given in json.load(sys.stdin):
    shown, commands, intervals, piped, looked = [], [], [], set(), threading.Event()
    plugin = object.__new__(follow.ActionModule)
    task = {"args": given["args"], "check_mode": False, "no_log": False, "async_val": 0, **given["task"]}
    plugin._task = SimpleNamespace(**task)
    plugin._connection = Connection(transport=given["transport"], become=SimpleNamespace())
    answer = plugin.run(None, {"inventory_hostname": "gpu01"})
    seen = {"shown": shown, "commands": commands, "intervals": intervals, "piped": list(piped)}
    answers.append({**answer, **seen})
print(json.dumps(answers))
"""


def task(looks: bool, transport: str = "ssh", ssh_args: str = "-o ControlPersist=60s", **more: Any) -> dict[str, Any]:
    """One task; ``looks``: the controller is to look at the node."""
    return {
        "looks": looks,
        "transport": transport,
        "ssh_args": ssh_args,
        "args": {"workloads": [], **more.pop("args", {})},
        "pipelining": more.pop("pipelining", True),
        "task": more,
        "found": json.dumps({"steps": [STEP]}),
    }


def run_all(*tasks: dict[str, Any]) -> list[dict[str, Any]]:
    """One after another, in one process."""
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(tasks),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def run(looks: bool, **more: Any) -> dict[str, Any]:
    """The same of one."""
    (found,) = run_all(task(looks, **more))
    return found


def test_what_the_module_notes_is_shown_while_it_runs() -> None:
    found = run(True, args={"progress": "7"})
    name = found["args"].pop("progress_id")
    assert found["args"] == {"workloads": [], "progress": "7"}
    assert all(f"/run/gpuops-restore/progress/{name}.json" in command for command in found["commands"])
    assert found["shown"] == ["gpu01: bert: dump since 3 s"] * 2
    assert (set(found["intervals"]), found["piped"]) == ({7}, ["\n"])


def test_a_look_has_a_terminal_where_the_module_has_one() -> None:
    assert run(True, pipelining=False)["piped"] == [""]


def test_it_is_shown_by_default_and_on_the_controller_itself() -> None:
    assert set(run(True, transport="local", ssh_args="")["intervals"]) == {15}


def test_the_module_runs_as_ever_where_nothing_is_to_be_shown() -> None:
    for found in run_all(
        task(False, args={"progress": 0}),
        task(False, args={"progress": "soon"}),
        task(False, ssh_args="-C"),
        task(False, transport="paramiko"),
        task(False, check_mode=True),
        task(False, no_log=True),
        task(False, async_val=60),
    ):
        assert "progress_id" not in found["args"]
        assert found["shown"] == found["commands"] == found["intervals"] == []
