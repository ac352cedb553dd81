# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""TCP and UDP in all their forms, captured and restored by a real CRIU: who listens answers, who talks goes on."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any, Callable

import in_node
import pytest
from gpuops_lab import image, node as lab_node, workload
from gpuops_lab.config import Node
from gpuops_lab.node import output
from node_listing import listing, settled_difference

# The older one can dump no socket on Linux 6.16 and later.
pytestmark = pytest.mark.newer_criu
ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME = "talker"
PORT = "7000"
STATE = "/var/lib/gpuops-restore"
ARCHIVE = "/var/tmp/talker.tar.zst"
POD = "/run/netns/pod"
RunModule = Callable[..., dict[str, Any]]
#: A client that runs in the network namespace of a container.
TALK = f"""
import socket
with socket.create_connection(("127.0.0.1", {PORT}), 5) as connection:
    print(connection.makefile().readline().strip())
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
    datagrams.settimeout(5)
    datagrams.sendto(b"asked", ("127.0.0.1", {PORT}))
    print(datagrams.recv(16).decode())
"""


#: One that stays until it is told to go.
STAY = f"""
import socket, sys
with socket.create_connection(("127.0.0.1", {PORT}), 5) as connection:
    print(connection.makefile().readline().strip(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module", autouse=True)
def imported(node: Node) -> None:
    workload.ctr(node, "k8s.io", "images", "import", workload.place_image(node))
    # The first namespace leaves the directory of all as a mount.
    output(node, ["ip", "netns", "add", "first"])
    output(node, ["ip", "netns", "delete", "first"])


@pytest.fixture
def clean(node: Node) -> Iterator[None]:
    """The node is afterwards as it was before."""
    before = listing(node)
    yield
    shutil.rmtree(node.inside(f"{STATE}/receipts"), ignore_errors=True)
    node.inside(f"/var/log/{NAME}.log").unlink()
    assert settled_difference(node, before) == []


def run(node: Node, *command: str, options: tuple[str, ...] = (), name: str = NAME) -> None:
    # With a log its standard input is no pipe, which nobody would hold the other end of after a restore.
    arguments = ["--detach", "--log-uri", workload.log_uri(name), *options, image.REFERENCE, name]
    workload.ctr(node, "k8s.io", "run", *arguments, "/bin/talker", *command)
    workload.await_count(node, name, 3)


def pid(node: Node, name: str = NAME) -> str:
    lines = map(str.split, workload.ctr(node, "k8s.io", "tasks", "ls").splitlines())
    return next(words[1] for words in lines if words[0] == name)


def answers(node: Node) -> list[str]:
    """What the server in the container says to a new client over TCP and to one over UDP."""
    return output(node, ["nsenter", "--target", pid(node), "--net", "python3", "-c", TALK]).split()


def ends(node: Node) -> int:
    """How many connections of the reader have ended."""
    command = ["tasks", "exec", "--exec-id", f"ends-{time.monotonic_ns()}", NAME, "/bin/cat", "/var/ends"]
    return lab_node.run(node, ["ctr", "-n", "k8s.io", *command]).stdout.count("end")


def capture(node: Node, run_module: RunModule, reference: str, **criu: Any) -> int:
    """Captured and gone; how far it had come at least."""
    reached = workload.count(node, NAME)
    wanted = {"container_id": NAME, "name": reference, "leave": "stopped", "force": True, "criu": criu}
    run_module("containerd_checkpoint", wanted)
    workload.delete(node, NAME)
    return reached


def goes_on(node: Node, reached: int) -> None:
    """It has not begun anew, and does not stand still."""
    workload.await_count(node, NAME, workload.await_count(node, NAME, reached) + 3)


def restore(run_module: RunModule, reference: str, tcp: str = "auto", **more: Any) -> list[str]:
    """Restored; what there is to warn of."""
    run_module("containerd_checkpoint_stage", {"checkpoint": reference})
    asked = {"name": NAME, "checkpoint": reference, "criu": {"tcp": tcp}, **more}
    done = run_module("containerd_restore", {"workloads": [asked], "huge_pages": "keep"})
    return [str(text) for text in done.get("warnings", [])]


def remove(node: Node, run_module: RunModule, *references: str) -> None:
    for module in ("containerd_task", "containerd_container"):
        run_module(module, {"container_id": NAME, "state": "absent"})
    forget(node, run_module, *references)


def forget(node: Node, run_module: RunModule, *references: str) -> None:
    for reference in references:
        run_module("containerd_checkpoint_stage", {"checkpoint": reference, "state": "absent"})
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", *references)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_who_listens_answers_again(node: Node, run_module: RunModule, address: str) -> None:
    """No option is needed, and the loopback is up although the network namespace is a new one."""
    reference = "gpuops.test/listens:1"
    run(node, "serve", PORT, address)
    assert answers(node) == ["1", "asked"]
    reached = capture(node, run_module, reference)
    assert restore(run_module, reference) == []
    assert answers(node) == ["1", "asked"]
    goes_on(node, reached)
    remove(node, run_module, reference)


@pytest.mark.usefixtures("clean")
def test_loopback_is_up_on_the_descriptor_route_too(node: Node, run_module: RunModule) -> None:
    reference = "gpuops.test/listens:descriptor"
    run(node, "serve", PORT)
    capture(node, run_module, reference)
    run_module("containerd_container", {"container_id": NAME, "checkpoint": reference})
    done = run_module("containerd_task", {"container_id": NAME, "checkpoint": reference, "route": "descriptor"})
    assert done.get("warnings", []) == []
    assert answers(node) == ["1", "asked"]
    remove(node, run_module, reference)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("how", ["both", "both-half"])
def test_connections_within_the_container_go_on(node: Node, run_module: RunModule, how: str) -> None:
    """Whole ones, and those that one side has closed; restored once, and from a capture of what was restored.

    Nobody has to be told: they lead nowhere else.
    """
    references = [f"gpuops.test/connected:{number}" for number in (1, 2)]
    run(node, how, PORT)
    for reference in references:
        reached = capture(node, run_module, reference)
        assert restore(run_module, reference) == []
        goes_on(node, reached)
        assert ends(node) == 0
    remove(node, run_module, *references)


@pytest.mark.usefixtures("clean")
def test_closed_connections_are_made_anew_by_the_program(node: Node, run_module: RunModule) -> None:
    reference = "gpuops.test/connected:closed"
    run(node, "both", PORT)
    workload.await_count(node, NAME, 20)
    reached = capture(node, run_module, reference)
    restore(run_module, reference, "close")
    # Both ends have seen the end: the server begins again with 1.
    workload.await_count(node, NAME, 1)
    assert ends(node) == 1
    assert workload.count(node, NAME) < reached
    workload.await_count(node, NAME, 5)
    assert ends(node) == 1
    remove(node, run_module, reference)


@pytest.mark.usefixtures("clean")
def test_connections_are_refused_before_anything_stops(node: Node, expect_failure: RunModule) -> None:
    run(node, "both", PORT)
    wanted = {"container_id": NAME, "name": "gpuops.test/connected:refused", "criu": {"tcp_established": False}}
    expect_failure("containerd_checkpoint", wanted, "tcp_connections")
    workload.await_count(node, NAME, workload.count(node, NAME) + 3)
    assert ends(node) == 0
    workload.delete(node, NAME)


@pytest.mark.usefixtures("clean")
def test_a_connection_that_comes_when_a_capture_has_begun(node: Node, run_module: RunModule) -> None:
    """It is seen before CRIU would take it: the workload goes on, and is captured when its client has gone."""
    reference = "gpuops.test/connected:late"
    run(node, "serve", PORT)
    wanted = {"container_id": NAME, "name": reference, "leave": "stopped", "force": True}
    command = [str(node.directory / "enter"), "nsenter", "--target", pid(node), "--net", "python3", "-c", STAY]
    held = in_node.Held(node, "containerd_checkpoint", wanted, ("_containerd.tasks:pause", "enter"))
    with held, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None and client.stdin is not None
        assert client.stdout.readline() == "1\n"
        found = held.result()
        goes_on(node, workload.count(node, NAME))
        client.stdin.close()
    assert found.get("failed"), found
    assert (found["failure"]["code"], found["failure"]["outcome"]) == ("tcp_connections", "retryable")
    reached = capture(node, run_module, reference)
    assert restore(run_module, reference) == []
    assert answers(node) == ["1", "asked"]
    goes_on(node, reached)
    remove(node, run_module, reference)


def test_a_criu_that_cannot_dump_sockets_on_this_kernel(node: Node) -> None:
    """CRIU 4.1 on Linux 6.16 and later: refused as long as there is a socket; on an older kernel it works."""
    (other,) = lab_node.up([f"t-sockets-old-{os.getpid()}"], node.containerd, criu="4.1", layers=in_node.layers(ROOT))
    wanted = {"container_id": NAME, "name": "gpuops.test/refused:1"}
    try:
        in_node.install(other, ROOT)
        workload.ctr(other, "k8s.io", "images", "import", workload.place_image(other))
        run(other, "serve", PORT)
        before = listing(other)
        found = in_node.run_module(other, "containerd_checkpoint", wanted)
        release = tuple(map(int, os.uname().release.split(".")[:2]))
        if release < (6, 16):
            assert not found.get("failed"), found
            return
        assert found["failure"]["code"] == "sockets_not_dumped", found
        assert f"TCP 0.0.0.0:{PORT} of process" in found["msg"] and "(talker)" in found["msg"]
        assert settled_difference(other, before) == []
        workload.await_count(other, NAME, workload.count(other, NAME) + 3)
        workload.delete(other, NAME)
        # What has no socket is captured as ever, and CRIU's own words are explained, too.
        workload.start(other, NAME, 1)
        assert not in_node.run_module(other, "containerd_checkpoint", wanted).get("failed")
    finally:
        lab_node.down(other.name)


class Street:
    """A pod's network namespace on each of two nodes, with the same address, and a peer that both can reach.

    The peer is the second node itself, with a bridge; a pod is connected as long as its port is up.
    """

    PEER, ADDRESS, MAC = "10.77.0.1", "10.77.0.2", "02:00:00:77:00:02"

    def __init__(self, source: Node, target: Node) -> None:
        self.nodes = {"source": source, "target": target}
        self.peer = target
        output(target, ["ip", "link", "add", "street", "type", "bridge"])
        output(target, ["ip", "address", "add", f"{self.PEER}/24", "dev", "street"])
        output(target, ["ip", "link", "set", "street", "up"])
        for port, node in self.nodes.items():
            output(node, ["ip", "netns", "add", "pod"])
            pod = f"/proc/{node.pid}/root{POD}"
            host("link", "add", f"{port}-{os.getpid()}", "type", "veth", "peer", "name", "eth0", "netns", pod)
            host("link", "set", f"{port}-{os.getpid()}", "netns", str(target.pid), "name", port)
            output(target, ["ip", "link", "set", port, "master", "street"])
            for words in (
                ["link", "set", "lo", "up"],
                ["link", "set", "eth0", "address", self.MAC, "up"],
                ["address", "add", f"{self.ADDRESS}/24", "dev", "eth0"],
            ):
                output(node, ["ip", "-n", "pod", *words])
        self.move("source")

    def move(self, here: str) -> None:
        """Only this pod is connected; none for the empty word."""
        for port in self.nodes:
            output(self.peer, ["ip", "link", "set", port, "up" if port == here else "down"])

    def connections(self) -> int:
        """How many the peer's server has."""
        lines = output(self.peer, ["cat", "/proc/net/tcp"]).splitlines()[1:]
        rows = [line.split() for line in lines]
        return sum(1 for row in rows if row[1].endswith(f":{int(PORT):04X}") and row[3] == "01")


