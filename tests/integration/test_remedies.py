# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a failure says is to be done is done, word by word, and then it works: remedies that no other test follows."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any, Callable

import in_node
import pytest
import registry_server
from gpuops_lab import workload
from gpuops_lab.config import Node
from gpuops_lab.node import output
from registry_server import CA_FILE, HOST, PASSWORD, PORT, USER

NAME, REF = "counting", "gpuops.test/remedy:1"
CHECKPOINT, SERVE, REGISTRY = "containerd_checkpoint", "containerd_checkpoint_serve", "containerd_checkpoint_registry"
LEFTOVERS, METRICS = "containerd_leftovers", "containerd_metrics"
TOKEN = "of-this-run-" + "x" * 20
#: It is killed while the network is locked.
KILL = "#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION = post-dump ] && kill -9 $PPID\nexit 0\n"
RunModule = Callable[..., dict[str, Any]]
#: Another node, as far as containerd and the collection are concerned.
THERE = {"namespace": "there", "staging_dir": "/var/lib/gpuops-there"}


@pytest.fixture(autouse=True)
def running(node: Node) -> Iterator[None]:
    workload.start(node, NAME, 1)
    yield
    workload.delete(node, NAME)


def hint(result: dict[str, Any]) -> str:
    return str(result["failure"]["hint"])


# --- network_locked


@pytest.fixture
def deadly(node: Node) -> Iterator[None]:
    """Every CRIU that dumps is killed."""
    node.inside("/opt/kill").write_text(KILL, encoding="ascii")
    node.inside("/opt/kill").chmod(0o755)
    config = node.inside("/etc/criu/runc.conf")
    config.parent.mkdir()
    config.write_text("action-script /opt/kill\n", encoding="ascii")
    yield
    shutil.rmtree(config.parent)


