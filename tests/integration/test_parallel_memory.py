# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Memory that is written beside a real CRIU: the process goes on, and every byte is what it was."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import time
from typing import Any, Callable

import in_node
import process_memory
import pytest
from gpuops_lab import workload
from gpuops_lab.config import Node
from gpuops_lab.node import output
from node_listing import listing, settled_difference
from process_memory import process

from ansible_collections.gpuops.restore.plugins.module_utils._parallel_memory import writer_worker

pytestmark = [pytest.mark.older_criu, pytest.mark.newer_criu]
REF = "gpuops.test/large:1"
#: Of this machine and so of its nodes.
LINUX = tuple(int(part) for part in os.uname().release.split(".")[:2])
STATE = "/var/lib/gpuops-restore"
MIB = 64
RunModule = Callable[..., "dict[str, Any]"]


@pytest.fixture(scope="module", autouse=True)
def digest(node: Node) -> str:
    """A counter with much memory was run, captured, and is gone; the digest of that memory."""
    workload.start(node, "original", MIB)
    workload.await_count(node, "original", 10)
    workload.checkpoint(node, "original", REF)
    found = process_memory.digest(node, "original", MIB)
    workload.delete(node, "original")
    return found


def charged(node: Node, name: str) -> int:
    """Bytes that count as the container's."""
    for line in (process(node, name) / "cgroup").read_text().splitlines():
        _number, controllers, path = line.split(":", 2)
        for place, file in ((f"memory{path}", "memory.usage_in_bytes"), (path.lstrip("/"), "memory.current")):
            found = pathlib.Path("/sys/fs/cgroup") / place / file
            if controllers in ("memory", "") and found.exists():
                return int(found.read_text())
    raise AssertionError("no cgroup counts its memory")


def wanted(reference: str = REF, **more: Any) -> dict[str, Any]:
    return {"workloads": [{"name": "large", "checkpoint": reference}], "parallel_memory": "always", **more}


def restored(node: Node, run_module: RunModule, **more: Any) -> dict[str, Any]:
    """It runs, and counts; what the module returned of it."""
    found = run_module("containerd_restore", wanted(**more))
    assert found["changed"] is True
    result: dict[str, Any] = found["workloads"]["large"]
    assert result["failure"] is None
    reached = workload.await_count(node, "large", 10)
    workload.await_count(node, "large", reached + 3)
    return {**result, "warnings": found.get("warnings", [])}


def stage(run_module: RunModule, reference: str = REF) -> pathlib.PurePosixPath:
    """Staged; where."""
    found = run_module("containerd_checkpoint_stage", {"checkpoint": reference})
    return pathlib.PurePosixPath(found["directory"]).parent


def remove(node: Node, run_module: RunModule, *references: str) -> None:
    run_module("containerd_task", {"container_id": "large", "state": "absent"})
    run_module("containerd_container", {"container_id": "large", "state": "absent"})
    node.inside(f"{STATE}/receipts/large.json").unlink(missing_ok=True)
    if node.inside(f"{STATE}/receipts").exists():
        node.inside(f"{STATE}/receipts").rmdir()
    for reference in references:
        run_module("containerd_checkpoint_stage", {"checkpoint": reference, "state": "absent"})


def in_huge_pages(node: Node, name: str) -> int:
    """Bytes of the container's process."""
    text = (process(node, name) / "smaps_rollup").read_text()
    return next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("AnonHugePages:"))


