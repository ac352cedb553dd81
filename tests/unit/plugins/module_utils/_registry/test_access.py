# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of registries, credentials, and where they go: to the registry and its token server, and nowhere else."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._registry import (
    credentials as registry_credentials,
    reference as registry_reference,
)
from ansible_collections.gpuops.restore.plugins.module_utils._registry.credentials import Credentials
from ansible_collections.gpuops.restore.plugins.module_utils._registry.http import Settings, Transport
from ansible_collections.gpuops.restore.plugins.module_utils._registry.repository import Repository
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_registry import FakeRegistry, Handler, running

USER = Credentials("trainer", "correct horse")
BASIC = "Basic " + base64.b64encode(b"trainer:correct horse").decode()


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with running() as found:
        yield found


@pytest.fixture
def elsewhere() -> Iterator[FakeRegistry]:
    """Another server: of tokens, of blobs, or of nobody's."""
    with running() as found:
        yield found


def repository(registry: FakeRegistry, credentials: Credentials = USER) -> Repository:
    reference = registry_reference.parse(f"{registry.host}/team/app:1")
    settings = Settings(registry.url, credentials, "repository:team/app:pull", timeout=5.0)
    return Repository(Transport(settings), reference, sleep=lambda _seconds: None)


def refusal(act: Any, *arguments: Any) -> RestoreError:
    with pytest.raises(RestoreError) as caught:
        act(*arguments)
    assert caught.value.remedy and "correct horse" not in caught.value.sentence()
    return caught.value


# --- manifests


@pytest.mark.parametrize(("length", "whole"), [("2", True), ("\xb2", True), ("3", False), ("9" * 5000, False)])
def test_a_manifest_as_long_as_announced(registry: FakeRegistry, length: str, whole: bool) -> None:
    registry.answer("GET", "/manifests/", 200, body=b"{}", Content_Length=length)
    if whole:
        assert repository(registry).manifest() == b"{}"
    else:
        assert refusal(repository(registry).manifest).code == "registry_unreachable"


@pytest.mark.parametrize("header", ["\xb2", "-1", "nan", "soon"])
def test_a_pause_that_is_no_number_of_seconds(registry: FakeRegistry, header: str) -> None:
    registry.answer("GET", "/manifests/", 503, times=1, Retry_After=header)
    assert repository(registry).manifest() is None


# --- references


@pytest.mark.parametrize(
    ("text", "host", "repository_name", "tag"),
    [
        ("registry.test:5000/a/b-c__d.e:v1.2", "registry.test:5000", "a/b-c__d.e", "v1.2"),
        ("localhost/app:1", "localhost", "app", "1"),
        ("[::1]:5000/app:1", "[::1]:5000", "app", "1"),
        ("10.0.0.1/app@sha256:" + 64 * "a", "10.0.0.1", "app", ""),
        ("docker.io/library/app:1@sha256:" + 64 * "a", "docker.io", "library/app", "1"),
    ],
)
def test_references(text: str, host: str, repository_name: str, tag: str) -> None:
    found = registry_reference.parse(text)
    assert (found.host, found.repository, found.tag, str(found)) == (host, repository_name, tag, text)


@pytest.mark.parametrize(
    "text",
    [
        "app:1",
        "team/app:1",
        "registry.test/app",
        "registry.test/App:1",
        "registry.test/../app:1",
        "registry.test/app:1 ",
        "registry.test/app:1\n",
        "user@registry.test/app:1",
        "https://registry.test/app:1",
        "registry.test/app@sha256:" + 63 * "a",
        "registry.test/app:" + 129 * "a",
        "registry.test/a?b:1",
    ],
)
def test_what_is_no_reference(text: str) -> None:
    assert refusal(registry_reference.parse, text).code == "registry_reference_invalid"


def test_a_push_is_to_a_tag() -> None:
    digest = "@sha256:" + 64 * "a"
    for text in ("registry.test/app" + digest, "registry.test/app:1" + digest):
        assert refusal(registry_reference.for_push, text).code == "registry_reference_invalid"


