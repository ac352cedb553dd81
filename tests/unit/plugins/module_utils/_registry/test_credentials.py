# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._registry import (
    credentials as registry_credentials,
    reference as registry_reference,
)
from ansible_collections.gpuops.restore.plugins.module_utils._registry.credentials import Credentials
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_registry import refusal


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
