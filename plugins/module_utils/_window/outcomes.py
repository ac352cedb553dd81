# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run of a playbook has come to, in a line for each workload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def lines(receipts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Of the receipts of captures or of restores, by workload."""
    return [f"{name}: {_outcome(receipts[name])}" for name in sorted(receipts)]


def _outcome(receipt: Mapping[str, Any]) -> str:
    checkpoint = receipt.get("checkpoint") or {}
    seconds = receipt.get("seconds") or {}
    image = str(checkpoint.get("name") or checkpoint.get("digest") or "its checkpoint")
    if "container" in receipt:
        return f"runs from {image}" + _seconds("its window took", seconds.get("window"))
    return f"captured as {image}" + _seconds("it stood still for", seconds.get("standstill"))


def _seconds(what: str, value: Any) -> str:
    return f"; {what} {value:.1f} s" if isinstance(value, (int, float)) else ""
