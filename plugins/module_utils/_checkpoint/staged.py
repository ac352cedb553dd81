# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A staged checkpoint: its CRIU files, verified, in a directory; recognised without reading them.

<root>/<name>/.complete.json     the marker, written last: format, name, digest, size, files; and of a checkpoint that
                                 lives here alone, whose it is
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

from .._core.errors import InputError, NodeError

MARKER = ".complete.json"
FORMAT = "gpuops.restore/staged/1"
IMAGES = "images"
#: Of the marker: nothing else has these files. Namespace and container of the checkpoint.
ONLY_COPY = "only_copy_of"
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
    if not root_exists(root):
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


def root_exists(root: str) -> bool:
    """False if there is no root; NodeError ``staging_dir_unsafe`` if there is one that is not to be trusted."""
    if not os.path.isabs(root):
        raise _unsafe(root, "is not an absolute path")
    try:
        stat = os.lstat(root)
    except FileNotFoundError:
        return False
    _check(root, stat)
    return True


def only_copies(root: str) -> list[tuple[str, str, str]]:
    """Name, containerd's namespace and container of each staged checkpoint that lives here alone, damaged or not.

    Raises NodeError as :func:`find`.
    """
    if not root_exists(root):
        return []
    found = []
    for name in sorted(os.listdir(root)):
        whose = only_copy_of(root, name) if _NAME.match(name) else None
        if whose is not None:
            found.append((name, *whose))
    return found


def only_copy_of(root: str, name: str) -> tuple[str, str] | None:
    """Namespace and container of a staged checkpoint that lives here alone; None for any other."""
    whose = (_read_marker(os.path.join(root, name, MARKER)) or {}).get(ONLY_COPY)
    if not isinstance(whose, dict):
        return None
    return str(whose.get("namespace", "")), str(whose.get("container", ""))


def check_name(name: str) -> None:
    """Raise InputError ``staging_name_invalid`` for what is no name of a staged checkpoint."""
    if not _NAME.match(name):
        raise InputError(
            "staging_name_invalid",
            f"{name[:80]!r} is not the hex digest of a checkpoint image.",
            "Give the 64 hex digits of its sha256 digest.",
        )


def _check(root: str, stat: os.stat_result) -> None:
    if stat_module.S_ISLNK(stat.st_mode):
        raise _unsafe(root, "is a symbolic link")
    if not stat_module.S_ISDIR(stat.st_mode):
        raise _unsafe(root, "is not a directory")
    if stat.st_uid != os.geteuid():
        raise _unsafe(root, f"belongs to user id {stat.st_uid}, not to {os.geteuid()}")
    if stat.st_mode & (stat_module.S_IWGRP | stat_module.S_IWOTH):
        raise _unsafe(root, f"can be written by others (mode {stat_module.S_IMODE(stat.st_mode):04o})")


def _unsafe(root: str, reason: str) -> NodeError:
    return NodeError(
        "staging_dir_unsafe",
        f"The staging directory {root} {reason}.",
        "Set staging_dir to the absolute path of a new directory, or of one of root's with mode 0700.",
        details={"path": root},
    )


def _read_marker(path: str) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as stream:
            document = json.load(stream)
    except (OSError, ValueError):
        return None  # no marker, or half of one: not staged
    return document if isinstance(document, dict) else None
