# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Places for dumps: the disk of the test's folder, or a tmpfs that goes again."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
from collections.abc import Iterator

from gpuops_gpu.bench import Bench

#: Kinds of places, and the options of their tmpfs.
DISK = "disk"
KINDS = {DISK: "", "tmpfs": "huge=never", "tmpfs of huge pages": "huge=always"}


@contextlib.contextmanager
def place(bench: Bench, options: str, gib: float) -> Iterator[pathlib.Path]:
    """A folder, of a tmpfs of that size where there are options; it is empty at first and gone afterwards."""
    found = bench.settings.base / "place"
    found.mkdir(mode=0o700)
    try:
        if options:
            size = f"size={int(gib)}g,mode=0700,{options}"
            bench.runner.run(["mount", "-t", "tmpfs", "-o", size, "gpuops", str(found)], 10)
        yield found
    finally:
        with bench.runner.limited(60, beyond=True):
            if options:
                bench.runner.run(["umount", str(found)], 30, check=False)
        shutil.rmtree(found, ignore_errors=True)
