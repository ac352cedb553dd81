#!/usr/bin/env python3
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks the packages of plugins/module_utils and the direction of imports against the table in docs/architecture.md.

    check_imports.py [ROOT OF THE COLLECTION]

The table is the only place that states levels. A package imports from lower levels only, modules import from
module_utils only, and no files import each other in a circle. Every package stands in the table, and what the table
names as its face is in the code. Status 1 with one line for each problem.
"""

from __future__ import annotations

import ast
import dataclasses
import fnmatch
import pathlib
import re
import sys
from collections.abc import Iterator, Mapping

TABLE = "docs/architecture.md"
MODULE_UTILS = "plugins/module_utils"
TESTS = "tests/unit/plugins/module_utils"
COLLECTION = "ansible_collections.gpuops.restore."
#: So many files may lie directly in module_utils; everything else belongs to a package.
ROOT_FILES = 3


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table: a package, or a file that lies directly in module_utils."""

    level: int
    name: str
    #: For example ``errors.*``, ``streams.verified/Expansion``, ``images/content``; see ``missing_faces``.
    face: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Import:
    """One import: the dotted name that may be a file or a name within one, and where it stands."""

    name: str
    line: int


def table(text: str) -> list[Row]:
    """The rows whose first cell is a number."""
    rows = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 4 and cells[0].isdigit():
            rows.append(Row(int(cells[0]), cells[1].strip("`"), tuple(re.findall(r"`([^`]+)`", cells[3]))))
    return rows


def dotted(path: pathlib.Path, root: pathlib.Path) -> str:
    """``plugins.module_utils._core.errors`` for that file of the tree; a package for its ``__init__.py``."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.Module, module: str, is_package: bool) -> Iterator[Import]:
    """All imports of a file, within functions too, with full dotted names; own ones begin with ``plugins.``."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name.removeprefix(COLLECTION), node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            if node.level:
                base = package[: len(package) - node.level + 1] + base
            for alias in node.names:
                yield Import(".".join([*base, alias.name]).removeprefix(COLLECTION), node.lineno)


