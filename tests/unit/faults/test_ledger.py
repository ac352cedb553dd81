# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib

from gpuops_faults import ledger, series, table
from gpuops_faults.ledger import Ledger
from gpuops_faults.strike import FULL, Outcome


def struck(number: int, fault: str = "kill-after", step: str = "stage", wrong: str = "") -> Outcome:
    return Outcome(step, fault, number, "Content/Read", "killed", wrong, {"struck": 0.5})


CALLS = {"stage": ["a", "b", "c"], "import": ["d", "e"]}
WANTED = series.points(CALLS, ["kill-after", FULL, "reboot"], 1)


def test_each_fault_at_each_call_and_the_small_disks_last() -> None:
    assert len(WANTED) == 3 * 5
    assert {point[1] for point in WANTED[-5:]} == {FULL} and FULL not in {point[1] for point in WANTED[:-5]}
    assert WANTED[0] == ("stage", "kill-after", 1, "a")
    assert [point[2] for point in series.points({"stage": ["a"] * 7}, ["reboot"], 3)] == [1, 4, 7]


def test_a_run_that_was_broken_off_goes_on_where_it_stopped(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "faults" / "ledger.jsonl"
    Ledger(path).add("code", "1.7", struck(1))
    Ledger(path).add("code", "1.7", struck(3))
    left = series.left(WANTED, Ledger(path).entries(), "code", "1.7")
    assert len(left) == len(WANTED) - 2
    assert ("stage", "kill-after", 2, "b") in left and ("stage", "kill-after", 3, "c") not in left


def test_other_code_another_generation_and_what_was_wrong_are_struck_again(tmp_path: pathlib.Path) -> None:
    book = Ledger(tmp_path / "ledger.jsonl")
    book.add("code", "1.7", struck(1))
    book.add("code", "1.7", struck(2, wrong="left: a lease"))
    assert series.left(WANTED, book.entries(), "other", "1.7") == WANTED
    assert series.left(WANTED, book.entries(), "code", "1.6") == WANTED
    assert ("stage", "kill-after", 2, "b") in series.left(WANTED, book.entries(), "code", "1.7")
    book.add("code", "1.7", struck(2))
    assert ("stage", "kill-after", 2, "b") not in series.left(WANTED, book.entries(), "code", "1.7")


def test_half_a_line_of_a_killed_run_is_nothing_and_spoils_nothing(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "ledger.jsonl"
    Ledger(path).add("code", "1.7", struck(1))
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"code": "co')
    Ledger(path).add("code", "1.7", struck(2))
    assert [entry.number for entry in Ledger(path).entries()] == [1, 2]


def test_no_ledger_is_an_empty_one(tmp_path: pathlib.Path) -> None:
    assert Ledger(tmp_path / "ledger.jsonl").entries() == []


def test_the_digest_is_of_names_and_contents(tmp_path: pathlib.Path) -> None:
    (tmp_path / "modules").mkdir()
    file = tmp_path / "modules" / "a.py"
    file.write_text("x = 1\n")
    before = ledger.digest(tmp_path)
    (tmp_path / "notes.txt").write_text("no code\n")
    assert ledger.digest(tmp_path) == before
    file.write_text("x = 2\n")
    changed = ledger.digest(tmp_path)
    file.rename(tmp_path / "modules" / "b.py")
    assert len({before, changed, ledger.digest(tmp_path)}) == 3


def test_the_table_counts_each_fault_once_and_hides_nothing_that_was_wrong(tmp_path: pathlib.Path) -> None:
    book = Ledger(tmp_path / "ledger.jsonl")
    book.add("code", "1.7", struck(1))
    book.add("code", "1.6", struck(1))
    book.add("code", "1.7", struck(2, wrong="left: a lease"))
    book.add("code", "1.7", struck(3, wrong="left: a mount"))
    book.add("code", "1.7", struck(2))
    lines = table.table(book.entries(), ("1.6", "1.7", "2.1"))
    assert "| stage | `kill-after` | 1 | 3 | - | 4 killed | 1 |" in lines
    assert "| all | | 1 | 3 | - | | 1 |" in lines
    assert [line for line in lines if "a lease" in line] == [
        "- containerd 1.7, stage, `kill-after` at call 2 (Content/Read): left: a lease. Struck once more, it was right."
    ]
    assert [line for line in lines if "a mount" in line][0].endswith("left: a mount.")


def test_the_table_has_the_order_of_steps_and_faults_whatever_came_first(tmp_path: pathlib.Path) -> None:
    book = Ledger(tmp_path / "ledger.jsonl")
    for step, fault in (
        ("import", "reboot"),
        ("restore", "reboot"),
        ("restore", "kill-after"),
        ("import", "kill-before"),
    ):
        book.add("code", "1.7", struck(1, fault, step))
    rows = [line.split("|")[1:3] for line in table.table(book.entries(), ("1.7",))[2:-1]]
    assert [(step.strip(), fault.strip(" `")) for step, fault in rows] == [
        ("restore", "kill-after"),
        ("restore", "reboot"),
        ("import", "kill-before"),
        ("import", "reboot"),
    ]


def test_the_table_goes_between_the_marks_of_the_document() -> None:
    text = f"# A\n\n{table.BEGIN}\n\nold\n\n{table.END}\n\nB\n"
    found = table.replaced(text, ["new"])
    assert found == f"# A\n\n{table.BEGIN}\n\nnew\n\n{table.END}\n\nB\n"
    assert table.replaced(found, ["new"]) == found


def test_a_document_without_marks_is_not_touched() -> None:
    try:
        table.replaced("# A\n", ["new"])
    except ValueError as error:
        assert table.BEGIN in str(error)
    else:
        raise AssertionError("it was written somewhere")
