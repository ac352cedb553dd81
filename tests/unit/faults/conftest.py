# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the package of the faults importable for its tests."""

from __future__ import annotations

import pathlib
import sys

TESTS = pathlib.Path(__file__).resolve().parents[2]
for directory in ("lab", "integration", "faults"):
    if str(TESTS / directory) not in sys.path:
        sys.path.append(str(TESTS / directory))
# What runs beside the lab's collector in a node.
if str(TESTS / "lab" / "gpuops_lab") not in sys.path:
    sys.path.append(str(TESTS / "lab" / "gpuops_lab"))
