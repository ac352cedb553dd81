# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How fast this node is: what its last restores took, and short measurements where there were none.

The file lies below /run, where a clean-up leaves it and a reboot takes it; after a reboot the receipts tell. Nothing
here raises: without rates a prediction is an estimate.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from collections.abc import Sequence

from .._core import recent
from .._host import huge_pages
from . import records
from .prediction import Rates, Sample

FILE = os.path.join(huge_pages.DIRECTORY, "rates.json")
#: The last restores of a node are kept; older ones were of another time.
_KEPT = 12
_SAMPLE, _PIECE = 64 << 20, 1 << 20


def load(file: str, staging_dir: str) -> Rates:
    """What is known without measuring anything. ``file``: "" for none."""
    return Rates(_kept(file) or _of_receipts(staging_dir))


def note(file: str, samples: Sequence[Sample]) -> None:
    """Add what restores took to those before."""
    recent.add(file, [one.document() for one in samples], _KEPT)


def copy_rate() -> float:
    """Bytes per second of cached bytes into fresh memory, measured in a fraction of a second; 0 where that fails."""
    try:
        with tempfile.TemporaryFile() as file, mmap.mmap(-1, _SAMPLE, flags=mmap.MAP_PRIVATE) as area:
            piece = os.urandom(_PIECE)
            for offset in range(0, _SAMPLE, _PIECE):
                os.pwrite(file.fileno(), piece, offset)
            begun = time.monotonic()
            with memoryview(area) as view:
                for offset in range(0, _SAMPLE, _PIECE):
                    os.preadv(file.fileno(), [view[offset : offset + _PIECE]], offset)
            return _SAMPLE / max(1e-6, time.monotonic() - begun)
    except OSError:
        return 0.0


def disk_rate(path: str, start: int, end: int) -> float:
    """Bytes per second of the disk, from a part of a file that is not in the page cache; 0 where that fails."""
    end = min(end, start + _SAMPLE)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            buffer = memoryview(bytearray(_PIECE))
            begun, at = time.monotonic(), start
            while at < end:
                count = os.preadv(descriptor, [buffer[: end - at]], at)
                if count == 0:
                    break
                at += count
            took = time.monotonic() - begun
            # A look leaves no trace: who reads it ahead later finds it as it was.
            os.posix_fadvise(descriptor, start, at - start, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    except OSError:
        return 0.0
    return (at - start) / max(1e-6, took)


def _kept(file: str) -> list[Sample]:
    samples = [Sample.from_document(entry) for entry in recent.load(file)]
    return [one for one in samples if one is not None][-_KEPT:]


def _of_receipts(staging_dir: str) -> list[Sample]:
    directory = os.path.join(staging_dir, records.RECEIPTS)
    try:
        entries = [entry for entry in os.scandir(directory) if entry.name.endswith(".json")]
        newest = sorted(entries, key=lambda entry: entry.stat(follow_symlinks=False).st_mtime)[-_KEPT:]
    except OSError:
        return []
    samples = [Sample.from_receipt(recent.read(entry.path) or {}) for entry in newest]
    return [one for one in samples if one is not None]
