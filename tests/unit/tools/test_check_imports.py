# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate for the direction of imports: this tree passes, and whatever it forbids is noticed in a made-up one."""

from __future__ import annotations

import importlib.util
import pathlib
import sys
import types

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
UTILS = "plugins/module_utils"
DOTTED = "plugins.module_utils"
TABLE = """\
| level | package | purpose | face |
|---|---|---|---|
| 1 | `_core` | Errors. | `errors.*` |
| 2 | `_host` | The node. | `memory.available/*_bytes`, `mounts` |
| 2 | `_streams` | Streams. | `streams` |
| 3 | `_module` | What modules share. | `run` |
"""
FILES = {
    "docs/architecture.md": TABLE,
    f"{UTILS}/_core/__init__.py": "",
    f"{UTILS}/_core/errors.py": "class NodeError(Exception): ...\n",
    f"{UTILS}/_host/__init__.py": "",
    f"{UTILS}/_host/memory.py": "from .._core.errors import NodeError\nfree_bytes: int = 1\ndef available(): ...\n",
    f"{UTILS}/_host/mounts.py": "from . import memory\n",
    f"{UTILS}/_streams/__init__.py": "",
    f"{UTILS}/_streams/streams.py": "",
    f"{UTILS}/_module.py": "from ansible.module_utils import basic\nfrom ._host import mounts\ndef run(): ...\n",
    "plugins/modules/one.py": "from ansible_collections.gpuops.restore.plugins.module_utils import _module\n",
}


def load() -> types.ModuleType:
    """The gate's program, which is part of no package."""
    spec = importlib.util.spec_from_file_location("check_imports", ROOT / "tests" / "tools" / "check_imports.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


check_imports = load()


def problems(root: pathlib.Path, files: dict[str, str]) -> str:
    """What the gate says of a tree with these files in place of those of FILES, or beside them."""
    for name, text in {**FILES, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return "\n".join(check_imports.problems(root))


def test_this_tree_passes() -> None:
    assert check_imports.problems(ROOT) == []


def test_the_made_up_tree_passes(tmp_path: pathlib.Path) -> None:
    assert problems(tmp_path, {}) == ""


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        pytest.param(
            f"{UTILS}/_core/errors.py",
            "class NodeError(Exception): ...\nfrom .._host import mounts\n",
            f"{UTILS}/_core/errors.py:2: _core (level 1) imports _host (level 2)",
            id="up",
        ),
        pytest.param(
            f"{UTILS}/_core/errors.py",
            "class NodeError(Exception): ...\ndef late():\n    from .._host.mounts import x\n",
            f"{UTILS}/_core/errors.py:3: _core (level 1) imports _host (level 2)",
            id="up-within-a-function",
        ),
        pytest.param(
            f"{UTILS}/_core/errors.py",
            f"class NodeError(Exception): ...\nimport ansible_collections.gpuops.restore.{DOTTED}._host.mounts\n",
            f"{UTILS}/_core/errors.py:2: _core (level 1) imports _host (level 2)",
            id="up-by-the-full-name",
        ),
        pytest.param(
            f"{UTILS}/_streams/streams.py",
            "from .._host import mounts\n",
            f"{UTILS}/_streams/streams.py:1: _streams (level 2) imports _host (level 2)",
            id="same-level",
        ),
        pytest.param(
            f"{UTILS}/_host/memory.py",
            "from .mounts import x\nfree_bytes = 1\ndef available(): ...\n",
            f"files import each other: {DOTTED}._host.memory -> {DOTTED}._host.mounts -> {DOTTED}._host.memory",
            id="circle-within-a-package",
        ),
        pytest.param(
            f"{UTILS}/_core/errors.py",
            "class NodeError(Exception): ...\nfrom .. import _module\n",
            "packages import each other: _module -> _host -> _core -> _module",
            id="circle-of-packages",
        ),
        pytest.param(
            "plugins/modules/two.py",
            "from ansible_collections.gpuops.restore.plugins.modules import one\n",
            "plugins/modules/two.py:1: imports plugins.modules.one; only plugins/module_utils is for import",
            id="a-module-of-a-module",
        ),
        pytest.param(
            f"{UTILS}/_host/mounts.py",
            "from ...modules import one\n",
            f"{UTILS}/_host/mounts.py:1: imports plugins.modules.one; only plugins/module_utils is for import",
            id="a-package-of-a-module",
        ),
        pytest.param(
            f"{UTILS}/_host/mounts.py",
            "from ansible.module_utils.basic import AnsibleModule\n",
            "of module_utils only files outside of packages know Ansible",
            id="ansible",
        ),
        pytest.param(f"{UTILS}/_gpu/__init__.py", "", "_gpu is not in the table of packages", id="package-without-row"),
        pytest.param(f"{UTILS}/_more.py", "", "_more is not in the table of packages", id="file-without-row"),
        pytest.param(
            "docs/architecture.md",
            f"{TABLE}| 4 | `_gpu` | Cards. | `nvml` |\n",
            "_gpu stands in the table and is not in plugins/module_utils",
            id="row-without-package",
        ),
        pytest.param("docs/architecture.md", "# Architecture\n", "there is no table", id="no-table"),
        pytest.param(
            "docs/architecture.md",
            TABLE.replace("`mounts`", "`mountinfo`"),
            "_host has no file mountinfo (mountinfo)",
            id="face-file",
        ),
        pytest.param(
            "docs/architecture.md",
            TABLE.replace("available/", "available/used/"),
            "_host has nothing public named used in memory",
            id="face-name",
        ),
        pytest.param(
            "docs/architecture.md", TABLE.replace("`run`", "`Run`"), "named Run in _module (Run)", id="face-of-a-file"
        ),
        pytest.param("docs/architecture.md", TABLE.replace("`streams`", "-"), "_streams has no face", id="no-face"),
        pytest.param(
            f"{UTILS}/_host/__init__.py",
            "from .memory import available\n",
            "_host/__init__.py: is not empty",
            id="init",
        ),
        pytest.param(
            "tests/unit/plugins/module_utils/_nodes/test_x.py", "", "_nodes is no package", id="tests-of-no-package"
        ),
        pytest.param(f"{UTILS}/_host/deep/x.py", "", "_host/deep: has no __init__.py", id="no-init"),
    ],
)
def test_what_is_forbidden_is_noticed(tmp_path: pathlib.Path, name: str, text: str, expected: str) -> None:
    assert expected in problems(tmp_path, {name: text})


def test_a_fourth_file_outside_of_packages(tmp_path: pathlib.Path) -> None:
    names = ("_b", "_c")
    rows = "".join(f"| 3 | `{name}` | A file. | `x` |\n" for name in (*names, "_d"))
    files = {f"{UTILS}/{name}.py": "x = 1\n" for name in names}
    assert "_d stands in the table" in problems(tmp_path, {**files, "docs/architecture.md": TABLE + rows})
    found = problems(tmp_path, {f"{UTILS}/_d.py": "x = 1\n", "docs/architecture.md": TABLE + rows})
    assert found == (
        "plugins/module_utils: 4 files outside of packages, at most 3 may be: ['_b.py', '_c.py', '_d.py', '_module.py']"
    )
