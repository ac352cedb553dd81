# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The main job, step by step, on a real containerd: a process that counts goes on where it was checkpointed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from typing import Any, Callable

import in_node
import pytest
from gpuops_lab import image, workload
from gpuops_lab.config import Node
from gpuops_lab.node import output
from node_listing import listing, settled_difference

pytestmark = [pytest.mark.every_containerd, pytest.mark.older_criu, pytest.mark.newer_criu]

REF = "gpuops.test/checkpoint:1"
TASK_REF = "gpuops.test/checkpoint:task"
STATE = "/var/lib/gpuops-restore"
RunModule = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def captured(node: Node) -> range:
    """A counter was run, captured in both of ctr's layouts, and is gone; where it may have been then."""
    workload.start(node, "original", 8)
    workload.await_count(node, "original", 10)
    before = workload.count(node, "original")
    workload.checkpoint(node, "original", REF)
    node.inside("/opt/original-spec.json").write_text(
        workload.ctr(node, "k8s.io", "containers", "info", "--spec", "original")
    )
    reached = workload.count(node, "original")
    workload.delete(node, "original")
    return range(before, reached + 1)


@pytest.fixture(scope="module")
def count_at_checkpoint(captured: range) -> int:
    """How far it had come at most."""
    return captured[-1]


def steps(identifier: str, **task: Any) -> list[tuple[str, dict[str, Any]]]:
    """The step modules in their order, for a container of that name."""
    return [
        ("containerd_checkpoint_stage", {"checkpoint": REF}),
        ("containerd_container", {"container_id": identifier, "checkpoint": REF}),
        ("containerd_task", {"container_id": identifier, "checkpoint": REF, **task}),
    ]


def remove(run_module: RunModule, identifier: str) -> list[bool]:
    """Take the container, and what was staged for it, away; whether each step changed something."""
    return [
        run_module("containerd_task", {"container_id": identifier, "state": "absent"})["changed"],
        run_module("containerd_container", {"container_id": identifier, "state": "absent"})["changed"],
        run_module("containerd_checkpoint_stage", {"checkpoint": REF, "state": "absent"})["changed"],
    ]


def test_goes_on_converges_and_leaves_nothing(node: Node, run_module: RunModule, captured: range) -> None:
    before = listing(node)
    log = "/var/log/restored.log"
    wanted = steps("restored", stdout=log)
    assert [run_module(name, params)["changed"] for name, params in wanted] == [True, True, True]
    reached = workload.await_count(node, "restored", captured[-1] + 5)
    written = [int(line) for line in node.inside(log).read_text().split()]
    assert captured[0] < written[0] <= captured[-1] + 1, "the output does not go on where it was"
    assert written == list(range(written[0], written[0] + len(written))), "numbers are missing or double"
    assert node.inside(log).stat().st_mode & 0o777 == 0o600
    assert [run_module(name, params)["changed"] for name, params in wanted] == [False, False, False]
    assert workload.count(node, "restored") >= reached, "the second run has disturbed the process"
    assert remove(run_module, "restored") == [True, True, True]
    assert remove(run_module, "restored") == [False, False, False]
    node.inside(log).unlink()
    assert settled_difference(node, before) == []


def test_staged_files_are_secret(node: Node, run_module: RunModule) -> None:
    directory = node.inside(run_module(*steps("secret")[0])["directory"])
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {entry.stat().st_mode & 0o777 for entry in directory.iterdir()} == {0o600}
    run_module("containerd_checkpoint_stage", {"checkpoint": REF, "state": "absent"})
    assert not directory.exists()


def test_check_mode_predicts_and_changes_nothing(node: Node, run_module: RunModule) -> None:
    wanted = steps("predicted")
    before = listing(node)
    predicted = []
    for name, params in wanted:
        extra = {} if name == "containerd_checkpoint_stage" else {"assume_prepared": True}
        predicted.append(run_module(name, {**params, **extra}, check=True)["changed"])
    assert settled_difference(node, before) == []
    assert predicted == [run_module(name, params)["changed"] for name, params in wanted]
    again = [run_module(name, params, check=True)["changed"] for name, params in wanted]
    assert again == [False, False, False]
    predicted_removal = run_module("containerd_task", {"container_id": "predicted", "state": "absent"}, check=True)
    assert predicted_removal["changed"]
    remove(run_module, "predicted")


