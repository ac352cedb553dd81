# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What CRIU's restore spent its time on, by the times that its log has before each line."""

from __future__ import annotations

import pathlib
import re

LINE = re.compile(r"\((\d+\.\d+)\)\s*(.*)")
LEAST = 0.05
WORDS = 90


def longest(directory: pathlib.Path) -> list[tuple[float, str]]:
    """Steps of at least LEAST seconds of the restore logs below, each with the line at its end, and the last time."""
    found: list[tuple[float, str]] = []
    for path in directory.rglob("restore.log"):
        last = 0.0
        for match in map(LINE.match, path.read_text(errors="replace").splitlines()):
            if match:
                took = float(match.group(1)) - last
                last += took
                if took >= LEAST:
                    found.append((round(took, 3), match.group(2)[:WORDS]))
        found.append((round(last, 3), "all of it"))
    return found
