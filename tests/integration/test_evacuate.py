# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A maintenance window that moves the workloads of its node to a spare one for the work, and back.

``GPUOPS_KILLS=each``: the controller is killed at many moments on the way, one after another (``make evacuate-kills``).
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import in_node
import pytest
from controllers import Copies, Moment, begin, kill_at
from gpuops_lab import inventory, node as lab_node, workload
from gpuops_lab.config import Node
from gpuops_lab.node import output

ROOT = pathlib.Path(__file__).resolve().parents[2]
IDS = ("one", "two")
STATE = "/var/lib/gpuops-restore"
WORK = """---
- name: No workload runs here
  ansible.builtin.command:
    argv: [ctr, -n, k8s.io, tasks, ls]
  register: work_tasks
  changed_when: false
  failed_when: '"RUNNING" in work_tasks.stdout or "PAUSED" in work_tasks.stdout'

- name: The work
  ansible.builtin.command:
    argv: [touch, /var/tmp/worked]
  changed_when: true
"""
#: Each comes before what the next run, which goes on from there, has still to do.
MOMENTS = [
    Moment("Take the node, and note what is about to be done"),
    Moment("Note what is about to be done"),
    Moment("The checkpoints are taken", 0.7),
    Moment("They can be taken over"),
    Moment("Take the checkpoints in", 0.5),
    Moment("The workloads run from where they were", 0.8),
    Moment("The source ends, or goes on", 0.6, 2),
    Moment("Note where they are, and work"),
    Moment("The work"),
    Moment("Note that it is done"),
    Moment("The checkpoints are taken", 0.7),
    Moment("The workloads run from where they were", 0.8),
    Moment("The source ends, or goes on", 0.6, 2),
    Moment("Clear the spare nodes"),
    Moment("Note what is back"),
]
KILLS = MOMENTS if os.environ.get("GPUOPS_KILLS") == "each" else []


@pytest.fixture(scope="module")
def spare(node: Node) -> Iterator[Node]:
    """Where workloads go; both have the image."""
    (made,) = lab_node.up([f"t-spare-{os.getpid()}"], node.containerd, layers=[in_node.BYTECODE])
    try:
        for each in (node, made):
            workload.place_image(each)
            workload.ctr(each, workload.NAMESPACE, "images", "import", workload.ARCHIVE)
        yield made
    finally:
        lab_node.down(made.name)


def run(place: pathlib.Path, moment: Moment | None, *arguments: str) -> subprocess.Popen[str]:
    return begin(ROOT, place, ["gpuops.restore.maintenance", "-e", "@window.json", *arguments], moment)


def finish(place: pathlib.Path, *arguments: str, status: int = 0) -> str:
    """A run to its end; what it has said."""
    ended = run(place, None, *arguments).wait(timeout=1800)
    said = (place / "output").read_text()
    assert ended == status, said
    return said


def write(place: pathlib.Path, node: Node, spare: Node, **more: object) -> None:
    hosts: dict[str, dict[str, Any]] = {each.name: {**inventory.host_variables(each)} for each in (node, spare)}
    options = {"probe": {"file": {"path": "/var/count.log"}}, "stdout": "/var/log/{id}.log"}
    hosts[node.name]["workloads"] = {"names": list(IDS), "defaults": options}
    (place / "inventory.yml").write_text(inventory.inventory_text(hosts))
    (place / "work.yml").write_text(WORK)
    window = {
        "maintenance_window": "evacuated",
        "maintenance_mode": "evacuate",
        "maintenance_spares": [spare.name],
        "maintenance_tasks": str(place / "work.yml"),
        "maintenance_report": str(place / "report"),
        **more,
    }
    (place / "window.json").write_text(json.dumps(window))


def statuses(node: Node) -> dict[str, str]:
    rows = [line.split() for line in workload.ctr(node, workload.NAMESPACE, "tasks", "ls").splitlines()[1:]]
    return {row[0]: row[2] for row in rows}


def changed(said: str) -> dict[str, int]:
    return {host: int(number) for host, number in re.findall(r"^(\S+) .*changed=(\d+)", said, re.MULTILINE)}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"maintenance_spares": []}, "maintenance_spares names none. Give a list of hosts, or a group."),
        ({"maintenance_mode": "evacuated"}, "maintenance_mode is 'evacuated'; it has to be one of in_place, evacuate."),
        ({"maintenance_method": "park"}, "park does not go with maintenance_mode: evacuate."),
    ],
)
def test_what_cannot_be_done_is_said_before_a_node_is_touched(
    node: Node, spare: Node, tmp_path: pathlib.Path, more: dict[str, object], said: str
) -> None:
    write(tmp_path, node, spare, **more)
    found = finish(tmp_path, status=2)
    assert said in " ".join(found.split())
    assert f"{node.name} " in found and "ok=0" in found


def test_all_go_and_come_back(node: Node, spare: Node, tmp_path: pathlib.Path) -> None:
    write(tmp_path, node, spare)
    for name in IDS:
        workload.start_imported(node, name, 8)
    before = {name: workload.await_count(node, name, 5, 60) for name in IDS}
    watched = [Copies(node.inside(f"/var/log/{name}.log"), spare.inside(f"/var/log/{name}.log")) for name in IDS]
    with watched[0], watched[1]:
        for moment in KILLS:
            kill_at(tmp_path, moment, run)
            print(f"killed at {moment}: {statuses(node)}, {statuses(spare)}, {time.strftime('%X')}", flush=True)
        finish(tmp_path)
    assert [copies.both for copies in watched] == ["", ""]
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    (done,) = report["nodes"]
    assert (report["mode"], done["phase"], done["problems"]) == ("evacuate", "done", [])
    for one in done["workloads"]:
        route = [(move["from"], move["to"]) for move in one["moves"]]
        assert (one["phase"], one["where"]) == ("restored", node.name)
        assert KILLS or (route == [(node.name, spare.name), (spare.name, node.name)] and one["outage"] >= 0)
    output(node, ["test", "-e", "/var/tmp/worked"])
    assert (statuses(node), statuses(spare)) == (dict.fromkeys(IDS, "RUNNING"), {})
    after = {name: workload.require_unbroken(node, name, before[name]) for name in IDS}
    # Nothing of the window is left on the spare, nor of the moves anywhere.
    assert workload.ctr(spare, workload.NAMESPACE, "containers", "ls", "-q") == ""
    assert "gpuops.local/window" not in workload.ctr(spare, workload.NAMESPACE, "images", "ls", "-q")
    for each in (node, spare):
        assert output(each, ["find", "/var/tmp", "-name", "gpuops-migrate-*"]) == ""
    assert list(tmp_path.glob("gpuops-migrate-*")) == []
    said = finish(tmp_path)
    assert not any(changed(said).values()), said
    for name in IDS:
        workload.require_unbroken(node, name, after[name] + 1)