def host(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.fixture
def street(node: Node) -> Iterator[Street]:
    (other,) = lab_node.up([f"t-sockets-far-{os.getpid()}"], node.containerd, layers=in_node.layers(ROOT))
    try:
        in_node.install(other, ROOT)
        workload.ctr(other, "k8s.io", "images", "import", workload.place_image(other))
        run(other, "serve", PORT, options=("--with-ns", "network:/proc/1/ns/net"), name="peer")
        yield Street(node, other)
    finally:
        lab_node.down(other.name)
        with contextlib.suppress(Exception):
            output(node, ["ip", "netns", "delete", "pod"])


@pytest.mark.usefixtures("clean")
def test_a_connection_to_another_node_moves_with_its_address(
    node: Node, run_module: RunModule, expect_failure: RunModule, street: Street
) -> None:
    """As with a pod whose address moves: the old port goes first, or the end of the old process would be heard.

    The capture has to be told of it, the restore not.
    """
    reference = "gpuops.test/moves:1"
    target = street.nodes["target"]

    def on_target(module: str, params: dict[str, Any]) -> dict[str, Any]:
        found = in_node.run_module(target, module, params)
        assert not found.get("failed"), found
        return found

    run(node, "read", PORT, Street.PEER, options=("--with-ns", f"network:{POD}"))
    expect_failure("containerd_checkpoint", {"container_id": NAME, "name": reference}, "tcp_connections")
    street.move("")
    reached = capture(node, run_module, reference, tcp_established=True)
    run_module("containerd_checkpoint_archive", {"operation": "export", "name": reference, "path": ARCHIVE})
    shutil.copyfile(node.inside(ARCHIVE), target.inside(ARCHIVE))
    node.inside(ARCHIVE).unlink()
    forget(node, run_module, reference)
    on_target("containerd_checkpoint_archive", {"operation": "import", "name": reference, "path": ARCHIVE})
    # The peer repeats what was not confirmed, and nobody must answer that before the process is there.
    assert restore(on_target, reference, network=POD) == []
    street.move("target")
    goes_on(target, reached)
    assert ends(target) == 0
    assert street.connections() == 1


@pytest.mark.usefixtures("clean")
def test_closing_gives_the_peer_an_end_and_the_program_a_new_connection(
    node: Node, run_module: RunModule, street: Street
) -> None:
    reference = "gpuops.test/closed:1"
    run(node, "read", PORT, Street.PEER, options=("--with-ns", f"network:{POD}"))
    workload.await_count(node, NAME, 20)
    assert street.connections() == 1
    reached = capture(node, run_module, reference, tcp_established=True)
    restore(run_module, reference, "close", network=POD)
    workload.await_count(node, NAME, 3)
    assert ends(node) == 1
    assert workload.count(node, NAME) < reached
    assert street.connections() == 1
    remove(node, run_module, reference)
