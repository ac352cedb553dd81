# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m gpuops_bench.documents``: the tables of docs/performance.md from what ``make bench`` has found.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``. One for which nothing was measured stays as it is.
"""

from __future__ import annotations

import json
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from gpuops_bench import projection

ROOT = pathlib.Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "performance.md"
FOUND = ROOT / "build" / "bench"
#: How the names of a section's comparisons begin.
SECTIONS = {
    "restore": r"restore ",
    "role": r"role over ssh|Ansible's share",
    "overhead": r"Ansible's overhead|the window's task",
    "many": r"\d+ x ",
    "capture": r"capture ",
    "migrate": r"migrate ",
    "transfer": r"(stage|export|import) ",
}
FLEET_VARIANT = "as in examples/ansible.cfg"


def comparisons(found: Sequence[Mapping[str, Any]], beginning: str) -> list[str]:
    """Rows of Markdown; none when nothing of that section was measured."""
    chosen = [each for each in found if re.match(beginning, each["name"])]
    lines = ["| | ours | peer | ratio | runs | peer is |", "|---|---:|---:|---:|---:|---|"]
    for each in chosen:
        unit, digits = each["unit"], 2 if each["unit"] == "s" else 0
        cells = []
        for side, name in (("ours", "ours"), ("peer", "theirs")):
            middle = each[f"{side}_seconds" if unit == "s" else name]
            low, high = each["spread"][side]
            cells.append(f"{middle:.{digits}f} {unit} ({low:.{digits}f}–{high:.{digits}f})")
        row = [each["name"], *cells, f"{each['ratio']:.2f}", str(each["runs"]), each["peer"]]
        lines.append("| " + " | ".join(row) + " |")
    return lines if chosen else []


def fleet(found: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "| nodes | playbook | settings | wall, s | controller's processors, s | per node, s | peak of a process, MiB |",
        "|---:|---|---|---:|---:|---:|---:|",
    ]
    for run in found:
        cells = [run["nodes"], run["playbook"], run["variant"], f"{run['wall']:.1f}", f"{run['controller']:.1f}"]
        lines.append("| " + " | ".join(map(str, [*cells, f"{run['per_node']:.2f}", run["peak_mib"]])) + " |")
    return lines


def filled(page: str, tables: Mapping[str, Sequence[str]]) -> str:
    """The page with its tables."""
    for name, lines in tables.items():
        if lines:
            text = f"<!-- table: {name} -->\n" + "".join(f"{line}\n" for line in lines) + "<!-- end -->"
            page = re.sub(rf"<!-- table: {name} -->\n.*?<!-- end -->", lambda _match, text=text: text, page, flags=re.S)
    return page


def main() -> int:
    tables: dict[str, list[str]] = {}
    if (FOUND / "results.json").exists():
        found = json.loads((FOUND / "results.json").read_text())
        tables.update({name: comparisons(found, beginning) for name, beginning in SECTIONS.items()})
    if (FOUND / "fleet.json").exists():
        runs = json.loads((FOUND / "fleet.json").read_text())
        tables.update(fleet=fleet(runs), projection=projection.table(runs, FLEET_VARIANT))
    PAGE.write_text(filled(PAGE.read_text(), tables))
    print(f"{PAGE}: {', '.join(name for name, lines in tables.items() if lines) or 'nothing was measured'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