@pytest.mark.parametrize(
    ("server", "insecure", "url"),
    [
        ("", False, "https://registry.test"),
        ("https://10.0.0.1:5000/", False, "https://10.0.0.1:5000"),
        ("http://127.0.0.2:5000", False, "http://127.0.0.2:5000"),
        ("http://[::1]:5000", False, "http://[::1]:5000"),
        ("http://localhost", False, "http://localhost"),
        ("http://10.0.0.1", True, "http://10.0.0.1"),
        ("http://10.0.0.1", False, "registry_plain_http"),
        ("http://localhost.example", False, "registry_plain_http"),
        ("http://127.0.0.1@example.test", False, "registry_server_invalid"),
        ("ftp://127.0.0.1", False, "registry_server_invalid"),
        ("registry.test", False, "registry_server_invalid"),
        ("https://registry.test?x", False, "registry_server_invalid"),
    ],
)
def test_plain_http_only_to_the_node_itself(server: str, insecure: bool, url: str) -> None:
    reference = registry_reference.parse("registry.test/app:1")
    if url.startswith("http"):
        assert registry_reference.server_url(reference, server, insecure) == url
    else:
        assert refusal(registry_reference.server_url, reference, server, insecure).code == url


# --- credentials


def test_challenges_are_taken_apart() -> None:
    header = 'Bearer realm="https://auth.test/token",service="a, \\"b\\"",scope="x:y:pull,push", Basic realm=lab'
    assert registry_credentials.challenges([header]) == {
        "bearer": {"realm": "https://auth.test/token", "service": 'a, "b"', "scope": "x:y:pull,push"},
        "basic": {"realm": "lab"},
    }
    assert registry_credentials.challenges(["Negotiate", "Basic"]) == {"negotiate": {}, "basic": {}}
    for broken in ("", ",,,", '="', "Bearer realm=", 'Bearer realm="x', "\x00" * 50):
        registry_credentials.challenges([broken])


def auth(pair: bytes) -> dict[str, str]:
    return {"auth": base64.b64encode(pair).decode()}


def test_the_most_specific_entry_of_an_auth_file_counts(tmp_path: Path) -> None:
    path = tmp_path / "auth.json"
    entries = {"registry.test/team/app": auth(b"c:d"), "https://registry.test/": auth(b"a:b:e"), "other": auth(b"e:f")}
    path.write_text(json.dumps({"auths": entries}))
    parse = registry_reference.parse
    assert registry_credentials.from_file(str(path), parse("registry.test/team/app:1")) == Credentials("c", "d")
    assert registry_credentials.from_file(str(path), parse("registry.test/team/apps:1")) == Credentials("a", "b:e")
    assert not registry_credentials.from_file(str(path), parse("third.test/app:1"))
    path.write_text(json.dumps({"auths": {"https://index.docker.io/v1/": auth(b"a:b")}}))
    assert registry_credentials.from_file(str(path), parse("docker.io/library/app:1")) == Credentials("a", "b")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"auths": [1]}',
        '{"auths": {"registry.test": {"auth": "c2VjcmV0"}}}',
        '{"auths": {"registry.test": {"auth": "!secret"}}}',
        '{"auths": {"registry.test": {"identitytoken": "secret"}}}',
        '{"auths": {"registry.test": {}}, "credsStore": "secret"}',
        '{"auths": {}, "credHelpers": {"registry.test": "secret"}}',
        '{"auths": ' + 5000 * "[",
        " " * (1 << 20) + "{}",
    ],
)
def test_an_auth_file_that_cannot_be_used(tmp_path: Path, text: str) -> None:
    path = tmp_path / "auth.json"
    path.write_text(text)
    error = refusal(registry_credentials.from_file, str(path), registry_reference.parse("registry.test/app:1"))
    assert error.code == "registry_auth_file_invalid" and "secret" not in error.sentence()


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
