# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Probes: files that change, paths that lead out, HTTP, and what is refused."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd import tasks
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError, RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._probe import command, http as probe_http, probe as probes
from ansible_collections.gpuops.restore.plugins.module_utils._probe.probe import ProbeParams
from ansible_collections.gpuops.restore.tests.unit.helpers import container_root
from ansible_collections.gpuops.restore.tests.unit.helpers.clock import Clock

# --- a further process


def test_process_is_the_containers_own_with_another_command() -> None:
    original = {"args": ["a"], "terminal": True, "consoleSize": {}, "env": ["A=1"], "user": {"uid": 7}, "cwd": "/w"}
    spec = {"process": original}
    found = command.process(spec, ["b", "c"])
    assert found == {"args": ["b", "c"], "terminal": False, "env": ["A=1"], "user": {"uid": 7}, "cwd": "/w"}
    assert original["args"] == ["a"]


@pytest.mark.parametrize("ended", [3, None])
def test_the_last_of_the_output_comes_with_the_deletion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: int | None
) -> None:
    """As of a real shim, which copies on after the process has ended."""
    output: list[Path] = []

    def execute(_client: Client, _container_id: str, _exec_id: str, _process: Any, stdio: tasks.Stdio) -> None:
        output.append(Path(stdio.stdout[len("file://") :]))

    def copy_the_rest(*_: Any) -> None:
        with output[0].open("a", encoding="utf-8") as stream:
            stream.write("the rest\n")

    ends = iter([ended, 137])
    monkeypatch.setattr(tasks, "execute", execute)
    monkeypatch.setattr(tasks, "start", lambda *_: output[0].write_text("a part\n", encoding="utf-8"))
    monkeypatch.setattr(tasks, "wait", lambda *_: next(ends))
    monkeypatch.setattr(tasks, "kill", lambda *_, **__: None)
    monkeypatch.setattr(tasks, "delete_process", copy_the_rest)
    client: Any = SimpleNamespace(namespace="k8s.io", timeout=1.0)
    done = command.run(client, "c", {}, ["a"], 1.0, str(tmp_path))
    assert done == command.Done(ended, "a part\nthe rest\n")


# --- paths inside


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return container_root.make(tmp_path)


def test_links_are_followed_inside(root: Path) -> None:
    assert probes.fingerprint(str(root), "/link") == probes.fingerprint(str(root), "/var/count")


# --- a file that changes


@pytest.mark.parametrize(
    ("path", "text", "detail"),
    [
        ("/var/count", "12", "went from 1 to 2 bytes"),
        ("/var/count", "2", "The content of the file /var/count changed"),
        ("/var/new", "x", "came into being with 1 bytes"),
    ],
)
def test_a_change_is_seen(root: Path, path: str, text: str, detail: str) -> None:
    clock = Clock(3.0, lambda: (root / path[1:]).write_text(text, encoding="utf-8"))
    found = probes.watch_file(ProbeParams("c", path=path, seconds=5.0), str(root), clock, clock.sleep)
    assert found.ok and detail in found.detail and 3.0 <= clock.now < 3.5


@pytest.mark.parametrize(
    ("path", "said", "outcome"),
    [
        ("/var/count", "did not change within 5 s", "retryable"),
        ("/nowhere", "did not come into being within 5 s", "retryable"),
        ("/fifo", "it is not a regular file", "terminal"),
    ],
)
def test_no_change_is_no_proof(root: Path, path: str, said: str, outcome: str) -> None:
    clock = Clock(9.0, lambda: (root / "var/count").write_text("22", encoding="utf-8"))
    with pytest.raises(RestoreError) as caught:
        probes.watch_file(ProbeParams("c", path=path, seconds=5.0), str(root), clock, clock.sleep)
    assert caught.value.code == "probe_failed" and caught.value.outcome == outcome
    assert said in caught.value.message


# --- HTTP


class Handler(http.server.BaseHTTPRequestHandler):
    """Fails twice, then answers; /away leads elsewhere."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(302 if self.path == "/away" else 503 if type(self).asked < 3 else 200)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_unused: object) -> None:
        """Silence."""


@pytest.fixture
def address() -> Iterator[str]:
    Handler.asked = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_http_is_asked_until_it_answers(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    found = probes.watch_url(ProbeParams("c", url=address + "/", seconds=5.0), "")
    assert found.ok and Handler.asked == 3


def test_a_redirect_is_an_answer(address: str) -> None:
    assert probes.watch_url(ProbeParams("c", url=address + "/away", statuses=(302,), seconds=5.0), "").ok
    assert Handler.asked == 1


def test_http_without_proof(address: str) -> None:
    for url, status in ((address + "/away", 302), ("http://127.0.0.1:1/", None)):
        with pytest.raises(RestoreError) as caught:
            probes.watch_url(ProbeParams("c", url=url, seconds=0.2), "")
        assert caught.value.details == {"kind": "http", "status": status}
        assert caught.value.outcome == "retryable"


def test_a_namespace_that_is_none() -> None:
    answer = probe_http.request("http://127.0.0.1:1/", "/proc/self/ns/mnt", 1.0)
    assert answer.status == 0 and "network namespace" in answer.problem


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("http://10.0.0.1:8080/x", True),
        ("https://[::1]/", True),
        ("file:///etc/passwd", False),
        ("http://", False),
        ("http://a:99999/", False),
    ],
)
def test_urls(url: str, good: bool) -> None:
    assert probe_http.valid(url) is good


# --- refusals


@pytest.mark.parametrize(
    "params",
    [
        ProbeParams("c", path="relative"),
        ProbeParams("c", path="/x", seconds=0),
        ProbeParams("c", url="ftp://a/"),
        ProbeParams("c", url="http://a/", statuses=()),
        ProbeParams("c", command=("",)),
    ],
)
def test_what_makes_no_sense(client: Client, params: ProbeParams) -> None:
    with pytest.raises(InputError) as caught:
        probes.probe(client, params, check=False)
    assert caught.value.code == "probe_invalid"


def test_without_a_container(client: Client) -> None:
    params = ProbeParams("nobody", path="/x")
    with pytest.raises(RestoreError) as caught:
        probes.probe(client, params, check=False)
    assert caught.value.code == "probe_failed" and caught.value.outcome == "terminal"
    assert probes.probe(client, params, check=True).ok is None
