# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checkpoints of a machine that was otherwise: its processors, page sizes, disks, cgroup driver, runtime's program."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any, Callable

import make_images
import pytest
from gpuops_lab import image, workload
from gpuops_lab.config import Node
from gpuops_lab.node import output
from make_images import Parts
from node_listing import listing, settled_difference

NAME, GOOD = "workload", "gpuops.test/machine:good"
RUNC = "/opt/rt/runc"
STATE = "/var/lib/gpuops-restore"
RunModule = Callable[..., dict[str, Any]]
#: Limits of a spec, and what the refusal says of each.
ELSEWHERE: dict[str, Any] = {
    "cpu": {"cpus": "500-501", "mems": "7"},
    "hugepageLimits": [{"pageSize": "16MB", "limit": 0}],
    "blockIO": {"throttleReadBpsDevice": [{"major": 259, "minor": 77, "rate": 1000}]},
}
WORDS = ("processors 500-501", "memory nodes 7", "huge pages of 16MB", "the block device 259:77")


@pytest.fixture(scope="module")
def good(node: Node) -> Parts:
    workload.ctr(node, "k8s.io", "images", "import", workload.place_image(node))
    # The first namespace leaves the directory of all as a mount.
    output(node, ["ip", "netns", "add", "first"])
    output(node, ["ip", "netns", "delete", "first"])
    return make_images.good(node, GOOD)


@pytest.fixture(autouse=True)
def clean(node: Node, good: Parts) -> Iterator[None]:
    """The node is afterwards as it was before."""
    before = listing(node)
    yield
    shutil.rmtree(node.inside(f"{STATE}/receipts"), ignore_errors=True)
    node.inside(f"/var/log/{NAME}.log").unlink(missing_ok=True)
    assert settled_difference(node, before) == []


def restored(run_module: RunModule, reference: str, **more: Any) -> dict[str, Any]:
    node_wide = {"runtimes": more.pop("runtimes")} if "runtimes" in more else {}
    run_module("containerd_checkpoint_stage", {"checkpoint": reference})
    asked = {"name": NAME, "checkpoint": reference, **more}
    return run_module("containerd_restore", {"workloads": [asked], "huge_pages": "keep", **node_wide})


def gone(run_module: RunModule, reference: str) -> None:
    for module in ("containerd_task", "containerd_container"):
        run_module(module, {"container_id": NAME, "state": "absent"})
    run_module("containerd_checkpoint_stage", {"checkpoint": reference, "state": "absent"})


def problems(run_module: RunModule, reference: str, **more: Any) -> dict[str, str]:
    found = run_module("containerd_checkpoint_info", {"checkpoint": reference, "container_id": NAME, **more})
    return {problem["code"]: problem["message"] for problem in found["problems"]}


def test_limits_of_another_machine(node: Node, run_module: RunModule, expect_failure: RunModule, good: Parts) -> None:
    """Refused before anything is made, all at once; the remedy works, and keeps what this node has."""
    spec = make_images.spec_of(good)
    resources = {**spec["linux"].get("resources", {}), **ELSEWHERE, "memory": {"limit": 256 << 20}}
    resources["cpu"] = {**ELSEWHERE["cpu"], "shares": 512}
    spec["linux"]["resources"] = resources
    with make_images.imported(node, good.having("spec", make_images.spec_blob(spec))) as reference:
        (said,) = problems(run_module, reference).values()
        assert all(word in said for word in WORDS)
        wanted = {"container_id": NAME, "checkpoint": reference}
        assert said in expect_failure("containerd_container", wanted, "limits_unfit")["msg"]
        assert problems(run_module, reference, limits="fit") == {}
        found = restored(run_module, reference, limits="fit")
        assert all(word in str(found["warnings"]) for word in WORDS)
        workload.await_count(node, NAME, workload.count(node, NAME) + 2)
        assert str(256 << 20) in workload.ctr(node, "k8s.io", "containers", "info", NAME)
        gone(run_module, reference)


def test_systemds_cgroups_where_systemd_does_not_run(node: Node, run_module: RunModule, good: Parts) -> None:
    """runc would refuse its driver; the control group is made without it."""
    # A marshalled Any of them, with systemd_cgroup alone.
    kind = b"containerd.runc.v1.Options"
    options = b"\x0a" + bytes([len(kind)]) + kind + b"\x12\x02\x48\x01"
    made = good
    entry = {"mediaType": make_images.KINDS["runtime-options"], "digest": "", "size": 0}
    if not any(child["mediaType"] == entry["mediaType"] for child in good.index["manifests"]):
        made = good.noted()
        made.index["manifests"].append(entry)
    with make_images.imported(node, made.having("runtime-options", options)) as reference:
        found = run_module("containerd_checkpoint_info", {"checkpoint": reference, "container_id": NAME})
        assert found["problems"] == [] and "cgroupfs is used" in str(found["warnings"])
        assert "cgroupfs is used" in str(restored(run_module, reference)["warnings"])
        workload.await_count(node, NAME, workload.count(node, NAME) + 2)
        gone(run_module, reference)


def test_the_program_of_a_runtime(node: Node, run_module: RunModule, expect_failure: RunModule) -> None:
    """runc is asked for where runc would be called; a program that is not there is named before anything is made."""
    found = output(node, ["sh", "-c", "command -v runc"]).strip()
    node.inside(RUNC).parent.mkdir(parents=True)
    shutil.copy2(node.inside(found), node.inside(RUNC))
    away = f"{found}.away"
    runtimes = [{"name": "io.containerd.runc.v2", "binary_name": RUNC}]
    reference = "gpuops.test/machine:program"
    try:
        shutil.move(node.inside(found), node.inside(away))
        arguments = ("--log-uri", workload.log_uri(NAME), "--runc-binary", RUNC, image.REFERENCE, NAME)
        workload.ctr(node, "k8s.io", "run", "--detach", *arguments)
        workload.await_count(node, NAME, 2)
        run_module("containerd_checkpoint", {"container_id": NAME, "name": reference})
        workload.delete(node, NAME)
        assert problems(run_module, reference, runtimes=runtimes) == {}
        assert "runc_missing" in problems(run_module, reference)
        restored(run_module, reference, runtimes=runtimes)
        workload.await_count(node, NAME, workload.count(node, NAME) + 2)
        gone(run_module, reference)
        node.inside(RUNC).unlink()
        assert RUNC in problems(run_module, reference, runtimes=runtimes)["runtime_program_absent"]
        wanted = {"container_id": NAME, "checkpoint": reference, "runtimes": runtimes}
        expect_failure("containerd_container", wanted, "runtime_program_absent")
    finally:
        shutil.move(node.inside(away), node.inside(found))
    assert problems(run_module, reference) == {}
    restored(run_module, reference)
    workload.await_count(node, NAME, workload.count(node, NAME) + 2)
    gone(run_module, reference)
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", reference)
    shutil.rmtree(node.inside("/opt/rt"))
