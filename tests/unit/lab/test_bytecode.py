# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytecode that a node keeps of archives is that of their very sources, wherever the archives lie."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import types
import zipfile
import zipimport
from collections.abc import Callable
from typing import Any

import pytest

FILE = pathlib.Path(__file__).resolve().parents[2] / "lab/bytecode/usr/lib/python3/dist-packages/gpuops_lab_bytecode.py"
Value = Callable[[str, str], int]


@pytest.fixture
def compiled() -> list[str]:
    """What was compiled, by its path."""
    return []


@pytest.fixture
def value(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, compiled: list[str]) -> Value:
    """``value(directory, source)``: VALUE of a module with that source, out of an archive in that directory."""
    spec = importlib.util.spec_from_file_location("gpuops_lab_bytecode", FILE)
    assert spec and spec.loader
    kept = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kept)
    plain: Callable[[str, bytes], types.CodeType] = zipimport._compile_source  # type: ignore[attr-defined]

    def noted(path: str, source: bytes) -> types.CodeType:
        compiled.append(path)
        return plain(path, source)

    monkeypatch.setattr(zipimport, "_compile_source", noted)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    kept.keep(str(tmp_path / "kept"))

    def read(directory: str, source: str) -> int:
        (tmp_path / directory).mkdir(exist_ok=True)
        archive = tmp_path / directory / "payload.zip"
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("package/module.py", source)
        zipimport._zip_directory_cache.clear()  # type: ignore[attr-defined]
        found: dict[str, Any] = {}
        code = zipimport.zipimporter(f"{archive}/package").get_code("module")
        exec(code, found)
        return int(found["VALUE"])

    return read


def test_a_source_is_compiled_once_wherever_its_archive_lies(value: Value, compiled: list[str]) -> None:
    assert [value("one", "VALUE = 1\n"), value("two", "VALUE = 1\n")] == [1, 1]
    assert compiled == ["package/module.py"]


def test_another_source_of_that_name_is_another(value: Value, compiled: list[str]) -> None:
    assert [value("one", "VALUE = 1\n"), value("one", "VALUE = 2\n"), value("one", "VALUE = 1\n")] == [1, 2, 1]
    assert len(compiled) == 2
