# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a capture takes on the disks, by where its checkpoint is kept; and whether the node has it.

As an image, the memory lies in the staging directory and then once more in the content store, maybe on one file system;
a dump that nobody needs any more gives its disk back meanwhile (:mod:`_checkpoint.reclaim`). On the node it lies there
once. What was written goes into the content store in any case, compressed; a copy of it is only made where there is
room.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .._checkpoint import reclaim, staged as staged_checkpoint, staging
from .._containerd import space
from .._containerd.client import Client
from .._core import files
from .._core.errors import NodeError, RestoreError, combined
from .._core.text import gib
from .params import NODE, CaptureParams

#: Bytes that a dump may still have of what its image has already: the daemon reads as fast as the disk, and on a busy
#: node seconds pass between two looks at how far it is.
_BEHIND = 1 << 30


@dataclass(frozen=True)
class Bytes:
    """What is captured. Sparse files count as they will be written."""

    #: Of the processes, their GPUs, and deleted files.
    dump: int
    #: In memory volumes.
    volumes: int
    #: Into the root file system.
    written: int


@dataclass(frozen=True)
class _Needed:
    #: In the staging directory, in the content store, and where one file system has both.
    staging: int
    content: int
    together: int


@dataclass(frozen=True)
class OnDisk:
    """Bytes on the file system of the staging directory."""

    #: While it is captured, and what stays.
    during: int
    kept: int


def problems(client: Client, params: CaptureParams, size: Bytes) -> list[NodeError]:
    """Why there is no room; where there would be some for a checkpoint that stays on the node, they say so."""
    root = params.staging_dir
    staged_checkpoint.root_exists(root)
    found = _problems(client, root, _needed(params, size))
    if found and params.store != NODE and not _problems(client, root, _needed(replace(params, store=NODE), size)):
        for problem in found:
            problem.remedy += f" There is room with store: node, which keeps the memory once ({gib(size.dump)})."
            problem.details["fits"] = NODE
    return found


def refusals(client: Client, wanted: Sequence[tuple[CaptureParams, Bytes]]) -> dict[str, RestoreError]:
    """Those for which there is no room when the ones before have been captured, each by its container; all of them have
    one staging directory."""
    refused: dict[str, RestoreError] = {}
    accepted: list[tuple[CaptureParams, Bytes]] = []
    for params, size in wanted:
        trial = [*accepted, (params, size)]
        found = _problems(client, params.staging_dir, _one_by_one(trial))
        if found:
            refused[params.container_id] = combined(found)
        else:
            accepted = trial
    return refused


def available(staging_dir: str) -> int:
    """What captures may take where they are staged."""
    return max(0, files.free_bytes(staging_dir) - files.RESERVE)


def on_disk(client: Client, params: CaptureParams, size: Bytes) -> OnDisk:
    """What one capture takes where it is staged."""
    needed, staged = _needed(params, size), _staged(params, size)
    if _shared(params.staging_dir, space.content_store(client)):
        return OnDisk(needed.together, staged + needed.content)
    return OnDisk(needed.staging, staged)


def _needed(params: CaptureParams, size: Bytes) -> _Needed:
    staging_bytes = size.dump + size.volumes
    content = size.volumes + size.written + (0 if params.store == NODE else size.dump)
    spends = params.spends_dump and reclaim.works_in(params.staging_dir)
    freed = max(0, size.dump - _BEHIND) if spends else 0
    return _Needed(staging_bytes, content, staging_bytes + content - freed)


def _staged(params: CaptureParams, size: Bytes) -> int:
    """What stays in the staging directory."""
    return size.dump if params.store == NODE or params.keeps_staged else 0


def _one_by_one(captures: Sequence[tuple[CaptureParams, Bytes]]) -> _Needed:
    """What all keep, and what the largest needs beyond while it is captured."""
    kept = sum(_staged(*capture) for capture in captures)
    needed = [(_needed(*capture), _staged(*capture)) for capture in captures]
    content = sum(one.content for one, _staged_bytes in needed)
    return _Needed(
        kept + max(one.staging - staged for one, staged in needed),
        content,
        kept + content + max(one.together - one.content - staged for one, staged in needed),
    )


def _problems(client: Client, staging_dir: str, needed: _Needed) -> list[NodeError]:
    found: list[NodeError] = []
    free = files.free_bytes(staging_dir)
    content = space.content_store(client)
    shared = _shared(staging_dir, content)
    here = (needed.together if shared else needed.staging) + files.RESERVE
    if here > free:
        found.append(staging.no_space(staging_dir, here, free))
    if not shared and content.free is not None and needed.content > content.free:
        found.append(space.shortage(content, "The checkpoint has about", needed.content))
    return found


def _shared(staging_dir: str, content: space.ContentStore) -> bool:
    return bool(content.path) and _device(staging_dir) == _device(content.path)


def _device(path: str) -> int | None:
    while path and not os.path.exists(path):
        path = os.path.dirname(path)
    return os.stat(path).st_dev if path else None
