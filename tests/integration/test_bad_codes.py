# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The codes of failures: each says one thing, and each is there."""

from __future__ import annotations

import ast
import pathlib
import re
from collections import Counter

from bad_input import CODES

PLUGINS = pathlib.Path(__file__).resolve().parents[2] / "plugins" / "module_utils"
_CODE = re.compile(r"[a-z]+(_[a-z]+)+")


def raised() -> set[str]:
    """Every string in module_utils that may be a code: lower_snake_case, and given to a call or kept in a table."""
    found: set[str] = set()
    for path in sorted(PLUGINS.rglob("*.py")):
        for entry in ast.walk(ast.parse(path.read_text())):
            if isinstance(entry, ast.Constant) and isinstance(entry.value, str) and _CODE.fullmatch(entry.value):
                found.add(entry.value)
    return found


def test_no_code_says_two_things() -> None:
    counted = Counter(code for codes in CODES.values() for code in codes)
    assert [code for code, times in counted.items() if times > 1] == []


def test_every_code_is_raised_somewhere() -> None:
    assert {code for codes in CODES.values() for code in codes} - raised() == set()


def test_every_kind_of_bad_input_has_its_test() -> None:
    """A kind that no test file names would be a promise without proof."""
    files = [path.read_text() for path in pathlib.Path(__file__).parent.glob("test_bad_*.py")]
    assert [what for what in CODES if not any(f'"{what}"' in text for text in files)] == []
