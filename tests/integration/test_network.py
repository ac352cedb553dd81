# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A network that a hook or a plugin had made, with a real CRIU: gone and told, or made anew by plugins or a command."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from typing import Any, Callable

import in_node
import pytest
from gpuops_lab import image, workload
from gpuops_lab.config import Node
from gpuops_lab.node import output
from node_listing import listing, settled_difference

EXTRAS = ("cni",)
NAME, REF = "webs", "gpuops.test/webs:1"
STATE = "/var/lib/gpuops-restore"
CONFIG = "/etc/cni/net.d/10-test.conflist"
ADDRESS = "10.88.0.2"
LEASES = "/var/lib/cni/networks/test"
RunModule = Callable[..., dict[str, Any]]
ExpectFailure = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def provided(node: Node) -> None:
    """The image, and a network of one address, that the node reaches."""
    workload.ctr(node, "k8s.io", "images", "import", workload.place_image(node))
    ranges = [[{"subnet": "10.88.0.0/24", "rangeStart": ADDRESS, "rangeEnd": ADDRESS, "gateway": "10.88.0.1"}]]
    ipam = {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]}
    plugins = [{"type": "ptp", "ipam": ipam}, {"type": "tuning"}]
    place = node.inside(CONFIG)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps({"cniVersion": "1.0.0", "name": "test", "plugins": plugins}), encoding="ascii")
    node.inside(LEASES).mkdir(parents=True)


@pytest.fixture
def clean(node: Node) -> Iterator[None]:
    """The node is afterwards as it was before, and no address is taken."""
    before = listing(node)
    yield
    workload.delete(node, NAME)
    shutil.rmtree(node.inside(f"{STATE}/receipts"), ignore_errors=True)
    node.inside(f"/var/log/{NAME}.log").unlink()
    assert settled_difference(node, before) == []
    assert taken(node) == []


def taken(node: Node) -> list[str]:
    return [path.name for path in node.inside(LEASES).iterdir() if path.name[0].isdigit()]


def pid(node: Node) -> str:
    lines = map(str.split, workload.ctr(node, "k8s.io", "tasks", "ls").splitlines())
    return next(words[1] for words in lines if words[0] == NAME)


def says(node: Node) -> str:
    """What a client on the node hears of the server in the container."""
    client = f"import socket; print(socket.create_connection(('{ADDRESS}', 7000), 5).makefile().readline().strip())"
    return output(node, ["python3", "-c", client]).strip()


def run(node: Node, cni: Callable[..., str]) -> int:
    """A server with a network that CNI's own plugins have made; how far it has come."""
    arguments = ["--detach", "--log-uri", workload.log_uri(NAME), image.REFERENCE, NAME]
    workload.ctr(node, "k8s.io", "run", *arguments, "/bin/talker", "serve", "7000", "0.0.0.0")
    workload.await_count(node, NAME, 3)
    cni("ADD")
    assert says(node) == "1"
    # The server hears of the client's end a moment later, and a capture would take its connection along.
    deadline = time.monotonic() + 20
    while connections(node):
        assert time.monotonic() < deadline, connections(node)
        time.sleep(0.05)
    return workload.count(node, NAME)


def connections(node: Node) -> list[str]:
    """TCP sockets in the container's network but those that listen (0A) and those that no process has any more (06)."""
    lines = output(node, ["cat", f"/proc/{pid(node)}/net/tcp"]).splitlines()[1:]
    return [line for line in lines if line.split()[3] not in ("0A", "06")]


@pytest.fixture
def cni(node: Node) -> Callable[..., str]:
    """What whoever made the container does."""

    def call(command: str) -> str:
        found = json.loads(node.inside(CONFIG).read_text(encoding="ascii"))
        config = {"cniVersion": found["cniVersion"], "name": found["name"], **found["plugins"][0]}
        environment = ["CNI_CONTAINERID=before", "CNI_IFNAME=eth0", "CNI_PATH=/usr/lib/cni", f"CNI_COMMAND={command}"]
        where = f"CNI_NETNS=/proc/{pid(node)}/ns/net"
        script = f"printf '%s' '{json.dumps(config)}' | /usr/lib/cni/ptp"
        return output(node, ["env", *environment, where, "sh", "-c", script])

    return call


