# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's part of a signature, with the real ssh-keygen.

In processes of its own: where a controller's code has been imported, modules no longer behave as on a node.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import signature
from ansible_collections.gpuops.restore.tests.unit.helpers.ssh_keys import Key

DIGEST = "sha256:" + "a" * 64
#: What the module would get of the options on standard input, or why it is not run.
RUN = """
import json, sys
from types import SimpleNamespace
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.restore.plugins.action.containerd_checkpoint_signature import ActionModule

ActionBase.run = lambda *_: {}
plugin = object.__new__(ActionModule)
plugin._task = SimpleNamespace(args=json.load(sys.stdin))
plugin._execute_module = lambda module_args, task_vars: {"options": module_args}
try:
    print(json.dumps(plugin.run(None, {})))
except AnsibleActionFail as error:
    print(json.dumps({"error": str(error)}))
"""


def run(path: str = "", **options: Any) -> dict[str, Any]:
    """``path``: in place of the search path for programs."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if path:
        environment["PATH"] = path
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(options),
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_module_gets_the_signature_and_not_the_key(tmp_path: Path) -> None:
    key = Key(tmp_path)
    found = run(name="a", digest=DIGEST, sign_key=str(key.path))["options"]
    assert found == {"name": "a", "digest": DIGEST, "signature": key.sign(DIGEST)}
    assert signature.require("a", DIGEST, found["signature"], [key.public])


def test_without_a_key_the_options_are_the_modules() -> None:
    assert run(name="a", state="absent") == {"options": {"name": "a", "state": "absent"}}


@pytest.mark.parametrize(
    ("options", "reason"), [({}, "give digest"), ({"digest": DIGEST, "signature": "s"}, "leave out signature")]
)
def test_a_key_needs_a_digest_and_no_signature(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    assert reason in run(name="a", sign_key=str(tmp_path / "key"), **options)["error"]


def test_a_key_that_cannot_sign_is_named(tmp_path: Path) -> None:
    wanted = {"name": "a", "digest": DIGEST, "sign_key": str(tmp_path / "none")}
    error = run(**wanted)["error"]
    assert f"was not signed with the key {tmp_path}/none" in error and "No such file" in error
    assert "has no ssh-keygen" in run(path=str(tmp_path), **wanted)["error"]
