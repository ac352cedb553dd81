# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files and file systems: free space, directories that survive a crash."""

from __future__ import annotations

import os
import shutil

#: Bytes that are left free where CRIU's files are written: the node's other work needs them.
RESERVE = 256 << 20


def free_bytes(path: str) -> int:
    """Bytes that may still be written where ``path`` is, or would be made."""
    while not os.path.exists(path):
        path = os.path.dirname(path) or os.curdir
    return shutil.disk_usage(path).free


def size_of(directory: str) -> int:
    """Bytes of the files in a directory; the ones below its own are not counted. OSError where it is not there."""
    with os.scandir(directory) as found:
        return sum(entry.stat(follow_symlinks=False).st_size for entry in found)


def sync_directory(path: str | bytes) -> None:
    """fsync a directory, so that the names in it survive a crash."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
