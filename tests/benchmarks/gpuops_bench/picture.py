# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Phases side by side as an SVG, with nothing but the standard library. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from gpuops_bench.measure import Comparison, Sample, median, phases

COLOURS = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377")
PEER_COLOUR = "#bbbbbb"
LEFT, BAR, HEIGHT, GAP = 250, 640, 16, 16


def svg(found: Sequence[Comparison]) -> str:
    """Two bars a comparison, each pair scaled to its slower side: ours by phases above, the peer's below."""
    parts: list[str] = []
    top = 24
    for each in found:
        longest = max(median(each.ours), median(each.theirs)) or 1.0
        parts.append(_text(8, top + HEIGHT, each.name, "bold"))
        parts.append(_text(8, top + 2 * HEIGHT + 4, f"{each.peer[:34]}", "normal"))
        parts += _bar(each.ours, longest, top + 4, COLOURS)
        parts += _bar(each.theirs, longest, top + HEIGHT + 8, (PEER_COLOUR,))
        names = list(phases(each.ours))
        at = LEFT
        for name, colour in zip(names, COLOURS * 3):
            parts.append(f'<rect x="{at}" y="{top + 2 * HEIGHT + 14}" width="9" height="9" fill="{colour}"/>')
            parts.append(_text(at + 12, top + 2 * HEIGHT + 23, name, "normal", 10))
            at += 24 + 6 * len(name)
        top += 3 * HEIGHT + GAP + (12 if names else 0)
    width = LEFT + BAR + 110
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top}" font-family="sans-serif">'
    return "\n".join([head, f'<rect width="{width}" height="{top}" fill="white"/>', *parts, "</svg>", ""])


def _bar(samples: list[Sample], longest: float, top: int, colours: Sequence[str]) -> list[str]:
    total = median(samples)
    pieces = list(phases(samples).values()) or [total]
    # Medians of phases need not add up to the median of the whole.
    scale = total / sum(pieces) if sum(pieces) else 1.0
    made, at = [], float(LEFT)
    for number, piece in enumerate(pieces):
        width = max(0.0, piece) * scale / longest * BAR
        colour = colours[number % len(colours)]
        made.append(f'<rect x="{at:.1f}" y="{top}" width="{width:.1f}" height="{HEIGHT}" fill="{colour}"/>')
        at += width
    return [*made, _text(int(at) + 6, top + HEIGHT - 3, f"{total:.2f} s", "normal")]


def _text(x: int, y: int, text: str, weight: str, size: int = 12) -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}">{escape(text)}</text>'
