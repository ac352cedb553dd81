# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container has written into its root file system, as a layer.

To compare a root file system with its image and to compress what is new takes seconds for each GiB and for each
hundred thousand files of the image. On overlayfs the container's own directory is therefore copied while the workload
stands still, into a snapshot of ours with the same parent, and that one is compared when the workload goes on.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .._checkpoint import writer as checkpoint_writer
from .._containerd import snapshots
from .._containerd.client import Client
from .._containerd.containers import Container
from .._core import files
from .._core.errors import InputError, NodeError
from .._oci.image import Descriptor
from . import upperdir

#: Of the kernel's PATH_MAX, less what containerd mounts the root file system at.
_LONGEST_PATH = 4096 - 256


@dataclass(frozen=True)
class Mounts:
    """What is compared, as mounts of snapshots."""

    #: A view of the base.
    lower: list[Any]
    #: The container's own snapshot.
    upper: list[Any]
    #: The snapshot for the copy; empty where ``upper`` itself is compared.
    copy: list[Any]
    #: The directory that is copied, and the one in the snapshot ``copy``; both empty where nothing is copied.
    source: str = ""
    target: str = ""


def snapshot_keys(container_id: str) -> tuple[str, str]:
    """Names for the view of the base and for the copy, which nobody else has."""
    unique = f"{container_id}-{uuid.uuid4().hex[:12]}"
    return f"gpuops-restore-capture-{unique}", f"gpuops-restore-copy-{unique}"


def written(client: Client, container: Container) -> upperdir.Survey | None:
    """What the container has written, as far as that can be seen without comparing; None without a snapshot."""
    if snapshots.stat(client, container.snapshotter, container.snapshot_key) is None:
        return None
    directory = _upper(snapshots.mounts(client, container.snapshotter, container.snapshot_key))
    return upperdir.survey(directory) if directory else upperdir.Survey()


def too_deep(container: Container, survey: upperdir.Survey) -> NodeError | None:
    """Why what the container has written cannot become a layer, or None: the daemon opens each file by its path."""
    if survey.longest <= _LONGEST_PATH:
        return None
    return NodeError(
        "written_path_too_long",
        f"The container {container.id} has written a path of {survey.longest} bytes, and containerd takes and brings "
        f"back none of more than {_LONGEST_PATH}.",
        "Remove or move that directory in the container, then run again.",
        details={"bytes": survey.longest},
    )


def prepare(client: Client, container: Container, view_key: str, copy_key: str) -> Mounts:
    """Make both snapshots before the task is paused; with ``copy_key`` empty nothing will be copied.

    Raises InputError ``snapshot_absent``.
    """
    found = snapshots.stat(client, container.snapshotter, container.snapshot_key)
    if found is None:
        raise snapshot_absent(container)
    upper = snapshots.mounts(client, container.snapshotter, container.snapshot_key)
    lower = snapshots.view(client, container.snapshotter, view_key, found.parent, {})
    source = _upper(upper) if copy_key else ""
    if not source or not _has_room(source):
        return Mounts(lower, upper, [])
    target = snapshots.prepare(client, container.snapshotter, copy_key, found.parent, {})
    return Mounts(lower, upper, target, source, _upper(target))


def copy(mounts: Mounts) -> bool:
    """Copy, while the workload stands still; False if that cannot be done, so that it has to be compared now."""
    if not mounts.target:
        return False
    try:
        upperdir.copy(mounts.source, mounts.target)
    except upperdir.NotCopiedError:
        return False
    return True


def write(client: Client, mounts: Mounts, copied: bool) -> Descriptor:
    """The layer, gzip since ``ctr containers restore`` reads no other."""
    ref = f"gpuops-restore-layer-{uuid.uuid4().hex}"
    upper = mounts.copy if copied else mounts.upper
    written = _upper(upper)
    size = upperdir.survey(written).size if written else 0
    return snapshots.diff(client, mounts.lower, upper, checkpoint_writer.LAYER, ref, size)


def snapshot_absent(container: Container) -> InputError:
    """The error for a container without its snapshot."""
    return InputError(
        "snapshot_absent",
        f"The snapshot {container.snapshot_key} of the container {container.id} is gone.",
        "Only a container with a snapshot of its own can be captured.",
    )


def _upper(mounts: Sequence[Any]) -> str:
    """Where overlayfs keeps what is written; empty for other kinds of snapshots, and where we do not see it."""
    if len(mounts) != 1 or mounts[0].type != "overlay":
        return ""
    found = [option[len("upperdir=") :] for option in mounts[0].options if option.startswith("upperdir=")]
    return found[0] if found and os.path.isdir(found[0]) else ""


def _has_room(directory: str) -> bool:
    return files.free_bytes(directory) > upperdir.survey(directory).size + files.RESERVE
