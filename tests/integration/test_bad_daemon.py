# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bad input: a daemon that is not there, not for us, not containerd, or that stops in the middle."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
import time
from collections.abc import Iterator
from typing import Any, Callable

import in_node
import make_images
import pytest
from bad_input import CODES, Refuses, check_wording
from gpuops_lab import workload
from gpuops_lab.config import CONTAINERD_SOCKET, STATE_ROOT, Node
from gpuops_lab.node import await_containerd, control
from node_listing import listing, settled_difference

REF = "gpuops.test/large:1"
MIB = 256
RunModule = Callable[..., dict[str, Any]]
#: Every module, and a call of it that would change something.
CALLS: dict[str, dict[str, Any]] = {
    "containerd_checkpoint_info": {"checkpoint": REF},
    "containerd_checkpoint_stage": {"checkpoint": REF},
    "containerd_container": {"container_id": "x", "checkpoint": REF},
    "containerd_task": {"container_id": "x", "checkpoint": REF},
    "containerd_image": {"name": REF, "state": "absent", "force": True},
}
CLIENT = "_containerd.client:Client"
#: Where a module asks for the task to be started, and where it hears of a call that has failed.
STARTS, HEARD = ("_containerd.tasks:start", "enter"), (f"{CLIENT}._translate", "enter")
#: Listeners on a Unix socket that are not containerd; the path is their first argument.
HTTP = """
import http.server, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def address_string(self): return ""
    def log_message(self, *a): pass
    def do_GET(self): self.send_response(200); self.end_headers()
socketserver.UnixStreamServer(sys.argv[1], Handler).serve_forever()
"""
GRPC = """
import concurrent.futures, sys, grpc
server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
server.add_insecure_port("unix:" + sys.argv[1])
server.start()
server.wait_for_termination()
"""
MUTE = """
import socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(16)
time.sleep(600)
"""


@pytest.fixture(scope="module", autouse=True)
def large(node: Node) -> None:
    """A checkpoint that takes a moment to stage and to restore."""
    make_images.good(node, REF, MIB)


@pytest.fixture
def refuses(expect_failure: RunModule, unchanged: Callable[..., Any]) -> Refuses:
    return Refuses(expect_failure, unchanged)


@pytest.mark.parametrize("name", ["containerd_checkpoint_info", "containerd_task"])
def test_socket_absent(refuses: Refuses, name: str) -> None:
    where = "/run/nobody/containerd.sock"
    refuses(name, {**CALLS[name], "address": where}, "socket absent", where)


@pytest.mark.parametrize("name", ["containerd_checkpoint_info", "containerd_task"])
def test_not_permitted(node: Node, unchanged: Callable[..., Any], name: str) -> None:
    with unchanged():
        result = in_node.run_module(node, name, CALLS[name], user=65534)
    assert result["failed"] and result["failure"]["code"] in CODES["not permitted"], result
    check_wording(result, ("65534", CONTAINERD_SOCKET))
    assert result["failure"]["outcome"] == "terminal"


@pytest.mark.parametrize(
    ("script", "what", "outcome"),
    [
        pytest.param(HTTP, "something that is not containerd answers", "terminal", id="http"),
        pytest.param(GRPC, "something that is not containerd answers", "terminal", id="another-grpc-server"),
        pytest.param(MUTE, "nobody answers, or the daemon stops in the middle", "retryable", id="mute"),
    ],
)
def test_not_containerd(node: Node, refuses: Refuses, script: str, what: str, outcome: str) -> None:
    with listening(node, script) as where:
        params = {**CALLS["containerd_checkpoint_stage"], "address": where, "timeout": 2}
        refuses("containerd_checkpoint_stage", params, what, where, modes=(False,), outcome=outcome)


@contextlib.contextmanager
def listening(node: Node, script: str) -> Iterator[str]:
    """A listener in the node; gives the path of its socket."""
    where = "/run/gpuops-lab/other.sock"
    command = [str(node.directory / "enter"), in_node.PYTHON, "-c", script, where]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        while not node.inside(where).exists():
            assert process.poll() is None, "the listener did not start"
            time.sleep(0.05)
        yield where
    finally:
        process.kill()
        process.wait()
        node.inside(where).unlink(missing_ok=True)


def test_socket_of_a_dead_daemon(node: Node, expect_failure: RunModule) -> None:
    """The module waits for a daemon that restarts, and says after a while that nobody answers."""
    control(node, "kill")
    try:
        params = {"checkpoint": REF, "timeout": 3}
        result = expect_failure("containerd_checkpoint_info", params, "daemon_unavailable")
    finally:
        start(node)
    check_wording(result, (CONTAINERD_SOCKET,))
    assert result["failure"]["outcome"] == "retryable"


def test_daemon_restarts_meanwhile(node: Node) -> None:
    """A restart as an upgrade makes it is waited for."""
    control(node, "kill")
    try:
        # The second time it asks has the first time found nobody.
        again = (f"{CLIENT}.peer_pid", "#2")
        with in_node.Held(node, "containerd_checkpoint_info", {"checkpoint": REF}, again) as module:
            start(node)
            found = module.result()
    finally:
        start(node)
    assert not found.get("failed") and found["problems"] == []


