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
from dataclasses import dataclass, replace
from typing import Any

from .._checkpoint import writer as checkpoint_writer
from .._checkpoint.reader import WRITTEN
from .._checkpoint.written import LONGEST, Record
from .._containerd import content, messages, snapshots
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
    mounts = snapshots.mounts(client, container.snapshotter, container.snapshot_key)
    if _upper(mounts):
        return upperdir.survey(_upper(mounts))
    # All of its root file system, of which nobody can tell what is new; no image has such names.
    return replace(upperdir.survey(_whole(mounts)), size=0, longest=0, steps=0) if _whole(mounts) else upperdir.Survey()


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


def reserved(container: Container, survey: upperdir.Survey, uncopied: bool = True) -> NodeError | None:
    """Why files whose names a layer takes for deletions cannot be taken, or None: in a copy they have other names.

    ``uncopied``: none can be made.
    """
    if not survey.reserved or not uncopied:
        return None
    return NodeError(
        "written_name_reserved",
        f"The container {container.id} has {survey.reserved} files whose names begin with .wh. (such as "
        f"/{survey.reserved_first[:200]}), which in a layer say that another file was deleted. Only a copy of what the "
        f"container has written can take them, and none can be made: the snapshotter is {container.snapshotter}, and "
        "it takes overlayfs and room on its disk.",
        "Make room on the disk of the snapshots, or remove or rename these files in the container.",
        details={"first": survey.reserved_first, "files": survey.reserved},
    )


def is_copied(client: Client, container: Container) -> bool:
    """Whether what the container has written can be copied, as far as is known before."""
    source = _upper(snapshots.mounts(client, container.snapshotter, container.snapshot_key))
    return bool(source) and _has_room(source)


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


def copy(mounts: Mounts, directory: str) -> Record | None:
    """Copy, while the workload stands still; what the layer will not say, kept below ``directory``. None if that cannot
    be done, so that it has to be compared now."""
    if not mounts.target:
        return None
    record = Record(directory)
    try:
        upperdir.copy(mounts.source, mounts.target, record)
    except upperdir.NotCopiedError:
        return None
    return record


def uncopied(container: Container, mounts: Mounts, directory: str) -> Record:
    """What the layer will not say of files that are compared as they are, while the workload stands still.

    Raises NodeError ``written_name_reserved``.
    """
    record = Record(directory)
    upper = _upper(mounts.upper)
    compared = upper or _whole(mounts.upper)
    if compared:
        problem = reserved(container, upperdir.survey(compared))
        if problem:
            raise problem
        upperdir.attributes(compared, record, every=bool(upper))
    return record


def write(client: Client, mounts: Mounts, copied: bool) -> Descriptor:
    """The layer, gzip since ``ctr containers restore`` reads no other."""
    ref = f"gpuops-restore-layer-{uuid.uuid4().hex}"
    upper = mounts.copy if copied else _beside(mounts.upper)
    written = _upper(mounts.copy if copied else mounts.upper)
    size = upperdir.survey(written).size if written else 0
    return snapshots.diff(client, mounts.lower, upper, checkpoint_writer.LAYER, ref, size)


def store(client: Client, written: Record) -> Descriptor | None:
    """What the layer does not say, as a blob; None where that is nothing. Raises NodeError ``written_too_much``."""
    if not written.entries:
        return None
    digest, size = written.complete()
    if size > LONGEST:
        raise NodeError(
            "written_too_much",
            f"What the checkpoint has to say of {written.entries} files that the container has written takes {size} "
            f"bytes, and a checkpoint takes {LONGEST}.",
            "Have the workload write fewer files, or put attributes and access lists on fewer of them.",
        )
    content.write(client, written.chunks(), digest, size, {})
    return Descriptor(WRITTEN, digest, size, {})


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


def _whole(mounts: Sequence[Any]) -> str:
    """The root file system of a snapshot that is a directory by itself; empty for other kinds."""
    if len(mounts) != 1 or mounts[0].type != "bind" or not os.path.isdir(mounts[0].source):
        return ""
    return str(mounts[0].source)


def _beside(mounts: Sequence[Any]) -> list[Any]:
    """The same to read, without what only one mount may have: a second overlay over the upper and work directories of a
    running container breaks that one (containerd#6077; daemons before its mend mount what they are given)."""
    directory = _upper(mounts)
    if not directory:
        return list(mounts)
    found = messages.message("containerd.types.Mount", type="overlay", source=mounts[0].source)
    for option in mounts[0].options:
        name = option.partition("=")[0]
        if name == "lowerdir":
            found.options.append(f"lowerdir={directory}:{option[len('lowerdir=') :]}")
        elif name not in ("upperdir", "workdir", "rw", "volatile"):
            found.options.append(option)
    found.options.append("ro")
    return [found]


def _has_room(directory: str) -> bool:
    return files.free_bytes(directory) > upperdir.survey(directory).size + files.RESERVE
