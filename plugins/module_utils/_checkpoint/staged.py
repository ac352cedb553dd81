# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A staged checkpoint: its CRIU files, verified, in a directory; recognised without reading them.

<root>/<name>/.complete.json     the marker, written last: format, name, digest, size, files
<root>/<name>/images/            what CRIU gets as its image path; nothing of ours lies there
<root>/.<name>.partial-<pid>/    being built or being removed, never used
"""

from __future__ import annotations

import json
import os
import re
import stat as stat_module
from dataclasses import dataclass
from typing import Any

from .._core.errors import InputError
from . import staging_root

MARKER = ".complete.json"
FORMAT = "gpuops.restore/staged/1"
IMAGES = "images"
#: CRIU's files without which nothing can be restored.
REQUIRED = ("inventory.img", "descriptors.json")
_NAME = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Staged:
    """A staged checkpoint."""

    #: The CRIU image path.
    directory: str
    #: Of the CRIU tar.
    digest: str
    #: Sum of the file sizes.
    bytes: int
    #: Number of files.
    files: int
    #: False when it was there already.
    created: bool


def find(root: str, name: str) -> Staged | None:
    """The staged checkpoint, recognised by its marker and the size and time of each file; None if absent or damaged.

    Reads no file content. NodeError ``staging_dir_unsafe`` for a root that others could have written to.
    """
    check_name(name)
    if not staging_root.exists(root):
        return None
    marker = _read_marker(os.path.join(root, name, MARKER))
    if marker is None or marker.get("format") != FORMAT or marker.get("name") != name:
        return None
    files, digest = marker.get("files"), marker.get("digest")
    images = os.path.join(root, name, IMAGES)
    if not isinstance(files, dict) or not isinstance(digest, str) or not os.path.isdir(images):
        return None
    total = 0
    for file, entry in files.items():
        try:
            stat = os.lstat(os.path.join(os.fsencode(images), file.encode("utf-8")))
        except OSError:
            return None
        if not stat_module.S_ISREG(stat.st_mode) or not isinstance(entry, dict):
            return None
        if (stat.st_size, stat.st_mtime_ns) != (entry.get("size"), entry.get("mtime_ns")):
            return None
        total += stat.st_size
    return Staged(images, digest, total, len(files), False)


def check_name(name: str) -> None:
    """Raise InputError ``staging_name_invalid`` for what is no name of a staged checkpoint."""
    if not _NAME.match(name):
        raise InputError(
            "staging_name_invalid",
            f"{name[:80]!r} is not the hex digest of a checkpoint image.",
            "Give the 64 hex digits of its sha256 digest.",
        )


def _read_marker(path: str) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as stream:
            document = json.load(stream)
    except (OSError, ValueError):
        return None  # no marker, or half of one: not staged
    return document if isinstance(document, dict) else None
