# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Control groups, on trees of plain files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError, NodeError
from ansible_collections.gpuops.restore.plugins.module_utils._host import cgroup

UNIFIED = "25 1 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
V1 = (
    "25 1 0:22 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n"
    "26 25 0:23 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n"
    "27 25 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
)
HYBRID = V1 + "28 25 0:25 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(("text", "expected"), [(UNIFIED, "unified"), (V1, "v1"), (HYBRID, "hybrid")])
def test_mode(text: str, expected: str) -> None:
    assert cgroup.mode(mountinfo=text) == expected


def test_no_cgroups() -> None:
    with pytest.raises(NodeError) as caught:
        cgroup.mode(mountinfo="25 1 0:22 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n")
    assert caught.value.code == "cgroup_not_mounted"


def test_mode_of_this_machine() -> None:
    assert cgroup.mode() in ("v1", "hybrid", "unified")


def test_fresh_paths() -> None:
    assert cgroup.cgroups_path("train-1", "cgroupfs", "train-1") == "/gpuops-restore-train-1"
    assert cgroup.cgroups_path("train-1", "systemd", "a--train-1") == "system.slice:gpuops-restore:a--train-1"
    for driver in ("cgroupfs", "systemd"):
        path = cgroup.cgroups_path("train-1", driver, "a--train-1")
        assert cgroup.check_path(path, driver) == path
    with pytest.raises(InputError) as caught:
        cgroup.cgroups_path("x", "other", "x")
    assert caught.value.code == "cgroup_driver_invalid"


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a:b", "-a", "a..b", "a" * 77, "a\n"])
def test_container_ids(name: str) -> None:
    with pytest.raises(InputError) as caught:
        cgroup.cgroups_path(name, "cgroupfs", name)
    assert caught.value.code == "container_id_invalid"


@pytest.mark.parametrize(
    ("path", "driver", "code"),
    [
        ("/kubepods/besteffort/x", None, "cgroups_path_kubepods"),
        ("kubepods.slice:cri-containerd:x", "systemd", "cgroups_path_kubepods"),
        ("/a/b", "systemd", "cgroups_path_invalid"),
        ("system.slice:a:b", "cgroupfs", "cgroups_path_invalid"),
        ("system.slice:a:", "systemd", "cgroups_path_invalid"),
        ("/a/../b", "cgroupfs", "cgroups_path_invalid"),
        ("/", "cgroupfs", "cgroups_path_invalid"),
        ("", None, "cgroups_path_invalid"),
    ],
)
def test_paths_given(path: str, driver: str | None, code: str) -> None:
    with pytest.raises(InputError) as caught:
        cgroup.check_path(path, driver)
    assert caught.value.code == code


class Tree:
    """A /proc and a /sys/fs/cgroup of plain files."""

    def __init__(self, top: Path) -> None:
        self.proc, self.root = top / "proc", top / "cgroup"

    def process(self, pid: int, text: str) -> None:
        """The groups of a process."""
        (self.proc / str(pid)).mkdir(parents=True)
        (self.proc / str(pid) / "cgroup").write_text(text)

    def group(self, path: str, procs: str, **files: str) -> None:
        """A group with its processes and other files; ``_`` in their names stands for a dot."""
        place = self.root / path
        place.mkdir(parents=True, exist_ok=True)
        (place / "cgroup.procs").write_text(procs)
        for name, text in files.items():
            (place / name.replace("_", ".")).write_text(text)

    def tgids(self, pid: int) -> list[int]:
        """Under test."""
        return cgroup.tgids_of(pid, str(self.proc), str(self.root))

    def frozen(self, pid: int) -> bool:
        """Under test."""
        return cgroup.is_frozen(pid, str(self.proc), str(self.root))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """An empty one."""
    return Tree(tmp_path)


def test_unified_with_descendants(tree: Tree) -> None:
    tree.process(40, "0::/system.slice/c.scope\n")
    tree.group("system.slice/c.scope", "40\n")
    tree.group("system.slice/c.scope/a", "7\n0\n")
    tree.group("system.slice/c.scope/a/b", "1000\n41\n")
    tree.group("system.slice/other.scope", "99\n")
    assert tree.tgids(40) == [7, 40, 41, 1000]


