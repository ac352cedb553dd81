# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Leases, on the test double of containerd."""

from __future__ import annotations

import contextlib
import datetime
import os
import subprocess

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd import leases
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.leases import Lease, LeaseParams
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError, RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._host import processes
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

NOON = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.timezone.utc)
EXPIRE = "containerd.io/gc.expire"
OWNER = "io.gpuops.restore/owner"
PROCESS = "io.gpuops.restore/process"


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
    assert leases.expired(Lease("a", {EXPIRE: expires}), NOON) is expected


def test_result_shows_only_the_callers_labels() -> None:
    lease = Lease("a", {EXPIRE: "2026-01-31T11:00:00Z", OWNER: "me", "purpose": "test"})
    expected = {"id": "a", "expires": "2026-01-31T11:00:00Z", "labels": {"purpose": "test"}, "owner": "me"}
    assert leases.describe(lease) == expected


def test_present_and_absent(fake: FakeContainerd, client: Client) -> None:
    params = LeaseParams("mine", 60, {"purpose": "test"})
    assert leases.present(client, params, check=True).changed and not fake.state.leases
    done = leases.present(client, params, check=False)
    assert done.changed and fake.state.leases["mine"][OWNER] == "gpuops.restore"
    again = leases.present(client, params, check=False)
    assert not again.changed and again.lease == done.lease and not again.warnings
    assert leases.present(client, LeaseParams("mine", 60, labels={"other": "1"}), check=False).warnings
    assert leases.absent(client, params, check=True).changed and fake.state.leases
    assert leases.absent(client, params, check=False).changed and not fake.state.leases
    assert not leases.absent(client, params, check=False).changed


def test_an_expired_one_is_made_anew(fake: FakeContainerd, client: Client) -> None:
    fake.state.leases["mine"] = {OWNER: "gpuops.restore", EXPIRE: "2020-01-01T00:00:00Z"}
    done = leases.present(client, LeaseParams("mine"), check=False)
    assert done.changed and done.before == "expired"
    assert fake.state.leases["mine"][EXPIRE] > "2020-01-01T00:00:00Z"


def test_it_lasts_as_long_as_its_bytes_take(fake: FakeContainerd, client: Client) -> None:
    client.rate = 100e6
    leases.present(client, LeaseParams("mine", bytes=640 * 10**9), check=False)
    left = fake.state.expiries()[0] - datetime.datetime.now(datetime.timezone.utc)
    assert left.total_seconds() == pytest.approx(3600 + 6400, abs=60)


