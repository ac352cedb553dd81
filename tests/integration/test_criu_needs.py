# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What CRIU takes only when told to is taken, and comes back; what it takes in no way is refused beforehand."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from gpuops_lab import image, workload
from gpuops_lab.config import Node
from gpuops_lab.node import output
from node_listing import listing, settled_difference

NAME = "holder"
REFERENCE = "gpuops.test/holder:1"
STATE = "/var/lib/gpuops-restore"
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
    before = listing(node)
    yield
    workload.delete(node, NAME)
    shutil.rmtree(node.inside(f"{STATE}/receipts"), ignore_errors=True)
    node.inside(f"/var/log/{NAME}.log").unlink(missing_ok=True)
    assert settled_difference(node, before) == []
    assert not node.inside("/etc/criu").exists()


def run(node: Node, *thing: str, options: tuple[str, ...] = ()) -> None:
    arguments = ["--detach", "--log-uri", workload.log_uri(NAME), *options, image.REFERENCE, NAME]
    workload.ctr(node, "k8s.io", "run", *arguments, "/bin/holder", *thing)
    workload.await_count(node, NAME, 2)


def goes_on(node: Node) -> None:
    workload.await_count(node, NAME, workload.count(node, NAME) + 2)


def capture(**criu: Any) -> dict[str, Any]:
    return {"container_id": NAME, "name": REFERENCE, "criu": criu}


# --- what is refused


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    ("things", "code", "shown"),
    [
        ("uring", "io_uring_open", ["io_uring of process {} (holder)"]),
        (
            "userfault socket 2 1 262",
            "descriptor_not_dumped",
            ["anon_inode:[userfaultfd] of process {} (holder)", "a socket of MPTCP of process {} (holder)"],
        ),
        ("queue", "message_queues_open", ["/queue of process {} (holder)"]),
        ("queue-left", "message_queues_open", ["/queue of process {} (holder)"]),
        (
            "namespace uts namespace net namespace user",
            "namespaces_nested",
            ["the uts namespace of", "the network namespace of", "the user namespace of process {} (holder)"],
        ),
        ("namespace children", "namespaces_nested", ["the pid namespace of process {} (holder)"]),
        ("traced", "process_traced", ["process {} (holder) by process "]),
    ],
)
def test_what_criu_takes_in_no_way(
    node: Node, expect_failure: RunModule, things: str, code: str, shown: list[str]
) -> None:
    """Before anything stops, with process and thing; the workload counts on."""
    run(node, *things.split(), options=("--privileged",))
    before = listing(node)
    for check in (True, False):
        result = expect_failure("containerd_checkpoint", capture(), code, check=check)
        pids = [one["pid"] for one in result["failure"]["details"]["found"]]
        assert all(any(text.format(one) in result["msg"] for one in pids) for text in shown), result["msg"]
    assert settled_difference(node, before) == []
    goes_on(node)


# --- what is taken, and comes back


def restore(run_module: RunModule, reference: str, **more: Any) -> dict[str, Any]:
    run_module("containerd_checkpoint_stage", {"checkpoint": reference})
    asked = {"name": NAME, "checkpoint": reference, **more}
    return run_module("containerd_restore", {"workloads": [asked], "huge_pages": "keep"})


def remove(node: Node, run_module: RunModule, *references: str) -> None:
    for module in ("containerd_task", "containerd_container"):
        run_module(module, {"container_id": NAME, "state": "absent"})
    for reference in references:
        run_module("containerd_checkpoint_stage", {"checkpoint": reference, "state": "absent"})
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", *references)


def pid(node: Node) -> str:
    lines = map(str.split, workload.ctr(node, "k8s.io", "tasks", "ls").splitlines())
    return next(words[1] for words in lines if words[0] == NAME)


def locks(node: Node) -> list[tuple[str, str]]:
    """Kind and file of the locks that the container's processes hold."""
    script = """
        for one in /proc/[0-9]*; do
            grep -sq "^holder$" $one/comm || continue
            for fd in $(ls $one/fd); do
                sed -n "s|^lock:.*: \\([A-Z]*\\) .*|\\1 $(readlink $one/fd/$fd)|p" $one/fdinfo/$fd
            done
        done
    """
    lines = output(node, ["sh", "-c", script]).splitlines()
    return sorted({(kind, path) for kind, path in map(str.split, lines)})


#: All that can be had at once: deleted files, locks of each kind, connected sockets, a mount namespace.
THINGS = (
    "unlinked 5 /var/large unlinked 3 /dev/shm/large unlinked 1 /var/small pair namespace mnt "
    "flock /var/flock posix /var/posix ofd /var/ofd orphan /var/orphan"
)