def test_v1_takes_the_group_of_its_own(tree: Tree) -> None:
    tree.process(40, "5:cpu,cpuacct:/\n4:freezer:/c\n1:name=systemd:/user.slice\n")
    tree.group("freezer/c", "40\n41\n")
    tree.group("systemd/user.slice", "40\n1\n2\n3\n")
    tree.group("cpu,cpuacct", "40\n1\n2\n")
    assert tree.tgids(40) == [40, 41]


def test_v1_joined_controllers(tree: Tree) -> None:
    tree.process(40, "5:cpu,cpuacct:/c\n")
    tree.group("cpu,cpuacct/c", "40\n")
    assert tree.tgids(40) == [40]


def test_hybrid_may_have_it_in_unified_only(tree: Tree) -> None:
    tree.process(40, "5:cpu:/\n0::/c\n")
    tree.group("unified/c", "40\n42\n")
    tree.group("cpu", "1\n40\n")
    assert tree.tgids(40) == [40, 42]


def test_a_group_that_does_not_hold_the_process_is_not_believed(tree: Tree) -> None:
    tree.process(40, "4:freezer:/c\n3:pids:/c\n")
    tree.group("freezer/c", "5\n")
    tree.group("pids/c", "40\n")
    assert tree.tgids(40) == [40]


def test_the_root_group_is_the_whole_node(tree: Tree) -> None:
    tree.process(40, "4:freezer:/\n0::/\n2:pids:/../x\n")
    tree.group("freezer", "1\n40\n")
    tree.group("", "1\n40\n")
    with pytest.raises(NodeError) as caught:
        tree.tgids(40)
    assert caught.value.code == "cgroup_of_process"


def test_a_dead_process(tree: Tree) -> None:
    for call in (tree.tgids, tree.frozen):
        with pytest.raises(NodeError) as caught:
            call(40)
        assert caught.value.code == "process_gone"


def test_frozen(tree: Tree) -> None:
    tree.process(1, "0::/v2\n")
    tree.group("v2", "1\n", cgroup_events="populated 1\nfrozen 1\n")
    tree.process(2, "0::/thawed\n")
    tree.group("thawed", "2\n", cgroup_events="populated 1\nfrozen 0\n")
    tree.process(3, "4:freezer:/v1\n3:pids:/v1\n")
    tree.group("freezer/v1", "3\n", freezer_state="FROZEN\n")
    tree.process(4, "4:freezer:/t\n3:pids:/t\n")
    tree.group("freezer/t", "4\n", freezer_state="THAWED\n")
    tree.group("pids/t", "4\n", freezer_state="FROZEN\n")
    tree.process(5, "3:pids:/none\n")
    assert [tree.frozen(pid) for pid in (1, 2, 3, 4, 5)] == [True, False, True, False, False]


def test_freezing(tree: Tree) -> None:
    """Never a group that this process is in, by itself or in one below."""
    own = os.getpid()
    tree.process(1, "0::/v2\n")
    tree.group("v2", "1\n", cgroup_freeze="0\n")
    tree.process(3, "4:freezer:/v1\n3:pids:/v1\n")
    tree.group("freezer/v1", "3\n", freezer_state="THAWED\n")
    tree.process(4, "0::/ours\n")
    tree.group("ours", "4\n", cgroup_freeze="0\n")
    tree.group("ours/below", f"{own}\n")
    tree.process(5, "3:pids:/none\n")
    assert [cgroup.freeze(pid, str(tree.proc), str(tree.root)) for pid in (1, 3, 4, 5)] == [True, True, False, False]
    read = [
        (tree.root / path).read_text()
        for path in ("v2/cgroup.freeze", "freezer/v1/freezer.state", "ours/cgroup.freeze")
    ]
    assert read == ["1", "FROZEN", "0\n"]


def test_this_process() -> None:
    try:
        assert os.getpid() in cgroup.tgids_of(os.getpid())
    except NodeError as error:
        # Where the tests run in the root group, that is the right answer.
        assert error.code == "cgroup_of_process"
    assert cgroup.is_frozen(os.getpid()) is False
