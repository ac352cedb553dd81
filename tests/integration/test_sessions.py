# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes beside the container's own: of exec sessions, and in control groups below the container's."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from gpuops_lab import image, node as lab_node, workload
from gpuops_lab.config import Node
from node_listing import listing, settled_difference

NAME, REF = "sessions", "gpuops.test/sessions:1"
STATE = "/var/lib/gpuops-restore"
#: What lasts, and is not ended by an interrupted call.
LASTING = "/bin/busybox tail -f /dev/null"
#: The same, whose shell has ended: it belongs to the container's first process.
LEAVES = f"{LASTING} >/dev/null 2>&1 & exit 0"
RunModule = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def imported(node: Node) -> None:
    workload.ctr(node, "k8s.io", "images", "import", workload.place_image(node))


@pytest.fixture
def clean(node: Node) -> Iterator[None]:
    """A counter runs; the node is afterwards as it was before."""
    before = listing(node)
    arguments = ["--detach", "--log-uri", workload.log_uri(NAME), image.REFERENCE, NAME]
    workload.ctr(node, "k8s.io", "run", *arguments)
    workload.await_count(node, NAME, 3)
    yield
    workload.delete(node, NAME)
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", REF)
    shutil.rmtree(node.inside(f"{STATE}/receipts"), ignore_errors=True)
    # What ctr makes for a session that it does not wait for.
    for path in node.inside("/run/containerd/fifo").iterdir():
        shutil.rmtree(path)
    node.inside(f"/var/log/{NAME}.log").unlink()
    assert settled_difference(node, before) == []


def session(node: Node, script: str) -> None:
    """One that stays."""
    command = ["tasks", "exec", "--detach", "--exec-id", f"e{os.urandom(4).hex()}", NAME, "/bin/sh", "-c", script]
    workload.ctr(node, "k8s.io", *command)


def first(node: Node) -> str:
    lines = map(str.split, workload.ctr(node, "k8s.io", "tasks", "ls").splitlines())
    return next(words[1] for words in lines if words[0] == NAME)


def lasting(node: Node) -> list[tuple[str, ...]]:
    """Process, parent, group and session in the container of each that lasts."""
    command = ["tasks", "exec", "--exec-id", f"e{os.urandom(4).hex()}", NAME, "/bin/sh", "-c", "cat /proc/[0-9]*/stat"]
    lines = [line.partition(" (busybox) ") for line in workload.ctr(node, "k8s.io", *command).splitlines()]
    return sorted((pid, *rest.split()[1:4]) for pid, found, rest in lines if found)


def await_lasting(node: Node, parents: list[str]) -> list[tuple[str, ...]]:
    """When those are there, and whose children they are."""
    deadline = time.monotonic() + 30
    while sorted(one[1] for one in lasting(node)) != parents:
        assert time.monotonic() < deadline, lasting(node)
        time.sleep(0.1)
    return lasting(node)


def there_and_back(node: Node, run_module: RunModule) -> tuple[list[str], dict[str, Any]]:
    """Captured, ended, restored, and it counts on; what the capture warned of, and what the restore tells."""
    reached = workload.count(node, NAME)
    captured = run_module("containerd_checkpoint", {"container_id": NAME, "name": REF, "force": True})
    workload.delete(node, NAME)
    run_module("containerd_checkpoint_stage", {"checkpoint": REF})
    done = run_module("containerd_restore", {"workloads": [{"name": NAME, "checkpoint": REF}]})
    workload.await_count(node, NAME, reached + 3)
    return [str(line) for line in captured.get("warnings", [])], done["workloads"][NAME]


def remove(run_module: RunModule) -> None:
    for module in ("containerd_task", "containerd_container"):
        run_module(module, {"container_id": NAME, "state": "absent"})
    run_module("containerd_checkpoint_stage", {"checkpoint": REF, "state": "absent"})


@pytest.mark.usefixtures("clean")
def test_who_is_in_a_session_is_told_and_stays_behind(node: Node, run_module: RunModule) -> None:
    session(node, f"exec {LASTING}")
    # Whoever has left its session belongs to the container's first process, and comes back with its session's id.
    session(node, LEAVES)
    _in_session, left = sorted(await_lasting(node, ["0", "1"]), key=lambda one: one[1])
    warned, done = there_and_back(node, run_module)
    (told,) = [line for line in warned if "exec sessions" in line]
    assert told.count("(busybox)") == 1
    assert lasting(node) == [left]
    assert (done["differences"], done["not_compared"]) == ([], "")
    remove(run_module)


@pytest.mark.usefixtures("clean")
def test_a_control_group_below_the_containers_is_told(node: Node, run_module: RunModule) -> None:
    pid = first(node)
    lines = lab_node.output(node, ["cat", f"/proc/{pid}/cgroup"]).splitlines()
    roots = {"": "/sys/fs/cgroup", "pids": "/sys/fs/cgroup/pids"}
    kinds = {words[1]: words[2] for words in (line.split(":", 2) for line in lines)}
    root = next(roots[kind] + kinds[kind] for kind in ("pids", "") if kinds.get(kind, "/") != "/")
    session(node, LEAVES)
    (left,) = await_lasting(node, ["1"])
    script = f"mkdir {root}/below && grep -vx {pid} {root}/cgroup.procs > {root}/below/cgroup.procs"
    lab_node.output(node, ["sh", "-c", script])
    warned, done = there_and_back(node, run_module)
    (told,) = [line for line in warned if "control groups of their own" in line]
    assert told.count("(busybox) in below.") == 1
    assert lasting(node) == [left]
    message = f"The nested control group of process {left[0]} was below and is .."
    assert [(one["kind"], one["message"]) for one in done["differences"]] == [("cgroup", message)]
    remove(run_module)
