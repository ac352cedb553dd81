# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._registry import reference as registry_reference
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_registry import refusal


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
