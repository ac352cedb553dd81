# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the lab's package importable for its tests."""

from __future__ import annotations

import pathlib
import sys

LAB = str(pathlib.Path(__file__).resolve().parents[2] / "lab")
if LAB not in sys.path:
    sys.path.append(LAB)
