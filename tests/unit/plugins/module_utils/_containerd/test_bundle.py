# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd import bundle
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.bundle import Bundle, Edits
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.containers import Container
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError, NodeError
from ansible_collections.gpuops.restore.tests.unit.helpers import host_process
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import spec

SHIM, TASK = 40, 41


class Node:
    """A shim whose own bundle is that of a pod, with the bundle of one of the pod's containers beside it."""

    def __init__(self, root: Path) -> None:
        self.proc, self.bundle = root / "proc", root / "bundles" / "box"
        for path in (self.proc / str(TASK), self.proc / str(SHIM), root / "bundles" / "pod", self.bundle):
            path.mkdir(parents=True)
        (self.proc / str(TASK) / "stat").write_text(f"{TASK} (a ) b) S {SHIM} 1 1\n", encoding="ascii")
        (self.proc / str(SHIM) / "cwd").symlink_to(root / "bundles" / "pod")

    def write(self, text: str) -> None:
        (self.bundle / "config.json").write_text(text, encoding="utf-8")

    def find(self, task: int = TASK) -> Bundle | None:
        return bundle.find("k8s.io", "box", task, str(self.proc))


def test_the_bundle_lies_beside_the_one_of_the_tasks_parent(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.write('{"hostname": "a"}')
    found = node.find()
    assert found is not None and found.spec == {"hostname": "a"}
    assert Path(found.rootfs).resolve() == (node.bundle / "rootfs").resolve()


def test_a_shim_that_is_not_the_parent_is_found_by_its_words(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.write("{}")
    assert node.find(7) is None
    words = ("/usr/bin/containerd-shim-runc-v2", "-namespace", "k8s.io", "-id", "box")
    host_process.add(node.proc, SHIM, *words)
    assert node.find(7) is not None


def test_without_a_bundle_there_is_none(tmp_path: Path) -> None:
    assert Node(tmp_path).find() is None


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1, "a": 2}'])
def test_one_that_cannot_be_read_is_an_error(tmp_path: Path, text: str) -> None:
    node = Node(tmp_path)
    node.write(text)
    with pytest.raises(NodeError) as caught:
        node.find()
    assert caught.value.code == "bundle_unreadable"


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    node = Node(tmp_path)
    (tmp_path / "elsewhere").write_text("{}", encoding="ascii")
    (node.bundle / "config.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NodeError):
        node.find()


def container(recorded: dict[str, Any]) -> Container:
    return Container("box", "", {}, "", None, recorded, "", "")


def running(recorded: dict[str, Any], begun: dict[str, Any]) -> dict[str, Any]:
    return dict(bundle.as_it_runs(container(recorded), Bundle("", "", begun)).spec)


def test_limits_are_those_of_now_and_devices_those_of_the_start() -> None:
    rules = [{"allow": True, "type": "c", "major": 195, "access": "rw"}]
    begun = spec(mounts=[{"destination": "/added"}])
    begun["linux"]["resources"] = {"memory": {"limit": 1}, "unified": {"a": "b"}, "devices": rules}
    recorded = spec()
    recorded["linux"]["resources"] = {"memory": {"limit": 2}, "devices": []}
    found = running(recorded, begun)
    assert found["mounts"] == [{"destination": "/added"}]
    assert found["linux"]["resources"] == {"memory": {"limit": 2}, "unified": {"a": "b"}, "devices": rules}
    assert begun["linux"]["resources"]["memory"] == {"limit": 1}


def test_a_container_without_a_bundle_is_as_it_was_recorded() -> None:
    recorded = container(spec())
    assert bundle.as_it_runs(recorded, None) is recorded


def test_what_a_runtime_wrote_has_to_be_a_spec() -> None:
    with pytest.raises(InputError) as caught:
        running(spec(), json.loads('{"ociVersion": "1.0.2"}'))
    assert caught.value.code == "spec_invalid"


def test_what_was_added_is_told() -> None:
    recorded = {"process": {"env": ["PATH=/bin"]}, "mounts": [{"destination": "/proc"}]}
    begun = {
        "process": {"env": ["PATH=/usr/bin", "NEW=1"]},
        "mounts": [{"destination": "/proc"}, {"destination": "/lib/a"}],
        "linux": {"devices": [{"path": "/dev/nvidia0"}]},
        "hooks": {"prestart": [{"path": "/usr/bin/hook"}]},
    }
    assert bundle.edits(recorded, begun) == Edits(("/lib/a",), ("/dev/nvidia0",), ("NEW",), ("/usr/bin/hook",))
    assert bundle.edits(begun, begun) == Edits()
