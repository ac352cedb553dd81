# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the last captures of this node took. The file lies below /run: a clean-up leaves it, a reboot takes it."""

from __future__ import annotations

import os

from .._core import recent
from .._host import huge_pages
from .prediction import Sample

FILE = os.path.join(huge_pages.DIRECTORY, "capture-rates.json")
#: Older ones were of another time; several sizes and kinds of captures find room.
_KEPT = 24


def load(file: str) -> list[Sample]:
    """The oldest first. ``file``: "" for none."""
    samples = (Sample.from_document(entry) for entry in recent.load(file))
    return [one for one in samples if one is not None]


def note(file: str, sample: Sample) -> None:
    """Add one."""
    recent.add(file, [sample.document()], _KEPT)