@pytest.mark.usefixtures("clean")
@pytest.mark.every_containerd
@pytest.mark.older_criu
@pytest.mark.newer_criu
def test_taken_twice_over_without_being_told(node: Node, run_module: RunModule) -> None:
    """The second capture is of what was restored; neither capture nor restore is told anything."""
    references = [f"gpuops.test/holder:{number}" for number in (1, 2)]
    run(node, *THINGS.split(), options=("--privileged",))
    held = locks(node)
    assert [kind for kind, _path in held] == ["FLOCK", "FLOCK", "OFDLCK", "POSIX"]
    for reference in references:
        asked = {**capture(), "name": reference}
        for check in (True, False):
            done = run_module("containerd_checkpoint", asked, check=check)
            told = [(one["option"], one["value"]) for one in done["criu_options"]]
            assert told == [("file-locks", ""), ("ghost-limit", str(5 << 20))]
            assert all("process" in one["why"] for one in done["criu_options"])
        assert done["recorded"]["criu_options"] == ["file-locks", "ghost-limit"]
        goes_on(node)
        assert locks(node) == held
        workload.delete(node, NAME)
        restore(run_module, reference)
        goes_on(node)
        assert locks(node) == held
        config = node.inside(f"{STATE}/work/k8s.io/{NAME}/criu.conf").read_text()
        assert "#" not in config and "ghost-limit" not in config
    remove(node, run_module, *references)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    ("thing", "criu", "code"),
    [
        ("unlinked 5 /var/large", {"ghost_limit_max": 4 << 20}, "unlinked_file_too_large"),
        ("unlinked 5 /var/large", {"ghost_limit": False}, "unlinked_file_too_large"),
        ("flock /var/lock", {"file_locks": False}, "file_locks_held"),
        ("flock /var/lock", {"extra": ["action-script=/bin/true"]}, "criu_option_refused"),
        # Nobody forbids it, but CRIU does not know it either: a dump that fails when the task is paused.
        ("flock /var/lock", {"extra": ["unknown-option"]}, "criu_dump_failed"),
    ],
)
def test_what_was_forbidden_is_refused(
    node: Node, expect_failure: RunModule, thing: str, criu: dict[str, Any], code: str
) -> None:
    run(node, *thing.split())
    expect_failure("containerd_checkpoint", capture(**criu), code)
    goes_on(node)


CLIENT = """
import socket, sys
there = socket.create_connection(("127.0.0.1", 7000))
print("there", flush=True)
sys.stdin.read()
"""


