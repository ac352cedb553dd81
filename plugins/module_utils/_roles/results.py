# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Ansible has registered of a module, read no further than it goes.

A result may be of a task that was skipped, that failed before the module ran, or whose module was killed: then it has
neither what was asked for nor a ``failure`` of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Of a result without a code or an outcome of ours.
CODE, OUTCOME = "module_failed", "unknown"


def mapping(value: Any) -> Mapping[str, Any]:
    """The value where it is a mapping, else an empty one: some answers have null for what is not there."""
    return value if isinstance(value, Mapping) else {}


def skipped(result: Mapping[str, Any]) -> bool:
    """Whether the task did not run."""
    return bool(result.get("skipped"))


def code(result: Mapping[str, Any]) -> str:
    """The failure code, :data:`CODE` where the module gave none."""
    return str(mapping(result.get("failure")).get("code", CODE))


def outcome(result: Mapping[str, Any]) -> str:
    """``retryable``, ``terminal`` or ``unknown``."""
    return str(mapping(result.get("failure")).get("outcome", OUTCOME))


def message(result: Mapping[str, Any], module: str) -> str:
    """Why ``module`` failed; where it did not come to say so, that."""
    return str(result.get("msg", f"{module} did not run; -vvv shows why."))
