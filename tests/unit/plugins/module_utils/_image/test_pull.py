# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import (
    DeadlineError,
    NotFoundError,
    RpcError,
    UnimplementedError,
)
from ansible_collections.gpuops.restore.plugins.module_utils._image import pull as image_pull

NAME = "example.test/app:1"


def failure(kind: type[RpcError], text: str) -> RpcError:
    return kind("rpc_failed", text, outcome="unknown", rpc="Transfer/Transfer", details={"text": text})


@pytest.mark.parametrize(
    ("error", "code", "outcome"),
    [
        (failure(UnimplementedError, "unknown service"), "pull_unsupported", "terminal"),
        (failure(NotFoundError, "no such tag"), "pull_not_found", "terminal"),
        (failure(RpcError, "unexpected status: 401 Unauthorized"), "pull_denied", "terminal"),
        (failure(RpcError, "pull access denied, repository does not exist"), "pull_denied", "terminal"),
        (failure(RpcError, "dial tcp 10.0.0.1:443: connect: connection refused"), "pull_failed", "retryable"),
        (failure(RpcError, "unexpected status: 503 Service Unavailable"), "pull_failed", "retryable"),
        (failure(RpcError, "http: server gave HTTP response to HTTPS client"), "pull_failed", "terminal"),
        (failure(RpcError, "something new"), "pull_failed", "unknown"),
    ],
)
def test_why_a_pull_failed(error: RpcError, code: str, outcome: str) -> None:
    found = image_pull.explain(NAME, error)
    assert (found.code, found.outcome) == (code, outcome)
    assert NAME in found.message and found.remedy


def test_a_pull_in_doubt_is_not_explained_away() -> None:
    error = failure(DeadlineError, "took too long")
    assert image_pull.explain(NAME, error) is error


def test_an_expected_digest_is_asked_for() -> None:
    assert image_pull.reference(NAME, "") == NAME
    assert image_pull.reference(NAME, "sha256:1") == f"{NAME}@sha256:1"
    assert image_pull.reference(f"{NAME}@sha256:2", "sha256:1") == f"{NAME}@sha256:2"
