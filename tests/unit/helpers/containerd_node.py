# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the fixture ``node`` gives: a base image, a checkpoint, programs and a state root."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import Sample


@dataclass(frozen=True)
class Node:
    """A node with all that a restore needs; ``programs`` and ``root`` are directories."""

    base: Sample
    checkpoint: Sample
    programs: Path
    root: str
