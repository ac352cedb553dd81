# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: workload_nobody
short_description: What to say where no host has workloads
version_added: 0.1.0
description:
  - Used by the playbooks of this collection, which fail with this sentence where no host says which workloads are meant.
options:
  _input:
    description:
      - The names of the variables of each host.
    type: dict
    required: true
  use:
    description:
      - What the workloads are chosen for, as for P(gpuops.restore.workload_request#filter).
    type: str
    required: true
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Stop where nobody has anything to do
  ansible.builtin.fail:
    msg: "{{ {inventory_hostname: query('ansible.builtin.varnames', '.')} | gpuops.restore.workload_nobody('restore') }}"
"""

RETURN = r"""
_value:
  description: The sentence, with what is there instead, and the remedy.
  type: str
"""

from collections.abc import Mapping, Sequence
from typing import Any, Callable


def workload_nobody(names: Mapping[str, Sequence[str]], use: str) -> str:
    """See DOCUMENTATION."""
    # Here, since Ansible loads all filters of the collection whenever one is called.
    from ansible_collections.gpuops.restore.plugins.module_utils._window import answers

    return answers.nobody(names, use)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filter."""
        return {"workload_nobody": workload_nobody}
