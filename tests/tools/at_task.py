#!/usr/bin/env python3
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a playbook and, as soon as a task of that name has ended, kills the run or makes a file.

    at_task.py "NAME OF THE TASK" (kill | touch=FILE) -- ansible-playbook ...

Killed as a controller dies: with SIGKILL, the process and all its descendants at once; what runs on the nodes goes on.
Its status is the run's, 0 for one that was killed, and 3 where the task never ended.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

PLUGINS = pathlib.Path(__file__).resolve().parent / "callback_plugins"


def ended(record: pathlib.Path, task: str) -> bool:
    """Whether a task of that name has ended on some host."""
    lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
    entries = [json.loads(line) for line in lines if line.endswith("\n")]
    return any(entry["task"].split(" : ")[-1] == task and not entry["is_item"] for entry in entries)


def family(pid: int) -> list[int]:
    """The process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(entry.parent.name))
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found


def main() -> int:
    task, act = sys.argv[1:3]
    command = sys.argv[sys.argv.index("--") + 1 :]
    with tempfile.TemporaryDirectory() as directory:
        record = pathlib.Path(directory, "record.jsonl")
        record.touch()
        environment = {
            **os.environ,
            "GPUOPS_CHANGES": str(record),
            "ANSIBLE_CALLBACK_PLUGINS": str(PLUGINS),
            "ANSIBLE_CALLBACKS_ENABLED": "gpuops_changes",
        }
        with subprocess.Popen(command, env=environment) as run:
            while not (seen := ended(record, task)) and run.poll() is None:
                time.sleep(0.02)
            if seen and act == "kill":
                for pid in family(run.pid):
                    os.kill(pid, signal.SIGKILL)
            elif seen:
                pathlib.Path(act.removeprefix("touch=")).touch()
            status = run.wait()
    if not seen:
        return 3
    return 0 if act == "kill" else status


if __name__ == "__main__":
    sys.exit(main())
