# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files with metadata of workloads, which lie on the controller."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any


def find(reference: str, places: Sequence[str]) -> str:
    """The file: an absolute path, or relative to the first of ``places`` that has it; empty where none has."""
    for place in places:
        path = os.path.abspath(os.path.expandvars(os.path.join(place, reference)))
        if os.path.exists(path):
            return path
    return ""


def find_all(workloads: Sequence[Mapping[str, Any]], places: Sequence[str]) -> dict[str, str]:
    """Those that are there, by what the workloads call them."""
    wanted = dict.fromkeys(str(workload["metadata"]) for workload in workloads if workload.get("metadata"))
    found = {reference: find(reference, places) for reference in wanted}
    return {reference: path for reference, path in found.items() if path}
