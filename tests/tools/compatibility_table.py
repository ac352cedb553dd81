#!/usr/bin/env python3
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""compatibility_table.py FOLDER DOCUMENT: what the integration tests kept in FOLDER becomes the table in DOCUMENT."""

from __future__ import annotations

import json
import pathlib
import re
import sys
from collections.abc import Iterable
from typing import Any

BEGIN, END = "<!-- compatibility: begin -->", "<!-- compatibility: end -->"
COLUMNS = ("containerd", "runc", "criu", "system", "python", "grpcio", "kernel")
HEADINGS = ("containerd", "runc", "CRIU", "node", "its Python", "grpcio", "kernel", "tests", "failed", "day")


def table(runs: Iterable[dict[str, Any]], earlier: str = "") -> str:
    """A row for each combination; the tests of all its runs together, the day of the newest.

    ``earlier``: a table whose rows on other combinations stay.
    """
    rows: dict[tuple[str, ...], dict[str, bool]] = {}
    days: dict[tuple[str, ...], str] = {}
    for run in sorted(runs, key=lambda run: str(run["day"])):
        key = tuple(str(run["versions"].get(name, "?")) for name in COLUMNS)
        rows.setdefault(key, {}).update(run["tests"])
        days[key] = str(run["day"])
    cells = {key: [*key, *rest] for key, rest in _rows(earlier)}
    for key, tests in rows.items():
        failed = [test for test, well in tests.items() if not well]
        cells[key] = [*key, str(len(tests)), str(len(failed)), days[key]]
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    for key in sorted(cells, key=lambda key: [[int(part) for part in re.findall(r"\d+", name)] for name in key[:3]]):
        lines.append("| " + " | ".join(cells[key]) + " |")
    return "\n".join(lines)


def _rows(text: str) -> Iterable[tuple[tuple[str, ...], list[str]]]:
    """The combination of each row of a table, and its other cells."""
    for line in text.splitlines():
        row = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(row) == len(HEADINGS) and tuple(row) != HEADINGS and not row[0].startswith("---"):
            yield tuple(row[: len(COLUMNS)]), row[len(COLUMNS) :]


def replaced(text: str, runs: Iterable[dict[str, Any]]) -> str:
    """The document with the table of these runs between its marks; its other rows stay."""
    before, found, rest = text.partition(BEGIN)
    earlier, closed, after = rest.partition(END)
    if not found or not closed:
        raise SystemExit(f"the document has no place for the table: {BEGIN} and {END}.")
    return f"{before}{BEGIN}\n\n{table(runs, earlier)}\n\n{END}{after}"


def main(folder: pathlib.Path, document: pathlib.Path) -> None:
    """Write it."""
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    if not runs:
        raise SystemExit(f"no integration test has left anything in {folder}; run make integration first.")
    document.write_text(replaced(document.read_text(), runs))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