@pytest.mark.parametrize("huge_pages", ["auto", "keep"])
def test_every_byte_is_there_again_and_nothing_stays(
    node: Node, run_module: RunModule, digest: str, huge_pages: str
) -> None:
    before = listing(node)
    directory = stage(run_module)
    result = restored(node, run_module, huge_pages=huge_pages)
    assert process_memory.digest(node, "large", MIB) == digest
    found = result["parallel_memory"]
    # At least the first piece has been tried with them.
    given = huge_pages == "auto" and writer_worker.huge_wanted("huge") and LINUX >= (6, 1)
    assert in_huge_pages(node, "large") == found["huge"]
    assert found["huge"] > 0 if given else found["huge"] == 0
    assert result["huge_pages"]["switched"] is False
    assert found["skipped"] == "" and found["bytes"] >= MIB << 20
    assert charged(node, "large") >= MIB << 20
    # Two scripts, each at its step.
    assert "UP" in output(
        node, ["nsenter", "--target", process(node, "large").name, "--net", "ip", "link", "show", "lo"]
    )
    assert result["receipt"]["parallel_memory"] == found
    images = node.inside(str(directory / "memory" / "images"))
    assert sum(path.stat().st_size for path in images.glob("pages-*.img")) < 8 << 20, "CRIU reads the rest alone"
    work = node.inside(f"{STATE}/work/k8s.io/large")
    assert {path.name for path in work.iterdir()} == {"criu.conf", "restore.log", "stats-restore", "stdin"}
    assert "action-script" not in (work / "criu.conf").read_text()
    assert run_module("containerd_restore", wanted())["changed"] is False
    remove(node, run_module, REF)
    assert settled_difference(node, before) == []


def test_it_can_be_captured_and_restored_again(node: Node, run_module: RunModule, digest: str) -> None:
    before = listing(node)
    stage(run_module)
    restored(node, run_module)
    second = "gpuops.test/large:2"
    run_module("containerd_checkpoint", {"container_id": "large", "name": second, "leave": "stopped"})
    remove(node, run_module)
    stage(run_module, second)
    assert restored(node, run_module, reference=second)["parallel_memory"]["bytes"] >= MIB << 20
    assert process_memory.digest(node, "large", MIB) == digest
    remove(node, run_module, REF, second)
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", second)
    assert settled_difference(node, before) == []


def test_what_cannot_be_written_is_left_to_criu(node: Node, run_module: RunModule, digest: str) -> None:
    before = listing(node)
    plan = node.inside(str(stage(run_module) / "memory" / "plan.json"))
    restored(node, run_module)
    remove(node, run_module)
    document = json.loads(plan.read_text())
    document["processes"][0]["pid"] = 4711
    plan.write_text(json.dumps(document))
    result = restored(node, run_module, keep_evidence=0)
    assert process_memory.digest(node, "large", MIB) == digest
    (warning,) = [text for text in map(str, result["warnings"]) if "CRIU alone" in text]
    assert "the process 4711 was not restored" in warning
    assert result["parallel_memory"]["bytes"] == 0 and "4711" in result["parallel_memory"]["skipped"]
    remove(node, run_module, REF)
    assert settled_difference(node, before) == []


@pytest.mark.parametrize("moment", [0.4, 0.7, 1.0, 1.4])
def test_a_killed_run_is_finished_by_the_next(node: Node, run_module: RunModule, digest: str, moment: float) -> None:
    before = listing(node)
    stage(run_module)
    run = in_node.start(node, "containerd_restore", wanted())
    time.sleep(moment)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    run_module("containerd_restore", wanted())
    workload.await_count(node, "large", 10)
    assert process_memory.digest(node, "large", MIB) == digest
    assert run_module("containerd_restore", wanted())["changed"] is False
    assert "action-script" not in node.inside(f"{STATE}/work/k8s.io/large/criu.conf").read_text()
    remove(node, run_module, REF)
    assert settled_difference(node, before) == []


def test_auto_says_why_not(node: Node, run_module: RunModule) -> None:
    before = listing(node)
    stage(run_module)
    result = restored(node, run_module, parallel_memory="auto")
    assert (
        "processors" in result["parallel_memory"]["skipped"]
        or "smaller than 256 MiB" in (result["parallel_memory"]["skipped"])
    )
    remove(node, run_module, REF)
    assert settled_difference(node, before) == []
