# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a capture takes on the disks, by where its checkpoint is kept; and whether the node has it.

As an image, the memory lies in the staging directory and then once more in the content store, maybe on one file system;
on the node it lies there once. What was written goes into the content store in any case, compressed; a copy of it is
only made where there is room.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from .._checkpoint import staged as staged_checkpoint, staging
from .._containerd import space
from .._containerd.client import Client
from .._core import files
from .._core.errors import NodeError, RestoreError, combined
from .._core.text import gib
from .params import IMAGE, NODE


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
    #: In the staging directory, and in the content store.
    staging: int
    content: int


@dataclass(frozen=True)
class OnDisk:
    """Bytes on the file system of the staging directory."""

    #: While it is captured, and what stays.
    during: int
    kept: int


def problems(client: Client, staging_dir: str, store: str, size: Bytes) -> list[NodeError]:
    """Why there is no room; where there would be some for a checkpoint that stays on the node, they say so."""
    staged_checkpoint.root_exists(staging_dir)
    found = _problems(client, staging_dir, _needed(store, size))
    if found and store != NODE and not _problems(client, staging_dir, _needed(NODE, size)):
        for problem in found:
            problem.remedy += f" There is room with store: node, which keeps the memory once ({gib(size.dump)})."
            problem.details["fits"] = NODE
    return found


def refusals(client: Client, staging_dir: str, wanted: Sequence[tuple[str, str, Bytes]]) -> dict[str, RestoreError]:
    """Those for which there is no room when the ones before have been captured, each by name, ``store`` and size."""
    refused: dict[str, RestoreError] = {}
    accepted: list[tuple[str, Bytes]] = []
    for name, store, size in wanted:
        trial = [*accepted, (store, size)]
        found = _problems(client, staging_dir, _together(trial))
        if found:
            refused[name] = combined(found)
        else:
            accepted = trial
    return refused


def available(staging_dir: str) -> int:
    """What captures may take where they are staged."""
    return max(0, files.free_bytes(staging_dir) - files.RESERVE)


def on_disk(client: Client, staging_dir: str, store: str, size: Bytes) -> OnDisk:
    """What one capture takes where it is staged."""
    needed = _needed(store, size)
    content = needed.content if _shared(staging_dir, space.content_store(client)) else 0
    return OnDisk(needed.staging + content, _staged(store, size) + content)


def _needed(store: str, size: Bytes) -> _Needed:
    staging_bytes = size.dump + size.volumes
    return _Needed(staging_bytes, size.volumes + size.written + (0 if store == NODE else size.dump))


def _staged(store: str, size: Bytes) -> int:
    """What stays in the staging directory."""
    return 0 if store == IMAGE else size.dump


def _together(captures: Sequence[tuple[str, Bytes]]) -> _Needed:
    """One after another: what all keep, and what the largest needs beyond while it is captured."""
    kept = sum(_staged(store, size) for store, size in captures)
    passing = max(_needed(store, size).staging - _staged(store, size) for store, size in captures)
    return _Needed(kept + passing, sum(_needed(store, size).content for store, size in captures))


def _problems(client: Client, staging_dir: str, needed: _Needed) -> list[NodeError]:
    found: list[NodeError] = []
    free = files.free_bytes(staging_dir)
    content = space.content_store(client)
    shared = _shared(staging_dir, content)
    here = needed.staging + (needed.content if shared else 0) + files.RESERVE
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
