# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The window as one module: many workloads side by side, one that fails, again, in check mode, and killed half-way."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import time
from typing import Any, Callable

import in_node
import pytest
from gpuops_lab import workload
from gpuops_lab.config import Node
from gpuops_lab.node import output
from node_listing import listing, settled_difference

REF = "gpuops.test/many:1"
STATE = "/var/lib/gpuops-restore"
NAMES = ("m1", "m2", "m3", "m4")
RunModule = Callable[..., "dict[str, Any]"]


@pytest.fixture(scope="module", autouse=True)
def count_at_checkpoint(node: Node) -> int:
    """A counter was run, captured, and is gone; how far it had come."""
    workload.start(node, "original", 8)
    workload.await_count(node, "original", 10)
    workload.checkpoint(node, "original", REF)
    reached = workload.count(node, "original")
    workload.delete(node, "original")
    return reached


def wanted(names: tuple[str, ...] = NAMES, **every: Any) -> dict[str, Any]:
    """The module's options for these workloads."""
    return {"workloads": [{"name": name, "checkpoint": REF, **every} for name in names]}


def stage(run_module: RunModule) -> None:
    run_module("containerd_checkpoint_stage", {"checkpoint": REF})


def remove(node: Node, run_module: RunModule, names: tuple[str, ...] = NAMES) -> None:
    for name in names:
        run_module("containerd_task", {"container_id": name, "state": "absent"})
        run_module("containerd_container", {"container_id": name, "state": "absent"})
        node.inside(f"{STATE}/receipts/{name}.json").unlink(missing_ok=True)
    receipts = node.inside(f"{STATE}/receipts")
    if receipts.exists():
        receipts.rmdir()
    run_module("containerd_checkpoint_stage", {"checkpoint": REF, "state": "absent"})


def drop(bundle: pathlib.Path) -> None:
    """Take the only bundle of evidence away, which a cleanup does otherwise."""
    for entry in bundle.iterdir():
        entry.unlink()
    bundle.rmdir()
    bundle.parent.rmdir()


def test_all_run_twice_is_once_and_nothing_stays(node: Node, run_module: RunModule, count_at_checkpoint: int) -> None:
    before = listing(node)
    stage(run_module)
    parameters = {**wanted(), "record": {"node": "here"}}
    predicted = run_module("containerd_restore", parameters, check=True)
    done = run_module("containerd_restore", parameters)
    assert predicted["changed"] is done["changed"] is True
    for name in NAMES:
        result = done["workloads"][name]
        assert result["failure"] is None
        assert predicted["workloads"][name]["changed"] is result["changed"] is True
        assert result["task"]["status"] == "RUNNING"
        assert result["receipt"]["node"] == "here"
        assert predicted["workloads"][name]["predicted"]["seconds"] > 0
        assert result["receipt"]["seconds"]["predicted"] > 0
        receipt = node.inside(f"{STATE}/receipts/{name}.json")
        assert json.loads(receipt.read_text()) == result["receipt"]
        assert receipt.stat().st_mode & 0o777 == 0o600
        workload.await_count(node, name, count_at_checkpoint + 5)
    again = run_module("containerd_restore", parameters, check=True)
    assert again["changed"] is False
    again = run_module("containerd_restore", parameters)
    assert again["changed"] is False
    assert {name: found["receipt"] for name, found in again["workloads"].items()} == {
        name: found["receipt"] for name, found in done["workloads"].items()
    }
    remove(node, run_module)
    assert settled_difference(node, before) == []


def test_one_that_fails_does_not_disturb_the_others(
    node: Node, run_module: RunModule, count_at_checkpoint: int
) -> None:
    before = listing(node)
    stage(run_module)
    parameters = wanted()
    parameters["workloads"][1]["probe"] = {"command": ["/bin/cat", "/no/such/file"]}
    parameters["workloads"][1]["env"] = {"TOKEN": "hunter2"}
    found = in_node.run_module(node, "containerd_restore", parameters)
    assert found["failed"] and "1 of 4 workload(s) failed. m2: " in found["msg"]
    assert found["failure"]["code"] == "probe_failed"
    assert "hunter2" not in json.dumps(found)
    failure = found["workloads"]["m2"]["failure"]
    assert (failure["step"], failure["code"], failure["left_behind"]) == ("probe", "probe_failed", "")
    bundle = node.inside(failure["evidence"])
    assert {entry.name for entry in bundle.iterdir()} >= {"failure.json", "restore.log", "criu.conf"}
    assert "hunter2" not in (bundle / "failure.json").read_text()
    running = workload.ctr(node, "k8s.io", "tasks", "ls", "-q").split()
    assert sorted(set(running) & set(NAMES)) == ["m1", "m3", "m4"]
    assert "m2" not in workload.ctr(node, "k8s.io", "containers", "ls", "-q").split()
    for name in ("m1", "m3", "m4"):
        workload.await_count(node, name, count_at_checkpoint + 5)
    parameters["workloads"][1]["probe"] = {"file": {"path": "/var/count.log"}}
    mended = run_module("containerd_restore", parameters)
    assert [name for name in NAMES if mended["workloads"][name]["changed"]] == ["m2"]
    told(node, run_module)
    drop(bundle)
    remove(node, run_module)
    assert settled_difference(node, before) == []


def told(node: Node, run_module: RunModule) -> None:
    """node_exporter hears of four restores, and of the failure of one."""
    options = {"path": f"{STATE}/metrics.prom"}
    done = run_module("containerd_metrics", options)
    assert done["changed"] and node.inside(options["path"]).read_text() == done["text"]
    labels = [f'{{namespace="k8s.io",workload="{name}"' for name in NAMES]
    assert all(f"gpuops_restore_outage_seconds{label}}} " in done["text"] for label in labels)
    assert f"gpuops_failures{labels[1]}}} 1\n" in done["text"] and done["text"].count("gpuops_failures{") == 1
    assert f'gpuops_failure_timestamp_seconds{labels[1]},code="probe_failed",' in done["text"]
    assert not run_module("containerd_metrics", options)["changed"]
    assert run_module("containerd_metrics", {**options, "state": "absent"})["changed"]


