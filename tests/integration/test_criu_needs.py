# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What CRIU takes only when told to is taken, and comes back; what it takes in no way is refused beforehand."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from gpuops_lab import image, workload
from gpuops_lab.config import Node
from gpuops_lab.listing import listing, settled_difference

NAME = "holder"
REFERENCE = "gpuops.test/holder:1"
STATE = "/var/lib/gpuops-restore"
RunModule = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def imported(node: Node) -> None:
    workload.ctr(node, "k8s.io", "images", "import", workload.place_image(node))


@pytest.fixture
def clean(node: Node) -> Iterator[None]:
    """The node is afterwards as it was before."""
    before = listing(node)
    yield
    workload.delete(node, NAME)
    shutil.rmtree(node.inside(f"{STATE}/receipts"), ignore_errors=True)
    node.inside(f"/var/log/{NAME}.log").unlink(missing_ok=True)
    assert settled_difference(node, before) == []
    assert not node.inside("/etc/criu").exists()


def run(node: Node, *thing: str, options: tuple[str, ...] = ()) -> None:
    arguments = ["--detach", "--log-uri", workload.log_uri(NAME), *options, image.REFERENCE, NAME]
    workload.ctr(node, "k8s.io", "run", *arguments, "/bin/holder", *thing)
    workload.await_count(node, NAME, 2)


def goes_on(node: Node) -> None:
    workload.await_count(node, NAME, workload.count(node, NAME) + 2)


def capture(**criu: Any) -> dict[str, Any]:
    return {"container_id": NAME, "name": REFERENCE, "criu": criu}


# --- what is refused


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    ("thing", "code", "shown"),
    [
        ("uring", "io_uring_open", "io_uring of process {} (holder)"),
        ("userfault", "descriptor_not_dumped", "anon_inode:[userfaultfd] of process {} (holder)"),
        ("socket 2 1 262", "descriptor_not_dumped", "a socket of MPTCP of process {} (holder)"),
        ("queue", "message_queues_open", "/queue of process {} (holder)"),
        ("queue-left", "message_queues_open", "/queue of process {} (holder)"),
        ("namespace uts", "namespaces_nested", "the uts namespace of process {} (holder)"),
        ("namespace net", "namespaces_nested", "the network namespace of process {} (holder)"),
        ("namespace pid", "namespaces_nested", "the pid namespace of process {} (holder)"),
        ("namespace user", "namespaces_nested", "the user namespace of process {} (holder)"),
        ("namespace children", "namespaces_nested", "the pid namespace of process {} (holder)"),
        ("traced", "process_traced", "process {} (holder) by process "),
    ],
)
def test_what_criu_takes_in_no_way(node: Node, expect_failure: RunModule, thing: str, code: str, shown: str) -> None:
    """Before anything stops, with process and thing; the workload counts on."""
    run(node, *thing.split(), options=("--privileged",))
    before = listing(node)
    for check in (True, False):
        result = expect_failure("containerd_checkpoint", capture(), code, check=check)
        found = result["failure"]["details"]["found"]
        assert any(shown.format(one["pid"]) in result["msg"] for one in found), result["msg"]
    assert settled_difference(node, before) == []
    goes_on(node)


@pytest.mark.usefixtures("clean")
def test_namespaces_of_mounts_may_be_nested(node: Node, run_module: RunModule) -> None:
    """The one kind that CRIU takes."""
    run(node, "namespace", "mnt", options=("--privileged",))
    assert run_module("containerd_checkpoint", capture(), check=True)["changed"]
    goes_on(node)
