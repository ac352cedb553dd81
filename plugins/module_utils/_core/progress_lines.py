# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a node has noted of a long call (:mod:`_core.progress`), as lines for a screen. Pure; for the controller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import strict_json

_LONGEST = 1 << 20
#: Lines, and characters of a line.
_MOST, _WIDEST = 64, 300


def lines(content: str) -> list[str]:
    """What such a file says, one line for each workload. What cannot be read says nothing."""
    try:
        steps = strict_json.parse_object(content[:_LONGEST].encode())["steps"]
        # It comes from a node and goes to a screen.
        return ["".join(filter(str.isprintable, _line(step)))[:_WIDEST] for step in steps[:_MOST]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _line(step: Mapping[str, Any]) -> str:
    """``bert: dump since 12 s, 3.10 of 16.48 GiB, 264.5 MiB/s, about 52 s left``."""
    done, total, rate, left = step["done"], step["total"], step["rate"], step["left"]
    parts = [f"{str(step['phase']).replace('_', ' ')} since {step['seconds']:.0f} s"]
    if total:
        parts.append(f"{_size(done)} of {_size(total)}")
    elif done:
        parts.append(_size(done))
    if rate:
        parts.append(f"{_size(rate)}/s")
    if left is not None:
        parts.append(f"about {left:.0f} s left")
    head = f"{step['name']}: " if step["name"] else ""
    return head + ", ".join(parts)


def _size(size: int) -> str:
    return f"{size / (1 << 30):.2f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.1f} MiB"
