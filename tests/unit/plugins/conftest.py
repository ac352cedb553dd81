# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests of the wire and the steps share: a test double of containerd, a client, a node's programs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd import daemon
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import add_base, add_checkpoint, plugin
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd, running
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_registry import (
    FakeRegistry,
    running as running_registry,
)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeContainerd]:
    """A started test double, empty but for a snapshotter."""
    with running(str(tmp_path)) as found:
        found.state.plugins = [
            plugin("io.containerd.snapshotter.v1", "overlayfs", root="/data/overlayfs"),
            plugin("io.containerd.snapshotter.v1", "zfs", error="no zpool"),
            plugin("io.containerd.content.v1", "content", root="/data/content"),
        ]
        yield found


@pytest.fixture
def client(fake: FakeContainerd) -> Iterator[Client]:
    """A client that gives up soon."""
    with Client(fake.address, "tests", timeout=5.0, reconnect_seconds=0.5) as found:
        fake.heal()
        yield found


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    """A started test double of a registry, empty."""
    with running_registry() as found:
        yield found


@pytest.fixture
def node(fake: FakeContainerd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """Base image and checkpoint in the store, programs on the daemon's PATH, a state root that is not there yet."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("runc", "criu", "iptables-restore", "containerd-shim-runc-v2"):
        (programs / name).write_text("#!/bin/sh\necho 1.2.3\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    monkeypatch.setattr(daemon, "daemon_environment", lambda _client: {"PATH": str(programs)})
    base = add_base(fake.state)
    return Node(base, add_checkpoint(fake.state, base=base), programs, os.path.join(str(tmp_path), "state"))