@pytest.mark.usefixtures("clean")
def test_the_network_is_made_anew(
    node: Node, run_module: RunModule, expect_failure: ExpectFailure, cni: Callable[..., str]
) -> None:
    reached = run(node, cni)
    wanted = {"container_id": NAME, "name": REF, "force": True}
    refused = expect_failure("containerd_checkpoint", wanted, "network_not_captured")
    assert "eth0" in refused["msg"] and "cni:" in refused["msg"]
    run_module("containerd_checkpoint", {**wanted, "criu": {"empty_namespaces": ["network"]}})
    cni("DEL")
    workload.delete(node, NAME)
    run_module("containerd_checkpoint_stage", {"checkpoint": REF})
    # Without: it is gone, and that is told.
    asked = {"name": NAME, "checkpoint": REF}
    done = run_module("containerd_restore", {"workloads": [asked]})
    told = done["workloads"][NAME]["differences"]
    assert {one["kind"] for one in told} == {"network"}
    assert any("eth0 is gone" in one["message"] for one in told), told
    absent(run_module)
    # Or fails the restore, which leaves nothing.
    strict = {"workloads": [asked], "differences": {"fail_on": ["network"]}}
    failed = in_node.run_module(node, "containerd_restore", strict)
    assert failed["failed"] and failed["failure"]["code"] == "task_differs" and "eth0" in failed["msg"]
    assert NAME not in workload.ctr(node, "k8s.io", "containers", "ls", "-q").split()
    # With CNI's plugins it is there before the server's socket is.
    asked["network"] = f"cni:{CONFIG}"
    done = run_module("containerd_restore", {"workloads": [asked], "differences": {"fail_on": ["all"]}})
    assert done["workloads"][NAME]["differences"] == [] and not done.get("warnings")
    assert says(node) == "1"
    workload.await_count(node, NAME, reached + 3)
    assert taken(node) == [ADDRESS]
    absent(run_module)
    assert taken(node) == []
    # A plugin that fails is the failure, and what it has taken goes.
    node.inside(f"{LEASES}/{ADDRESS}").write_text("another\neth0", encoding="ascii")
    failed = in_node.run_module(node, "containerd_restore", {"workloads": [asked]})
    assert failed["failed"] and failed["failure"]["code"] == "cni_failed", failed["msg"]
    assert "no IP addresses available" in failed["msg"]
    node.inside(f"{LEASES}/{ADDRESS}").unlink()
    # One that is not there is told before anything is touched.
    asked["network"] = "cni:/etc/cni/net.d/none.conflist"
    failed = in_node.run_module(node, "containerd_restore", {"workloads": [asked]})
    assert failed["failure"]["code"] == "cni_config_invalid"
    shutil.rmtree(node.inside(f"{STATE}/debug"), ignore_errors=True)
    run_module("containerd_checkpoint_stage", {"checkpoint": REF, "state": "absent"})
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", REF)


#: What an operator's command may be: a link into the namespace, and a lease of its own that has to be given back.
COMMAND = """#!/bin/sh -eu
case $GPUOPS_RESTORE_ACTION in
    make)
        echo "$GPUOPS_RESTORE_NAMESPACE/$GPUOPS_RESTORE_CONTAINER" > /run/lease
        ip link add outside type veth peer name inside
        ip address add 10.88.0.1/24 dev outside
        ip link set outside up
        pid=${GPUOPS_RESTORE_NETNS#/proc/}
        ip link set inside netns "${pid%%/*}"
        within() { nsenter --net="$GPUOPS_RESTORE_NETNS" ip "$@"; }
        within link set inside name eth0
        within address add "$1/24" dev eth0 noprefixroute
        within link set eth0 up
        within route add 10.88.0.1/32 dev eth0
        within route add 10.88.0.0/24 via 10.88.0.1
        within route add default via 10.88.0.1
        [ "${2:-}" != fail ] || { echo there is no bridge >&2; exit 3; }
        ;;
    remove) rm -f /run/lease; ip link del outside 2>/dev/null || true ;;
esac
"""


@pytest.mark.usefixtures("clean")
def test_the_network_is_made_by_a_command(node: Node, run_module: RunModule, cni: Callable[..., str]) -> None:
    program, lease = node.inside("/usr/local/bin/make-network"), node.inside("/run/lease")
    program.write_text(COMMAND, encoding="ascii")
    program.chmod(0o755)
    reached = run(node, cni)
    empty = {"empty_namespaces": ["network"]}
    run_module("containerd_checkpoint", {"container_id": NAME, "name": REF, "force": True, "criu": empty})
    cni("DEL")
    workload.delete(node, NAME)
    run_module("containerd_checkpoint_stage", {"checkpoint": REF})
    command = ["/usr/local/bin/make-network", ADDRESS]
    asked = {"name": NAME, "checkpoint": REF, "network_command": command}
    wanted = {"workloads": [asked], "differences": {"fail_on": ["all"]}}
    assert run_module("containerd_restore", wanted, check=True)["changed"] and not lease.exists()
    done = run_module("containerd_restore", wanted)
    assert done["workloads"][NAME]["differences"] == [] and not done.get("warnings")
    assert lease.read_text(encoding="ascii") == f"k8s.io/{NAME}\n"
    assert says(node) == "1"
    workload.await_count(node, NAME, reached + 3)
    absent(run_module)
    assert not lease.exists()
    # One that fails is the failure, and is told to take away what it has made.
    command.append("fail")
    failed = in_node.run_module(node, "containerd_restore", wanted)
    assert failed["failed"] and failed["failure"]["code"] == "network_command_failed", failed["msg"]
    assert "exit status 3: there is no bridge" in failed["msg"]
    assert not lease.exists() and "outside" not in output(node, ["ip", "link"])
    program.unlink()
    failed = in_node.run_module(node, "containerd_restore", wanted)
    assert failed["failure"]["code"] == "network_command_missing"
    shutil.rmtree(node.inside(f"{STATE}/debug"), ignore_errors=True)
    run_module("containerd_checkpoint_stage", {"checkpoint": REF, "state": "absent"})
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", REF)


def absent(run_module: RunModule) -> None:
    for module in ("containerd_task", "containerd_container"):
        run_module(module, {"container_id": NAME, "state": "absent"})