@contextlib.contextmanager
def another_criu(node: Node) -> Iterator[None]:
    """One is at work on the node, of another workload as far as anybody can tell; it ends with its input."""
    shutil.copyfile(node.inside("/usr/bin/busybox"), node.inside("/opt/criu"))
    node.inside("/opt/criu").chmod(0o755)
    # busybox goes by the name that it is called by.
    command = [str(node.directory / "enter"), "bash", "-c", "exec -a cat /opt/criu"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("there\n")
        process.stdin.flush()
        assert process.stdout.readline() == "there\n"
        yield
        process.stdin.close()


def inside(node: Node, *command: str) -> str:
    return output(node, ["nsenter", "-t", str(workload.pid(node, NAME)), "-n", *command])


def rules(node: Node) -> str:
    return inside(node, "iptables-save") + inside(node, "ip6tables-save")


def goes_on(node: Node) -> None:
    workload.await_count(node, NAME, workload.count(node, NAME) + 3)


def captured(node: Node, run_module: RunModule) -> None:
    """As if nothing had been."""
    run_module(CHECKPOINT, {"container_id": NAME, "name": REF})
    goes_on(node)
    assert not run_module(LEFTOVERS, {})["changed"]
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", REF)


def test_network_locked_and_leftovers_removed(
    node: Node, run_module: RunModule, expect_failure: RunModule, deadly: None
) -> None:
    """The capture was killed as well as its CRIU; the next one finds the lock, and another CRIU."""
    wanted = {"container_id": NAME, "name": REF}
    in_node.killed(node, CHECKPOINT, wanted, "_diagnosis.failure:explain_dump", "enter")
    with another_criu(node):
        found = expect_failure(CHECKPOINT, wanted, "network_locked")
        assert "a CRIU is still at work" in found["msg"]
        assert "Run containerd_leftovers when no CRIU is at work" in hint(found)
        goes_on(node)
        assert not run_module(LEFTOVERS, {})["changed"], "one is"
        assert "-A CRIU -j DROP" in rules(node)
    removed = run_module(LEFTOVERS, {})["removed"]
    assert {one["kind"] for one in removed} == {"criu_network_lock"}
    assert "CRIU" not in rules(node)
    node.inside("/opt/kill").write_text("#!/bin/sh\n", encoding="ascii")
    captured(node, run_module)


def test_network_locked_and_deleted_by_hand(
    node: Node, run_module: RunModule, expect_failure: RunModule, deadly: None
) -> None:
    """The capture lived, and told it beside what had failed."""
    with another_criu(node):
        found = expect_failure(CHECKPOINT, {"container_id": NAME, "name": REF}, "criu_dump_failed")
    told = found["failure"]["details"]["left_behind"]
    assert "its rules drop all packets" in told
    assert "or delete that chain or table CRIU there yourself" in told
    goes_on(node)
    assert "-A CRIU -j DROP" in rules(node)
    for program in ("iptables", "ip6tables"):
        for words in ("-D INPUT -j CRIU", "-D OUTPUT -j CRIU", "-F CRIU", "-X CRIU"):
            inside(node, program, *words.split())
    node.inside("/opt/kill").write_text("#!/bin/sh\n", encoding="ascii")
    captured(node, run_module)


# --- metrics_unwritable


@pytest.mark.parametrize("there", [None, "directory"])
def test_metrics_unwritable(node: Node, run_module: RunModule, expect_failure: RunModule, there: str | None) -> None:
    """The directory is not there, or stands where the file should."""
    directory = "/var/lib/node-exporter"
    path = f"{directory}/gpuops_restore.prom"
    wrong = path
    if there is not None:
        node.inside(directory).mkdir()
        wrong = directory
    for check in (True, False):
        found = expect_failure(METRICS, {"path": wrong}, "metrics_unwritable", check=check)
        assert hint(found).startswith("Set path to a file in the directory that node_exporter reads")
        assert hint(found).endswith("and make it.")
    node.inside(directory).mkdir(exist_ok=True)
    done = run_module(METRICS, {"path": path})
    assert node.inside(path).read_text(encoding="utf-8") == done["text"] != ""
    shutil.rmtree(node.inside(directory))


# --- openssl_missing


def offer(*names: str) -> dict[str, Any]:
    where = {"hosts": ["127.0.0.1"], "listen": "127.0.0.1", "token": TOKEN}
    return {"state": "started", "id": "remedy", "checkpoints": list(names), **where}


def test_openssl_missing(node: Node, run_module: RunModule, expect_failure: RunModule) -> None:
    """The checkpoint goes as a file; and once the program is there, from node to node."""
    program, hidden = node.inside("/usr/bin/openssl"), node.inside("/usr/bin/openssl.hidden")
    archive = {"name": REF, "path": "/var/tmp/remedy.tar"}
    run_module(CHECKPOINT, {"container_id": NAME, "name": REF})
    program.rename(hidden)
    try:
        found = expect_failure(SERVE, offer(REF), "openssl_missing")
        assert hint(found) == "Install openssl there, or let the checkpoint go another way."
        run_module("containerd_checkpoint_archive", {"operation": "export", **archive})
        workload.ctr(node, "k8s.io", "images", "rm", "--sync", REF)
        run_module("containerd_checkpoint_archive", {"operation": "import", **archive})
    finally:
        hidden.rename(program)
    served = run_module(SERVE, offer(REF))
    pulled(run_module, served)
    comes_back(node, run_module)
    run_module(SERVE, {"state": "stopped", "id": "remedy"})
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", REF)
    node.inside("/var/tmp/remedy.tar").unlink()
    node.inside("/var/tmp/remedy.tar.gpuops.json").unlink()


def pulled(run_module: RunModule, served: dict[str, Any]) -> None:
    """From the server of this run to the other node."""
    offered = served["checkpoints"][REF]
    given = {"reference": offered["reference"], "certificate": served["certificate"], "token": TOKEN}
    run_module(REGISTRY, {"state": "pulled", "name": REF, "digest": offered["digest"], **given, **THERE})


def comes_back(node: Node, run_module: RunModule) -> None:
    """On the other node; and it is gone from there again."""
    run_module("containerd_checkpoint_stage", {"checkpoint": REF, **THERE})
    job = {"name": "back", "checkpoint": REF}
    run_module("containerd_restore", {"workloads": [job], "huge_pages": "keep", **THERE})
    workload.await_count(node, "back", workload.count(node, "back", "there") + 3, namespace="there")
    for module in ("containerd_task", "containerd_container"):
        run_module(module, {"container_id": "back", "state": "absent", **THERE})
    run_module("containerd_checkpoint_stage", {"checkpoint": REF, "state": "absent", **THERE})
    workload.ctr(node, "there", "images", "rm", "--sync", REF)


# --- checkpoint_on_node


def test_checkpoint_on_node(node: Node, run_module: RunModule, expect_failure: RunModule) -> None:
    """It neither goes to a registry nor comes from a server that is trusted for another reason; each way out works."""
    access = {"username": USER, "password": PASSWORD, "ca_file": CA_FILE}
    tag = f"{HOST}:{PORT}/checkpoints/remedy:1"
    captured_so = {"container_id": NAME, "name": REF, "store": "node", "leave": "running"}
    with registry_server.serving(node):
        run_module(CHECKPOINT, captured_so)
        push = {"state": "pushed", "name": REF, "reference": tag, **access}
        found = expect_failure(REGISTRY, push, "checkpoint_on_node")
        assert hint(found).startswith("Run containerd_checkpoint with state: completed first")

        served = run_module(SERVE, offer(REF))
        node.inside("/opt/served.pem").write_text(served["certificate"], encoding="ascii")
        offered = served["checkpoints"][REF]
        other = {"reference": offered["reference"], "ca_file": "/opt/served.pem", "token": TOKEN, **THERE}
        found = expect_failure(REGISTRY, {"state": "pulled", "name": REF, **other}, "checkpoint_on_node")
        assert hint(found).startswith("Have containerd_checkpoint_serve offer it and give its certificate; or")
        pulled(run_module, served)
        comes_back(node, run_module)
        run_module(SERVE, {"state": "stopped", "id": "remedy"})

        run_module(CHECKPOINT, {"container_id": NAME, "name": REF, "state": "completed"})
        run_module(REGISTRY, push)
        run_module(REGISTRY, {"state": "pulled", "name": REF, "reference": tag, **access, **THERE})
        comes_back(node, run_module)
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", REF)