@pytest.mark.usefixtures("clean")
def test_connections_that_nobody_has_accepted(node: Node, run_module: RunModule, expect_failure: RunModule) -> None:
    """They are left out, and that is said; the listener is there again, and takes new ones."""
    run(node, "listen", "7000")
    enter = [str(node.directory / "enter"), "nsenter", "--target", pid(node), "--net", "python3", "-c", CLIENT]
    with subprocess.Popen(enter, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None and client.stdin is not None
        assert client.stdout.readline() == "there\n"
        expect_failure("containerd_checkpoint", capture(skip_in_flight=False), "connections_in_flight")
        done = run_module("containerd_checkpoint", capture())
        client.stdin.close()
    assert [one["option"] for one in done["criu_options"]] == ["skip-in-flight"]
    assert "1 TCP connection to 127.0.0.1:7000 that nobody has accepted" in str(done["warnings"])
    workload.delete(node, NAME)
    restore(run_module, REFERENCE)
    goes_on(node)
    listening = output(node, ["nsenter", "--target", pid(node), "--net", "cat", "/proc/net/tcp"]).splitlines()[1:]
    assert [line.split()[1:4] for line in listening] == [["0100007F:1B58", "00000000:0000", "0A"]]
    remove(node, run_module, REFERENCE)


#: Sockets in the node, which the container sees in the same place, and the network namespace that has them.
OUTSIDE = """
import os, select, socket, sys
os.makedirs("/run/outside", exist_ok=True)
kept = [socket.socket(socket.AF_UNIX, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)]
for one, name in zip(kept, ("datagrams", "stream")):
    one.bind(f"/run/outside/{name}")
kept[1].listen()
print("there", flush=True)
while sys.stdin not in select.select([kept[0], sys.stdin], [], [])[0]:
    print(kept[0].recv(64).decode().strip(), flush=True)
"""


@pytest.fixture
def outside(node: Node) -> Iterator[subprocess.Popen[str]]:
    command = [str(node.directory / "enter"), "python3", "-c", OUTSIDE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        assert server.stdout.readline() == "there\n"
        yield server
        server.stdin.close()
        # What it has still to say would keep it from ending.
        server.stdout.read()
    shutil.rmtree(node.inside("/run/outside"))


SEEN = ("--mount", "type=bind,src=/run/outside,dst=/run/outside,options=rbind:rw")
NETWORK = ("--with-ns", "network:/proc/1/ns/net")


@pytest.mark.usefixtures("clean")
def test_datagrams_to_a_socket_outside(
    node: Node, run_module: RunModule, expect_failure: RunModule, outside: subprocess.Popen[str]
) -> None:
    """As those to /dev/log, in the network of the node; taken twice over."""
    references = [f"gpuops.test/holder:{number}" for number in (1, 2)]
    run(node, "datagrams", "/run/outside/datagrams", options=(*SEEN, *NETWORK))
    expect_failure("containerd_checkpoint", capture(ext_unix_sk=False), "unix_sockets_outside")
    for reference in references:
        done = run_module("containerd_checkpoint", {**capture(), "name": reference})
        (told,) = done["criu_options"]
        assert (told["option"], done["recorded"]["criu_options"]) == ("ext-unix-sk", ["ext-unix-sk"])
        assert "datagram socket of process" in told["why"] and "to /run/outside/datagrams" in told["why"]
        workload.delete(node, NAME)
        restore(run_module, reference)
        reached = workload.count(node, NAME)
        goes_on(node)
        assert outside.stdout is not None
        assert any(int(line) > reached for line in outside.stdout), "it talks to nobody"
    remove(node, run_module, *references)


@pytest.mark.usefixtures("clean", "outside")
@pytest.mark.parametrize("thing", ["stream /run/outside/stream", "datagrams /run/outside/datagrams"])
def test_unix_sockets_that_no_option_takes(node: Node, expect_failure: RunModule, thing: str) -> None:
    """Half of a stream; and whatever leads into another network namespace."""
    run(node, *thing.split(), options=SEEN if thing.startswith("d") else (*SEEN, *NETWORK))
    before = listing(node)
    for criu in ({}, {"ext_unix_sk": True}):
        result = expect_failure("containerd_checkpoint", capture(**criu), "unix_sockets_outside")
        assert "(holder) to " in result["msg"]
    assert settled_difference(node, before) == []
    goes_on(node)


# --- the node's own configuration


@pytest.mark.usefixtures("clean")
def test_the_nodes_configuration_holds_for_what_was_restored_too(node: Node, run_module: RunModule) -> None:
    """And what the restore was told does not hold for the next dump: with tcp-close it would lose its connections."""
    config = node.inside("/etc/criu/runc.conf")
    config.parent.mkdir()
    config.write_text("ghost-limit 16M")
    run(node, "unlinked", "5", "/var/large")
    asked = capture(ghost_limit=False)
    assert run_module("containerd_checkpoint", asked)["criu_options"] == []
    workload.delete(node, NAME)
    restore(run_module, REFERENCE, criu={"tcp": "close", "file_locks": True, "extra": ["ghost-limit=1M"]})
    own = node.inside(f"{STATE}/work/k8s.io/{NAME}/criu.conf")
    before = own.read_text()
    assert "tcp-close" in before and "ghost-limit=1M" in before
    again = "gpuops.test/holder:2"
    run_module("containerd_checkpoint", {**asked, "name": again})
    assert (own.read_text(), config.read_text()) == (before, "ghost-limit 16M")
    shutil.rmtree(config.parent)
    remove(node, run_module, REFERENCE, again)


@pytest.mark.usefixtures("clean")
def test_a_node_without_iptables(node: Node, run_module: RunModule, expect_failure: RunModule) -> None:
    """It is asked for where CRIU would run it, and only there; a restore does as the dump did."""
    program, hidden = (node.inside(f"/usr/sbin/iptables-restore{ending}") for ending in ("", ".hidden"))
    config = node.inside("/etc/criu/default.conf")
    run(node, "pair")
    program.rename(hidden)
    expect_failure("containerd_checkpoint", capture(), "iptables_restore_missing")
    config.parent.mkdir()
    config.write_text("network-lock skip\n")
    done = run_module("containerd_checkpoint", capture())
    assert done["recorded"]["criu_options"] == ["network-lock=skip"]
    shutil.rmtree(config.parent)
    workload.delete(node, NAME)
    assert run_module("containerd_checkpoint_info", {"checkpoint": REFERENCE})["problems"] == []
    restore(run_module, REFERENCE)
    goes_on(node)
    hidden.rename(program)
    remove(node, run_module, REFERENCE)
