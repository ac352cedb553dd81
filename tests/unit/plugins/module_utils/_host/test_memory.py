# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import NodeError
from ansible_collections.gpuops.restore.plugins.module_utils._host import memory as host_memory
from ansible_collections.gpuops.restore.tests.unit.helpers.cuda_node import FakeNode

GIB = 1 << 30
ME = os.getpid()


def require(node: FakeNode, needed: dict[int, int]) -> None:
    host_memory.require(needed, node.options["proc"], node.options["cgroup_root"])


def code(node: FakeNode, needed: dict[int, int]) -> str:
    with pytest.raises(NodeError) as caught:
        require(node, needed)
    return caught.value.code


def test_the_nodes_own_memory(tmp_path: Path) -> None:
    node = FakeNode(tmp_path)
    node.hold([ME])
    node.write_available(4 * GIB)
    require(node, {ME: 4 * GIB})
    assert code(node, {ME: 4 * GIB + 1024}) == "host_memory_short"


def test_a_limit_anywhere_above(tmp_path: Path) -> None:
    node = FakeNode(tmp_path, "pods/pod/box")
    node.hold([ME])
    require(node, {ME: 4 * GIB})
    above = tmp_path / "cgroup" / "pods"
    (above / "memory.max").write_text(f"{5 * GIB}\n", encoding="ascii")
    (above / "memory.current").write_text(f"{2 * GIB}\n", encoding="ascii")
    require(node, {ME: 3 * GIB})
    assert code(node, {ME: 4 * GIB}) == "container_memory_short"


def test_processes_of_one_group_are_counted_together(tmp_path: Path) -> None:
    node = FakeNode(tmp_path)
    node.hold([ME, os.getppid()])
    node.limit(8 * GIB, 0)
    require(node, {ME: 4 * GIB, os.getppid(): 4 * GIB})
    assert code(node, {ME: 4 * GIB, os.getppid(): 5 * GIB}) == "container_memory_short"


def test_file_pages_make_room_and_no_limit_is_no_limit(tmp_path: Path) -> None:
    node = FakeNode(tmp_path)
    node.limit(8 * GIB, 6 * GIB, 5 * GIB)
    assert host_memory.headroom(str(node.group)) == 7 * GIB
    node.limit(8 * GIB, 9 * GIB)
    assert host_memory.headroom(str(node.group)) == 0
    node.limit("max", GIB)
    assert host_memory.headroom(str(node.group)) is None


def test_cgroup_v1(tmp_path: Path) -> None:
    group = tmp_path / "cgroup" / "memory" / "box"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text(f"{8 * GIB}\n", encoding="ascii")
    (group / "memory.usage_in_bytes").write_text(f"{6 * GIB}\n", encoding="ascii")
    stat = f"inactive_file 1\nactive_file 1\ntotal_inactive_file {GIB}\ntotal_active_file {GIB}\n"
    (group / "memory.stat").write_text(stat, encoding="ascii")
    proc = tmp_path / "proc" / str(ME)
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text("5:memory:/box\n4:freezer:/box\n0::/\n", encoding="ascii")
    found = list(host_memory.groups(ME, str(tmp_path / "proc"), str(tmp_path / "cgroup")))
    assert found == [str(group)]
    assert host_memory.headroom(found[0]) == 4 * GIB
    tree = (str(tmp_path / "proc"), str(tmp_path / "cgroup"))
    assert host_memory.tightest([ME], *tree) == 4 * GIB
    (group / "memory.limit_in_bytes").write_text("9223372036854771712\n", encoding="ascii")
    assert host_memory.tightest([ME], *tree) is None


def test_a_process_that_has_ended_counts_nowhere(tmp_path: Path) -> None:
    node = FakeNode(tmp_path)
    assert list(host_memory.groups(ME, node.options["proc"], node.options["cgroup_root"])) == []
    assert host_memory.resident(ME, node.options["proc"]) is None


def test_the_memory_of_a_process() -> None:
    found = host_memory.resident(ME)
    assert found is not None
    block = bytearray(os.urandom(64 << 20))
    more = host_memory.resident(ME)
    assert more is not None
    assert 60 << 20 < more - found < 80 << 20
    del block


def test_memory_that_was_swapped_out_is_dumped_too(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text(
        "Name:\tx\nRssAnon:\t100 kB\nRssFile:\t900 kB\nRssShmem:\t20 kB\nVmSwap:\t3 kB\n", encoding="ascii"
    )
    assert host_memory.own([7, 8], str(tmp_path)) == 123 * 1024
