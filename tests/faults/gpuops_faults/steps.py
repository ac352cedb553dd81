# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps that faults strike: what a run does, what it needs, and what undoes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import in_node
from gpuops_lab import workload
from gpuops_lab.config import Node

SOURCE = "source"
REF = "gpuops.test/faults:1"
TAKEN = "gpuops.test/faults:taken"
BROUGHT = "gpuops.test/faults:brought"
ARCHIVE = "/srv/faults.tar"
#: MiB that the workload holds: enough for each step to have something to be in the middle of.
MIB = 16
Call = tuple[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of the main job."""

    name: str
    #: The module's call that is struck, and repeated.
    call: Call
    #: What takes away what it made; each may be made any number of times.
    undo: Sequence[Call]
    #: What has to be there first.
    before: Sequence[Call] = ()
    #: The container that has to count on in the end, from the source's checkpoint or all the time.
    counting: str = SOURCE
    #: Whether a call may fail because the node has rebooted: nothing is there any more to be captured.
    needs_task: bool = False


_STAGED: Call = ("containerd_checkpoint_stage", {"checkpoint": REF})
_UNSTAGE: Call = ("containerd_checkpoint_stage", {"checkpoint": REF, "state": "absent"})


def _absent(container: str) -> list[Call]:
    return [
        (name, {"container_id": container, "state": "absent"}) for name in ("containerd_task", "containerd_container")
    ]


def _image_absent(name: str) -> Call:
    return ("containerd_image", {"name": name, "state": "absent"})


STEPS: Mapping[str, Step] = {
    step.name: step
    for step in (
        Step(
            "restore",
            ("containerd_restore", {"workloads": [{"name": "app", "checkpoint": REF, "gpu": "none"}]}),
            undo=[*_absent("app"), _UNSTAGE],
            before=[_STAGED],
            counting="app",
        ),
        Step(
            "capture",
            ("containerd_checkpoint", {"container_id": SOURCE, "name": TAKEN, "gpu": "none"}),
            undo=[_image_absent(TAKEN)],
            needs_task=True,
        ),
        Step("stage", _STAGED, undo=[_UNSTAGE]),
        Step(
            "import",
            ("containerd_checkpoint_archive", {"operation": "import", "name": BROUGHT, "path": ARCHIVE}),
            undo=[_image_absent(BROUGHT)],
        ),
    )
}


def prepare(node: Node) -> None:
    """A counter runs, a checkpoint of it is in containerd, and another one, as an archive, is on the disk."""
    start_source(node)
    workload.await_count(node, SOURCE, 3)
    for name, options in (
        ("containerd_checkpoint", {"container_id": SOURCE, "name": BROUGHT, "gpu": "none"}),
        ("containerd_checkpoint_archive", {"operation": "export", "name": BROUGHT, "path": ARCHIVE}),
        _image_absent(BROUGHT),
        ("containerd_checkpoint", {"container_id": SOURCE, "name": REF, "gpu": "none"}),
    ):
        succeed(node, name, options)


def start_source(node: Node) -> None:
    """The counter, from the start."""
    workload.start(node, SOURCE, MIB)


def succeed(node: Node, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Run a module that has to do its work. Raises AssertionError with what it said."""
    found = in_node.run_module(node, name, options)
    assert not found.get("failed"), f"{name}: {found.get('msg')}"
    return found


def check_counting(node: Node, container: str, wait: Callable[..., int] = workload.await_count) -> None:
    """It goes on, and has neither lost nor repeated a number. Raises AssertionError or LabError."""
    wait(node, container, workload.count(node, container) + 2)
    read = ["tasks", "exec", "--exec-id", "faults", container, "/bin/cat", "/var/count.log"]
    numbers = [int(line) for line in workload.ctr(node, "k8s.io", *read).split()]
    assert numbers == list(range(1, len(numbers) + 1)), f"{container} has lost or repeated a number"
