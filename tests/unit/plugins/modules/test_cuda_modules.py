# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The CUDA modules on the STAND-IN libraries, most of the time as Ansible runs them (sent as a zip file)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._gpu import marks
from ansible_collections.gpuops.restore.tests.standin import standin
from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import run, undocumented

pytest_plugins = ["ansible_collections.gpuops.restore.tests.unit.helpers.cuda_fixtures"]

TREE = Path(str(marks.__file__)).parents[3]


class Ansible:
    """Runs one module on this machine."""

    def __init__(self, directory: Path) -> None:
        home = directory / "ansible"
        (home / "ansible_collections" / "gpuops").mkdir(parents=True)
        (home / "ansible_collections" / "gpuops" / "restore").symlink_to(TREE)
        self._environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(home),
            "ANSIBLE_HOME": str(home),
            "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.oneline",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "ANSIBLE_DEPRECATION_WARNINGS": "0",
        }
        self._environment.pop("PYTHONPATH", None)

    def run(self, module: str, *flags: str, **options: Any) -> dict[str, Any]:
        """The module's result."""
        command = [sys.executable, "-m", "ansible", "adhoc", "localhost", "-m", f"gpuops.restore.{module}"]
        command += ["-a", json.dumps(options), "-e", f"ansible_python_interpreter={sys.executable}", *flags]
        done = subprocess.run(command, env=self._environment, cwd="/", capture_output=True, text=True, check=False)
        line = next((line for line in done.stdout.splitlines() if "=> {" in line), "")
        assert line, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(line.partition("=> ")[2])
        if "failure" in found or "FAILED!" not in line:
            assert undocumented(module, found) == []
        return found


@pytest.fixture
def ansible(world: standin.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ansible:
    """With the stand-in driver in the environment."""
    # Where another user than root keeps what it has to remember.
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return Ansible(tmp_path)


def test_checkpoint_and_back(ansible: Ansible, world: standin.World) -> None:
    pid = world.add_process(standin.RUNNING, {standin.uuid(0): standin.GIB})
    suspend: dict[str, Any] = {"pids": [pid], "state": "checkpointed"}
    predicted = run("cuda_process", True, suspend)
    assert world.order() == []
    done = ansible.run("cuda_process", **suspend)
    assert (done["changed"], done["actions"]) == (True, [f"lock process {pid}", f"checkpoint process {pid}"])
    assert (predicted["changed"], predicted["actions"]) == (done["changed"], done["actions"])
    assert done["processes"][0]["bytes"] == standin.GIB
    told = ansible.run("cuda_process_info", pids=[pid])
    assert (told["available"], told["changed"], told["processes"][0]["state"]) == (True, False, "CHECKPOINTED")
    back = run("cuda_process", False, {"pids": [pid], "vram": {standin.uuid(0): str(standin.GIB)}})
    assert (back["changed"], back["processes"][0]["after"]) == (True, "RUNNING")
    assert run("cuda_process", False, {"pids": [pid]})["changed"] is False


def test_failures_are_told_as_ours(world: standin.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    pid = world.add_process(standin.FAILED)
    found = run("cuda_process", False, {"pids": [pid]})
    assert (found["failure"]["code"], found["failure"]["outcome"]) == ("cuda_process_failed", "terminal")
    assert str(pid) in found["msg"]
    for options, code in (
        ({"pids": [pid], "vram": {standin.uuid(0): "much"}}, "vram_invalid"),
        ({"pids": [1]}, "pid_invalid"),
        ({"container_id": "train", "address": str(tmp_path / "no.sock"), "timeout": 1}, "socket_absent"),
    ):
        assert run("cuda_process", False, options)["failure"]["code"] == code


def test_a_node_without_a_driver_says_so(bare_world: standin.World, tmp_path: Path) -> None:
    told = run("cuda_process_info", False, {"driver_root": str(tmp_path)})
    assert (told["available"], told["reason_code"], told["gpus"]) == (False, "driver_root_invalid", [])