def test_used_snapshot_is_refused_then_rebuilt(
    node: Node, run_module: RunModule, expect_failure: RunModule, count_at_checkpoint: int
) -> None:
    wanted = steps("again")
    for name, params in wanted:
        run_module(name, params)
    workload.await_count(node, "again", count_at_checkpoint + 8)
    run_module("containerd_task", {"container_id": "again", "state": "stopped", "grace_seconds": 2})
    assert not run_module("containerd_task", {"container_id": "again", "state": "stopped"})["changed"]
    expect_failure(*wanted[2], "snapshot_used")
    name, params = wanted[1]
    assert not run_module(name, params)["changed"], "without rebuild the container stays as it is"
    assert run_module(name, {**params, "rebuild": True})["created"]
    assert run_module(*wanted[2])["created"]
    # From the checkpoint's own count, not from where the first restore had come to.
    assert workload.count(node, "again") < count_at_checkpoint + 8 + 10
    log = output(
        node, ["ctr", "-n", "k8s.io", "tasks", "exec", "--exec-id", "x", "again", "/bin/cat", "/var/count.log"]
    )
    numbers = [int(line) for line in log.split()]
    assert numbers == list(range(1, len(numbers) + 1)), "the writable layer is of another moment than the memory"
    remove(run_module, "again")


def test_descriptor_route_leaves_no_copy_of_memory(node: Node, run_module: RunModule) -> None:
    before = listing(node)
    _stage, container, (name, params) = steps("descriptor", route="descriptor")
    run_module(*container)
    assert run_module(name, params)["task"]["status"] == "RUNNING"
    assert list(node.inside("/tmp").glob("ctrd-checkpoint*")) == []
    remove(run_module, "descriptor")
    assert settled_difference(node, before) == []


def test_descriptor_routes_side_by_side_leave_no_copy_of_memory(node: Node, run_module: RunModule) -> None:
    """Two at once, and somebody's directory of that name: each takes its own copy away, and nobody else's."""
    before = listing(node)
    output(node, ["setpriv", "--reuid=65534", "--clear-groups", "mkdir", "/tmp/ctrd-checkpoint-of-nobody"])
    workloads = [{"name": name, "checkpoint": REF, "route": "descriptor", "gpu": "none"} for name in ("one", "two")]
    found = run_module("containerd_restore", {"workloads": workloads, "huge_pages": "keep"})
    assert [result["task"]["status"] for result in found["workloads"].values()] == ["RUNNING", "RUNNING"]
    left = [path.name for path in node.inside("/tmp").glob("ctrd-checkpoint*")]
    assert left == ["ctrd-checkpoint-of-nobody"]
    node.inside("/tmp/ctrd-checkpoint-of-nobody").rmdir()
    for name in ("one", "two"):
        remove(run_module, name)
    shutil.rmtree(node.inside(f"{STATE}/receipts"))
    assert settled_difference(node, before) == []