@pytest.mark.parametrize(("minutes", "stays"), [(40, True), (20, False)])
def test_one_that_would_expire_before_the_work_is_done_is_made_anew(
    fake: FakeContainerd, client: Client, minutes: int, stays: bool
) -> None:
    expires = (NOON + datetime.timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    fake.state.leases["mine"] = {OWNER: "gpuops.restore", EXPIRE: expires}
    done = leases.present(client, LeaseParams("mine"), check=False, now=lambda: NOON)
    assert (done.changed, done.before) == ((False, "present") if stays else (True, "expiring"))
    assert (fake.state.leases["mine"][EXPIRE] == expires) is stays


def test_refusals(fake: FakeContainerd, client: Client) -> None:
    fake.state.leases["theirs"] = {}
    for act in (leases.present, leases.absent):
        with pytest.raises(RestoreError) as caught:
            act(client, LeaseParams("theirs"), False)
        assert caught.value.code == "lease_not_ours"
    for params in (
        LeaseParams(""),
        LeaseParams("a/b"),
        LeaseParams("a", 0),
        LeaseParams("a", bytes=-1),
        LeaseParams("a", labels={EXPIRE: "never"}),
    ):
        with pytest.raises(RestoreError) as caught:
            leases.present(client, params, False)
        assert caught.value.code == "lease_invalid"
    assert list(fake.state.leases) == ["theirs"]
    assert leases.absent(client, LeaseParams("theirs", force=True), False).changed


# --- what a run that was killed leaves


def test_an_abandoned_lease_is_told_in_check_mode_and_goes_otherwise(fake: FakeContainerd, client: Client) -> None:
    own = leases.own_id("stage x")
    fake.state.leases[own] = {OWNER: "gpuops.restore"}
    fake.state.leases["mine"] = {}
    assert leases.drop_abandoned(client, "stage x", check=True) is True
    assert own in fake.state.leases and fake.count("Leases/Delete") == 0
    assert leases.drop_abandoned(client, "stage x", check=False) is True
    assert list(fake.state.leases) == ["mine"]


@pytest.mark.parametrize("check", [True, False])
def test_without_an_abandoned_lease_nothing_is_told_nor_deleted(
    fake: FakeContainerd, client: Client, check: bool
) -> None:
    fake.state.leases[leases.own_id("stage y")] = {}
    assert leases.drop_abandoned(client, "stage x", check) is False
    assert list(fake.state.leases) == [leases.own_id("stage y")]
    assert fake.count("Leases/Delete") == 0


def test_what_killed_runs_left_goes_and_what_other_runs_work_under_stays(fake: FakeContainerd, client: Client) -> None:
    here = processes.identity(os.getpid())
    boot, pid, begun = here.split("/")
    fake.state.leases.update(
        {
            "of-a-live-run": {PROCESS: here},
            "of-a-killed-run": {PROCESS: f"{boot}/{pid}/{int(begun) - 1}"},
            "of-another-boot": {PROCESS: f"another/{pid}/{begun}"},
            "nonsense": {PROCESS: "nonsense"},
            "the-operator's": {},
            # Those of earlier releases name no process.
            leases._purpose_id("stage x"): {OWNER: "gpuops.restore"},
            leases._purpose_id("stage y"): {OWNER: "gpuops.restore"},
        }
    )
    own = leases.own_id("stage x")
    with leases.hold(client, None, "stage x", 60):
        assert fake.state.leases[own].keys() == {OWNER, EXPIRE, PROCESS}
        assert processes.lives(fake.state.leases[own][PROCESS])
        client.call("containerd.services.leases.v1.Leases/List")
        assert fake.seen[-1].metadata["containerd-lease"] == own
    assert set(fake.state.leases) == {"of-a-live-run", "the-operator's", leases._purpose_id("stage y")}


@pytest.mark.parametrize("fails", [False, True])
def test_what_goes_on_with_a_killed_run_lets_its_lease_go_at_the_end(
    fake: FakeContainerd, client: Client, fails: bool
) -> None:
    fake.state.leases["of-a-killed-run"] = {PROCESS: "another-boot/1/2"}
    with contextlib.suppress(InputError), leases.hold(client, None, "stage x", goes_on=True):
        assert set(fake.state.leases) == {"of-a-killed-run", leases.own_id("stage x")}
        if fails:
            raise InputError("a_b", "It fails.")
    assert fake.state.leases == {}


def test_two_runs_with_one_purpose_keep_their_leases(
    fake: FakeContainerd, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what the other one builds nor its lease is pulled away from under it."""
    with leases.hold(client, None, "stage x"):
        first = leases.own_id("stage x")
        with subprocess.Popen(["sleep", "60"]) as process:
            monkeypatch.setattr(leases.os, "getpid", lambda: process.pid)
            with leases.hold(client, None, "stage x"):
                assert set(fake.state.leases) == {first, leases.own_id("stage x")} and len(fake.state.leases) == 2
            assert set(fake.state.leases) == {first}
            monkeypatch.undo()
            process.kill()
    assert fake.state.leases == {}


def test_a_given_lease_has_to_be_there_and_stays(fake: FakeContainerd, client: Client) -> None:
    with pytest.raises(RestoreError) as caught, leases.hold(client, "mine", "stage x"):
        pytest.fail("the block must not run")
    assert caught.value.code == "lease_absent"
    fake.state.leases["mine"] = {}
    with leases.hold(client, "mine", "stage x"):
        assert list(fake.state.leases) == ["mine"]
    assert list(fake.state.leases) == ["mine"]


@pytest.mark.parametrize("failing", [False, True])
def test_garbage_is_collected_before_a_failure_is_told_and_later_otherwise(
    fake: FakeContainerd, client: Client, failing: bool
) -> None:
    with contextlib.suppress(ValueError), leases.hold(client, None, "stage x"):
        if failing:
            raise ValueError("no luck")
    assert [call.request.sync for call in fake.seen if call.name == "Leases/Delete"] == [failing]


def test_a_lease_that_cannot_be_deleted_hides_no_failure_and_makes_none(fake: FakeContainerd, client: Client) -> None:
    fake.fail("Leases/Delete", "INTERNAL", "no luck")
    with leases.hold(client, None, "stage x"):
        pass
    fake.heal()
    fake.state.leases.clear()
    fake.fail("Leases/Delete", "INTERNAL", "no luck")
    with pytest.raises(InputError) as caught, leases.hold(client, None, "stage x"):
        raise InputError("blob_missing", "It is gone.", "Pull it.")
    assert caught.value.code == "blob_missing"
    assert leases.own_id("stage x") in str(caught.value.details["left_behind"])


def test_a_lease_is_deleted_once_more_where_the_daemon_went_away_meanwhile(
    fake: FakeContainerd, client: Client
) -> None:
    fake.state.leases["mine"] = {}
    fake.drop("Leases/Delete", times=1)
    assert leases.delete(client, "mine")
    assert fake.state.leases == {}
    assert not leases.delete(client, "mine")
