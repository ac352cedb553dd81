# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd import content, daemon, space
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core import files
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RETRYABLE, NodeError, RpcError
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd


@pytest.fixture(autouse=True)
def thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand bytes are free, where the content store lies and nowhere else."""
    monkeypatch.setattr(daemon, "data_roots", lambda _plugins: {"content": "/data/content", "snapshots": "/data"})
    monkeypatch.setattr(files, "free_bytes", lambda path: {"/data/content": 1000}[path])


def test_what_fits_exactly_fits(client: Client) -> None:
    space.require(client, "The archive a.tar brings", 1000)
    with pytest.raises(NodeError) as caught:
        space.require(client, "The archive a.tar brings", 1001)
    error = caught.value
    assert (error.code, error.outcome) == ("content_no_space", RETRYABLE)
    assert error.details == {"needed": 1001, "free": 1000, "path": "/data/content"}
    assert error.message == (
        "The archive a.tar brings 1001 bytes, but only 1000 are free in containerd's content store /data/content."
    )


def test_nothing_needs_no_room(fake: FakeContainerd, client: Client) -> None:
    space.require(client, "The checkpoint a brings", 0)
    assert fake.seen == []


def test_a_store_that_is_not_known_is_not_judged(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "data_roots", lambda _plugins: {"content": "", "snapshots": ""})
    assert space.content_store(client) == space.ContentStore("", None)
    space.require(client, "The archive a.tar brings", 1 << 60)


def test_more_than_anybody_counted() -> None:
    error = space.shortage(space.ContentStore("/c", 7), "The checkpoint /d needs", None)
    assert error.message == "The checkpoint /d needs more, but only 7 are free in containerd's content store /c."
    assert error.details == {"needed": None, "free": 7, "path": "/c"}


def test_a_call_that_found_no_space_is_explained(fake: FakeContainerd, client: Client) -> None:
    fake.fail("Content/Info", "UNKNOWN", "write /x: no space left on device")
    with pytest.raises(NodeError) as caught, space.explained("during the pull"):
        content.stat(client, "sha256:" + 64 * "1")
    error = caught.value
    assert (error.code, error.outcome) == ("content_no_space", RETRYABLE)
    assert error.message == "containerd's content store ran out of space during the pull."
    assert error.rpc == "containerd.services.content.v1.Content/Info"


def test_any_other_failure_stays_what_it_is(fake: FakeContainerd, client: Client) -> None:
    fake.fail("Content/Info", "UNKNOWN", "read /x: input/output error")
    with pytest.raises(RpcError, match="input/output error"), space.explained("during the pull"):
        content.stat(client, "sha256:" + 64 * "1")
