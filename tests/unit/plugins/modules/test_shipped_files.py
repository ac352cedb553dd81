# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Ansible sends to a node for a module: its zip holds every file that the module imports, directly or not.

A number that grows says that a package is imported for one function of it, or that an ``__init__.py`` is not empty.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

UTILS = "ansible_collections/gpuops/restore/plugins/module_utils/"
# In a process of its own: Ansible's loader changes how collections are imported.
BUILD = r"""
import base64, io, json, re, sys, zipfile
from ansible.plugins.loader import init_plugin_loader, module_loader
init_plugin_loader([])
from ansible.executor.module_common import modify_module
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

found = module_loader.find_plugin_with_context(sys.argv[1], collection_list=[])
built = modify_module(
    module_name=found.resolved_fqcn,
    module_path=found.plugin_resolved_path,
    module_args={},
    templar=Templar(loader=DataLoader()),
    task_vars={"ansible_python_interpreter": "/usr/bin/python3"},
    module_compression="ZIP_STORED",
)
data = getattr(built, "b_module_data", None) or built[0]
payload = max(re.findall(rb"[A-Za-z0-9+/=]{200,}", data), key=len)
with zipfile.ZipFile(io.BytesIO(base64.b64decode(payload))) as archive:
    print(json.dumps({entry.filename: entry.file_size for entry in archive.infolist()}))
"""


def shipped(module: str) -> list[str]:
    """The files of module_utils that are sent for a module, without empty ones."""
    collections = next(path for path in sys.path if pathlib.Path(path, UTILS).is_dir())
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["ANSIBLE_COLLECTIONS_PATH"] = collections
    command = [sys.executable, "-c", BUILD, f"gpuops.restore.{module}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sizes: dict[str, int] = json.loads(done.stdout)
    return sorted(name.removeprefix(UTILS) for name, size in sizes.items() if name.startswith(UTILS) and size)


@pytest.mark.parametrize(("module", "most"), [("containerd_lease", 10), ("containerd_restore", 139)])
def test_no_more_files_than_needed(module: str, most: int) -> None:
    found = shipped(module)
    assert "_module.py" in found
    assert len(found) <= most, "\n".join(found)
