# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node


def test_what_the_node_offers(call: Call, node: Node) -> None:
    found = call("containerd_info", staging_dir=node.root)
    assert (found["changed"], found["runtime"]["present"], found["snapshotters"]) == (False, True, ["overlayfs"])
    assert found["criu"]["path"] == str(node.programs / "criu")
    assert found["free_bytes"]["staging"] > 0


def test_no_daemon(call: Call, tmp_path: Path) -> None:
    found = call("containerd_info", address=str(tmp_path / "none.sock"), timeout=1)
    assert (found["failed"], found["failure"]["code"]) == (True, "socket_absent")
    assert found["failure"]["hint"] in found["msg"]
