# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps that faults strike: what a run does, what it needs, and what undoes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from gpuops_lab import workload
from gpuops_lab.config import Node

from gpuops_faults.modules import Interpreter

SOURCE = "source"
REF = "gpuops.test/faults:1"
TAKEN = "gpuops.test/faults:taken"
BROUGHT = "gpuops.test/faults:brought"
ARCHIVE = "/srv/faults.tar"
#: MiB that the workload holds: enough for each step to have something to be in the middle of.
MIB = 8
#: How long a restored task is watched: that it is, is a call like the others; whether it counts on is looked at later.
ALIVE_SECONDS = 0.1
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
            (
                "containerd_restore",
                {"workloads": [{"name": "app", "checkpoint": REF, "gpu": "none"}], "alive_seconds": ALIVE_SECONDS},
            ),
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


def prepare(node: Node, interpreter: Interpreter) -> None:
    """A counter runs, a checkpoint of it is in containerd, and another one, as an archive, is on the disk."""
    workload.start(node, SOURCE, MIB)
    workload.await_count(node, SOURCE, 3)
    for name, options in (
        ("containerd_checkpoint", {"container_id": SOURCE, "name": BROUGHT, "gpu": "none"}),
        ("containerd_checkpoint_archive", {"operation": "export", "name": BROUGHT, "path": ARCHIVE}),
        _image_absent(BROUGHT),
        ("containerd_checkpoint", {"container_id": SOURCE, "name": REF, "gpu": "none"}),
    ):
        interpreter.succeed(name, options)
