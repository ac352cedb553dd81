# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Memory images that a kill or a loss of power leaves on a real node, and who finds them."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import time
from typing import Any, Callable

import in_node
import pytest
from gpuops_lab import image, node as lab_node, workload
from gpuops_lab.config import Node
from gpuops_lab.node import output

REF = "gpuops.test/left:1"
STATE = "/var/lib/gpuops-restore"
LEFTOVERS, STAGE = "containerd_leftovers", "containerd_checkpoint_stage"
RunModule = Callable[..., dict[str, Any]]


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
    in_node.killed(node, "containerd_checkpoint", wanted, "_checkpoint.writer:packed_by_daemon", "leave")
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
    in_node.killed(node, "containerd_checkpoint", wanted, "_containerd.tasks:checkpoint", "20")
    deadline = time.monotonic() + 60
    removed: list[str] = []
    # On a busy node CRIU begins a while after who asked for it was killed.
    while "dump" not in removed and time.monotonic() < deadline:
        removed += [left["kind"] for left in run_module(LEFTOVERS, {})["removed"]]
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
    in_node.killed(node, STAGE, {"checkpoint": taken}, "_checkpoint.staging:_write_marker", "enter")
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
    in_node.killed(node, "containerd_task", params, "_containerd.tasks:create", "leave")
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
    in_node.killed(node, "containerd_checkpoint_archive", wanted, "_image.image:_record", "enter")
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


def criu_roots(node: Node) -> list[str]:
    """What CRIU has left, by containerd's mounts and in the directory where it makes them."""
    lying = [name for name in os.listdir(node.inside("/tmp")) if name.startswith(".criu")]
    return sorted({*lying, *re.findall(r"/tmp/(\.criu\.mntns\.\w+)", output(node, ["cat", "/proc/self/mountinfo"]))})


def test_mounts_that_a_failed_restore_of_criu_leaves(node: Node, run_module: RunModule) -> None:
    """A source that was replaced ends CRIU in the middle (ctr captures such a container); nothing of it stays."""
    node.inside("/srv/app.conf").write_text("old\n", encoding="ascii")
    workload.ctr(node, "k8s.io", "images", "import", workload.place_image(node))
    bind = ("--mount", "type=bind,src=/srv/app.conf,dst=/etc/app.conf,options=rbind:ro")
    workload.ctr(
        node, "k8s.io", "run", "--detach", "--log-uri", workload.log_uri("bound"), *bind, image.REFERENCE, "bound"
    )
    workload.await_count(node, "bound", 2)
    output(node, ["sh", "-c", "echo new > /srv/next && mv /srv/next /srv/app.conf"])
    workload.checkpoint(node, "bound", "gpuops.test/left:mounts")
    workload.delete(node, "bound")
    run_module(STAGE, {"checkpoint": "gpuops.test/left:mounts"})
    asked = {"name": "bound", "checkpoint": "gpuops.test/left:mounts"}
    found = in_node.run_module(node, "containerd_restore", {"workloads": [asked]})
    assert found["failed"] and "criu_restore_failed" in str(found), found
    assert criu_roots(node) == []
    run_module(STAGE, {"checkpoint": "gpuops.test/left:mounts", "state": "absent"})
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", "gpuops.test/left:mounts")


def test_mounts_of_a_criu_that_was_killed_are_listed_and_removed(node: Node, run_module: RunModule) -> None:
    """What is not empty, or of another kind, is nobody's that is known, and stays."""
    places = [f"/tmp/.criu.mntns.{name}" for name in ("AbCd12", "Filled", "Plain1")]
    for place in places:
        output(node, ["mkdir", place])
    for place in places[:2]:
        output(node, ["mount", "-t", "tmpfs", "none", place])
    output(node, ["mkdir", "-p", f"{places[0]}/9-0000000000"])
    output(node, ["touch", f"{places[1]}/file"])
    wanted = {"kind": "criu_mount", "name": places[0], "bytes": None}
    assert wanted in run_module(LEFTOVERS, {}, check=True)["removed"]
    assert places[0] in output(node, ["cat", "/proc/self/mountinfo"])
    assert run_module(LEFTOVERS, {})["removed"] == [wanted]
    assert not run_module(LEFTOVERS, {})["changed"]
    assert criu_roots(node) == [os.path.basename(place) for place in places[1:]]
    output(node, ["umount", places[1]])
    output(node, ["rmdir", *places[1:]])


