# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import NodeError
from ansible_collections.gpuops.restore.plugins.module_utils._transfer import certificate


def test_addresses_and_names() -> None:
    found = certificate.alternative_names(["192.0.2.10", "2001:DB8::1", "gpu-a.example"])
    assert found == "IP:192.0.2.10,IP:2001:db8::1,DNS:gpu-a.example"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (None, "openssl_missing"),
        ("echo 'unknown option -addext' >&2; exit 1", "openssl_failed"),
        ("echo nothing", "openssl_failed"),
        ("printf -- '-----BEGIN PRIVATE KEY-----\\nsecret\\n-----END PRIVATE KEY-----\\n'", "openssl_failed"),
    ],
)
def test_no_certificate(tmp_path: pathlib.Path, script: Any, code: str) -> None:
    if script is not None:
        program = tmp_path / "openssl"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    with pytest.raises(NodeError) as caught:
        certificate.make(["127.0.0.1"], str(tmp_path))
    assert caught.value.code == code and "secret" not in caught.value.sentence()
