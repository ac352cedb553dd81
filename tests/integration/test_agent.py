# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Playbooks through the agent of examples/agent: a container of the node's containerd that Ansible executes in.

``kubectl exec`` has a stand-in (connection_plugins/kubectl_stand_in.py); the agent, what it is let have of the host by
its manifest, and the inventory are the example's.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
from typing import Any

import agent_container
import pytest
from gpuops_lab import workload
from gpuops_lab.config import Node
from gpuops_lab.node import output
from node_listing import listing, settled_difference

ROOT = pathlib.Path(__file__).resolve().parents[2]
REFERENCE = "gpuops.test/agent-counter:1"
SELECTION = {
    "names": ["counter"],
    "checkpoint": REFERENCE,
    "defaults": {"stdout": "/var/log/{name}-restored.log", "probe": {"file": {"path": "/var/count.log"}}},
}


class Controller:
    """Runs Ansible with the example's inventory."""

    def __init__(self, node: Node, program: pathlib.Path, place: pathlib.Path) -> None:
        self._place = place
        found = agent_container.inventory(node, program)
        found["gpu_nodes"]["vars"]["workloads"] = SELECTION
        (place / "inventory.json").write_text(json.dumps(found))

    def run(self, *command: str) -> str:
        """What it printed; fails the test if it fails."""
        done = subprocess.run(
            [command[0], "-i", "inventory.json", *command[1:]],
            cwd=self._place,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ROOT / "examples/ansible.cfg"),
                "ANSIBLE_CONNECTION_PLUGINS": str(ROOT / "tests/integration/connection_plugins"),
                "ANSIBLE_NOCOLOR": "1",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not done.returncode, done.stdout + done.stderr
        return done.stdout

    def play(self, name: str, *arguments: str) -> int:
        """Run that playbook of the collection; how many tasks changed something."""
        said = self.run("ansible-playbook", f"gpuops.restore.{name}", *arguments)
        return sum(map(int, re.findall(r"changed=(\d+)", said)))


@pytest.fixture(scope="module")
def controller(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Controller:
    program = agent_container.start(node, agent_container.manifest())
    return Controller(node, program, tmp_path_factory.mktemp("controller"))


def looked_at(controller: Controller, place: pathlib.Path) -> dict[str, dict[str, Any]]:
    """What containerd_workload_info says of each container."""
    command = ("ansible", "all", "-m", "gpuops.restore.containerd_workload_info", "--tree", str(place))
    controller.run(*command)
    (answer,) = place.iterdir()
    return {one["id"]: one for one in json.loads(answer.read_text())["workloads"]}


def test_a_container_is_captured_restored_and_cleaned_up(
    node: Node, controller: Controller, tmp_path: pathlib.Path
) -> None:
    workload.ctr(node, workload.NAMESPACE, "images", "import", workload.place_image(node))
    before = listing(node)
    workload.start_imported(node, "counter", 16)
    reached = workload.await_count(node, "counter", 10, 60)

    found = looked_at(controller, tmp_path / "looked")
    assert found["counter"]["live"]
    assert found["counter"]["capturable"], found["counter"]["problems"]
    # The agent itself shares the host's processes and is refused; so no selection takes it.
    assert not found[agent_container.IDENTIFIER]["capturable"]

    assert controller.play("checkpoint")
    workload.delete(node, "counter")
    assert controller.play("restore")
    workload.require_unbroken(node, "counter", reached)
    assert not controller.play("restore")

    assert controller.play("cleanup", "-e", json.dumps({"restore_node_cleanup_captures": [REFERENCE]}))
    output(node, ["rm", "/var/log/counter.log"])
    assert settled_difference(node, before) == []
