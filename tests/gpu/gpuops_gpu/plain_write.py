# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What plain threads write to a place, as a measure for a dump."""

from __future__ import annotations

import concurrent.futures
import mmap
import os
import pathlib
import time

THREADS = 4
BLOCK = 16 << 20


def rate(path: pathlib.Path, size: int, *, direct: bool, threads: int = THREADS) -> float:
    """Bytes per second of threads that write to one file; ``direct``: past the page cache, and onto the disk."""
    size -= size % (BLOCK * threads)
    source = mmap.mmap(-1, BLOCK)
    source.write(os.urandom(BLOCK))
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | (os.O_DIRECT if direct else 0)
    target = os.open(path, flags, 0o600)
    try:
        begun = time.monotonic()

        def write(thread: int) -> None:
            part = size // threads
            for offset in range(thread * part, (thread + 1) * part, BLOCK):
                os.pwrite(target, source, offset)

        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            list(pool.map(write, range(threads)))
        if direct:
            os.fsync(target)
        return size / (time.monotonic() - begun)
    finally:
        os.close(target)
        path.unlink()