def test_a_faked_shim_stands_in_nobodys_way(node: Node, run_module: RunModule) -> None:
    """Nobody's process has the command line of a shim: the end of a task is its end all the same."""
    before = listing(node)
    for wanted in steps("faked"):
        run_module(*wanted)
    code = "import os, sys; os.setuid(65534); print(flush=True); sys.stdin.read()"
    words = f"-namespace k8s.io -id faked -address {STATE}"
    fake = [str(node.directory / "enter"), "bash", "-c", f"exec -a containerd-shim-runc-v2 python3 -c '{code}' {words}"]
    with subprocess.Popen(fake, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"\n"
        assert remove(run_module, "faked") == [True, True, True]
        assert process.poll() is None
    assert settled_difference(node, before) == []


def test_layout_of_ctr_tasks_checkpoint(node: Node, run_module: RunModule) -> None:
    workload.start(node, "poorer", 8)
    workload.await_count(node, "poorer", 5)
    # On 1.6 and 1.7 a further checkpoint of the same container would lack its images; this one is the first.
    workload.ctr(node, "k8s.io", "tasks", "checkpoint", "poorer")
    every = workload.ctr(node, "k8s.io", "images", "ls", "-q").split()
    names = [name for name in every if name.startswith("containerd.io/checkpoint/poorer:")]
    workload.delete(node, "poorer")
    assert len(names) == 1
    found = run_module("containerd_checkpoint_info", {"checkpoint": names[0], "container_id": "poorer"})
    assert (found["checkpoint"]["layout"], found["problems"]) == ("task", [])
    run_module("containerd_checkpoint_stage", {"checkpoint": names[0]})
    run_module("containerd_container", {"container_id": "poorer", "checkpoint": names[0]})
    run_module("containerd_task", {"container_id": "poorer", "checkpoint": names[0]})
    workload.await_count(node, "poorer", 6)
    for module in ("containerd_task", "containerd_container"):
        run_module(module, {"container_id": "poorer", "state": "absent"})
    run_module("containerd_checkpoint_stage", {"checkpoint": names[0], "state": "absent"})
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", names[0])


def test_metadata_wins_over_the_checkpoint(node: Node, run_module: RunModule) -> None:
    spec = json.loads(node.inside("/opt/original-spec.json").read_text())
    spec["process"]["env"].append("FROM_METADATA=1")
    metadata = {"originalImage": image.REFERENCE, "snapshotID": "metadata-rootfs", "ociSpec": spec}
    params = {"container_id": "described", "checkpoint": REF, "metadata_content": json.dumps(metadata)}
    done = run_module("containerd_container", params, diff=True)
    assert done["container"]["spec_source"] == "metadata"
    assert done["container"]["snapshot_key"] == "metadata-rootfs"
    assert "FROM_METADATA=***" in done["diff"]["after"]["process"]["env"], "values must be masked"
    run_module("containerd_container", {"container_id": "described", "state": "absent"})


def test_a_pod_network_that_is_gone(node: Node, run_module: RunModule) -> None:
    """As in a pod: checkpointed in the network namespace of another process, which has ended since."""
    output(node, ["ip", "netns", "add", "pod"])
    before = listing(node)
    reference = "gpuops.test/checkpoint:pod"
    output(node, ["sh", "-c", "ip netns exec pod sleep 600 </dev/null >/dev/null 2>&1 & echo $! > /opt/pod.pid"])
    pod = node.inside("/opt/pod.pid").read_text().strip()
    arguments = ["--detach", "--with-ns", f"network:/proc/{pod}/ns/net", image.REFERENCE, "in-pod"]
    workload.ctr(node, "k8s.io", "run", *arguments)
    workload.await_count(node, "in-pod", 3)
    workload.checkpoint(node, "in-pod", reference)
    workload.delete(node, "in-pod")
    output(node, ["sh", "-c", f"kill {pod}; ip netns delete pod"])
    before["mounts"] = [row for row in before["mounts"] if "/run/netns/pod" not in row]
    before["run"] = [row for row in before["run"] if "/run/netns/pod" not in row]
    identity = {"container_id": "in-pod", "checkpoint": reference}
    assert run_module("containerd_checkpoint_info", identity)["problems"] == []
    run_module("containerd_checkpoint_stage", {"checkpoint": reference})
    run_module("containerd_container", identity)
    run_module("containerd_task", identity)
    workload.await_count(node, "in-pod", 5)
    assert output(node, ["ip", "netns", "list"]).split()[0] == "gpuops-restore-in-pod"
    for name in ("containerd_task", "containerd_container"):
        run_module(name, {"container_id": "in-pod", "state": "absent"})
    run_module("containerd_container", {**identity, "network": "host"})
    run_module("containerd_task", identity)
    workload.await_count(node, "in-pod", 5)
    for name in ("containerd_task", "containerd_container"):
        run_module(name, {"container_id": "in-pod", "state": "absent"})
    run_module("containerd_checkpoint_stage", {"checkpoint": reference, "state": "absent"})
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", reference)
    assert settled_difference(node, before) == []


@pytest.mark.parametrize("step", range(3))
def test_killed_at_any_moment_and_finished_by_the_next_run(
    node: Node, run_module: RunModule, count_at_checkpoint: int, step: int
) -> None:
    """Each step is killed at several moments; the same run again finishes, and removal leaves nothing."""
    before = listing(node)
    wanted = steps("resumed")
    for name, params in wanted[:step]:
        run_module(name, params)
    for milliseconds in range(150, 500, 50):
        process = in_node.start(node, *wanted[step])
        time.sleep(milliseconds / 1000)
        # nsenter's child in the node belongs to the group, too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for name, params in wanted:
        run_module(name, {**params, "rebuild": True} if name == "containerd_container" else params)
    workload.await_count(node, "resumed", count_at_checkpoint + 1)
    remove(run_module, "resumed")
    assert settled_difference(node, before) == []


def test_containerd_restarts_with_cri(node: Node) -> None:
    assert workload.cri_problems(node) == []
