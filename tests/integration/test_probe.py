# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd_probe on a real containerd, on a container that ctr started and on one that CRIU brought back."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import in_node
import pytest
from gpuops_lab import workload
from gpuops_lab.config import Node

REF = "gpuops.test/checkpoint:1"
RunModule = Callable[..., dict[str, Any]]
ExpectFailure = Callable[..., dict[str, Any]]
Unchanged = Callable[..., "contextlib.AbstractContextManager[None]"]


@pytest.fixture(scope="module", params=["started", "restored"], autouse=True)
def counter(node: Node, request: pytest.FixtureRequest) -> Iterator[str]:
    """A running container by the name of its origin."""
    name = str(request.param)
    workload.start(node, name)
    if name == "restored":
        workload.await_count(node, name, 3)
        workload.checkpoint(node, name, REF)
        workload.delete(node, name)
        workload.restore(node, name, REF)
    # What ctr leaves for the garbage collection goes now, not in the middle of a test.
    workload.ctr(node, "k8s.io", "leases", "create", "--id", "sweep")
    workload.ctr(node, "k8s.io", "leases", "rm", "--sync", "sweep")
    # The first exec of a container makes files that stay with it.
    workload.count(node, name)
    yield name
    workload.delete(node, name)


def test_command(counter: str, run_module: RunModule, unchanged: Unchanged) -> None:
    params = {"container_id": counter, "command": ["/bin/sh", "-c", "echo secret $PATH; pwd"]}
    with unchanged():
        done = run_module("containerd_probe", params)
        assert done["probe"]["ok"] is True and not done["changed"] and "secret" not in str(done["probe"])
        shown = run_module("containerd_probe", {**params, "return_output": True})["probe"]["output"]
        assert shown == "secret /bin\n/\n"
        predicted = run_module("containerd_probe", params, check=True)
        assert predicted["probe"]["ok"] is None and predicted["warnings"]
        wanted = {"container_id": counter, "command": ["/bin/sh", "-c", "exit 3"], "exit_status": 3}
        assert run_module("containerd_probe", wanted)["probe"]["ok"] is True


def test_command_fails(counter: str, expect_failure: ExpectFailure, unchanged: Unchanged) -> None:
    def failed(*command: str, **more: Any) -> dict[str, Any]:
        params = {"container_id": counter, "command": list(command), **more}
        found: dict[str, Any] = expect_failure("containerd_probe", params, "probe_failed")["failure"]
        return found

    with unchanged():
        wrong = failed("/bin/sh", "-c", "echo secret; exit 3")
        assert wrong["outcome"] == "unknown" and wrong["details"] == {"kind": "command", "exit_status": 3}
        assert failed("/bin/nothing")["outcome"] == "terminal"
        slow = failed("/bin/sh", "-c", "echo started; exec sleep 100", command_seconds=0.5, return_output=True)
        assert slow["outcome"] == "retryable" and slow["details"]["output"] == "started\n"


def test_file(
    node: Node, counter: str, run_module: RunModule, expect_failure: ExpectFailure, unchanged: Unchanged
) -> None:
    node.inside("/etc/gpuops-secret").write_text("of the node")
    make = "ln -sf /var/count /tmp/link; ln -sf ../../../../etc/gpuops-secret /tmp/out; echo once > /tmp/still"
    run_module("containerd_probe", {"container_id": counter, "command": ["/bin/sh", "-c", make]})

    def watch(path: str, seconds: float) -> dict[str, Any]:
        return {"container_id": counter, "file": {"path": path, "seconds": seconds}}

    with unchanged():
        assert run_module("containerd_probe", watch("/var/count", 10))["probe"]["ok"] is True
        assert run_module("containerd_probe", watch("/tmp/link", 10))["probe"]["ok"] is True
        still = expect_failure("containerd_probe", watch("/tmp/still", 0.5), "probe_failed")
        assert "did not change" in still["msg"] and still["failure"]["outcome"] == "retryable"
        for path in ("/tmp/out", "/nowhere"):
            gone = expect_failure("containerd_probe", watch(path, 0.3), "probe_failed")
            assert "come into being" in gone["msg"]
        device = expect_failure("containerd_probe", watch("/dev/zero", 1), "probe_failed")
        assert device["failure"]["outcome"] == "terminal"
        expect_failure("containerd_probe", watch("var/count", 1), "probe_invalid")
    node.inside("/etc/gpuops-secret").unlink()


SERVER = """
import http.server, os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(302 if self.path == "/away" else 503 if self.path == "/bad" else 200)
        self.send_header("Location", "/")
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", 8099), Handler).serve_forever()
"""


@pytest.fixture
def server(node: Node, counter: str) -> Iterator[None]:
    """An HTTP server that only the container's network namespace reaches."""
    rows = [line.split() for line in workload.ctr(node, "k8s.io", "tasks", "ls").splitlines()]
    pid = next(row[1] for row in rows if row[0] == counter)
    enter = [str(node.directory / "enter"), "nsenter", f"--net=/proc/{pid}/ns/net"]
    subprocess.run([*enter, "ip", "link", "set", "lo", "up"], check=True)
    process = subprocess.Popen([*enter, in_node.PYTHON, "-c", SERVER], stdin=subprocess.PIPE)
    try:
        yield
    finally:
        # nsenter's child would outlive a signal to nsenter.
        process.communicate()


def ask(counter: str, path: str, **more: Any) -> dict[str, Any]:
    return {"container_id": counter, "http": {"url": f"http://127.0.0.1:8099{path}", "seconds": 5.0, **more}}


def test_http(
    counter: str, server: None, run_module: RunModule, expect_failure: ExpectFailure, unchanged: Unchanged
) -> None:
    run_module("containerd_probe", ask(counter, "/"))
    with unchanged():
        assert run_module("containerd_probe", ask(counter, "/"))["probe"]["ok"] is True
        assert run_module("containerd_probe", ask(counter, "/bad", status=[200, 503]))["probe"]["ok"] is True
        # A redirect is an answer of its own.
        assert run_module("containerd_probe", ask(counter, "/away", status=[302]))["probe"]["ok"] is True
        bad = expect_failure("containerd_probe", ask(counter, "/bad", seconds=0.3), "probe_failed")
        assert bad["failure"]["details"]["status"] == 503 and bad["failure"]["outcome"] == "retryable"
        # The node's own 127.0.0.1 is another one.
        deaf = expect_failure("containerd_probe", ask(counter, "/", network="host", seconds=0.3), "probe_failed")
        assert "refused" in deaf["msg"]


def test_http_nobody(counter: str, expect_failure: ExpectFailure, unchanged: Unchanged) -> None:
    with unchanged():
        expect_failure("containerd_probe", ask(counter, "/", seconds=0.3), "probe_failed")
        params = {"container_id": counter, "http": {"url": "file:///etc/passwd"}}
        expect_failure("containerd_probe", params, "probe_invalid")


def test_no_task(counter: str, run_module: RunModule, expect_failure: ExpectFailure, unchanged: Unchanged) -> None:
    params = {"container_id": "nobody", "command": ["/bin/true"]}
    with unchanged():
        expect_failure("containerd_probe", params, "probe_failed")
        predicted = run_module("containerd_probe", params, check=True)
    assert predicted["probe"]["ok"] is None and not predicted["changed"] and predicted["warnings"]
