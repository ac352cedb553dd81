# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError, RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._probe import hook as probe_hook
from ansible_collections.gpuops.restore.plugins.module_utils._probe.hook import BEFORE_CAPTURE, Hook
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

Asked = tuple[str, str, str, str]


class Server(HTTPServer):
    """Answers with the status that the path names, and keeps what it was asked."""

    asked: list[Asked]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.server.asked.append((self.command, self.path, body, self.headers.get("X-Token", "")))
        self.send_response(int(self.path.strip("/")))
        self.end_headers()

    do_POST = do_GET = do_PUT = answer  # noqa: N815

    def log_message(self, *_unused: Any) -> None:
        return


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as found:
        found.asked = []
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def hook(**options: Any) -> Hook | None:
    return Hook.from_options(BEFORE_CAPTURE, options, "train", "/var/lib/x")


def requesting(server: Server, answer: int, **more: Any) -> Hook:
    url = f"http://127.0.0.1:{server.server_port}/{answer}"
    found = hook(http={"url": url, "network": "host", "status": None, **more}, command=None)
    assert found is not None
    return found


def test_what_is_not_given_is_none() -> None:
    assert hook() is None
    assert hook(command=None, http=None) is None


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"command": ["/bin/x"], "http": {"url": "http://127.0.0.1/"}}, "command and http"),
        ({"exit_status": 3}, "none of"),
        ({"command": []}, "empty"),
        ({"command": ["/bin/x"], "command_seconds": 0.0}, "0 s"),
        ({"http": {"url": "ftp://127.0.0.1/"}}, "not an http"),
        ({"http": {"url": "http://127.0.0.1/", "status": []}}, "no status"),
    ],
)
def test_what_makes_no_sense(options: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError) as caught:
        hook(**options)
    assert caught.value.code == "hook_invalid" and why in caught.value.message
    assert caught.value.message.startswith("before_capture of train")


def test_limits_of_time() -> None:
    for options, seconds in (
        ({"command": ["/bin/x"]}, 30.0),
        ({"command": ["/bin/x"], "command_seconds": 7.0}, 7.0),
        ({"http": {"url": "http://127.0.0.1/"}}, 30.0),
        ({"http": {"url": "http://127.0.0.1/", "seconds": 8.0}}, 8.0),
    ):
        found = hook(**options)
        assert found is not None and found.target.seconds == seconds


@pytest.mark.every_python
def test_a_request_is_made_once(client: Client, server: Server) -> None:
    done = probe_hook.run(client, requesting(server, 200))
    assert (done.kind, done.ok) == ("http", True)
    probe_hook.run(client, requesting(server, 202, method="PUT", body="{}", headers={"X-Token": "s3"}, status=[202]))
    assert server.asked == [("POST", "/200", "", ""), ("PUT", "/202", "{}", "s3")]


def test_a_refusal_is_not_tried_again(client: Client, server: Server) -> None:
    with pytest.raises(RestoreError) as caught:
        probe_hook.run(client, requesting(server, 503))
    error = caught.value
    assert (error.code, error.details["hook"], error.details["status"]) == ("hook_failed", BEFORE_CAPTURE, 503)
    assert error.message.startswith("before_capture failed: ")
    assert len(server.asked) == 1


def test_nobody_answers(client: Client, server: Server) -> None:
    wanted = requesting(server, 200)
    server.server_close()
    with pytest.raises(RestoreError) as caught:
        probe_hook.run(client, wanted)
    assert "did not answer" in caught.value.message


def test_a_container_without_a_task_is_not_asked(fake: FakeContainerd, client: Client, server: Server) -> None:
    for options in ({"http": {"url": f"http://127.0.0.1:{server.server_port}/200"}}, {"command": ["/bin/x"]}):
        wanted = hook(**options)
        assert wanted is not None
        with pytest.raises(RestoreError) as caught:
            probe_hook.run(client, wanted)
        assert caught.value.code == "hook_failed"
    assert server.asked == []


def test_secrets_are_not_shown(server: Server) -> None:
    assert "s3cret" not in repr(requesting(server, 200, headers={"X-Token": "s3cret"}))
