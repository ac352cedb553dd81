# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: venv_problem
short_description: Why a venv could not be made
version_added: 0.1.0
description:
  - Used by the role P(gpuops.restore.restore_node#role).
options:
  _input:
    description:
      - What the programs have written.
    type: str
    required: true
  python:
    description:
      - The interpreter of the node.
    type: str
    required: true
  path:
    description:
      - The directory of the venv.
    type: str
    required: true
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Say why there is no venv
  ansible.builtin.fail:
    msg: "{{ made.stderr | gpuops.restore.venv_problem('/usr/bin/python3', '/opt/venv') }}"
"""

RETURN = r"""
_value:
  description: A sentence with the cause, and where it is known one with the remedy.
  type: str
"""

from typing import Any, Callable


def venv_problem(output: str, python: str, path: str) -> str:
    """See DOCUMENTATION."""
    # Here, since Ansible loads all filters of the collection whenever one is called.
    from ansible_collections.gpuops.restore.plugins.module_utils._window import preparation

    return preparation.venv_problem(output, python, path)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filter."""
        return {"venv_problem": venv_problem}
