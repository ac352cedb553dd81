# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import io
from typing import Any

import pytest

from ansible_collections.gpuops.restore.tests.unit.helpers.fake_registry import FakeRegistry, refusal, repository

pytestmark = pytest.mark.every_python


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


@pytest.mark.parametrize(("size", "seconds"), [(1, 1800.0), (640 * 10**9, 12800.0)])
def test_the_registry_may_take_the_longer_over_a_blob_the_larger_it_is(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch, size: int, seconds: float
) -> None:
    found = repository(registry)
    given: list[float] = []

    def send(*words: Any) -> Any:
        given.append(words[-1])
        return io.BytesIO()

    monkeypatch.setattr(found._transport, "send", send)
    found._commit("http://registry.test/v2/a/blobs/uploads/1", "sha256:" + "0" * 64, size)
    assert given == [seconds]
