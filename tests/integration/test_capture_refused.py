# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What could never come back is not captured: the workload counts on, nothing is left, and the remedy works."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from gpuops_lab import image, workload
from gpuops_lab.config import Node
from gpuops_lab.node import output
from node_listing import listing, settled_difference

NAME, REF = "workload", "gpuops.test/refused:1"
STATE = "/var/lib/gpuops-restore"
PLACE = "/srv/refused"
#: A counter that no interruption ends.
COUNT = "n=0; while true; do n=$((n + 1)); echo $n > /var/count; /bin/busybox sleep 0.1; done"
RunModule = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def imported(node: Node) -> None:
    workload.ctr(node, "k8s.io", "images", "import", workload.place_image(node))
    # The first namespace leaves the directory of all as a mount.
    output(node, ["ip", "netns", "add", "first"])
    output(node, ["ip", "netns", "delete", "first"])


@pytest.fixture
def clean(node: Node) -> Iterator[None]:
    """The node is afterwards as it was before."""
    node.inside(PLACE).mkdir(parents=True)
    before = listing(node)
    yield
    workload.delete(node, NAME)
    shutil.rmtree(node.inside(f"{STATE}/receipts"), ignore_errors=True)
    shutil.rmtree(node.inside(PLACE))
    node.inside(f"/var/log/{NAME}.log").unlink()
    assert settled_difference(node, before) == []


def run(node: Node, *options: str, name: str = NAME, command: tuple[str, ...] = ()) -> str:
    """Have it count; its pid."""
    arguments = ["--detach", "--log-uri", workload.log_uri(name), *options, image.REFERENCE, name]
    workload.ctr(node, "k8s.io", "run", *arguments, *command)
    workload.await_count(node, name, 2)
    return pids(node, name)[0]


def pids(node: Node, name: str = NAME) -> list[str]:
    """Of the task, if it runs."""
    lines = map(str.split, workload.ctr(node, "k8s.io", "tasks", "ls").splitlines())
    return [words[1] for words in lines if words[0] == name and words[2] == "RUNNING"]


def wanted(**more: Any) -> dict[str, Any]:
    """The capture that would do most harm."""
    return {"container_id": NAME, "name": REF, "leave": "stopped", "force": True, **more}


def refused(node: Node, expect_failure: RunModule, code: str, **more: Any) -> str:
    """In check mode and in a run, and neither has done anything; the sentence."""
    before = listing(node)
    foretold = expect_failure("containerd_checkpoint", wanted(**more), code, check=True)
    found = expect_failure("containerd_checkpoint", wanted(**more), code)
    assert found["msg"] == foretold["msg"]
    assert settled_difference(node, before) == []
    workload.await_count(node, NAME, workload.count(node, NAME) + 2)
    return str(found["msg"])


def comes_back(node: Node, run_module: RunModule, restore: dict[str, Any] | None = None, **more: Any) -> list[str]:
    """Captured and ended, it is restored and counts on; what the capture warned of."""
    reached = workload.count(node, NAME)
    done = run_module("containerd_checkpoint", wanted(**more))
    reference = done["checkpoint"]["name"]
    workload.delete(node, NAME)
    run_module("containerd_checkpoint_stage", {"checkpoint": reference})
    asked = {"name": NAME, "checkpoint": reference, **(restore or {})}
    run_module("containerd_restore", {"workloads": [asked], "huge_pages": "keep"})
    workload.await_count(node, NAME, workload.await_count(node, NAME, reached) + 2)
    return [str(text) for text in done.get("warnings", [])]


def remove(node: Node, run_module: RunModule, *references: str) -> None:
    for module in ("containerd_task", "containerd_container"):
        run_module(module, {"container_id": NAME, "state": "absent"})
    for reference in references or (REF,):
        run_module("containerd_checkpoint_stage", {"checkpoint": reference, "state": "absent"})
        workload.ctr(node, "k8s.io", "images", "rm", "--sync", reference)


@pytest.mark.usefixtures("clean")
def test_a_process_namespace_that_is_shared(node: Node, run_module: RunModule, expect_failure: RunModule) -> None:
    first = run(node, name="first")
    run(node, "--with-ns", f"pid:/proc/{first}/ns/pid")
    message = refused(node, expect_failure, "pid_namespace_shared")
    assert f"/proc/{first}/ns/pid" in message
    workload.delete(node, NAME)
    workload.delete(node, "first")
    node.inside("/var/log/first.log").unlink()
    run(node)
    assert comes_back(node, run_module) == []
    remove(node, run_module)


@pytest.mark.usefixtures("clean")
def test_a_user_namespace(node: Node, run_module: RunModule, expect_failure: RunModule) -> None:
    """With mappings; runc 1.1 starts none without. It comes back, twice over, and what is not as it was is said."""
    pid = run(node, "--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536")
    owner = ["stat", "-c", "%u %g"]
    assert output(node, [*owner, f"/proc/{pid}/root/bin/busybox"]) == "100000 200000\n"
    refused(node, expect_failure, "user_namespace_remapped")
    for reference in (REF, f"{REF}-again"):
        (warning,) = comes_back(node, run_module, name=reference, accept=["user_namespace_remapped"])
        assert "belong to nobody" in warning
        (pid,) = pids(node)
        assert output(node, [*owner, f"/proc/{pid}/root/bin/busybox"]) == "0 0\n"
        assert output(node, ["cat", f"/proc/{pid}/uid_map"]).split() == ["0", "100000", "65536"]
        assert output(node, [*owner, f"/proc/{pid}"]) == "100000 200000\n"
    remove(node, run_module, REF, f"{REF}-again")


