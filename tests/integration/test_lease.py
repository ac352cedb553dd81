# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd_lease on a real containerd."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from gpuops_lab import workload
from gpuops_lab.config import Node

RunModule = Callable[..., dict[str, Any]]
ExpectFailure = Callable[..., dict[str, Any]]
Unchanged = Callable[..., "contextlib.AbstractContextManager[None]"]


def test_there_and_gone(node: Node, run_module: RunModule, unchanged: Unchanged) -> None:
    params = {"id": "mine", "labels": {"purpose": "test"}}
    run_module("containerd_lease", params)
    run_module("containerd_lease", {"id": "mine", "state": "absent"})
    with unchanged():
        with unchanged():
            predicted = run_module("containerd_lease", params, check=True, diff=True)
        done = run_module("containerd_lease", params, diff=True)
        assert done["changed"] and predicted["changed"]
        assert predicted["diff"] == done["diff"] and predicted["actions"] == done["actions"]
        assert done["lease"]["expires"] and done["lease"]["labels"] == {"purpose": "test"}
        again = run_module("containerd_lease", params)
        assert not again["changed"] and again["lease"] == done["lease"]
        (listed,) = run_module("containerd_info", {})["leases"]
        assert listed == done["lease"]
        warned = run_module("containerd_lease", {"id": "mine", "labels": {"other": "1"}})
        assert not warned["changed"] and "other" in str(warned["warnings"])
        gone = run_module("containerd_lease", {"id": "mine", "state": "absent"}, check=True)
        assert gone["changed"]
        assert run_module("containerd_lease", {"id": "mine", "state": "absent"})["changed"]
        assert not run_module("containerd_lease", {"id": "mine", "state": "absent"})["changed"]


def test_expired_is_made_anew(run_module: RunModule) -> None:
    old = run_module("containerd_lease", {"id": "short", "expire_seconds": 1})["lease"]
    time.sleep(1.2)
    new = run_module("containerd_lease", {"id": "short"})
    assert new["changed"] and new["lease"]["expires"] > old["expires"]
    assert not run_module("containerd_lease", {"id": "short"})["changed"]
    run_module("containerd_lease", {"id": "short", "state": "absent"})


def test_somebody_elses(node: Node, run_module: RunModule, expect_failure: ExpectFailure, unchanged: Unchanged) -> None:
    workload.ctr(node, "k8s.io", "leases", "create", "--id", "theirs")
    with unchanged():
        expect_failure("containerd_lease", {"id": "theirs"}, "lease_not_ours")
        expect_failure("containerd_lease", {"id": "theirs", "state": "absent"}, "lease_not_ours")
        expect_failure("containerd_lease", {"id": "a/b"}, "lease_invalid")
        expect_failure("containerd_lease", {"id": "a", "expire_seconds": 0}, "lease_invalid")
    assert not run_module("containerd_lease", {"id": "theirs", "force": True})["changed"]
    assert run_module("containerd_lease", {"id": "theirs", "state": "absent", "force": True})["changed"]


def test_other_namespace(run_module: RunModule) -> None:
    run_module("containerd_lease", {"id": "mine"})
    assert run_module("containerd_lease", {"id": "mine", "namespace": "moby", "state": "absent"})["changed"] is False
    assert run_module("containerd_lease", {"id": "mine", "state": "absent"})["changed"]
