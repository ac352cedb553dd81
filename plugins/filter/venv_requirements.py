# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: venv_requirements
short_description: What a node's venv gets
version_added: 0.1.0
description:
  - Used by the role P(gpuops.restore.restore_node#role). The packages that the collection asks for come from the files in its
    directory C(requirements), with hashes. For a driver older than 580, bindings of CUDA 13 are replaced by those of CUDA 12.9.
options:
  _input:
    description:
      - Packages for a node with a GPU, as pip takes them.
    type: list
    elements: str
    required: true
  driver:
    description:
      - The version of the node's driver, empty where it is not known.
    type: str
    required: true
  gpu:
    description:
      - Whether the node is to have the packages for a GPU.
    type: bool
    required: true
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Choose the packages
  ansible.builtin.set_fact:
    packages: "{{ ['cuda-bindings==13.4.4', 'nvidia-ml-py==13.615.71'] | gpuops.restore.venv_requirements('570.211.01', true) }}"
"""

RETURN = r"""
_value:
  description:
    - What pip installs with C(--require-hashes), as C(hashed), the text of a requirements file.
    - What it installs without, as C(others), a list.
  type: dict
"""

from collections.abc import Sequence
from typing import Any, Callable


def venv_requirements(wanted: Sequence[str], driver: str, gpu: bool) -> dict[str, Any]:
    """See DOCUMENTATION."""
    # Here, since Ansible loads all filters of the collection whenever one is called.
    import pathlib

    from ansible_collections.gpuops.restore.plugins.module_utils._window import preparation

    files = pathlib.Path(__file__).resolve().parents[2] / "requirements"
    texts = {path.name: path.read_text(encoding="utf-8") for path in files.iterdir()}
    hashed, others = preparation.installs(texts, wanted, driver, gpu)
    return {"hashed": hashed, "others": others}


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filter."""
        return {"venv_requirements": venv_requirements}