@pytest.mark.usefixtures("clean")
def test_a_source_that_is_a_link(node: Node, run_module: RunModule, expect_failure: RunModule) -> None:
    real, link = f"{PLACE}/real", f"{PLACE}/link"
    node.inside(real).mkdir()
    node.inside(link).symlink_to(real)
    run(node, "--mount", f"type=bind,src={link},dst=/opt/data,options=bind:rw")
    message = refused(node, expect_failure, "mount_source_symlink")
    assert f"'{link}': '{real}'" in message
    (warning,) = comes_back(node, run_module, {"mounts": {link: real}}, accept=["mount_source_symlink"])
    assert "Accepted (mount_source_symlink): " in warning and "option mounts maps it" in warning
    # What was restored has the real one as its source, and so has nothing more to accept.
    run_module("containerd_checkpoint", {"container_id": NAME, "name": f"{REF}-again"})
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", f"{REF}-again")
    remove(node, run_module)


@pytest.mark.usefixtures("clean")
def test_a_source_that_was_replaced(node: Node, run_module: RunModule, expect_failure: RunModule) -> None:
    """As editors and configuration management do it: a new file is given the old one's name."""
    source = node.inside(f"{PLACE}/app.conf")
    mount = ("--mount", f"type=bind,src={PLACE}/app.conf,dst=/etc/app.conf,options=bind:ro")
    source.write_text("old\n", encoding="ascii")
    run(node, *mount)
    newer = source.with_suffix(".new")
    newer.write_text("new\n", encoding="ascii")
    newer.replace(source)
    message = refused(node, expect_failure, "mount_source_replaced")
    assert f"{PLACE}/app.conf" in message
    workload.delete(node, NAME)
    run(node, *mount)
    source.write_text("in place\n", encoding="ascii")
    assert comes_back(node, run_module) == []
    remove(node, run_module)


@pytest.mark.usefixtures("clean")
def test_devices_in_a_network_of_its_own(node: Node, run_module: RunModule, expect_failure: RunModule) -> None:
    """As nerdctl, hooks and ctr run --cni put them there."""
    pid = run(node)
    output(node, ["ip", "link", "add", "there", "type", "veth", "peer", "name", "eth0", "netns", pid])
    message = refused(node, expect_failure, "network_not_captured")
    assert f"{NAME} has eth0 in a network namespace of its own" in message
    empty = {"empty_namespaces": ["network"]}
    (warning,) = comes_back(node, run_module, criu=empty)
    assert "eth0 will not be there" in warning
    # It has nothing any more that could be lost.
    assert "warnings" not in run_module("containerd_checkpoint", wanted(leave="running"), check=True)
    remove(node, run_module)


@pytest.mark.usefixtures("clean")
def test_an_address_in_a_network_of_its_own(node: Node, expect_failure: RunModule) -> None:
    pid = run(node)
    output(node, ["nsenter", "-t", pid, "-n", "ip", "address", "add", "10.9.8.7/32", "dev", "lo"])
    output(node, ["nsenter", "-t", pid, "-n", "ip", "link", "set", "lo", "up"])
    assert "10.9.8.7 on lo" in refused(node, expect_failure, "network_not_captured")


@pytest.mark.usefixtures("clean")
def test_devices_in_a_network_given_by_path(node: Node, run_module: RunModule) -> None:
    """The other remedy: whoever made that namespace keeps it, and a restore joins it."""
    output(node, ["ip", "netns", "add", "pod"])
    output(node, ["ip", "link", "add", "there", "type", "veth", "peer", "name", "eth0", "netns", "pod"])
    run(node, "--with-ns", "network:/run/netns/pod")
    assert comes_back(node, run_module) == []
    assert "eth0" in output(node, ["ip", "-n", "pod", "link"])
    remove(node, run_module)
    output(node, ["ip", "netns", "delete", "pod"])


@pytest.mark.usefixtures("clean")
def test_a_process_that_ends_by_the_capture_is_told(node: Node, run_module: RunModule) -> None:
    """busybox' sleep takes the interruption by a dump for an error; the image is whole, and the counter goes on."""
    run(node, command=("/bin/sh", "-c", f"/bin/sleep 1000 & {COUNT}"))
    done = run_module("containerd_checkpoint", wanted(leave="running"))
    assert done["checkpoint"]["digest"]
    assert "sleep" in [process["command"] for process in done["ended"]]
    assert "busybox" in str(done["warnings"]) and "ended when they went on" in str(done["warnings"])
    workload.await_count(node, NAME, workload.count(node, NAME) + 2)
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", REF)


@pytest.mark.usefixtures("clean")
def test_one_that_ends_when_a_paused_workload_goes_on_is_told(node: Node, run_module: RunModule) -> None:
    run(node, command=("/bin/sh", "-c", f"/bin/sleep 1000 & {COUNT}"))
    assert run_module("containerd_checkpoint", wanted(leave="paused"))["ended"] == []
    done = run_module("containerd_checkpoint", wanted(state="settled", leave="running"))
    assert "sleep" in [process["command"] for process in done["ended"]]
    workload.await_count(node, NAME, workload.count(node, NAME) + 2)
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", REF)


@pytest.mark.usefixtures("clean")
def test_a_task_that_ends_by_the_capture_is_told(node: Node, run_module: RunModule, expect_failure: RunModule) -> None:
    run(node, command=("/bin/sh", "-c", "echo 2 > /var/count; exec /bin/sleep 1000"))
    done = run_module("containerd_checkpoint", wanted(leave="running"))
    assert f"The task of {NAME} has ended" in str(done["warnings"])
    assert pids(node) == []
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", REF)
    expect_failure("containerd_checkpoint", wanted(leave="running"), "task_not_running")
