# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A program that CRIU runs at one of its steps; the tests play CRIU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._criu import action_script
from ansible_collections.gpuops.restore.plugins.module_utils._criu.action_script import ActionScript

#: Reports its arguments, and how often it ran.
PROGRAM = """
import json, os, sys
runs = sys.argv[1]
with open(runs, "a") as stream:
    stream.write("x")
with open(sys.argv[2], "w") as stream:
    json.dump({"root": sys.argv[3], "runs": os.path.getsize(runs)}, stream)
"""


@pytest.fixture
def program(tmp_path: Path) -> ModuleType:
    path = tmp_path / "some_program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("some_program", path)
    assert spec is not None
    return importlib.util.module_from_spec(spec)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    path = tmp_path / "work" / "criu.conf"
    path.write_text("verbosity=4\n", encoding="utf-8")
    return path


def script(config: Path, program: ModuleType, name: str, step: str) -> ActionScript:
    return ActionScript(str(config), str(config.parent), name, step, program, [f"{config.parent}/{name} runs"])


def run_step(config: Path, step: str) -> None:
    """As CRIU does, which has each script of its configuration twice."""
    lines = config.read_text(encoding="utf-8").splitlines()
    scripts = [line.partition("=")[2] for line in lines if line.startswith("action-script=")]
    environment = {"CRTOOLS_SCRIPT_ACTION": step, "CRTOOLS_INIT_PID": "4711", "PATH": os.environ["PATH"]}
    for path in [*scripts, *scripts]:
        subprocess.run([path], env=environment, check=True)


def test_it_runs_once_at_its_step_and_only_while_it_is_entered(config: Path, program: ModuleType) -> None:
    with script(config, program, "one", action_script.SETUP_NAMESPACES) as armed:
        run_step(config, "pre-restore")
        assert not (config.parent / "one runs").exists()
        run_step(config, "setup-namespaces")
    assert armed.report == {"root": "4711", "runs": 1}
    assert config.read_text(encoding="utf-8") == "verbosity=4\n"
    assert {path.name for path in config.parent.iterdir()} == {"criu.conf", "one runs"}


def test_two_of_them(config: Path, program: ModuleType) -> None:
    first = script(config, program, "one", action_script.SETUP_NAMESPACES)
    second = script(config, program, "two", action_script.POST_RESTORE)
    with first as one, second as two:
        run_step(config, "setup-namespaces")
        run_step(config, "post-restore")
    assert one.report["runs"] == two.report["runs"] == 1
    assert config.read_text(encoding="utf-8") == "verbosity=4\n"


def test_what_a_killed_run_has_left_does_not_count(config: Path, program: ModuleType) -> None:
    files = action_script.Files(str(config.parent), "one")
    Path(files.report).write_text(json.dumps({"runs": 9}), encoding="utf-8")
    Path(files.script).write_text("exit 1", encoding="utf-8")
    with script(config, program, "one", action_script.POST_RESTORE) as armed:
        assert not Path(files.report).exists()
    assert armed.report == {}


@pytest.mark.parametrize(
    ("version", "usable"), [("3.17.1", False), ("3.18", False), ("3.19", True), ("4.1.1", True), ("", False)]
)
def test_criu_has_to_run_scripts(tmp_path: Path, version: str, usable: bool) -> None:
    assert (action_script.problem(version, str(tmp_path / "not" / "yet")) == "") == usable


def test_a_file_system_without_programs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(tmp_path)
    changed = [*real]
    changed[8] = real.f_flag | os.ST_NOEXEC
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(changed))
    assert "noexec" in action_script.problem("4.1.1", str(tmp_path))
