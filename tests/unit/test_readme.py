# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inventory of the README says for all playbooks what is meant: fifty nodes with eight workloads each."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from ansible_collections.gpuops.restore.plugins.filter.window_decision import window_decision
from ansible_collections.gpuops.restore.plugins.filter.workload_request import workload_request
from ansible_collections.gpuops.restore.plugins.filter.workload_selection import workload_selection
from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import TREE

README = (TREE / "README.md").read_text(encoding="utf-8")
(TEXT,) = re.findall(r"```yaml\n(# inventory\.yml\n.*?)```", README, re.DOTALL)
INVENTORY: dict[str, Any] = yaml.safe_load(TEXT)
SELECTION = INVENTORY["all"]["vars"]["workloads"]
USES = ("capture", "prune", "restore", "cleanup", "migrate")


def node() -> dict[str, Any]:
    """Eight that are meant, a sidecar, one of another namespace, and one without GPU memory."""
    pods = [(f"bert-{number}", "training", "trainer", True) for number in range(8)]
    pods += [("bert-0", "training", "log-sidecar", True), ("dns", "kube-system", "dns", True)]
    pods += [("web", "serving-a", "web", False)]
    workloads, checkpoints = [], []
    for number, (pod, namespace, container, gpu) in enumerate(pods):
        who = {"namespace": namespace, "name": pod, "uid": f"uid-{number}", "container": container}
        one = {"id": f"{number:064x}", "pod": who, "labels": {"app": "bert"}, "sandbox": False, "gpu": gpu}
        workloads.append({**one, "live": True, "restored_from": None})
        reference = f"registry.local/checkpoints/{namespace}-{pod}-{container}:001"
        checkpoints.append({**one, "name": reference, "digest": "sha256:1", "container": one["id"]})
    return {"workloads": workloads, "checkpoints": checkpoints, "nvml": {"available": True}, "gpu_node": True}


def test_fifty_nodes_with_eight_workloads_each_are_said_in_less_than_forty_lines(tmp_path: pathlib.Path) -> None:
    assert len(TEXT.splitlines()) < 40
    (tmp_path / "inventory.yml").write_text(TEXT, encoding="utf-8")
    # In a process of its own: what of Ansible is the controller's makes modules in the same process behave otherwise.
    command = [sys.executable, "-m", "ansible", "inventory", "-i", str(tmp_path / "inventory.yml"), "--list"]
    listed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert len(listed["_meta"]["hostvars"]) == 50
    assert all(variables == {"workloads": SELECTION} for variables in listed["_meta"]["hostvars"].values())


@pytest.mark.parametrize("use", [*USES, "maintain"])
def test_each_playbook_takes_the_hosts_by_it(use: str) -> None:
    found = workload_request(["workloads"], use, "gpu-node-01", "", SELECTION)
    assert (found["takes_part"], found["selects"], found["problem"]) == (True, True, "")


@pytest.mark.parametrize("use", USES)
def test_each_list_of_a_node_is_what_is_meant(use: str) -> None:
    found = workload_selection(node(), SELECTION, use, "gpu-node-01")
    assert (found["problems"], len(found["workloads"])) == ([], 8)


def test_a_window_captures_the_same_eight() -> None:
    known = {
        "window": "2026-12-kernel",
        "host": "gpu-node-01",
        "selection": SELECTION,
        "noted": {"node": {}, "workloads": [], "others": []},
        "answer": {**node(), "checkpoints": []},
    }
    found = window_decision(known, "course")
    assert (found["problems"], found["next"], len(found["captures"])) == ([], "capture", 8)
