# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Between a role, which has registered results, and its decisions: each role has a table of its steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Steps = Mapping[str, Callable[[Mapping[str, Any]], Any]]


def decide(steps: Steps, step: str, known: Mapping[str, Any]) -> Any:
    """What the role does at the step. Raises ValueError for one that is not among ``steps``."""
    if step not in steps:
        raise ValueError(f"{step} is no step of the role; there are {', '.join(steps)}")
    return steps[step](known)