LOCK = (
    "*filter\n:CRIU - [0:0]\n-I INPUT -j CRIU\n-I OUTPUT -j CRIU\n"
    "-A CRIU -m mark --mark 0xC114 -j ACCEPT\n-A CRIU -j DROP\nCOMMIT\n"
)
THEIRS = "*filter\n:CRIU - [0:0]\n-A CRIU -p tcp -j DROP\nCOMMIT\n"
#: CRIU waits for it while the network is locked.
KILL = "#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION = post-dump ] && kill -9 $PPID\nexit 0\n"


def test_locks_of_a_criu_that_was_killed_are_listed_and_removed(node: Node, run_module: RunModule) -> None:
    """Another chain of that name is somebody else's, and stays."""
    for name, rules in (("locked", LOCK), ("theirs", THEIRS)):
        output(node, ["ip", "netns", "add", name])
        node.inside(f"/opt/{name}").write_text(rules, encoding="ascii")
        output(node, ["ip", "netns", "exec", name, "iptables-restore", f"/opt/{name}"])
    where = "the chain CRIU of iptables in the network namespace /run/netns/locked"
    wanted = {"kind": "criu_network_lock", "name": where, "bytes": None}
    assert run_module(LEFTOVERS, {}, check=True)["removed"] == [wanted]
    assert "CRIU" in output(node, ["ip", "netns", "exec", "locked", "iptables-save"])
    assert run_module(LEFTOVERS, {})["removed"] == [wanted]
    assert not run_module(LEFTOVERS, {})["changed"]
    assert "CRIU" not in output(node, ["ip", "netns", "exec", "locked", "iptables-save"])
    assert "CRIU" in output(node, ["ip", "netns", "exec", "theirs", "iptables-save"])
    for name in ("locked", "theirs"):
        output(node, ["ip", "netns", "delete", name])


def test_a_workload_whose_criu_is_killed_goes_on_with_its_network(node: Node, run_module: RunModule) -> None:
    """CRIU has locked its network and thawed what it dumps: containerd has it paused, runc has it running."""
    workload.ctr(node, "k8s.io", "images", "import", workload.place_image(node))
    workload.ctr(node, "k8s.io", "run", "--detach", image.REFERENCE, "cut-off")
    workload.await_count(node, "cut-off", 2)
    tasks = workload.ctr(node, "k8s.io", "tasks", "ls").splitlines()
    pid = next(line.split()[1] for line in tasks if line.startswith("cut-off"))
    node.inside("/opt/kill").write_text(KILL, encoding="ascii")
    node.inside("/opt/kill").chmod(0o755)
    config = node.inside("/etc/criu/runc.conf")
    config.parent.mkdir()
    config.write_text("action-script /opt/kill\n", encoding="ascii")
    wanted = {"container_id": "cut-off", "name": "gpuops.test/left:cut-off"}
    found = in_node.run_module(node, "containerd_checkpoint", wanted)
    assert found["failed"] and found["failure"]["code"] == "criu_dump_failed", found
    assert "left_behind" not in found["failure"]["details"], found["failure"]
    assert "CRIU" not in output(node, ["nsenter", "-t", pid, "-n", "iptables-save"])
    workload.await_count(node, "cut-off", workload.count(node, "cut-off") + 3)
    shutil.rmtree(config.parent)
    run_module("containerd_checkpoint", wanted)
    workload.await_count(node, "cut-off", workload.count(node, "cut-off") + 3)
    assert not run_module(LEFTOVERS, {})["changed"]
    workload.delete(node, "cut-off")
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", "gpuops.test/left:cut-off")
