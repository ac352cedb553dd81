# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd_info on a real containerd."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import node_listing
import pytest
from gpuops_lab import listing as by_ctr, node as lab_node, workload
from gpuops_lab.config import Node
from gpuops_lab.node import output

RunModule = Callable[..., dict[str, Any]]
ExpectFailure = Callable[..., dict[str, Any]]
Unchanged = Callable[..., "contextlib.AbstractContextManager[None]"]


@pytest.mark.every_containerd
def test_the_listing_of_these_tests_has_what_ctr_has(node: Node, run_module: RunModule) -> None:
    """Every kind of object, by the words that tell one from another."""
    workload.start(node, "listed")
    workload.checkpoint(node, "listed", "gpuops.test/listed:1")
    workload.ctr(node, "other", "images", "import", workload.ARCHIVE)
    run_module("containerd_lease", {"id": "listed"})
    kinds = {"namespaces": 1, "containers": 2, "tasks": 2, "images": 2, "content": 2, "leases": 2, "snapshots": 3}

    def told(found: node_listing.Listing) -> dict[str, list[list[str]]]:
        return {kind: sorted(row.split()[:words] for row in found[kind]) for kind, words in kinds.items()}

    quick, ctr = node_listing.listing(node), by_ctr.listing(node)
    assert told(quick) == told(ctr) and all(told(ctr).values())
    assert {kind: rows for kind, rows in quick.items() if kind not in kinds} == {
        kind: rows for kind, rows in ctr.items() if kind not in kinds
    }
    workload.delete(node, "listed")
    for namespace in ("k8s.io", "other"):
        names = workload.ctr(node, namespace, "images", "ls", "-q").split()
        workload.ctr(node, namespace, "images", "rm", "--sync", *names)
    workload.ctr(node, "other", "namespaces", "rm", "other")
    run_module("containerd_lease", {"id": "listed", "state": "absent"})


def test_facts(node: Node, run_module: RunModule, unchanged: Unchanged) -> None:
    run_module("containerd_info", {})
    with unchanged():
        found = run_module("containerd_info", {})
        assert run_module("containerd_info", {}, check=True)["containerd"] == found["containerd"]
    assert not found["changed"]
    assert found["containerd"]["version"].startswith(os.environ.get("GPUOPS_CONTAINERD", "1.7"))
    assert len(found["containerd"]["uuid"]) == 36
    assert "containerd" in output(node, ["cat", f"/proc/{found['containerd']['pid']}/comm"])
    assert "overlayfs" in found["snapshotters"]
    assert found["default_runtime"]["present"] and found["cri_ok"] is True
    for program in ("runtime", "criu", "iptables_restore"):
        assert found[program]["present"] and found[program]["path"].startswith("/"), program
        assert found[program]["version"][0].isdigit(), program
    assert found["cgroup"]["mode"] in ("v1", "hybrid", "unified")
    assert all(value > 0 for value in found["free_bytes"].values())
    assert found["kernel"] == output(node, ["uname", "-r"]).strip()
    assert found["leases"] == []


def test_missing_programs(node: Node, run_module: RunModule) -> None:
    """CRIU is looked for where containerd looks, and its absence is told, not an error."""
    path = output(node, ["which", "criu"]).strip()
    output(node, ["mv", path, f"{path}.away"])
    try:
        found = run_module("containerd_info", {})
    finally:
        output(node, ["mv", f"{path}.away", path])
    assert found["criu"] == {"present": False, "path": "", "version": ""}


def test_no_daemon(node: Node, run_module: RunModule, expect_failure: ExpectFailure) -> None:
    expect_failure("containerd_info", {"address": "/run/nothing.sock"}, "socket_absent")
    lab_node.control(node, "kill")
    try:
        failed = expect_failure("containerd_info", {}, "daemon_unavailable")
        assert failed["failure"]["outcome"] == "retryable"
    finally:
        lab_node.restart(node)
    assert run_module("containerd_info", {})["cri_ok"] is True
