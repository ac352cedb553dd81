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

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import signature
from ansible_collections.gpuops.restore.tests.unit.helpers.ssh_keys import Key

DIGEST = "sha256:" + "a" * 64
#: What the module would get of each of the options on standard input, or why it is not run.
RUN = """
import json, sys
from types import SimpleNamespace
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.restore.plugins.action.containerd_checkpoint_signature import ActionModule

ActionBase.run = lambda *_: {}
found = []
for options in json.load(sys.stdin):
    plugin = object.__new__(ActionModule)
    plugin._task = SimpleNamespace(args=options)
    plugin._execute_module = lambda module_args, task_vars: {"options": module_args}
    try:
        found.append(plugin.run(None, {}))
    except AnsibleActionFail as error:
        found.append({"error": str(error)})
print(json.dumps(found))
"""


def run(*options: dict[str, Any], path: str = "") -> list[dict[str, Any]]:
    """One task for each of ``options``. ``path``: in place of the search path for programs."""
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
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_the_module_gets_the_signature_and_not_the_key(tmp_path: Path) -> None:
    key = Key(tmp_path)
    unsigned = {"name": "a", "state": "absent"}
    signed, without = run({"name": "a", "digest": DIGEST, "sign_key": str(key.path)}, unsigned)
    assert signed["options"] == {"name": "a", "digest": DIGEST, "signature": key.sign(DIGEST)}
    assert signature.require("a", DIGEST, signed["options"]["signature"], [key.public])
    assert without == {"options": unsigned}


def test_a_key_that_cannot_sign_is_named_and_one_needs_a_digest_and_no_signature(tmp_path: Path) -> None:
    wanted = {"name": "a", "digest": DIGEST, "sign_key": str(tmp_path / "none")}
    undigested = {"name": "a", "sign_key": wanted["sign_key"]}
    absent, no_digest, signed = (found["error"] for found in run(wanted, undigested, {**wanted, "signature": "s"}))
    assert f"was not signed with the key {tmp_path}/none" in absent and "No such file" in absent
    assert "give digest" in no_digest
    assert "leave out signature" in signed
    (found,) = run(wanted, path=str(tmp_path))
    assert "has no ssh-keygen" in found["error"]