def test_daemon_stops_while_staging(node: Node, run_module: RunModule) -> None:
    before = listing(node)
    # Of pieces of a MiB: all other files together have fewer than the one of the memory.
    piece = ("_streams.tar_extract:_append", "#100")
    with in_node.Held(
        node, "containerd_checkpoint_stage", CALLS["containerd_checkpoint_stage"], piece, HEARD
    ) as module:
        assert partial_of(node)
        result = interrupted(node, module, 1)
    assert result["failure"]["code"] == "daemon_unavailable", result
    check_wording(result, (CONTAINERD_SOCKET,))
    assert result["failure"]["outcome"] in ("retryable", "unknown")
    assert settled_difference(node, before) == []
    assert run_module("containerd_checkpoint_stage", CALLS["containerd_checkpoint_stage"])["created"]
    assert run_module("containerd_checkpoint_stage", {"checkpoint": REF, "state": "absent"})["changed"]
    assert settled_difference(node, before) == []


def test_daemon_stops_while_restoring(node: Node, run_module: RunModule, criu: Criu) -> None:
    before = listing(node)
    prepare(run_module)
    with in_node.Held(node, "containerd_task", CALLS["containerd_task"], STARTS, HEARD) as module:
        criu.wait()
        module.go(0)
        criu.reached()
        result = interrupted(node, module, 1, criu.go)
    assert result["failure"]["code"] == "daemon_unavailable", result
    check_wording(result, (CONTAINERD_SOCKET,))
    # What the daemon had begun is either gone or runs: another run goes on from there.
    run_module("containerd_container", {**CALLS["containerd_container"], "rebuild": True})
    run_module("containerd_task", CALLS["containerd_task"])
    workload.await_count(node, "x", 4)
    remove(run_module)
    assert settled_difference(node, before) == []


def test_daemon_hangs_while_restoring(node: Node, run_module: RunModule, criu: Criu) -> None:
    """SIGSTOP: calls get no answer at all; the restore is not waited for longer than asked."""
    before = listing(node)
    prepare(run_module)
    params = {**CALLS["containerd_task"], "restore_timeout": 6, "timeout": 20}
    with in_node.Held(node, "containerd_task", params, STARTS, HEARD) as module:
        criu.wait()
        module.go(0)
        criu.reached()
        pid = control(node, "status")
        signal_in(node, "STOP", pid)
        try:
            criu.go()
            module.reached(1)
        finally:
            signal_in(node, "CONT", pid)
        result = module.result()
    assert result["failed"] and result["failure"]["code"] == "restore_timeout", result
    check_wording(result, ("x",))
    assert result["failure"]["outcome"] == "unknown"
    assert workload.ctr(node, workload.NAMESPACE, "tasks", "ls", "-q").split() == []
    remove(run_module)
    assert settled_difference(node, before) == []


class Criu:
    """The node's CRIU, which can be made to wait when runc calls it."""

    PROGRAM, PLACE = "/usr/sbin/criu", "/run/gpuops-lab/criu"
    WAITS = """#!/bin/sh
if [ "$1" = swrk ] && [ -e {place}.wait ]; then
    touch {place}.reached
    while [ ! -e {place}.go ]; do sleep 0.01; done
fi
exec {program}.real "$@"
"""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._program = node.inside(self.PROGRAM)
        self._program.rename(f"{self._program}.real")
        self._program.write_text(self.WAITS.format(place=self.PLACE, program=self.PROGRAM), encoding="ascii")
        self._program.chmod(0o755)

    def wait(self) -> None:
        """From now on."""
        self._file("wait").touch()

    def reached(self) -> None:
        """Wait until it waits."""
        while not self._file("reached").exists():
            time.sleep(0.005)

    def go(self) -> None:
        """It waits no more."""
        self._file("go").touch()

    def restore(self) -> None:
        """The node's own again."""
        for what in ("wait", "reached", "go"):
            self._file(what).unlink(missing_ok=True)
        self._program.with_name("criu.real").rename(self._program)

    def _file(self, what: str) -> pathlib.Path:
        return self._node.inside(f"{self.PLACE}.{what}")


@pytest.fixture
def criu(node: Node) -> Iterator[Criu]:
    made = Criu(node)
    try:
        yield made
    finally:
        made.go()
        made.restore()


def prepare(run_module: RunModule) -> None:
    for name in ("containerd_checkpoint_stage", "containerd_container"):
        run_module(name, CALLS[name])


def remove(run_module: RunModule) -> None:
    run_module("containerd_task", {"container_id": "x", "state": "absent"})
    run_module("containerd_container", {"container_id": "x", "state": "absent"})
    run_module("containerd_checkpoint_stage", {"checkpoint": REF, "state": "absent"})


def partial_of(node: Node) -> bool:
    """Whether staging has begun to write."""
    return any(node.inside(STATE_ROOT).glob(".*.partial-*/images/pages-*.img"))


def signal_in(node: Node, name: str, pid: int) -> None:
    subprocess.run([str(node.directory / "enter"), "kill", f"-{name}", str(pid)], check=True)


def start(node: Node) -> None:
    control(node, "start")
    await_containerd(node)


def interrupted(
    node: Node, module: in_node.Held, hears: int, meanwhile: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """The failed result of a module whose daemon is killed, and is back when the module has heard of it."""
    control(node, "kill")
    try:
        meanwhile()
        module.go(0)
        module.reached(hears)
    finally:
        start(node)
    result = module.result()
    assert result.get("failed"), f"it has not heard of it: {result}"
    return result


def test_containerd_restarts_with_cri(node: Node) -> None:
    assert workload.cri_problems(node) == []
