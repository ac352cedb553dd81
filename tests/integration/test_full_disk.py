# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Full disks on a real node, as small tmpfs: each is retryable and has its code, nothing stays, and with room the same
call works.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Callable

import in_node
import pytest
from gpuops_lab import image, node as lab_node, workload
from gpuops_lab.config import Node
from gpuops_lab.node import output

REF = "gpuops.test/full:1"
STORE = "/var/lib/containerd"
SMALL = "/srv/small"
RunModule = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def small_store(node: Node) -> Iterator[None]:
    """containerd's whole store is 192 MiB large."""
    lab_node.control(node, "stop")
    output(node, ["mount", "-t", "tmpfs", "-o", "size=192m", "tmpfs", STORE])
    lab_node.control(node, "start")
    lab_node.await_containerd(node)
    workload.start(node, "job", 16)
    workload.await_count(node, "job", 3)
    yield


@contextlib.contextmanager
def full(node: Node, place: str, left: int = 0) -> Iterator[None]:
    """The file system has ``left`` bytes free."""
    found = os.statvfs(node.inside(place))
    size = found.f_bavail * found.f_frsize - left
    output(node, ["fallocate", "-l", str(size), f"{place}/filler"])
    try:
        yield
    finally:
        output(node, ["rm", f"{place}/filler"])


def leases(node: Node) -> list[str]:
    return [line for line in workload.ctr(node, "k8s.io", "leases", "ls", "-q").split() if "gpuops" in line]


#: Which call of containerd's finds the disk full first is its own affair.
STORE_FULL = ("content_no_space", "snapshots_no_space", "containerd_no_space")


def refused(node: Node, module: str, params: dict[str, Any], *codes: str) -> None:
    """The module fails as for a full disk: so it can be run again, and says what to do."""
    result = in_node.run_module(node, module, params)
    failure = result.get("failure") or {}
    assert result.get("failed") and failure["code"] in codes, result
    assert failure["outcome"] == "retryable" and "Free space" in failure["hint"], result


def test_the_store_has_no_room_for_a_capture(node: Node, run_module: RunModule) -> None:
    wanted = {"container_id": "job", "name": REF}
    with full(node, STORE, 12 << 20):
        refused(node, "containerd_checkpoint", wanted, *STORE_FULL)
    before = workload.count(node, "job")
    done = run_module("containerd_checkpoint", wanted)
    assert done["changed"]
    workload.await_count(node, "job", before + 2)
    assert leases(node) == []


def test_the_store_is_full_when_a_container_is_made(node: Node, run_module: RunModule) -> None:
    run_module("containerd_checkpoint_stage", {"checkpoint": REF})
    wanted = {"container_id": "copy", "checkpoint": REF}
    with full(node, STORE):
        refused(node, "containerd_container", wanted, *STORE_FULL)
    for _time in range(2):
        run_module("containerd_container", wanted)
    run_module("containerd_task", wanted)
    workload.await_count(node, "copy", 3)
    for module in ("containerd_task", "containerd_container"):
        run_module(module, {"container_id": "copy", "state": "absent"})
    assert leases(node) == []


def test_the_store_is_full_in_the_middle_of_an_import(node: Node, run_module: RunModule) -> None:
    output(node, ["mkdir", "-p", "/srv/archives"])
    archive = {"name": "gpuops.test/again:1", "path": "/srv/archives/full.tar"}
    run_module("containerd_checkpoint_archive", {"operation": "export", "name": REF, "path": archive["path"]})
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", REF)
    with full(node, STORE, 8 << 20):
        refused(node, "containerd_checkpoint_archive", {"operation": "import", **archive}, *STORE_FULL)
    assert leases(node) == []
    run_module("containerd_checkpoint_archive", {"operation": "import", **archive})
    assert run_module("containerd_checkpoint_info", {"checkpoint": archive["name"]})["problems"] == []


@pytest.fixture
def small(node: Node) -> Iterator[str]:
    output(node, ["mkdir", "-p", SMALL])
    output(node, ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", SMALL])
    yield SMALL
    output(node, ["umount", SMALL])


def test_the_state_directory_is_full_when_criu_is_configured(node: Node, run_module: RunModule, small: str) -> None:
    wanted = {"container_id": "copy", "checkpoint": "gpuops.test/again:1", "staging_dir": small}
    with full(node, small):
        refused(node, "containerd_container", wanted, "disk_full")
        assert workload.ctr(node, "k8s.io", "containers", "ls", "-q").split() == ["job"]
    run_module("containerd_container", wanted)
    run_module("containerd_container", {**wanted, "state": "absent"})


def test_the_archive_finds_no_room(node: Node, small: str) -> None:
    wanted = {"operation": "export", "name": "gpuops.test/again:1", "path": f"{small}/a.tar.zst"}
    refused(node, "containerd_checkpoint_archive", wanted, "archive_no_space")
    assert list(node.inside(small).iterdir()) == []


def test_containerd_is_well_afterwards(node: Node) -> None:
    assert image.REFERENCE in workload.ctr(node, "k8s.io", "images", "ls", "-q")
    assert workload.await_count(node, "job", workload.count(node, "job") + 2)
    workload.delete(node, "job")
    assert workload.cri_problems(node) == []
