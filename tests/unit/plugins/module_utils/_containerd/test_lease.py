# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Leases, on the test double of containerd."""

from __future__ import annotations

import datetime

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd import lease as containerd_lease
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.lease import LeaseParams
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.leases import Lease
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RestoreError
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

NOON = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.timezone.utc)
EXPIRE = "containerd.io/gc.expire"
OWNER = "io.gpuops.restore/owner"


@pytest.mark.parametrize(
    ("expires", "expected"),
    [
        ("", False),
        ("2026-01-31T11:59:59Z", True),
        ("2026-01-31T12:00:01Z", False),
        ("2026-01-31T12:30:00+01:00", True),
        ("2026-01-31T11:59:59.5Z", True),
        ("soon", False),
    ],
)
def test_expired(expires: str, expected: bool) -> None:
    assert containerd_lease.expired(Lease("a", {EXPIRE: expires}), NOON) is expected


def test_result_shows_only_the_callers_labels() -> None:
    lease = Lease("a", {EXPIRE: "2026-01-31T11:00:00Z", OWNER: "me", "purpose": "test"})
    expected = {"id": "a", "expires": "2026-01-31T11:00:00Z", "labels": {"purpose": "test"}, "owner": "me"}
    assert containerd_lease.describe(lease) == expected


def test_present_and_absent(fake: FakeContainerd, client: Client) -> None:
    params = LeaseParams("mine", 60, {"purpose": "test"})
    assert containerd_lease.present(client, params, check=True).changed and not fake.state.leases
    done = containerd_lease.present(client, params, check=False)
    assert done.changed and fake.state.leases["mine"][OWNER] == "gpuops.restore"
    again = containerd_lease.present(client, params, check=False)
    assert not again.changed and again.lease == done.lease and not again.warnings
    assert containerd_lease.present(client, LeaseParams("mine", labels={"other": "1"}), check=False).warnings
    assert containerd_lease.absent(client, params, check=True).changed and fake.state.leases
    assert containerd_lease.absent(client, params, check=False).changed and not fake.state.leases
    assert not containerd_lease.absent(client, params, check=False).changed


def test_an_expired_one_is_made_anew(fake: FakeContainerd, client: Client) -> None:
    fake.state.leases["mine"] = {OWNER: "gpuops.restore", EXPIRE: "2020-01-01T00:00:00Z"}
    done = containerd_lease.present(client, LeaseParams("mine"), check=False)
    assert done.changed and done.before == "expired"
    assert fake.state.leases["mine"][EXPIRE] > "2020-01-01T00:00:00Z"


def test_refusals(fake: FakeContainerd, client: Client) -> None:
    fake.state.leases["theirs"] = {}
    for act in (containerd_lease.present, containerd_lease.absent):
        with pytest.raises(RestoreError) as caught:
            act(client, LeaseParams("theirs"), False)
        assert caught.value.code == "lease_not_ours"
    for params in (
        LeaseParams(""),
        LeaseParams("a/b"),
        LeaseParams("a", 0),
        LeaseParams("a", labels={EXPIRE: "never"}),
    ):
        with pytest.raises(RestoreError) as caught:
            containerd_lease.present(client, params, False)
        assert caught.value.code == "lease_invalid"
    assert list(fake.state.leases) == ["theirs"]
    assert containerd_lease.absent(client, LeaseParams("theirs", force=True), False).changed
