# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What one node, source or target, knows of migrations: records, containers, directories with archives."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .._capture import mark as capture_mark
from .._containerd import containers, images, tasks
from .._containerd.client import Client
from .._core import labels
from .._core.errors import ConflictError
from .._restore import records as restore_records
from . import records
from .decisions import Seen


@dataclass(frozen=True)
class LookParams:
    """What is looked at."""

    #: Containers, beside those that the records name.
    names: Sequence[str]
    #: Directories in which migrations make theirs.
    directories: Sequence[str]
    staging_dir: str
    marks_root: str

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> LookParams:
        """Of the module's options."""
        return cls(
            names=options["names"],
            directories=options["directories"],
            staging_dir=options["staging_dir"],
            marks_root=capture_mark.default_root(),
        )


def gather(client: Client, params: LookParams) -> dict[str, Any]:
    """All of it, as the module returns it. Nothing is changed."""
    found, unreadable = records.read_all(params.staging_dir, client.namespace)
    names = dict.fromkeys([*params.names, *(record.source_name for record in found)])
    places = [place for directory in dict.fromkeys(params.directories) for place in _places(directory)]
    return {
        "records": [record.to_json() for record in found],
        "unreadable": unreadable,
        "containers": {name: look(client, params, name).to_json() for name in names},
        "places": sorted(places, key=lambda place: str(place["path"])),
    }


def look(client: Client, params: LookParams, name: str) -> Seen:
    """One container."""
    container = containers.get(client, name)
    task = tasks.get(client, name)
    receipt = restore_records.read_receipt(params.staging_dir, client.namespace, name).get("checkpoint")
    digest = receipt.get("digest") if isinstance(receipt, dict) else None
    busy, mark = False, None
    try:
        mark = capture_mark.peek(params.marks_root, client.namespace, name)
    except ConflictError:
        busy = True
    image = images.get(client, mark.name) if mark is not None and mark.name else None
    return Seen(
        exists=container is not None,
        checkpoint=container.labels.get(labels.CHECKPOINT, "") if container is not None else "",
        task=task.status if task is not None else "",
        receipt=digest if isinstance(digest, str) else "",
        capture="busy" if busy else mark.phase if mark is not None else "",
        captured_as=mark.name if mark is not None else "",
        captured_digest=image.target.digest if image is not None else "",
    )


def _places(directory: str) -> list[dict[str, Any]]:
    """Directories of migrations, and for how many seconds nothing has changed in them."""
    try:
        entries = [entry for entry in os.scandir(directory) if entry.name.startswith(records.PLACE_PREFIX)]
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
    found = []
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False):
            continue
        changed = max(_changed(path) for path in (entry.path, *_below(entry.path)))
        found.append({"path": entry.path, "idle": max(0, int(time.time() - changed))})
    return found


def _below(directory: str) -> list[str]:
    try:
        return [entry.path for entry in os.scandir(directory)]
    except OSError:
        return []


def _changed(path: str) -> float:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return 0.0
    return found.st_mtime if stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode) else 0.0
