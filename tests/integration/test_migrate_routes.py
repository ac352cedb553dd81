# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook migrate by a directory that both see, by a registry, directly. By the controller: molecule's migrate."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
from collections.abc import Iterator
from typing import Any

import in_node
import pytest
import registry_server
import shared_directory
from gpuops_lab import inventory, node as lab_node, workload
from gpuops_lab.config import Node
from gpuops_lab.node import output
from registry_server import CA_FILE, HOST, PASSWORD, PORT, USER, Relay

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = "/srv/shared"
ACCESS = {
    "checkpoint_node_registry_username": USER,
    "checkpoint_node_registry_password": PASSWORD,
    "checkpoint_node_registry_ca_file": CA_FILE,
}


@pytest.fixture(scope="module")
def other(node: Node) -> Iterator[Node]:
    """Where workloads go."""
    (made,) = lab_node.up([f"t-migrate2-{os.getpid()}"], node.containerd, layers=[in_node.BYTECODE])
    try:
        yield made
    finally:
        lab_node.down(made.name)


def migrate(source: Node, target: Node, name: str, place: pathlib.Path, **variables: Any) -> None:
    """Move one counter."""
    nodes = {each.name: inventory.host_variables(each) for each in (source, target)}
    (place / "inventory.yml").write_text(inventory.inventory_text(nodes))
    wanted = {
        "name": name,
        "checkpoint": f"gpuops.test/{name}:1",
        "gpu": "none",
        "stdout": f"/var/log/{name}-moved.log",
    }
    given = {"migrate_source": source.name, "migrate_target": target.name, "migrate_workloads": [wanted], **variables}
    (place / "move.json").write_text(json.dumps(given))
    done = subprocess.run(
        ["ansible-playbook", "-i", "inventory.yml", "gpuops.restore.migrate", "-e", "@move.json"],
        cwd=place,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "examples/ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stdout + done.stderr


def tasks(node: Node) -> dict[str, str]:
    """What each task of the node does."""
    rows = [line.split() for line in workload.ctr(node, workload.NAMESPACE, "tasks", "ls").splitlines()[1:]]
    return {row[0]: row[2] for row in rows}


def check_moved(source: Node, target: Node, name: str) -> None:
    """It runs on the target alone, and has neither lost nor repeated a number."""
    assert (tasks(source)[name], tasks(target)[name]) == ("STOPPED", "RUNNING")
    workload.await_count(target, name, workload.count(target, name) + 2)
    read = ["tasks", "exec", "--exec-id", "log", name, "/bin/cat", "/var/count.log"]
    numbers = [int(line) for line in workload.ctr(target, workload.NAMESPACE, *read).split()]
    assert numbers == list(range(1, len(numbers) + 1))
    last = output(source, ["tail", "-n", "1", f"/var/log/{name}.log"])
    first = output(target, ["head", "-n", "1", f"/var/log/{name}-moved.log"])
    assert int(first) == int(last) + 1


def test_by_a_directory_that_both_see(node: Node, other: Node, tmp_path: pathlib.Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    for each in (node, other):
        shared_directory.share(shared, each, SHARED)
    workload.start(node, "shared", 16)
    workload.await_count(node, "shared", 10)
    migrate(node, other, "shared", tmp_path, migrate_route="shared", migrate_directory=SHARED)
    check_moved(node, other, "shared")
    assert list(shared.iterdir()) == []


def test_by_a_registry(node: Node, other: Node, tmp_path: pathlib.Path) -> None:
    with registry_server.serving(node):
        registry_server.introduce(other, node.inside(CA_FILE))
        relay = Relay(other, node, PORT, PORT)
        try:
            workload.start(node, "pushed", 16)
            workload.await_count(node, "pushed", 10)
            way = {"migrate_route": "registry", "migrate_registry": f"{HOST}:{PORT}/moves"}
            migrate(node, other, "pushed", tmp_path, **way, **ACCESS)
        finally:
            relay.close()
        check_moved(node, other, "pushed")


DIRECT_PORT = 5444
DIRECT = {
    "migrate_route": "direct",
    "migrate_address": "127.0.0.1",
    "migrate_port": DIRECT_PORT,
    "migrate_clients": ["127.0.0.1"],
}


def check_not_served(node: Node) -> None:
    """Nobody listens any more, and nothing is noted of it."""
    assert output(node, ["find", "/run/gpuops-restore/serve", "-type", "f"]) == ""
    assert f":{DIRECT_PORT} " not in output(node, ["ss", "-Htln"])


def test_from_the_source_itself(node: Node, other: Node, tmp_path: pathlib.Path) -> None:
    workload.start(node, "direct", 16)
    workload.await_count(node, "direct", 10)
    relay = Relay(other, node, DIRECT_PORT, DIRECT_PORT)
    try:
        migrate(node, other, "direct", tmp_path, **DIRECT)
    finally:
        relay.close()
    check_moved(node, other, "direct")
    check_not_served(node)


def test_a_way_that_is_closed_is_found_before_anything_stands_still(
    node: Node, other: Node, tmp_path: pathlib.Path
) -> None:
    workload.start(node, "stays", 16)
    with pytest.raises(AssertionError, match="did not begin, for .* does not reach"):
        migrate(node, other, "stays", tmp_path, **DIRECT)
    assert tasks(node)["stays"] == "RUNNING" and "stays" not in tasks(other)
    check_not_served(node)
