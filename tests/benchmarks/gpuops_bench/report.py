# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was found: a table for people, JSON for whoever compares runs, a picture of the phases."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

from gpuops_bench import picture
from gpuops_bench.measure import Comparison, median, spread


def write(directory: pathlib.Path, found: Sequence[Comparison]) -> None:
    """``results.json`` and ``phases.svg``."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "results.json"
    records = [comparison.record() for comparison in found]
    # Sections that were measured before and not now stay.
    names = {record["name"] for record in records}
    earlier = json.loads(path.read_text()) if path.exists() else []
    kept = [record for record in earlier if record["name"] not in names]
    path.write_text(json.dumps([*kept, *records], indent=1) + "\n")
    (directory / "phases.svg").write_text(picture.svg([each for each in found if each.unit == "s"]))


def table(found: Sequence[Comparison]) -> str:
    """Medians with the least and the greatest value of each side."""
    rows = [("", "ours", "peer", "ratio", "runs", "peer is")]
    for each in found:
        rows.append(
            (
                each.name,
                _cell(median(each.ours), spread(each.ours), each.unit),
                _cell(median(each.theirs), spread(each.theirs), each.unit),
                f"{each.ratio:.2f}",
                str(len(each.ours)),
                each.peer,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows)


def _cell(middle: float, ends: list[float], unit: str) -> str:
    digits = 0 if unit == "MiB" else 2
    return f"{middle:.{digits}f} {unit} ({ends[0]:.{digits}f}–{ends[1]:.{digits}f})"
