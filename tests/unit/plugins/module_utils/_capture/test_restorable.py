# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rules of a restore, applied to what is to be captured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import restorable
from ansible_collections.gpuops.restore.plugins.module_utils._capture.params import DumpOptions
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import NodeError
from ansible_collections.gpuops.restore.tests.unit.helpers import capture_samples
from ansible_collections.gpuops.restore.tests.unit.helpers.capture_samples import BOX, MOUNTINFO, Box, record
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_state import Snapshot

process = pytest.fixture(capture_samples.process)


@pytest.fixture
def box(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, process: int) -> Iterator[Box]:
    yield Box(fake, client, node, tmp_path, process)


def change(box: Box, node: Node, **changes: Any) -> None:
    """Another spec."""
    box.fake.state.containers[BOX] = record(node, **changes)
    box.before = box.kept(box.fake.state)


def bind(source: Path, destination: str = "/data") -> dict[str, Any]:
    return {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind"]}


def test_all_at_once(box: Box, node: Node, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    namespaces = [{"type": "pid", "path": "/proc/7/ns/pid"}, {"type": "user", "path": "/proc/7/ns/user"}]
    change(box, node, linux={"namespaces": namespaces}, mounts=[bind(tmp_path / "link")])
    codes = [problem["code"] for problem in box.refused().details["problems"]]
    assert codes == ["pid_namespace_shared", "user_namespace_unmapped", "mount_source_symlink"]


def test_the_nodes_process_namespace_is_warned_of(box: Box, node: Node) -> None:
    change(box, node, linux={"namespaces": [{"type": "mount"}]})
    (warning,) = box.capture().warnings
    assert "process ids" in warning


def test_a_user_namespace_with_mappings(box: Box, node: Node) -> None:
    mappings = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    namespaces = [{"type": "pid"}, {"type": "user", "path": "/proc/7/ns/user"}]
    change(box, node, linux={"namespaces": namespaces, "uidMappings": mappings, "gidMappings": mappings})
    assert box.refused().code == "user_namespace_remapped"
    done = box.capture(accept=("user_namespace_remapped",))
    assert "belong to nobody" in done.warnings[0]


def test_the_image_below_a_copy_with_other_owners(box: Box, node: Node) -> None:
    """As containerd 2.1 makes it for a user namespace; without one the image would be another's."""
    mappings = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    namespaces = [{"type": "pid"}, {"type": "user"}]
    copy = "sha256:" + "4" * 64
    snapshots = box.fake.state.snapshots
    snapshots[("overlayfs", copy)] = Snapshot(node.base.chain_id, 3, {})
    snapshots[("overlayfs", BOX)] = Snapshot(copy, 2, {})
    change(box, node, linux={"namespaces": namespaces, "uidMappings": mappings, "gidMappings": mappings})
    done = box.capture(accept=("user_namespace_remapped",))
    assert done.facts.base_image_digest == node.base.digest
    change(box, node)
    assert box.fails(force=True).code == "base_image_moved"


def test_a_link_that_is_vouched_for(box: Box, node: Node, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    change(box, node, mounts=[bind(tmp_path / "link")])
    refusal = box.refused()
    assert refusal.code == "mount_source_symlink"
    assert f"mounts: {{'{tmp_path}/link': '{tmp_path}'}}" in refusal.remedy
    foretold, done = (box.capture(check, accept=("mount_source_symlink",)) for check in (True, False))
    assert foretold.accepted == done.accepted
    assert [(taken["code"], taken["message"]) for taken in done.accepted] == [("mount_source_symlink", refusal.message)]
    assert done.warnings == foretold.warnings and done.accepted[0]["outcome"] in done.warnings[0]


def test_what_is_vouched_for_in_vain_is_no_warning(box: Box) -> None:
    done = box.capture(accept=tuple(restorable.ACCEPTABLE))
    assert (done.accepted, done.warnings) == ([], [])


def test_a_source_below_a_link_is_none(box: Box, node: Node, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    change(box, node, mounts=[bind(tmp_path / "link/real")])
    assert box.capture().changed


def test_a_mounted_file_that_was_replaced(box: Box, node: Node, tmp_path: Path) -> None:
    change(box, node, mounts=[bind(tmp_path, "/data/")])
    path = box.here.proc / str(box.pid) / "mountinfo"
    path.write_text(MOUNTINFO + "3 1 8:2 /srv/a//deleted /data rw - ext4 /dev/sdb rw\n", encoding="ascii")
    refusal = box.refused(accept=tuple(restorable.ACCEPTABLE))
    assert refusal.code == "mount_source_replaced"
    assert refusal.details == {"destination": "/data", "source": str(tmp_path)}


def test_a_network_of_its_own(box: Box, node: Node) -> None:
    net = box.here.proc / str(box.pid) / "net"
    net.mkdir()
    (net / "dev").write_text("head\nhead\n    lo: 0\n  eth0: 0\n", encoding="ascii")
    assert box.capture().changed, "the spec has no network namespace"
    del box.fake.state.images[capture_samples.NAME]
    change(box, node, linux={"namespaces": [{"type": "pid"}, {"type": "network"}]})
    assert box.refused().code == "network_not_captured"
    done = box.capture(criu=DumpOptions(empty_namespaces=("network",)))
    assert "eth0 will not be there" in done.warnings[0]


def test_only_what_may_be_vouched_for_is(box: Box) -> None:
    problems = [NodeError("criu_missing", "No CRIU."), NodeError("mount_source_symlink", "A link.")]
    left, taken = restorable.vouched(problems, ["criu_missing", "mount_source_symlink"])
    assert [problem.code for problem in left] == ["criu_missing"]
    assert [found["code"] for found in taken] == ["mount_source_symlink"]
