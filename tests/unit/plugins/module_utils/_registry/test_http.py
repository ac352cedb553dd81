# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where requests and credentials go: to the registry and its token server, and nowhere else."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._registry import reference as registry_reference
from ansible_collections.gpuops.restore.plugins.module_utils._registry.credentials import Credentials
from ansible_collections.gpuops.restore.plugins.module_utils._registry.http import Settings, Transport
from ansible_collections.gpuops.restore.plugins.module_utils._registry.repository import Repository
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_registry import (
    USER,
    FakeRegistry,
    Handler,
    refusal,
    repository,
    running,
)

pytestmark = pytest.mark.every_python

BASIC = "Basic " + base64.b64encode(b"trainer:correct horse").decode()


@pytest.fixture
def elsewhere() -> Iterator[FakeRegistry]:
    """Another server: of tokens, of blobs, or of nobody's."""
    with running() as found:
        yield found


def test_basic_is_sent_once_asked_for(registry: FakeRegistry) -> None:
    registry.authorization, registry.challenge = BASIC, 'Basic realm="lab"'
    assert repository(registry).manifest() is None
    assert [seen.headers.get("Authorization") for seen in registry.seen] == [None, BASIC]
    assert refusal(repository(registry, Credentials()).manifest).code == "registry_denied"
    assert refusal(repository(registry, Credentials("trainer", "wrong")).manifest).code == "registry_denied"


def test_a_token_comes_from_the_token_server(registry: FakeRegistry, elsewhere: FakeRegistry) -> None:
    registry.authorization = "Bearer t0ken"
    registry.challenge = f'Bearer realm="{elsewhere.url}/token?x=1",service="lab",scope="repository:other:*"'
    elsewhere.answer("GET", "/token", 200, body=b'{"token": "t0ken"}')
    assert repository(registry).manifest() is None
    assert [seen.headers.get("Authorization") for seen in elsewhere.seen] == [BASIC]
    assert elsewhere.seen[0].path == "/token?x=1&scope=repository%3Ateam%2Fapp%3Apull&service=lab&account=trainer"
    assert [seen.headers.get("Authorization") for seen in registry.seen] == [None, "Bearer t0ken"]


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b"x", b'{"token": 1}', b'{"token": "a\\nb"}', b'"' + 2 * (1 << 20) * b"a"]
)
def test_a_token_server_that_gives_none(registry: FakeRegistry, elsewhere: FakeRegistry, body: bytes) -> None:
    registry.authorization, registry.challenge = "Bearer t0ken", f'Bearer realm="{elsewhere.url}/token"'
    elsewhere.answer("GET", "/token", 200, body=body)
    assert refusal(repository(registry).manifest).code == "registry_answer_invalid"


@pytest.mark.parametrize(
    "realm", ["http://192.0.2.1/token", "file:///etc/shadow", "//192.0.2.1", "https://u:p@192.0.2.1"]
)
def test_passwords_do_not_go_just_anywhere(registry: FakeRegistry, realm: str) -> None:
    registry.authorization, registry.challenge = "Bearer t0ken", f'Bearer realm="{realm}"'
    assert refusal(repository(registry).manifest).code in ("registry_plain_http", "registry_redirect_refused")


def test_a_token_of_ours_is_not_traded(registry: FakeRegistry, elsewhere: FakeRegistry) -> None:
    registry.authorization, registry.challenge = "Bearer other", f'Bearer realm="{elsewhere.url}/token"'
    error = refusal(repository(registry, Credentials(token="t0ken")).manifest)
    assert error.code == "registry_denied" and not elsewhere.seen


def test_secrets_that_come_back_are_not_shown(registry: FakeRegistry) -> None:
    def echo(handler: Handler) -> bool:
        sent = handler.headers.get("Authorization")
        if not sent:
            return False
        text = f"{sent} {base64.b64decode(sent[6:]).decode()}\n\x1b[0m"
        handler.reply(400, json.dumps({"errors": [{"code": "ECHO", "message": text}]}).encode())
        return True

    registry.authorization, registry.challenge = BASIC, "Basic"
    registry.on("GET", "/manifests/", echo)
    error = refusal(repository(registry).manifest)
    assert error.code == "registry_refused" and "ECHO" in error.message
    assert BASIC[6:] not in error.message and "\x1b" not in error.message and "\n" not in error.message


def test_a_redirect_is_followed_without_credentials(registry: FakeRegistry, elsewhere: FakeRegistry) -> None:
    registry.authorization, registry.challenge = BASIC, "Basic"
    digest = elsewhere.put(b"data")
    target = f"{elsewhere.url}/v2/team/app/blobs/{digest}"

    def lead(handler: Handler) -> bool:
        if handler.headers.get("Authorization") != BASIC:
            return False
        handler.reply(307, Location=target)
        return True

    registry.on("GET", "/blobs/", lead)
    assert b"".join(repository(registry).blob(digest, 4)) == b"data"
    assert [seen.headers.get("Authorization") for seen in elsewhere.seen] == [None]


@pytest.mark.parametrize(
    "location", ["file:///etc/shadow", "http://u:p@127.0.0.1/", "http://192.0.2.1/", "", "http://x:99999/"]
)
def test_redirects_that_are_not_followed(registry: FakeRegistry, location: str) -> None:
    registry.answer("GET", "/blobs/", 302, Location=location)
    error = refusal(list, repository(registry).blob("sha256:" + 64 * "a", 4))
    assert error.code in ("registry_redirect_refused", "registry_plain_http")
    assert len(registry.seen) <= 6


def test_whoever_a_redirect_leads_to_may_not_ask_for_credentials(
    registry: FakeRegistry, elsewhere: FakeRegistry
) -> None:
    elsewhere.authorization, elsewhere.challenge = BASIC, f'Bearer realm="{elsewhere.url}/token"'
    registry.answer("GET", "/blobs/", 307, Location=f"{elsewhere.url}/v2/team/app/blobs/x")
    assert refusal(list, repository(registry).blob("sha256:" + 64 * "a", 4)).code == "registry_denied"
    assert [(seen.path, seen.headers.get("Authorization")) for seen in elsewhere.seen] == [
        ("/v2/team/app/blobs/x", None)
    ]


def test_https_is_not_left_for_plain_http() -> None:
    class Answer:
        url = "https://registry.test/v2/"

        def header(self, _name: str) -> str:
            return "http://127.0.0.1/"

    transport = Transport(Settings("https://registry.test", USER, ""))
    assert refusal(transport._redirected, "GET", Answer(), 1).code == "registry_redirect_refused"


def test_a_registry_on_the_node_is_asked_without_proxy(
    registry: FakeRegistry, elsewhere: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", elsewhere.url)
    assert repository(registry).manifest() is None
    assert not elsewhere.seen


def test_certificates_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("no certificate")
    for name in (str(path), str(tmp_path / "none")):
        error = refusal(Transport, Settings("https://registry.test", USER, "", ca_file=name))
        assert error.code == "registry_ca_file_invalid"


def test_plain_http_where_tls_is_expected(registry: FakeRegistry) -> None:
    transport = Transport(Settings(f"https://{registry.host}", USER, "", timeout=5.0))
    reference = registry_reference.parse(f"{registry.host}/team/app:1")
    assert refusal(Repository(transport, reference).manifest).code == "registry_tls"