def test_process_that_dies_is_taken_back(node: Node, run_module: RunModule) -> None:
    before = listing(node)
    stage(run_module)
    # Nobody waits for a process that dies before the module looks, so it is killed while the module watches.
    process = in_node.start(node, "containerd_restore", {**wanted(("dying",)), "alive_seconds": 30})
    end = time.monotonic() + 60
    while "dying" not in workload.ctr(node, "k8s.io", "tasks", "ls").split() or not _pid(node, "dying"):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.2)
    workload.ctr(node, "k8s.io", "tasks", "kill", "-s", "SIGKILL", "dying")
    assert process.wait(60) == 1
    (bundle,) = node.inside(f"{STATE}/debug").iterdir()
    assert json.loads((bundle / "failure.json").read_text())["failure"]["code"] == "process_died"
    drop(bundle)
    run_module("containerd_checkpoint_stage", {"checkpoint": REF, "state": "absent"})
    assert settled_difference(node, before) == []


def _pid(node: Node, name: str) -> bool:
    for line in workload.ctr(node, "k8s.io", "tasks", "ls").splitlines():
        words = line.split()
        if words[0] == name:
            return words[2] == "RUNNING" and int(words[1]) > 0
    return False


@pytest.mark.parametrize("moment", [0.3, 0.8, 1.6])
def test_a_killed_run_is_finished_by_the_next(
    node: Node, run_module: RunModule, count_at_checkpoint: int, moment: float
) -> None:
    before = listing(node)
    stage(run_module)
    process = in_node.start(node, "containerd_restore", wanted())
    time.sleep(moment)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    run_module("containerd_restore", wanted())
    for name in NAMES:
        workload.await_count(node, name, count_at_checkpoint + 5)
    assert run_module("containerd_restore", wanted())["changed"] is False
    remove(node, run_module)
    assert settled_difference(node, before) == []


def test_too_little_memory_is_known_before(node: Node, run_module: RunModule) -> None:
    """The spec of a container may limit its memory to less than the images hold."""
    before = listing(node)
    stage(run_module)
    image, spec = _original(node, run_module)
    spec["linux"].setdefault("resources", {})["memory"] = {"limit": 4096}
    small = wanted(("small",), metadata_content=json.dumps({"originalImage": image, "ociSpec": spec}))
    small["keep_evidence"] = 0
    found = run_module("containerd_restore", {**small, "state": "checked"})
    assert [problem["code"] for problem in found["problems"]] == ["container_memory_short"]
    refused = in_node.run_module(node, "containerd_restore", small)
    assert refused["failure"]["code"] == "container_memory_short"
    assert refused["workloads"]["small"]["failure"]["step"] == "preflight"
    run_module("containerd_checkpoint_stage", {"checkpoint": REF, "state": "absent"})
    assert settled_difference(node, before) == []


def _original(node: Node, run_module: RunModule) -> tuple[str, dict[str, Any]]:
    """Image and spec of a container as it is made from the checkpoint."""
    made = run_module("containerd_container", {"container_id": "shown", "checkpoint": REF})
    spec = json.loads(workload.ctr(node, "k8s.io", "containers", "info", "--spec", "shown"))
    run_module("containerd_container", {"container_id": "shown", "state": "absent"})
    return made["container"]["image"], spec


def test_containers_of_one_name_in_two_namespaces_share_nothing(
    node: Node, run_module: RunModule, count_at_checkpoint: int
) -> None:
    """Each has its own cgroup and receipt, and the end of one is not that of the other."""
    before = listing(node)
    archive = {"name": REF, "path": "/srv/many.tar"}
    run_module("containerd_checkpoint_archive", {"operation": "export", **archive})
    tenant = {"namespace": "tenant"}
    run_module("containerd_checkpoint_archive", {"operation": "import", **archive, **tenant})
    stage(run_module)
    both: list[dict[str, Any]] = [{}, tenant]
    pids = [
        run_module("containerd_restore", {**wanted(("m1",)), **where})["workloads"]["m1"]["task"]["pid"]
        for where in both
    ]
    groups = [output(node, ["cat", f"/proc/{pid}/cgroup"]) for pid in pids]
    assert "/gpuops-restore-m1\n" in groups[0] + "\n" and "/gpuops-restore-tenant--m1\n" in groups[1] + "\n"
    assert [run_module("containerd_restore", {**wanted(("m1",)), **where})["changed"] for where in both] == [
        False,
        False,
    ]
    receipts = node.inside(f"{STATE}/receipts")
    assert sorted(path.name for path in receipts.iterdir()) == ["m1.json", "tenant--m1.json"]
    for module in ("containerd_task", "containerd_container"):
        run_module(module, {"container_id": "m1", "state": "absent", **tenant})
    workload.await_count(node, "m1", workload.count(node, "m1") + 2)
    (receipts / "tenant--m1.json").unlink()
    for name in workload.ctr(node, "tenant", "images", "ls", "-q").split():
        run_module("containerd_image", {"name": name, "state": "absent", "force": True, **tenant})
    output(node, ["ctr", "namespaces", "rm", "tenant"])
    remove(node, run_module, ("m1",))
    node.inside("/srv/many.tar").unlink()
    node.inside("/srv/many.tar.gpuops.json").unlink(missing_ok=True)
    assert settled_difference(node, before) == []
