# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long containerd takes to lay out a layer whose files lie deep.

It resolves each path by itself, and asks for each of its directories by a path from the beginning (continuity's
``fs.RootPath``): a file costs the square of how deep it lies, and a chain of a thousand directories minutes.
"""

from __future__ import annotations

#: What 955 nested directories took in a node of the lab, 93 seconds, by the sum of their squares.
SECONDS_PER_STEP = 3.2e-7
#: Less is lost in what a layer takes anyway.
_WORTH_SAYING = 10.0


def steps(depth: int) -> int:
    """Of a file that lies so many directories deep; those of a layer are added up."""
    return depth * depth


def seconds(total: int | None) -> float:
    """What all of a layer take; 0 where that is not worth saying, or was not recorded."""
    found = (total or 0) * SECONDS_PER_STEP
    return found if found >= _WORTH_SAYING else 0.0


def warnings(container_id: str, total: int | None) -> list[str]:
    """What an operator is told before a capture and before a restore."""
    found = seconds(total)
    if not found:
        return []
    about = f"{found / 60:.0f} minutes" if found >= 90 else f"{found:.0f} seconds"
    return [
        f"{container_id} has written very deep directories: containerd takes about {about} to lay them out again "
        "before a restored process starts. Without them, if nobody needs them, it would not."
    ]
