# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd


def test_made_once_and_deleted_once(call: Call, fake: FakeContainerd) -> None:
    options: dict[str, Any] = {"id": "mine", "expire_seconds": 60, "labels": {"for": 1}}
    predicted = call("containerd_lease", True, **options)
    assert fake.state.leases == {}
    made = call("containerd_lease", **options)
    assert (predicted["changed"], predicted["actions"], predicted["diff"]) == (True, made["actions"], made["diff"])
    assert (made["lease"]["id"], made["lease"]["labels"]["for"]) == ("mine", "1")
    assert made["lease"]["owner"] == "gpuops.restore"
    assert call("containerd_lease", **options)["changed"] is False
    assert call("containerd_lease", id="mine", state="absent")["changed"] is True
    assert call("containerd_lease", id="mine", state="absent")["lease"] == {}


def test_somebody_elses_takes_force(call: Call, fake: FakeContainerd) -> None:
    fake.state.leases["theirs"] = {}
    refused = call("containerd_lease", id="theirs", state="absent")
    assert (refused["failure"]["code"], refused["failure"]["details"]["lease"]) == ("lease_not_ours", "theirs")
    assert call("containerd_lease", id="theirs", state="absent", force=True)["changed"] is True
    assert call("containerd_lease", id="other", owner="me")["lease"]["owner"] == "me"
