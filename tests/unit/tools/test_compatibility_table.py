# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of docs/compatibility.md, from what integration tests noted."""

from __future__ import annotations

import importlib.util
import json
import pathlib
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
_spec = importlib.util.spec_from_file_location("table", ROOT / "tests" / "tools" / "compatibility_table.py")
assert _spec and _spec.loader
tool = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tool)

BEGIN, END = tool.BEGIN, tool.END


def run(containerd: str, day: str, **tests: bool) -> dict[str, Any]:
    versions = {**dict.fromkeys(tool.COLUMNS, "1"), "containerd": containerd}
    return {"versions": versions, "day": day, "tests": tests}


def rows(*runs: dict[str, Any]) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in tool.table(runs).splitlines()[2:]]


def test_runs_on_the_same_versions_are_one_row() -> None:
    (row,) = rows(run("1.7.24", "2026-01-02", a=True), run("1.7.24", "2026-01-01", b=False))
    assert row == ["1.7.24", *["1"] * 6, "2", "1", "2026-01-02"]


def test_a_test_that_ran_again_counts_once_as_it_went_last() -> None:
    (row,) = rows(run("1.7.24", "2026-01-01", a=False), run("1.7.24", "2026-01-02", a=True))
    assert row[-3:] == ["1", "0", "2026-01-02"]


def test_rows_are_in_the_order_of_versions() -> None:
    found = rows(*(run(version, "2026-01-01", a=True) for version in ("2.1.0", "1.10.0", "1.7.24")))
    assert [row[0] for row in found] == ["1.7.24", "1.10.0", "2.1.0"]


def test_rows_on_other_versions_stay() -> None:
    earlier = tool.table([run("1.6.20", "2026-01-01", a=True), run("1.7.24", "2026-01-01", a=True)])
    found = tool.table([run("1.7.24", "2026-01-02", a=False)], earlier).splitlines()
    assert found[2:] == [
        "| 1.6.20 | 1 | 1 | 1 | 1 | 1 | 1 | 1 | 0 | 2026-01-01 |",
        "| 1.7.24 | 1 | 1 | 1 | 1 | 1 | 1 | 1 | 1 | 2026-01-02 |",
    ]


def test_only_what_is_between_the_marks_is_written(tmp_path: pathlib.Path) -> None:
    document = tmp_path / "document.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    (tmp_path / "one.json").write_text(json.dumps(run("1.7.24", "2026-01-01", a=True)))
    tool.main(tmp_path, document)
    text = document.read_text()
    assert text.startswith(f"before\n{BEGIN}\n\n| containerd |")
    assert text.endswith(f" |\n\n{END}\nafter\n")
    assert "old" not in text


@pytest.mark.parametrize("text", ["nothing", BEGIN, END])
def test_a_document_without_a_place_is_refused(text: str) -> None:
    with pytest.raises(SystemExit, match="no place for the table"):
        tool.replaced(text, [])


def test_without_notes_nothing_is_written(tmp_path: pathlib.Path) -> None:
    with pytest.raises(SystemExit, match="run make integration first"):
        tool.main(tmp_path, tmp_path / "document.md")
