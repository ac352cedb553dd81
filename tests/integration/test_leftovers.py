# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Memory images that a kill or a loss of power leaves on a real node, and who finds them."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import time
from typing import Any, Callable

import in_node
import pytest
from gpuops_lab import node as lab_node, workload
from gpuops_lab.config import Node

REF = "gpuops.test/left:1"
STATE = "/var/lib/gpuops-restore"
LEFTOVERS, STAGE = "containerd_leftovers", "containerd_checkpoint_stage"
RunModule = Callable[..., dict[str, Any]]


def killed(node: Node, module: str, params: dict[str, Any], function: str, when: str) -> None:
    """One run of a module that is killed at a function."""
    library = in_node.LIBRARY
    shutil.copyfile(pathlib.Path(__file__).with_name("kill_at.py"), node.inside(f"{library}/kill_at.py"))
    done = subprocess.run(
        [str(node.directory / "enter"), "env", f"PYTHONPATH={library}", in_node.PYTHON, f"{library}/kill_at.py"]
        + [module, function, when],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": params}),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert not done.stdout.strip() and done.returncode in (-9, 137), done.stdout + done.stderr


def memory_images(node: Node) -> list[str]:
    """Paths of all files that hold memory of processes, outside of containerd's store."""
    found = []
    for root in (STATE, "/tmp", "/var/tmp", "/run"):
        for directory, _directories, names in os.walk(node.inside(root)):
            found += [f"{directory}/{name}" for name in names if name.startswith("pages-")]
    return found


@pytest.fixture
def job(node: Node) -> Any:
    workload.start(node, "job", 8)
    workload.await_count(node, "job", 3)
    yield "job"
    workload.delete(node, "job")


def test_a_capture_that_a_loss_of_power_broke_off(node: Node, run_module: RunModule) -> None:
    workload.start(node, "job", 8)
    workload.await_count(node, "job", 3)
    wanted = {"container_id": "job", "name": REF}
    killed(node, "containerd_checkpoint", wanted, "_checkpoint.writer:packed_by_daemon", "leave")
    lab_node.reboot(node)
    in_node.install(node, pathlib.Path(__file__).resolve().parents[2])
    assert memory_images(node), "the disk is as it was"
    assert not node.inside("/run/gpuops-restore").exists()
    predicted = run_module(LEFTOVERS, {}, check=True)
    found = run_module(LEFTOVERS, {})
    assert [left["kind"] for left in found["removed"]] == ["dump", "lease"]
    assert predicted["removed"] == found["removed"] and found["removed"][0]["bytes"] > 8 << 20
    assert memory_images(node) == []
    assert run_module(LEFTOVERS, {})["changed"] is False
    assert os.listdir(node.inside(STATE)) == [] and not node.inside("/run/gpuops-restore").exists()
    workload.delete(node, "job")


def test_a_capture_that_was_killed_and_criu_that_is_still_at_it(node: Node, run_module: RunModule, job: str) -> None:
    """What CRIU writes stays until it is through; the paused workload is the next capture's to resume."""
    wanted = {"container_id": job, "name": REF}
    killed(node, "containerd_checkpoint", wanted, "_containerd.tasks:checkpoint", "20")
    deadline = time.monotonic() + 60
    while memory_images(node) and time.monotonic() < deadline:
        run_module(LEFTOVERS, {})
    assert memory_images(node) == []
    assert run_module("containerd_checkpoint", wanted)["recovered"]
    workload.await_count(node, job, workload.count(node, job) + 2)
    assert run_module("containerd_checkpoint_info", {"checkpoint": REF})["problems"] == []
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", REF)


@pytest.fixture(scope="module")
def taken(node: Node) -> str:
    """A checkpoint of a counter with 8 MiB."""
    workload.start(node, "source", 8)
    workload.await_count(node, "source", 3)
    result = in_node.run_module(
        node, "containerd_checkpoint", {"container_id": "source", "name": "gpuops.test/taken:1"}
    )
    assert not result.get("failed"), result
    workload.delete(node, "source")
    return "gpuops.test/taken:1"


def test_staging_that_was_killed(node: Node, run_module: RunModule, taken: str) -> None:
    killed(node, STAGE, {"checkpoint": taken}, "_checkpoint.staging:_write_marker", "enter")
    assert memory_images(node)
    assert run_module(LEFTOVERS, {"keep_partials": True})["removed"] == [], "it can still be finished"
    found = run_module(LEFTOVERS, {})
    assert [left["kind"] for left in found["removed"]] == ["partial_staging", "lease"]
    assert not [line for line in workload.ctr(node, "k8s.io", "leases", "ls", "-q").split() if "gpuops" in line]
    assert memory_images(node) == []


@pytest.mark.every_containerd
def test_the_copy_of_a_descriptor_restore_that_was_killed(node: Node, run_module: RunModule, taken: str) -> None:
    """containerd extracts the checkpoint, and leaves it, whatever becomes of the one who asked."""
    identity = {"container_id": "copy", "checkpoint": taken}
    run_module("containerd_container", identity)
    params = {**identity, "route": "descriptor"}
    killed(node, "containerd_task", params, "_containerd.tasks:create", "leave")
    stranger = node.inside("/tmp/ctrd-checkpoint-stranger")
    stranger.mkdir()
    (stranger / "pages-1.img").write_bytes(b"not ours")
    assert len(memory_images(node)) == 2
    found = run_module(LEFTOVERS, {})
    assert [left["kind"] for left in found["removed"]] == ["extracted_checkpoint"]
    assert [path.rpartition("/ctrd")[2] for path in memory_images(node)] == ["-checkpoint-stranger/pages-1.img"]
    shutil.rmtree(stranger)
    run_module("containerd_container", {**identity, "rebuild": True})
    run_module("containerd_task", params)
    assert memory_images(node) == []
    for module in ("containerd_task", "containerd_container"):
        run_module(module, {"container_id": "copy", "state": "absent"})


def test_an_import_that_was_killed_goes_on_by_blob(node: Node, run_module: RunModule, taken: str) -> None:
    """What is whole in the store is not written again; the lease that kept it goes in the end."""
    archive = {"name": "gpuops.test/imported:1", "path": "/srv/left.tar", "base": "omit"}
    (node.inside("/srv")).mkdir(exist_ok=True)
    run_module("containerd_checkpoint_archive", {"operation": "export", **archive, "name": taken})
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", taken)
    wanted = {"operation": "import", **archive}
    killed(node, "containerd_checkpoint_archive", wanted, "_image.image:_record", "enter")
    before = set(workload.ctr(node, "k8s.io", "content", "ls", "-q").split())
    times = {digest: node.inside(blob(digest)).stat().st_mtime_ns for digest in before}
    assert run_module(LEFTOVERS, {"keep_partials": True})["removed"] == []
    done = run_module("containerd_checkpoint_archive", wanted)
    assert done["archive"]["kept"] == done["archive"]["blobs"]
    assert {digest: node.inside(blob(digest)).stat().st_mtime_ns for digest in before} == times
    assert run_module("containerd_checkpoint_info", {"checkpoint": archive["name"]})["problems"] == []
    assert not [line for line in workload.ctr(node, "k8s.io", "leases", "ls", "-q").split() if "gpuops" in line]


def blob(digest: str) -> str:
    return "/var/lib/containerd/io.containerd.content.v1.content/blobs/" + digest.replace(":", "/")