def definitions(tree: ast.Module) -> set[str]:
    """The names that a file defines at its top level."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            if isinstance(target, ast.Name):
                found.add(target.id)
    return found


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """The names along one circle, the first one again at the end; empty if there is none."""
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for target in sorted(graph.get(name, ())):
            if found := visit(target, [*way, name]):
                return found
        done.add(name)
        return []

    for name in sorted(graph):
        if found := visit(name, []):
            return found
    return []


class Tree:
    """The Python files of a collection's plugins, parsed."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.utils = root / MODULE_UTILS
        self.files = {dotted(path, root): path for path in sorted((root / "plugins").rglob("*.py"))}
        self.parsed = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in self.files.items()}
        self.rows = {row.name: row for row in table((root / TABLE).read_text(encoding="utf-8"))}

    def place(self, name: str, line: int = 0) -> str:
        """A file of the tree as a place for a message."""
        path = self.files[name].relative_to(self.root).as_posix()
        return f"{path}:{line}" if line else path

    def imports(self, name: str) -> Iterator[Import]:
        """What the file imports."""
        return imports(self.parsed[name], name, self.files[name].name == "__init__.py")

    def file_of(self, imported: str) -> str:
        """The file of ours that a dotted name stands for or is defined in; empty if it is none of ours."""
        while imported and imported not in self.files:
            imported = imported.rpartition(".")[0]
        return imported

    def package_of(self, name: str) -> str:
        """The package, or the file directly in module_utils, that a dotted name belongs to; else empty."""
        parts = name.split(".")
        return parts[2] if parts[:2] == ["plugins", "module_utils"] and len(parts) > 2 else ""

    def layout(self) -> Iterator[str]:
        """Problems of the table and the folders."""
        packages = {self.package_of(name) for name in self.files} - {""}
        for name in sorted(packages - set(self.rows)):
            yield f"{TABLE}: {name} is not in the table of packages"
        for name in sorted(set(self.rows) - packages):
            yield f"{TABLE}: {name} stands in the table and is not in {MODULE_UTILS}"
        direct = sorted(path.name for path in self.utils.glob("*.py"))
        if len(direct) > ROOT_FILES:
            yield f"{MODULE_UTILS}: {len(direct)} files outside of packages, at most {ROOT_FILES} may be: {direct}"
        for name in sorted(self.files):
            if self.files[name].name == "__init__.py" and self.files[name].stat().st_size:
                yield f"{self.place(name)}: is not empty, so Ansible would ship what it imports with every module"
        for folder in sorted(path for path in (self.root / TESTS).glob("*/") if path.name not in packages):
            if list(folder.glob("*.py")):
                yield f"{TESTS}: {folder.name} is no package of {MODULE_UTILS}; tests lie where what they test does"
        for folder in sorted(path for path in self.utils.rglob("*") if path.is_dir() and list(path.glob("*.py"))):
            if not (folder / "__init__.py").exists():
                yield f"{folder.relative_to(self.root)}: has no __init__.py"

    def missing_faces(self) -> Iterator[str]:
        """What the table names as a package's face and the package does not have.

        ``file/file`` are files, ``file.name/name`` names of a file; of a file directly in module_utils only names are
        given. Names may have wildcards.
        """
        for row in self.rows.values():
            base = f"plugins.module_utils.{row.name}"
            is_file = base in self.files and self.files[base].name != "__init__.py"
            if not row.face:
                yield f"{TABLE}: {row.name} has no face"
            for face in row.face:
                files, _, names = ("", "", face) if is_file else face.partition(".")
                for file in files.split("/"):
                    full = f"{base}.{file}" if file else base
                    if full not in self.files:
                        yield f"{TABLE}: {row.name} has no file {file} ({face})"
                        continue
                    public = [name for name in definitions(self.parsed[full]) if not name.startswith("_")]
                    for name in names.split("/") if names else ():
                        if not fnmatch.filter(public, name):
                            yield f"{TABLE}: {row.name} has nothing public named {name} in {file or row.name} ({face})"

    def directions(self) -> Iterator[str]:
        """Imports that go to the same level or up, and others that may not be."""
        for name in self.files:
            own = self.package_of(name)
            for found in self.imports(name):
                place = self.place(name, found.line)
                target = self.package_of(found.name)
                if found.name.split(".")[0] == "plugins" and not target:
                    yield f"{place}: imports {found.name}; only {MODULE_UTILS} is for import"
                elif own and found.name.split(".")[0] == "ansible" and self.files[name].parent != self.utils:
                    yield f"{place}: imports {found.name}; of module_utils only files outside of packages know Ansible"
                elif own and target and own != target:
                    levels = [self.rows[part].level if part in self.rows else 0 for part in (own, target)]
                    if 0 not in levels and levels[1] >= levels[0]:
                        yield f"{place}: {own} (level {levels[0]}) imports {target} (level {levels[1]})"

    def circles(self) -> Iterator[str]:
        """One circle of files and one of packages, where there are any."""
        files: dict[str, set[str]] = {}
        packages: dict[str, set[str]] = {}
        for name in self.files:
            targets = {self.file_of(found.name) for found in self.imports(name)} - {""}
            files[name] = targets
            own = self.package_of(name)
            packages.setdefault(own, set()).update({self.package_of(target) for target in targets} - {own, ""})
        for kind, graph in (("files", files), ("packages", packages)):
            if found := circle(graph):
                yield f"{kind} import each other: {' -> '.join(found)}"


def problems(root: pathlib.Path) -> list[str]:
    """All problems of the collection at that root, one line each."""
    tree = Tree(root)
    if not tree.rows:
        return [f"{TABLE}: there is no table of packages with their levels"]
    return [*tree.layout(), *tree.missing_faces(), *tree.directions(), *tree.circles()]


if __name__ == "__main__":
    ROOT = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parents[2]
    found_problems = problems(ROOT)
    print("\n".join(found_problems) or "imports go down only")
    sys.exit(bool(found_problems))
