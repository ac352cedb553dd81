# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A restore by a real CRIU locks the network where processes have internet sockets, and nowhere else."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from gpuops_lab import image, workload
from gpuops_lab.config import Node
from node_listing import listing, settled_difference

pytestmark = pytest.mark.newer_criu
REF = "gpuops.test/listens:1"
STATE = "/var/lib/gpuops-restore"
MIB = 64
RunModule = Callable[..., "dict[str, Any]"]


@contextlib.contextmanager
def locks_noted(node: Node) -> Iterator[list[str]]:
    """Each run of iptables-restore in the node while the block lasted, which is how CRIU locks a network."""
    note, wrapper = node.inside("/run/locks"), node.inside("/usr/local/sbin/iptables-restore")
    wrapper.parent.mkdir(parents=True, exist_ok=True)
    wrapper.write_text('#!/bin/sh\necho "$*" >>/run/locks\nexec /usr/sbin/iptables-restore "$@"\n', encoding="utf-8")
    wrapper.chmod(0o755)
    found: list[str] = []
    try:
        yield found
    finally:
        wrapper.unlink()
        if note.exists():
            found += note.read_text().splitlines()
            note.unlink()


@pytest.mark.parametrize("sockets", [False, True])
@pytest.mark.parametrize("parallel_memory", ["always", "never"])
def test_locked_where_there_are_sockets(node: Node, run_module: RunModule, sockets: bool, parallel_memory: str) -> None:
    """What CRIU restores alone it restores as it was dumped."""
    workload.place_image(node)
    workload.ctr(node, "k8s.io", "images", "import", workload.ARCHIVE)
    before = listing(node)
    listener = "/bin/busybox nc -l -p 7070 & " if sockets else ""
    command = ["/bin/sh", "-c", f"{listener}exec /bin/counter --mib {MIB}"]
    log = workload.log_uri("listens")
    workload.ctr(node, "k8s.io", "run", "--detach", "--log-uri", log, image.REFERENCE, "listens", *command)
    count = workload.await_count(node, "listens", 3)
    run_module("containerd_checkpoint", {"container_id": "listens", "name": REF})
    workload.delete(node, "listens")
    run_module("containerd_checkpoint_stage", {"checkpoint": REF})
    job = {"workloads": [{"name": "copy", "checkpoint": REF}], "parallel_memory": parallel_memory}
    with locks_noted(node) as found:
        done = run_module("containerd_restore", job)["workloads"]["copy"]
    assert done["failure"] is None
    assert (done["parallel_memory"]["skipped"] == "") is (parallel_memory == "always")
    assert bool(found) is (sockets or parallel_memory == "never")
    workload.await_count(node, "copy", count + 3)
    for module in ("containerd_task", "containerd_container"):
        run_module(module, {"container_id": "copy", "state": "absent"})
    run_module("containerd_checkpoint_stage", {"checkpoint": REF, "state": "absent"})
    shutil.rmtree(node.inside(f"{STATE}/receipts"))
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", REF)
    node.inside("/var/log/listens.log").unlink()
    assert settled_difference(node, before) == []
