# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook migrate by the route direct, whose controller is killed: the same command again brings it to its end.

``GPUOPS_KILLS=each``: killed at every moment, each with a workload of its own (``make migrate-kills``). Otherwise one
workload, whose migration is killed at some moments one after another.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import time
from collections.abc import Iterator

import in_node
import pytest
from controllers import Copies, Moment, begin, kill_at
from gpuops_lab import inventory, node as lab_node, workload
from gpuops_lab.config import Node
from gpuops_lab.listing import listing, settled_difference
from gpuops_lab.node import output
from registry_server import Relay

ROOT = pathlib.Path(__file__).resolve().parents[2]
PORT = 5445
STATE = "/var/lib/gpuops-restore"


ARRIVES = Moment("Pull them from the source", 1.0)
RUNS = Moment("The workloads run from where they were", 1.0)
MOMENTS = [
    Moment("Offer them to the target", 0.5),
    Moment("See whether it reaches the source"),
    Moment("Note what is about to be done", 0.3),
    *(Moment("The checkpoints are taken", seconds) for seconds in (0.0, 0.4, 0.7, 1.0, 1.3)),
    Moment("Note the digests"),
    Moment("Offer them to the target", 0.0, 2),
    Moment("Offer them to the target", 0.6, 2),
    Moment("They can be taken over"),
    *(Moment("Pull them from the source", seconds) for seconds in (0.0, 0.5, 0.8)),
    ARRIVES,
    Moment("The CRIU images are staged"),
    *(Moment("The workloads run from where they were", seconds) for seconds in (0.0, 0.5, 0.8)),
    RUNS,
    Moment("The workloads run from where they were", 1.5),
    Moment("The source ends, or goes on", 0.0, 2),
    Moment("The source ends, or goes on", 0.6, 2),
    Moment("Clear up", 0.0, 2),
    Moment("What the source has offered is offered no longer", 0.0, 2),
    Moment("Records of what is over are gone"),
    Moment("The others say what is left to do"),
]
KILLS = [[moment] for moment in MOMENTS] if os.environ.get("GPUOPS_KILLS") == "each" else [[ARRIVES, RUNS]]


@pytest.fixture(scope="module")
def other(node: Node) -> Iterator[Node]:
    """Where workloads go; both have the image."""
    (made,) = lab_node.up([f"t-killed2-{os.getpid()}"], node.containerd, layers=[in_node.BYTECODE])
    relay = Relay(made, node, PORT, PORT)
    try:
        for each in (node, made):
            workload.place_image(each)
            workload.ctr(each, workload.NAMESPACE, "images", "import", workload.ARCHIVE)
        yield made
    finally:
        relay.close()
        lab_node.down(made.name)


def start(place: pathlib.Path, moment: Moment | None) -> subprocess.Popen[str]:
    """The migration."""
    return begin(ROOT, place, ["gpuops.restore.migrate", "-e", "@move.json"], moment)


def statuses(node: Node) -> dict[str, str]:
    rows = [line.split() for line in workload.ctr(node, workload.NAMESPACE, "tasks", "ls").splitlines()[1:]]
    return {row[0]: row[2] for row in rows}


def nothing_is_left_but(node: Node, names: set[str]) -> None:
    """Of the state directory, and of what a migration has elsewhere."""
    assert output(node, ["find", "/run/gpuops-restore", "-type", "f", "-path", "*/serve/*"]) == ""
    assert output(node, ["find", "/var/tmp", "-name", "gpuops-migrate-*"]) == ""
    found = {
        entry for entry in output(node, ["ls", "-A", STATE]).split() if not all(c in "0123456789abcdef" for c in entry)
    }
    assert found <= names, found


def clear(node: Node, name: str, reference: str) -> None:
    """What a migration that went well has on purpose."""
    workload.delete(node, name)
    workload.ctr(node, workload.NAMESPACE, "images", "rm", "--sync", reference)
    output(node, ["rm", "-f", f"/var/log/{name}.log", f"/var/log/{name}-moved.log"])
    # It is a mount point.
    output(node, ["find", STATE, "-mindepth", "1", "-delete"])


@pytest.mark.parametrize("moments", KILLS, ids=lambda moments: " + ".join(map(str, moments)))
def test_the_same_command_again(node: Node, other: Node, tmp_path: pathlib.Path, moments: list[Moment]) -> None:
    name = f"killed-{time.monotonic_ns()}"
    reference = f"gpuops.test/{name}:1"
    before = [listing(each) for each in (node, other)]
    (tmp_path / "inventory.yml").write_text(
        inventory.inventory_text({each.name: inventory.host_variables(each) for each in (node, other)})
    )
    wanted = {"name": name, "checkpoint": reference, "gpu": "none", "stdout": f"/var/log/{name}-moved.log"}
    given = {"migrate_source": node.name, "migrate_target": other.name, "migrate_workloads": [wanted]}
    way = {"migrate_route": "direct", "migrate_address": "127.0.0.1", "migrate_port": PORT}
    (tmp_path / "move.json").write_text(json.dumps({**given, **way, "migrate_clients": ["127.0.0.1"]}))
    workload.start_imported(node, name, 128)
    workload.await_count(node, name, 5, 30)
    with Copies(node.inside(f"/var/log/{name}.log"), other.inside(f"/var/log/{name}-moved.log")) as copies:
        for moment in moments:
            kill_at(tmp_path, moment, start)
        done = start(tmp_path, None)
        assert done.wait(timeout=300) == 0, (tmp_path / "output").read_text()
        assert (statuses(node)[name], statuses(other)[name]) == ("STOPPED", "RUNNING")
        workload.require_unbroken(other, name, workload.count(other, name) + 2)
    assert copies.both == ""
    nothing_is_left_but(node, {"migrations"})
    nothing_is_left_but(other, {"receipts", "debug", "criu", "work", "containers"})
    assert f":{PORT} " not in output(node, ["ss", "-Htln"])
    assert list(tmp_path.glob("gpuops-migrate-*")) == []
    for each in (node, other):
        clear(each, name, reference)
    assert [settled_difference(each, old) for each, old in zip((node, other), before)] == [[], []]
