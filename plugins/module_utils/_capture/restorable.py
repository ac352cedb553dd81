# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether what is captured can come back: the rules of a restore, applied before anything stops.

What an operator vouches for is captured all the same, and the warning says what becomes of it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .._containerd.containers import Container
from .._core.errors import InputError, NodeError, RestoreError
from .._gpu import peer_access, shared_gpus, xla
from .._host import mountinfo
from .._oci import spec_namespaces, spec_validate
from . import mounts, own_network, targets

#: The refusal's code.
USER_NAMESPACE = "user_namespace_remapped"
_LOST = "If it is so, the capture ends the workload, and its checkpoint cannot be restored."
#: The refusals that an operator may vouch for, and what becomes of the capture then.
ACCEPTABLE: Mapping[str, str] = {
    peer_access.CUDA_IPC: _LOST,
    peer_access.MULTICAST: _LOST,
    xla.ALLOCATOR: _LOST,
    targets.DRIVER: "A restore there is tried with that driver; where it fails, the checkpoint is unharmed.",
    targets.GPUS: "The checkpoint cannot be restored there as long as the node has no such GPUs.",
    shared_gpus.MPS: "If it uses MPS, the driver refuses the checkpoint, or the process does not come back from it.",
    USER_NAMESPACE: f"It comes back otherwise than it was. {spec_namespaces.IMAGE_OF_NOBODY}",
    "mount_source_symlink": "A restore refuses the link, too, until its option mounts maps it to what it leads to.",
}


def vouched(
    problems: Sequence[RestoreError], accepted: Collection[str]
) -> tuple[list[RestoreError], list[dict[str, str]]]:
    """The problems that are left, and what was found of those that the operator vouches for: code, message, outcome."""
    left, taken = [], []
    for problem in problems:
        if problem.code in ACCEPTABLE and problem.code in accepted:
            taken.append({"code": problem.code, "message": problem.message, "outcome": ACCEPTABLE[problem.code]})
        else:
            left.append(problem)
    return left, taken


def warning(taken: Mapping[str, str]) -> str:
    """One sentence for each thing that was vouched for."""
    return f"Accepted ({taken['code']}): {taken['message']} {taken['outcome']}"


def problems(
    container: Container, pid: int, empty_namespaces: Collection[str], proc: str = "/proc", root: str = ""
) -> list[RestoreError]:
    """What of the container's spec, mounts and network no restore brings back.

    ``pid``: its first process; ``root``: its root file system, in which links are followed.
    """
    spec = container.spec
    try:
        spec_validate.check(spec)
    except InputError as error:
        return [error]
    found: list[RestoreError] = [*spec_namespaces.unrestorable(spec)]
    if spec_namespaces.has_user_namespace(spec) and not any(one.code == "user_namespace_unmapped" for one in found):
        found.append(_user_namespace_problem(container.id))
    found += _link_problems(container.id, spec)
    found += _replaced_problems(container.id, spec, f"{proc}/{pid}/mountinfo", root)
    lost = [] if own_network.KIND in empty_namespaces else own_network.lost(spec, pid, proc)
    return found + ([own_network.problem(container.id, lost)] if lost else [])


def _user_namespace_problem(container_id: str) -> NodeError:
    """containerd gave the files of its image to the mapped root, in a copy or by mounts; a restore has no such copy."""
    return NodeError(
        USER_NAMESPACE,
        f"{container_id} runs in a user namespace, and a restore does not give it the files of its image: they would "
        "belong to nobody in the container.",
        "Run it without a user namespace; or accept: [user_namespace_remapped] if it changes only its own files.",
    )


def _link_problems(container_id: str, spec: Mapping[str, Any]) -> list[NodeError]:
    """Sources that are symbolic links, which CRIU does not follow (``open_tree`` with AT_SYMLINK_NOFOLLOW)."""
    found = []
    for mount in spec.get("mounts") or ():
        source = mount.get("source") or ""
        if spec_validate.is_bind(mount) and os.path.islink(source):
            real = os.path.realpath(source)
            found.append(
                NodeError(
                    "mount_source_symlink",
                    f"The mount at {mount['destination']} of {container_id} comes from {source}, a symbolic link to "
                    f"{real}, which CRIU does not follow when it restores.",
                    f"Run the workload with {real} as the source; or accept: [mount_source_symlink], and give the "
                    f"restore mounts: {{'{source}': '{real}'}}.",
                    details={"destination": mount["destination"], "source": source, "resolved": real},
                )
            )
    return found


def _replaced_problems(container_id: str, spec: Mapping[str, Any], path: str, root: str) -> list[NodeError]:
    """Sources that were deleted, or replaced by others, since the container began.

    The kernel appends ``//deleted`` to their root, and CRIU, which wants to make such a file again, finds the new one
    in its way ("Can't re-create deleted file", mount-v2.c; seen with CRIU 4.1.1 and 4.2.1).
    """
    binds = {
        mounts.place(mount["destination"], root): mount.get("source") or ""
        for mount in spec.get("mounts") or ()
        if spec_validate.is_bind(mount)
    }
    found = []
    for mount in mountinfo.parse(mountinfo.read(path)):
        source = binds.get(mount.mount_point)
        if source is not None and mount.root.endswith("//deleted"):
            found.append(
                NodeError(
                    "mount_source_replaced",
                    f"The mount at {mount.mount_point} of {container_id} shows what {source} was when the container "
                    "began; that has been deleted or replaced since, and CRIU cannot restore such a mount.",
                    "Start the container anew, so that it has what is there now; change a file that is mounted by "
                    "itself in place from then on (cp, not mv).",
                    details={"destination": mount.mount_point, "source": source},
                )
            )
    return found
