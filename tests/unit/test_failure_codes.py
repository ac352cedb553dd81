# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/failures.md lists the failure codes that the code can give, all of them and no other."""

from __future__ import annotations

import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
CODE = re.compile(r"[a-z]+(?:_[a-z]+)+")


def sources() -> list[pathlib.Path]:
    """All files of module_utils; never none, or what is said of all of them would be said of nothing."""
    found = sorted((ROOT / "plugins" / "module_utils").rglob("*.py"))
    assert len(found) > 100
    return found


def raised() -> set[str]:
    """First arguments of whatever makes an error of the tree, and the codes of gRPC statuses."""
    found: set[str] = set()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args:
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                # ``refuse`` and ``invalid`` make the errors of the readers of tars and archives.
                if name.endswith("Error") or name in ("refuse", "invalid"):
                    found.update(code for argument in node.args[:3] for code in strings(argument))
    client = (ROOT / "plugins" / "module_utils" / "_containerd" / "client.py").read_text()
    return found | set(re.findall(r'Error, "([a-z_]+)",', client))


def strings(node: ast.expr) -> set[str]:
    """The string constants of an expression that look like a code."""
    values = (part.value for part in ast.walk(node) if isinstance(part, ast.Constant))
    return {value for value in values if isinstance(value, str) and CODE.fullmatch(value)}


def listed() -> set[str]:
    """The codes in the first column of the document's tables of codes."""
    text = (ROOT / "docs" / "failures.md").read_text().split("## Codes", 1)[1]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    return {code for row in rows for code in re.findall(r"`([a-z_]+)`", row)}


def test_every_code_is_documented() -> None:
    assert raised() - listed() == set()


def test_no_code_is_documented_that_nothing_raises() -> None:
    # Some codes reach an error through a variable; those have to stand somewhere in the code all the same.
    source = "".join(path.read_text() for path in sources())
    assert {code for code in listed() if f'"{code}"' not in source} == set()
