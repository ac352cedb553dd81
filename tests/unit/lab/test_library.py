# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytecode that is kept is never that of other sources, or of another Python."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import pytest
from gpuops_lab import library

PLACE = "/opt/library"
LAYERS = ("/cache/criu-4.2-aaaa", "/cache/root-bbbb")


def parts(directory: pathlib.Path) -> dict[str, pathlib.Path]:
    """A folder and a file, each with its path in the node."""
    (directory / "folder/deeper").mkdir(parents=True)
    (directory / "folder/deeper/one.py").write_text("ONE = 1\n")
    (directory / "two.py").write_text("TWO = 2\n")
    return {"package": directory / "folder", "two.py": directory / "two.py"}


@pytest.mark.parametrize(
    "change",
    [
        lambda directory: (directory / "two.py").write_text("TWO = 3\n"),
        lambda directory: (directory / "folder/deeper/one.py").write_text("ONE = 2\n"),
        lambda directory: (directory / "folder/deeper/one.py").rename(directory / "folder/one.py"),
        lambda directory: (directory / "folder/three.py").touch(),
        lambda directory: (directory / "folder/deeper/one.py").unlink(),
    ],
    ids=["file", "in a folder", "moved", "added", "removed"],
)
def test_a_changed_source_is_another_library(tmp_path: pathlib.Path, change: Callable[[pathlib.Path], object]) -> None:
    wanted = parts(tmp_path)
    before = library.digest(PLACE, LAYERS, wanted)
    change(tmp_path)
    assert library.digest(PLACE, LAYERS, wanted) != before


def test_another_place_or_python_is_another_library(tmp_path: pathlib.Path) -> None:
    wanted = parts(tmp_path)
    found = [
        library.digest(PLACE, LAYERS, wanted),
        library.digest("/opt/other", LAYERS, wanted),
        library.digest(PLACE, ("/cache/python3-3.14-cccc", *LAYERS), wanted),
        library.digest(PLACE, ("/cache/criu-4.2-aaaa", "/cache/root-dddd"), wanted),
        library.digest(PLACE, LAYERS, {"elsewhere": wanted["package"], "two.py": wanted["two.py"]}),
    ]
    assert len(set(found)) == len(found)


def test_what_python_does_not_come_from_does_not_count(tmp_path: pathlib.Path) -> None:
    wanted = parts(tmp_path)
    before = library.digest(PLACE, LAYERS, wanted)
    (tmp_path / "folder/__pycache__").mkdir()
    (tmp_path / "folder/__pycache__/one.cpython-313.pyc").write_bytes(b"\0")
    others = ("/cache/containerd-2.1-eeee", "/cache/criu-4.3-ffff", "/elsewhere/root-bbbb")
    assert library.digest(PLACE, others, wanted) == before
