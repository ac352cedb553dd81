# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The node's part of a window: what it has noted, and what the node is now."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._checkpoint import facts as checkpoint_facts
from .._core import files, state_dir, text
from .._gpu.access import GpuAccess
from .._gpu.nvml import Reading
from .._host import memory, mountinfo
from . import course, journal

#: Of nodes that another window does not have to wait for.
_OVER = (course.DONE, course.RETURNED, course.SKIPPED)


#: What becomes of the claim to the node.
KEEP, TAKE, RELEASE = "keep", "take", "release"
CLAIMS = (KEEP, TAKE, RELEASE)


@dataclass(frozen=True)
class NodeParams:
    """What is asked, and what is to be noted."""

    #: Containerd's.
    namespace: str
    window: str = ""
    node: Mapping[str, Any] = field(default_factory=dict)
    workloads: Sequence[Mapping[str, Any]] = ()
    claim: str = KEEP
    #: The run that notes; empty: nobody asks whose the node is.
    controller: str = ""
    #: What the journal was when the run decided to take the node.
    revision: str = ""
    staging_dir: str = state_dir.STATE_ROOT
    access: GpuAccess = field(default_factory=GpuAccess)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> NodeParams:
        """Of the module's options."""
        return cls(
            namespace=options["namespace"],
            window=options["window"],
            node=options["node"],
            workloads=options["workloads"],
            claim=options["claim"],
            controller=options["controller"],
            revision=options["revision"],
            staging_dir=options["staging_dir"],
            access=GpuAccess.from_options(options),
        )


def gather(params: NodeParams, check: bool) -> dict[str, Any]:
    """Note what is given, and answer what the module returns. Raises InputError and NodeError of the journal."""
    root, namespace = params.staging_dir, params.namespace
    journal.check_name(params.window)
    changed = _note(params, check)
    found = {name: journal.read(root, namespace, name) for name in journal.windows(root, namespace)}
    reading = params.access.read_nvml()
    return {
        "changed": changed,
        **found.get(params.window, {"node": {}, "workloads": []}),
        "others": [
            {"window": name, "phase": noted["node"].get("phase", "")}
            for name, noted in found.items()
            if name != params.window and noted["node"].get("phase", course.DONE) not in _OVER
        ],
        "claim": journal.claimed(root, namespace),
        "revision": journal.revision(root, namespace),
        "facts": facts(params.access, root, reading),
        "room": room(params.access, root, reading),
    }


def _note(params: NodeParams, check: bool) -> bool:
    """Claim and note in one step, so that no two runs both find the node free."""
    root, namespace = params.staging_dir, params.namespace
    given = journal.Notes(params.window, params.node, params.workloads)
    if check or (params.claim == KEEP and not (given.node or given.workloads)):
        return journal.note(root, namespace, given, text.utc_now(), check)
    with journal.locked(root, namespace):
        if params.claim == TAKE:
            journal.take(root, namespace, params.window, params.controller, params.revision, text.utc_now())
        elif params.controller and (given.node or given.workloads):
            journal.require(root, namespace, params.window, params.controller)
        changed = journal.note(root, namespace, given, text.utc_now(), check)
        if params.claim == RELEASE:
            changed = journal.release(root, namespace, params.controller) or changed
    return changed


def room(access: GpuAccess, root: str, reading: Reading) -> dict[str, Any]:
    """What the node could take in: bytes of host memory, of the disk below ``root``, of cards; and its processor."""
    machine = os.uname().machine
    return {
        "memory": memory.available(access.proc),
        "disk": files.free_bytes(root),
        "cards": [{"uuid": gpu.uuid, "name": gpu.name, "free": gpu.memory_free} for gpu in reading.gpus],
        "architecture": machine,
        "cpu_features": list(checkpoint_facts.cpu(machine, f"{access.proc}/cpuinfo")[1]),
    }


def facts(access: GpuAccess, root: str, reading: Reading) -> dict[str, Any]:
    """What has to be as it was when the work is done, and whether what lies below ``root`` outlives a reboot."""
    return {
        "boot": (state_dir.read_text(f"{access.proc}/sys/kernel/random/boot_id") or "").strip(),
        "kernel": os.uname().release,
        "time": int(time.time()),
        "driver": reading.driver or (state_dir.read_text("/sys/module/nvidia/version") or "").strip(),
        "gpus": [{"uuid": gpu.uuid, "name": gpu.name} for gpu in reading.gpus],
        "state": {"path": root, "file_system": mountinfo.file_system(root, mountinfo.parse(mountinfo.read()))},
    }
