# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd import content
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import DATA_TIMEOUT, Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import (
    InputError,
    PreconditionError,
    RestoreError,
    RpcError,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import put
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

pytestmark = pytest.mark.every_python

DATA = bytes(range(256)) * 10000  # 2.4 MiB: more than two messages
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()


def test_stat_gives_size_and_labels(fake: FakeContainerd, client: Client) -> None:
    put(fake.state, DATA)
    fake.state.blobs[DIGEST].labels["a"] = "b"
    assert content.stat(client, DIGEST) == content.Blob(DIGEST, len(DATA), {"a": "b"})
    assert content.stat(client, "sha256:none") is None


def test_read_streams_all_bytes(fake: FakeContainerd, client: Client) -> None:
    put(fake.state, DATA)
    chunks = list(content.read(client, DIGEST, len(DATA)))
    assert len(chunks) == 3
    assert b"".join(chunks) == DATA


@pytest.mark.parametrize(
    ("size", "rate", "slow_end", "seconds"),
    [
        (len(DATA), 50e6, False, DATA_TIMEOUT),
        (640 * 10**9, 50e6, False, 12800),
        (640 * 10**9, 5e6, False, 128000),
        (100 << 30, 50e6, True, 100 << 10),
        (100 << 30, 1 << 19, True, 200 << 10),
    ],
)
def test_the_time_allowed_follows_from_the_size(
    fake: FakeContainerd, client: Client, size: int, rate: float, slow_end: bool, seconds: float
) -> None:
    given: list[float] = []
    for call in ("Content/Read", "Content/Write"):
        fake.on(call, lambda context: given.append(context.time_remaining()))
    put(fake.state, DATA)
    client.rate = rate
    with contextlib.suppress(RestoreError):
        list(content.read(client, DIGEST, size, client.seconds_for(size, slow_end) if slow_end else None))
    fake.state.blobs.clear()
    with contextlib.suppress(RestoreError):
        content.write(client, [DATA], DIGEST, size, {}, slow_end)
    # gRPC rounds long ones to whole minutes or hours.
    assert len(given) == 2 and all(abs(each - seconds) < seconds / 20 for each in given), given


def test_the_head_of_a_blob(fake: FakeContainerd, client: Client) -> None:
    put(fake.state, DATA)
    assert content.head(client, DIGEST, 8) == DATA[:8]
    assert content.head(client, DIGEST, len(DATA) + 1) == DATA
    with pytest.raises(InputError) as caught:
        content.head(client, "sha256:" + "0" * 64, 8)
    assert caught.value.code == "blob_missing"


def test_a_missing_blob_says_which(client: Client) -> None:
    with pytest.raises(InputError) as caught:
        list(content.read(client, DIGEST, 5))
    assert caught.value.code == "blob_missing"
    assert DIGEST in caught.value.message


@pytest.mark.parametrize("claimed", [len(DATA) + 1, len(DATA) - 1, 0])
def test_another_size_than_claimed_is_truncated(fake: FakeContainerd, client: Client, claimed: int) -> None:
    put(fake.state, DATA)
    with pytest.raises(InputError) as caught:
        list(content.read(client, DIGEST, claimed))
    assert caught.value.code == "blob_truncated"
    found = caught.value.details.pop("found")
    assert caught.value.details == {"digest": DIGEST, "expected": claimed}
    # What is larger than it claims to be is not read to its end.
    assert found == len(DATA) if claimed > len(DATA) else claimed < found <= len(DATA)


def test_read_all_verifies_the_digest(fake: FakeContainerd, client: Client) -> None:
    put(fake.state, DATA)
    assert content.read_all(client, DIGEST, len(DATA)) == DATA
    fake.state.blobs[DIGEST].data = b"x" + DATA[1:]
    with pytest.raises(InputError) as caught:
        content.read_all(client, DIGEST, len(DATA))
    assert caught.value.code == "blob_digest"


def test_a_document_that_claims_to_be_huge_is_not_even_asked_for(fake: FakeContainerd, client: Client) -> None:
    with pytest.raises(InputError) as caught:
        content.read_all(client, DIGEST, 1 << 40)
    assert caught.value.code == "blob_too_large"
    assert fake.seen == []


def test_a_blob_larger_than_it_claims_is_refused(fake: FakeContainerd, client: Client) -> None:
    put(fake.state, DATA)
    with pytest.raises(InputError):
        content.read_all(client, DIGEST, 10, limit=100)


def test_write_uploads_in_pieces_with_size_digest_and_labels(fake: FakeContainerd, client: Client) -> None:
    assert content.write(client, [DATA[:10], DATA[10:]], DIGEST, len(DATA), {"a": "b"}) is True
    assert fake.state.blobs[DIGEST].data == DATA
    assert fake.state.blobs[DIGEST].labels == {"a": "b"}
    assert fake.state.ingests == {}


def test_an_empty_blob_can_be_written(fake: FakeContainerd, client: Client) -> None:
    empty = "sha256:" + hashlib.sha256(b"").hexdigest()
    assert content.write(client, [], empty, 0, {}) is True
    assert fake.state.blobs[empty].data == b""


def test_what_is_there_already_is_success(fake: FakeContainerd, client: Client) -> None:
    put(fake.state, DATA)
    before = fake.state.listing()
    assert content.write(client, [DATA], DIGEST, len(DATA), {}) is False
    assert fake.state.listing() == before


@pytest.mark.parametrize("size", [len(DATA), len(DATA) - 1])
def test_what_the_daemon_refuses_is_aborted(fake: FakeContainerd, client: Client, size: int) -> None:
    data = DATA[:-1] + b"?"
    with pytest.raises(PreconditionError):
        content.write(client, [data], DIGEST, size, {})
    assert fake.state.ingests == {}
    assert fake.state.blobs == {}


class SourceError(Exception):
    """The reader of an archive failed."""


def test_a_failing_source_aborts_and_its_own_error_is_raised(fake: FakeContainerd, client: Client) -> None:
    def chunks() -> Iterator[bytes]:
        yield DATA
        raise SourceError("bad archive")

    with pytest.raises(SourceError, match="bad archive"):
        content.write(client, chunks(), DIGEST, len(DATA), {})
    assert fake.count("Content/Abort") == 1
    assert fake.state.blobs == {}


@pytest.mark.parametrize("status", ["INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED"])
def test_a_failing_daemon_leaves_no_ingest(fake: FakeContainerd, client: Client, status: str) -> None:
    fake.fail("Content/Write", status)
    with pytest.raises(RpcError) as caught:
        content.write(client, [DATA], DIGEST, len(DATA), {})
    assert caught.value.details["status"] == status
    assert fake.count("Content/Abort") == 1


def test_a_failing_abort_does_not_hide_the_reason(fake: FakeContainerd, client: Client) -> None:
    fake.fail("Content/Write", "INTERNAL", "disk full")
    fake.fail("Content/Abort", "INTERNAL", "abort failed")
    with pytest.raises(RpcError, match="disk full"):
        content.write(client, [DATA], DIGEST, len(DATA), {})


def test_labels_are_added_and_the_others_stay(fake: FakeContainerd, client: Client) -> None:
    put(fake.state, DATA)
    fake.state.blobs[DIGEST].labels["old"] = "1"
    content.set_labels(client, DIGEST, {"containerd.io/gc.ref.content.0": "sha256:x"})
    assert fake.state.blobs[DIGEST].labels == {"old": "1", "containerd.io/gc.ref.content.0": "sha256:x"}
