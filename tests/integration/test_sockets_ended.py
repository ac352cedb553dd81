# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sockets whose connection has ended and that a process still has, though no list of the kernel's: a real CRIU brings
them back without being told, and what could not come back is refused before anything stops."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from gpuops_lab import image, workload
from gpuops_lab.config import Node
from gpuops_lab.node import output
from node_listing import listing, settled_difference

# The older one can dump no socket on Linux 6.16 and later.
pytestmark = pytest.mark.newer_criu
NAME = "leavers"
STATE = "/var/lib/gpuops-restore"
POD, HERE, ELSEWHERE = "/run/netns/pod", "10.77.0.2", "10.77.0.3"
RunModule = Callable[..., dict[str, Any]]
#: Each with what is read of it after a restore: an error's number, 0 for an end; 107 says that it never was connected.
CLOSED = {"rst": "0", "rst-unseen": "0", "done": "0", "first": "0", "gone-rst": "0", "refused": "0"}
NEVER = {"tried": "107", "never": "107", "bound": "107", "datagrams": "11", "pair": "0"}
UNREAD = {"unread": "hello 0", "unread-rst": "hello 0"}
HALF = {"fin": "0", "gone": "0", "half": "0", "whole": "11"}


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
    workload.delete(node, NAME)
    shutil.rmtree(node.inside(f"{STATE}/receipts"), ignore_errors=True)
    node.inside(f"/var/log/{NAME}.log").unlink()
    assert settled_difference(node, before) == []


@pytest.fixture
def pod(node: Node) -> Iterator[Callable[[str], None]]:
    """``pod(address)``: a network namespace given by path, which has that one."""

    def made(address: str) -> None:
        for words in (
            ["netns", "add", "pod"],
            ["-n", "pod", "link", "set", "lo", "up"],
            ["-n", "pod", "link", "add", "eth0", "type", "bridge"],
            ["-n", "pod", "address", "add", f"{address}/24", "dev", "eth0"],
            ["-n", "pod", "link", "set", "eth0", "up"],
        ):
            output(node, ["ip", *words])

    yield made
    output(node, ["ip", "netns", "delete", "pod"])


def run(node: Node, address: str, *how: str, network: str = "") -> None:
    options = ["--with-ns", f"network:{network}"] if network else []
    arguments = ["--detach", "--log-uri", workload.log_uri(NAME), *options, image.REFERENCE, NAME]
    workload.ctr(node, "k8s.io", "run", *arguments, "/bin/ended", address, *how)
    workload.await_count(node, NAME, 2)


def capture(reference: str, **criu: Any) -> dict[str, Any]:
    return {"container_id": NAME, "name": reference, "leave": "stopped", "force": True, "criu": criu}


def captured(node: Node, run_module: RunModule, reference: str, told: str, **criu: Any) -> int:
    """Captured and gone, with what is told to CRIU foretold, shown and recorded; how far it had come at least."""
    reached = workload.count(node, NAME)
    for check in (True, False):
        done = run_module("containerd_checkpoint", capture(reference, **criu), check=check)
        assert [one["option"] for one in done["criu_options"]] == ([told] if told else []), done["criu_options"]
    assert done["recorded"]["criu_options"] == ([told] if told else [])
    workload.delete(node, NAME)
    return reached


def goes_on(node: Node, reached: int) -> None:
    """It has not begun anew, and does not stand still."""
    workload.await_count(node, NAME, workload.await_count(node, NAME, reached) + 3)


def restore(run_module: RunModule, reference: str, **more: Any) -> list[str]:
    """Restored; what there is to warn of."""
    run_module("containerd_checkpoint_stage", {"checkpoint": reference})
    asked = {"name": NAME, "checkpoint": reference, **more}
    done = run_module("containerd_restore", {"workloads": [asked], "huge_pages": "keep"})
    return [str(text) for text in done.get("warnings", [])]


