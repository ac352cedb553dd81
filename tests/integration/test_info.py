# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd_info on a real containerd."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

from gpuops_lab import node as lab_node
from gpuops_lab.config import Node
from gpuops_lab.node import output

RunModule = Callable[..., dict[str, Any]]
ExpectFailure = Callable[..., dict[str, Any]]
Unchanged = Callable[..., "contextlib.AbstractContextManager[None]"]


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
