# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the YAML of roles and playbooks may say: expressions, and what is decided is code with tests of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import TREE

#: Where a control statement begins, with or without its mark for white space.
STATEMENT = re.compile(r"\{%[-+]?\s*(\w+)")
#: Ansible's filter takes texts that differ in case for one, unless it is told otherwise. To containerd they are two.
CARELESS = re.compile(r"\|\s*(unique)\b(?!\(true)")
#: Ansible takes this for a backslash and an n. In a text that YAML has in double quotes, '\n' is a line break.
NO_BREAK = re.compile(r'"(\\n)"')


def found(root: Path, pattern: re.Pattern[str]) -> Iterator[str]:
    for folder in ("roles", "playbooks"):
        files = sorted(path for path in (root / folder).rglob("*") if path.suffix in (".yml", ".yaml", ".j2"))
        assert files
        for path in files:
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                yield from (f"{path.relative_to(root)}:{number}: {name}" for name in pattern.findall(line))


def test_there_are_no_control_statements() -> None:
    assert list(found(TREE, STATEMENT)) == []


def test_names_that_differ_in_case_are_two() -> None:
    assert list(found(TREE, CARELESS)) == []


def test_a_line_break_in_an_expression_is_one() -> None:
    assert list(found(TREE, NO_BREAK)) == []


@pytest.mark.parametrize(
    ("pattern", "line", "what"),
    [
        (STATEMENT, "  {%- for one in many -%}", "for"),
        (STATEMENT, "  {%set x = 1%}", "set"),
        (NO_BREAK, '{{ names | join("\\n") }}', "\\n"),
        (CARELESS, "{{ names | unique }}", "unique"),
        (CARELESS, "{{ names|unique(attribute='name') }}", "unique"),
    ],
)
def test_one_would_be_noticed(tmp_path: Path, pattern: re.Pattern[str], line: str, what: str) -> None:
    fine = "x: '{{ a if b else c | unique(true) | unique(true, attribute=\"name\") }}'\n"
    for folder in ("roles", "playbooks"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "main.yml").write_text(fine, encoding="utf-8")
    (tmp_path / "roles" / "main.yml").write_text(fine + line, encoding="utf-8")
    assert list(found(tmp_path, pattern)) == [f"roles/main.yml:2: {what}"]