def found(node: Node) -> dict[str, str]:
    """What the program reads of each of its sockets."""
    root = node.inside(f"/proc/{workload.pid(node, NAME)}/root/var")
    (root / "look").touch()
    # The step after the next one has begun when it has looked.
    workload.await_count(node, NAME, workload.count(node, NAME) + 2)
    lines = (root / "found").read_text(encoding="ascii").splitlines()
    return {how: seen for how, _blank, seen in (line.partition(" ") for line in lines)}


def remove(node: Node, run_module: RunModule, *references: str) -> None:
    for module in ("containerd_task", "containerd_container"):
        run_module(module, {"container_id": NAME, "state": "absent"})
    for reference in references:
        run_module("containerd_checkpoint_stage", {"checkpoint": reference, "state": "absent"})
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", *references)


@pytest.mark.usefixtures("clean")
@pytest.mark.every_containerd
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize(
    ("how", "told"),
    [
        (NEVER, ("", "")),
        # What has been closed is no connection any more after it.
        ({**CLOSED, **NEVER}, ("tcp-close", "")),
        ({**CLOSED, **NEVER, **UNREAD}, ("tcp-established", "tcp-established")),
        ({**CLOSED, **NEVER, **UNREAD, **HALF}, ("tcp-established", "tcp-established")),
    ],
    ids=["never", "closed", "unread", "half"],
)
def test_what_has_ended_comes_back_as_ended(
    node: Node, run_module: RunModule, address: str, how: dict[str, str], told: tuple[str, str]
) -> None:
    """Any number of times, and nobody has to be told; what was to be read still is."""
    references = [f"gpuops.test/ended:{number}" for number in (1, 2)]
    run(node, address, *how)
    for reference, option in zip(references, told):
        reached = captured(node, run_module, reference, option)
        assert restore(run_module, reference) == []
        goes_on(node, reached)
    assert found(node) == how
    remove(node, run_module, *references)


@pytest.mark.usefixtures("clean")
def test_the_address_of_what_has_ended_need_not_be_there(
    node: Node, run_module: RunModule, pod: Callable[[str], None]
) -> None:
    """As where a pod comes back with another address."""
    reference = "gpuops.test/ended:moved"
    pod(HERE)
    run(node, HERE, *CLOSED, network=POD)
    reached = captured(node, run_module, reference, "tcp-close")
    output(node, ["ip", "netns", "delete", "pod"])
    pod(ELSEWHERE)
    assert restore(run_module, reference, network=POD) == []
    goes_on(node, reached)
    assert found(node) == CLOSED
    remove(node, run_module, reference)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    ("here", "beside"), [(UNREAD, {}), (CLOSED, {"whole": "11"}), (CLOSED, UNREAD)], ids=["unread", "whole", "both"]
)
def test_what_needs_its_address_again_has_to_be_asked_for(
    node: Node,
    run_module: RunModule,
    expect_failure: RunModule,
    pod: Callable[[str], None],
    here: dict[str, str],
    beside: dict[str, str],
) -> None:
    """What is to be read, and whatever is beside a connection, comes back where that address is."""
    reference, how = "gpuops.test/ended:address", {**here, **beside}
    pod(HERE)
    run(node, HERE, *here, "127.0.0.1", *beside, network=POD)
    expect_failure("containerd_checkpoint", capture(reference), "tcp_connections")
    reached = captured(node, run_module, reference, "tcp-established", tcp_established=True)
    assert restore(run_module, reference, network=POD) == []
    goes_on(node, reached)
    assert found(node) == how
    remove(node, run_module, reference)


@pytest.mark.usefixtures("clean")
def test_what_was_forbidden_is_refused(node: Node, run_module: RunModule, expect_failure: RunModule) -> None:
    """What comes back closed is no connection that could be forbidden."""
    reference = "gpuops.test/ended:forbidden"
    run(node, "127.0.0.1", *UNREAD)
    expect_failure("containerd_checkpoint", capture(reference, tcp_established=False), "tcp_connections")
    goes_on(node, 2)
    workload.delete(node, NAME)
    run(node, "127.0.0.1", *CLOSED)
    reached = captured(node, run_module, reference, "tcp-close", tcp_established=False)
    restore(run_module, reference)
    goes_on(node, reached)
    assert found(node) == CLOSED
    remove(node, run_module, reference)
