# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Staged files into the page cache before the window, where the node's memory allows.

CRIU reads its files in small pieces, each waiting for the one before; read ahead in large ones the disk is busy all the
time. What the cache has already is not read again.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .._core.text import gib
from .._host import memory as host_memory, page_cache
from .._host.page_cache import Piece

AUTO, ALWAYS, NEVER = "auto", "always", "never"
#: Bytes that stay free when the files are cached and the process has its memory.
RESERVE = 512 << 20


@dataclass(frozen=True)
class Report:
    """What was, or would be, read."""

    #: Of the files.
    bytes: int = 0
    #: Of these, from the disk.
    read: int = 0
    seconds: float = 0.0
    #: Why nothing was read; else empty.
    skipped: str = ""
    #: Bytes that CRIU will have to wait for the disk for.
    uncached: int = 0

    def result(self) -> dict[str, object]:
        """As modules return it."""
        return {"bytes": self.bytes, "read": self.read, "seconds": self.seconds, "skipped": self.skipped}


def warm(directories: Sequence[str], mode: str, process_bytes: int) -> Report:
    """Have the files of ``directories`` in the page cache.

    ``process_bytes``: memory that the restored process will take. Raises OSError when one cannot be read.
    """
    begun = time.monotonic()
    missing = uncached_pieces(*directories)
    report = predict(directories, mode, process_bytes, missing)
    if report.skipped:
        return report
    for path, pieces in missing.items():
        if pieces:
            page_cache.read(path, pieces)
    return dataclasses.replace(report, seconds=round(time.monotonic() - begun, 3))


def predict(
    directories: Sequence[str], mode: str, process_bytes: int, missing: Mapping[str, Sequence[Piece]]
) -> Report:
    """What :func:`warm` would do; ``missing`` as :func:`uncached_pieces` tells. Raises OSError."""
    total = sum(os.stat(path).st_size for path in _paths(directories))
    wanted = sum(end - start for pieces in missing.values() for start, end in pieces)
    if mode == NEVER:
        return Report(total, skipped="prewarm is never", uncached=wanted)
    # Cache counts as available, so what is cached already is not asked for twice.
    free = host_memory.available()
    needed = total + process_bytes + RESERVE
    if mode == AUTO and wanted and free is not None and needed > free:
        reason = f"{gib(needed)} of memory would be needed, {gib(free)} are available"
        return Report(total, skipped=reason, uncached=wanted)
    return Report(total, wanted)


def uncached_pieces(*directories: str) -> dict[str, list[Piece]]:
    """The pieces of each file that the page cache lacks. Raises OSError."""
    return {path: page_cache.missing(path) for path in _paths(directories)}


def _paths(directories: Sequence[str]) -> list[str]:
    """Each file once, whatever names it has."""
    found = [entry for directory in directories for entry in os.scandir(directory)]
    return list({entry.inode(): entry.path for entry in found if entry.is_file(follow_symlinks=False)}.values())
