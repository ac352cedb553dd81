# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a node offers, as far as it needs no containerd."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd import info as containerd_info
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.daemon import Plugin
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.messages import message
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd


def test_driver_is_known_only_without_systemd(tmp_path: Path) -> None:
    assert containerd_info.cgroup(str(tmp_path))["driver"] is None
    assert containerd_info.cgroup(str(tmp_path / "none"))["driver"] == "cgroupfs"


def test_only_plugins_in_trouble_are_told() -> None:
    found = containerd_info.failed_plugins(
        [
            Plugin("io.containerd.snapshotter.v1", "overlayfs", "", "/data"),
            Plugin("io.containerd.snapshotter.v1", "zfs", "path /data must be a zfs file system: skip plugin", ""),
            Plugin("io.containerd.grpc.v1", "cri", "invalid plugin config", ""),
        ]
    )
    assert found == [{"type": "io.containerd.grpc.v1", "id": "cri", "error": "invalid plugin config"}]


def test_default_runtime_and_its_shim(tmp_path: Path) -> None:
    assert containerd_info.default_runtime(str(tmp_path))["present"] is False
    shim = tmp_path / "containerd-shim-runc-v2"
    shim.write_text("#!/bin/sh\n", encoding="utf-8")
    shim.chmod(0o755)
    found = containerd_info.default_runtime(str(tmp_path))
    assert found == {"name": "io.containerd.runc.v2", "present": True, "path": str(shim), "version": ""}


def test_the_daemons_pid_where_it_does_not_tell(
    fake: FakeContainerd, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = message("containerd.services.introspection.v1.ServerResponse", uuid="fake")
    monkeypatch.setattr(fake.state, "_introspection_server", lambda _request, _leased: silent)
    found = containerd_info.daemon(client)
    assert (found["uuid"], found["version"], found["pid"]) == ("fake", "fake", os.getpid())
