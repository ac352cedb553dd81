# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module of the collection, run inside a lab node the way Ansible runs it."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any, cast

import ansible
from gpuops_lab.config import Node

#: Where the node has ansible-core's module_utils and the collection; no part of what listings compare.
LIBRARY = "/opt/gpuops-test"
PYTHON = "/usr/bin/python3"
_PACKAGE = "ansible_collections/gpuops/restore/plugins"


def install(node: Node, root: pathlib.Path) -> None:
    """Copy ansible-core's module_utils and the collection's plugins into the node."""
    library = node.inside(LIBRARY)
    core = pathlib.Path(str(ansible.__file__)).parent
    skip = shutil.ignore_patterns("__pycache__", "*.pyc")
    for source, target in (
        (core / "module_utils", library / "ansible/module_utils"),
        (core / "_vendor", library / "ansible/_vendor"),
        (root / "plugins", library / _PACKAGE),
    ):
        shutil.copytree(source, target, ignore=skip, dirs_exist_ok=True)
    # As in what Ansible sends: the controller's own package would want its vendored libraries.
    (library / "ansible/__init__.py").touch()


def run_module(
    node: Node,
    name: str,
    params: Mapping[str, Any],
    *,
    check: bool = False,
    diff: bool = False,
    user: int = 0,
) -> dict[str, Any]:
    """Run ``gpuops.restore.<name>`` as that user id; returns its JSON, ``failed`` included.

    Anything but exactly one JSON object on stdout, or a word on stderr, is an AssertionError: Ansible would
    show it as a module failure.
    """
    arguments = {**params, "_ansible_check_mode": check, "_ansible_diff": diff}
    command = ["env", f"PYTHONPATH={LIBRARY}", PYTHON, f"{LIBRARY}/{_PACKAGE}/modules/{name}.py"]
    if user:
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "env", "HOME=/", *command]
    done = subprocess.run(
        [str(node.directory / "enter"), *command],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    try:
        result = json.loads(done.stdout)
    except ValueError:
        result = None
    if not isinstance(result, dict) or done.stderr.strip():
        raise AssertionError(f"{name} ended with status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return cast("dict[str, Any]", result)


def start(node: Node, name: str, params: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    """The same, only begun, as leader of a process group that can be killed as a whole."""
    library, package = LIBRARY, _PACKAGE
    command = ["env", f"PYTHONPATH={library}", PYTHON, f"{library}/{package}/modules/{name}.py"]
    process = subprocess.Popen(
        [str(node.directory / "enter"), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": dict(params)}).encode())
    process.stdin.close()
    return process
