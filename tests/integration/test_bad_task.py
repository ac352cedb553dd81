# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bad input: a task that is paused, and a process that does not survive its restore."""

from __future__ import annotations

from typing import Any, Callable

import make_images
import pytest
from bad_input import CODES, Refuses, check_wording
from gpuops_lab import image, workload
from gpuops_lab.config import STATE_ROOT, Node
from gpuops_lab.node import run
from make_images import imported
from node_listing import difference, listing, settled_difference

REF = "gpuops.test/checkpoint:1"
FRAIL = "gpuops.test/frail:1"
STAGE, CONTAINER, TASK, INFO = (
    "containerd_checkpoint_stage",
    "containerd_container",
    "containerd_task",
    "containerd_checkpoint_info",
)
#: Ends as soon as there is a file /die, with a last word.
SCRIPT = "while [ ! -e /die ]; do sleep 0.05; done; echo I have to go; exit 7"
RunModule = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def good(node: Node) -> None:
    make_images.good(node, REF)


@pytest.fixture
def refuses(expect_failure: RunModule, unchanged: Callable[..., Any]) -> Refuses:
    return Refuses(expect_failure, unchanged)


def remove(run_module: RunModule, reference: str, identifier: str) -> None:
    for name in (TASK, CONTAINER):
        run_module(name, {"container_id": identifier, "state": "absent"})
    run_module(STAGE, {"checkpoint": reference, "state": "absent"})


def test_task_paused(node: Node, refuses: Refuses, run_module: RunModule) -> None:
    before = listing(node)
    wish = {"container_id": "still", "checkpoint": REF}
    run_module(STAGE, {"checkpoint": REF})
    run_module(CONTAINER, wish)
    run_module(TASK, wish)
    workload.ctr(node, workload.NAMESPACE, "tasks", "pause", "still")
    try:
        for params in (wish, {"container_id": "still", "state": "stopped"}):
            refuses(TASK, params, "task paused", "still")
        assert [problem["code"] for problem in run_module(INFO, wish)["problems"]] == ["task_paused"]
    except BaseException:
        # What is frozen cannot be killed, not even with the node.
        run(node, ["ctr", "-n", workload.NAMESPACE, "tasks", "resume", "still"])
        raise
    # To remove it is what the message offers.
    remove(run_module, REF, "still")
    assert settled_difference(node, before) == []


def test_process_dies_at_once(node: Node, run_module: RunModule, expect_failure: RunModule) -> None:
    """The frail process lives when it is captured; in the files that it is restored with lies its end."""
    log = "/var/log/frail-restored.log"
    command = ["/bin/busybox", "sh", "-c", SCRIPT]
    arguments = ["run", "--detach", "--log-uri", workload.log_uri("frail"), image.REFERENCE, "frail", *command]
    workload.ctr(node, workload.NAMESPACE, *arguments)
    workload.checkpoint(node, "frail", FRAIL)
    workload.delete(node, "frail")
    parts = make_images.take_apart(node, FRAIL)
    with imported(node, parts.having("layer", make_images.layer({"die": b""}))) as reference:
        before = listing(node)
        wish = {"container_id": "frail", "checkpoint": reference}
        run_module(STAGE, {"checkpoint": reference})
        run_module(CONTAINER, wish)
        prepared = listing(node)
        result = expect_failure(TASK, {**wish, "stdout": log}, CODES["process dies at once"][0])
        check_wording(result, ("frail", "exit status 7"))
        assert result["failure"]["details"]["exit_status"] == 7
        assert result["failure"]["details"]["output"] == ["I have to go"]
        # What CRIU wrote is the evidence, and stays until the container goes; no task, no shim, no output file does.
        kept = f"+ staging: {STATE_ROOT}/work/k8s.io/frail/"
        settled_difference(node, prepared, ignore=("staging",))
        left = difference(prepared, listing(node))
        assert f"{kept}restore.log -rw-------" in left
        assert [line for line in left if not line.startswith(kept)] == []
        expect_failure(TASK, wish, CODES["snapshot used"][0])
        remove(run_module, reference, "frail")
        assert settled_difference(node, before) == []


def test_containerd_restarts_with_cri(node: Node) -> None:
    assert workload.cri_problems(node) == []
