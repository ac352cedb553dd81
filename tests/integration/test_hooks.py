# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A workload that is told to rest before it stands still, and to go on after."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any, Callable

import in_node
import pytest
from gpuops_lab import image, workload
from gpuops_lab.config import Node
from node_listing import listing, settled_difference

NAME, REF = "resting", "gpuops.test/resting:1"
STATE = "/var/lib/gpuops-restore"
RunModule = Callable[..., dict[str, Any]]
#: Counts, and waits while there is a file.
SCRIPT = """
box=/bin/busybox
count=0
while true; do
    while [ -e /var/rest ]; do
        echo >/var/resting
        $box sleep 0.05
    done
    $box rm -f /var/resting
    count=$((count + 1))
    echo $count >/var/count
    $box sleep 0.1
done
"""


def told(script: str, **more: Any) -> dict[str, Any]:
    return {"command": ["/bin/sh", "-c", script], **more}


REST = "echo >/var/rest; until [ -e /var/resting ]; do /bin/busybox sleep 0.05; done"
GO_ON = "/bin/busybox rm /var/rest"
HOOKS = {"before_capture": told(REST), "after_capture": told(GO_ON)}


@pytest.fixture(autouse=True)
def clean(node: Node) -> Iterator[None]:
    """A workload, and the node afterwards as it was before."""
    workload.ctr(node, "k8s.io", "images", "import", workload.place_image(node))
    before = listing(node)
    arguments = ["--detach", "--log-uri", workload.log_uri(NAME), image.REFERENCE, NAME]
    workload.ctr(node, "k8s.io", "run", *arguments, "/bin/sh", "-c", SCRIPT)
    workload.await_count(node, NAME, 2)
    yield
    workload.delete(node, NAME)
    if REF in workload.ctr(node, "k8s.io", "images", "ls", "-q").split():
        workload.ctr(node, "k8s.io", "images", "rm", "--sync", REF)
    for name in ("receipts", "debug"):
        shutil.rmtree(node.inside(f"{STATE}/{name}"), ignore_errors=True)
    node.inside(f"/var/log/{NAME}.log").unlink()
    assert settled_difference(node, before) == []


def counts(node: Node) -> None:
    workload.await_count(node, NAME, workload.count(node, NAME) + 3)


def exists(node: Node, path: str) -> bool:
    script = f"[ -e {path} ] && echo yes || echo no"
    words = ["tasks", "exec", "--exec-id", "exists", NAME, "/bin/sh", "-c", script]
    return workload.ctr(node, "k8s.io", *words).strip() == "yes"


def capture(**more: Any) -> dict[str, Any]:
    return {"container_id": NAME, "name": REF, **more}


def test_it_rests_while_it_is_captured_and_after_the_restore_until_told(
    node: Node, run_module: RunModule, expect_failure: RunModule
) -> None:
    """Also where the restore that should tell it fails, or is killed before it did."""
    predicted = run_module("containerd_checkpoint", capture(**HOOKS), check=True)
    assert not exists(node, "/var/rest")
    done = run_module("containerd_checkpoint", capture(**HOOKS))
    assert done["actions"] == predicted["actions"]
    assert [(hook["hook"], hook["ok"]) for hook in done["hooks"]] == [("before_capture", True), ("after_capture", True)]
    assert {"before_capture", "after_capture"} <= set(done["seconds"])
    assert not exists(node, "/var/rest")
    counts(node)
    workload.delete(node, NAME)
    run_module("containerd_checkpoint_stage", {"checkpoint": REF})

    def restoring(script: str) -> dict[str, Any]:
        wanted = {"name": NAME, "checkpoint": REF, "after_restore": told(script)}
        return {"workloads": [wanted], "huge_pages": "keep"}

    failed = expect_failure("containerd_restore", restoring("exit 3"), "hook_failed")
    assert failed["workloads"][NAME]["failure"]["step"] == "after_restore"
    assert workload.ctr(node, "k8s.io", "containers", "ls", "-q") == ""
    in_node.killed(node, "containerd_restore", restoring(GO_ON), "_probe.hook:run", "enter")
    assert exists(node, "/var/rest")
    done = run_module("containerd_restore", restoring(GO_ON))["workloads"][NAME]
    assert done["changed"] and done["after_restore"]["ok"] and not done["created"]["task"]
    counts(node)
    again = run_module("containerd_restore", restoring(GO_ON))
    assert not again["changed"] and again["workloads"][NAME]["after_restore"] is None
    for module in ("containerd_task", "containerd_container"):
        run_module(module, {"container_id": NAME, "state": "absent"})
    for check in (True, False):
        done = run_module("containerd_restore", restoring(GO_ON), check=check)["workloads"][NAME]
        assert done["after_restore"]["ok"] is (None if check else True) and "after_restore" in done["actions"][-1]
    counts(node)
    for module in ("containerd_task", "containerd_container"):
        run_module(module, {"container_id": NAME, "state": "absent"})
    run_module("containerd_checkpoint_stage", {"checkpoint": REF, "state": "absent"})


def test_whatever_fails_it_goes_on(node: Node, run_module: RunModule, expect_failure: RunModule) -> None:
    half = told(f"{REST}; exit 3")
    failed = expect_failure("containerd_checkpoint", capture(**{**HOOKS, "before_capture": half}), "hook_failed")
    assert "before_capture failed" in failed["msg"] and failed["failure"]["details"]["exit_status"] == 3
    assert "left_behind" not in failed["failure"]["details"]
    assert REF not in workload.ctr(node, "k8s.io", "images", "ls", "-q")
    counts(node)
    late = told(f"{REST}; /bin/busybox sleep 60", command_seconds=1.0)
    expect_failure("containerd_checkpoint", capture(**{**HOOKS, "before_capture": late}), "hook_failed")
    counts(node)
    # What fails after the dump concerns the checkpoint no more.
    ended = told(f"{GO_ON}; exit 4")
    failed = expect_failure("containerd_checkpoint", capture(**{**HOOKS, "after_capture": ended}), "hook_failed")
    assert failed["failure"]["details"]["checkpoint"]["name"] == REF
    assert not run_module("containerd_checkpoint", capture(**HOOKS))["changed"]
    counts(node)


def test_who_has_it_go_on_tells_it(node: Node, run_module: RunModule) -> None:
    """After a capture that has kept it paused, and after one that was killed, without being told how."""
    assert len(run_module("containerd_checkpoint", capture(leave="paused", **HOOKS))["hooks"]) == 1
    settle = capture(state="settled")
    predicted = run_module("containerd_checkpoint", settle, check=True)
    assert run_module("containerd_checkpoint", settle)["actions"] == predicted["actions"]
    assert "run after_capture" in predicted["actions"][-1]
    counts(node)
    for function in ("_capture.layer:prepare", "_containerd.tasks:checkpoint"):
        in_node.killed(node, "containerd_checkpoint", capture(force=True, **HOOKS), function, "enter")
        done = run_module("containerd_checkpoint", settle)
        assert "run after_capture" in done["actions"][-1]
        counts(node)
