# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tasks that write the report of a window on the controller, by Ansible: where they cannot, the nodes go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import TREE

HEARD = {"node": {"phase": "done", "attempt": 1}, "workloads": [], "facts": {}}
COLLECTIONS = TREE.parents[2]


def play(directory: Path) -> dict[str, Any]:
    return {
        "hosts": "gpuops_maintenance_nodes",
        "connection": "local",
        "gather_facts": False,
        "vars_files": [str(TREE / "playbooks" / "vars" / "maintenance.yml")],
        "vars": {
            "maintenance_window": "w1",
            "maintenance_report": str(directory),
            "ansible_python_interpreter": sys.executable,
        },
        "tasks": [
            {"ansible.builtin.include_tasks": str(TREE / "playbooks" / "tasks" / "window_report.yml")},
            {"ansible.builtin.debug": {"msg": f"{{{{ inventory_hostname }}}} goes on after {directory.name}"}},
        ],
    }


def test_a_report_that_cannot_be_written_is_said_and_takes_no_node_out_of_the_window(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="ascii")
    (tmp_path / "half" / "report.html" / "in the way").mkdir(parents=True)
    # Nothing can be made in the first, one of three files not in the second.
    directories = [tmp_path / "file" / "below", tmp_path / "half"]
    (tmp_path / "play.yml").write_text(json.dumps([play(one) for one in directories]), encoding="utf-8")
    hosts = {"hosts": {host: {"gpuops_window_heard": HEARD} for host in "ab"}}
    (tmp_path / "inventory.yml").write_text(json.dumps({"gpuops_maintenance_nodes": hosts}), encoding="ascii")
    found = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory.yml", "play.yml"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_NOCOLOR": "1"},
    )
    said = found.stdout + found.stderr
    assert found.returncode == 0, said
    for directory in directories:
        assert all(f"{host} goes on after {directory.name}" in said for host in "ab"), said
        assert f"The report could not be written to {directory}: " in said, said
    assert sorted(os.listdir(tmp_path / "half")) == ["report.html", "report.json", "report.md"]
    assert json.loads((tmp_path / "half" / "report.json").read_text(encoding="utf-8"))["totals"]["done"] == 2
