# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: workload_request
short_description: Whether the variables of a host say which workloads are meant
version_added: 0.1.0
description:
  - Used by the playbooks of this collection. A host takes part whose variables have the selection C(workloads), or the list of the playbook
    (C(checkpoint_node_workloads), C(restore_node_workloads), C(migrate_workloads)), which wins. A list without a value and a name that is
    misspelt are told, so that they are no silent success.
options:
  _input:
    description:
      - The names of the host's variables.
    type: list
    elements: str
    required: true
  use:
    description:
      - What the workloads are chosen for.
    type: str
    choices: [capture, restore, migrate, prune, cleanup]
    required: true
  host:
    description:
      - The host, as the inventory calls it.
    type: str
    required: true
  given:
    description:
      - The value of the list, if the host has one.
    type: raw
  selection:
    description:
      - The value of C(workloads), if the host has one. What is wrong with it is told before the node is asked.
    type: raw
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Stop where nobody can tell what is meant
  ansible.builtin.fail:
    msg: "{{ request.problem }}"
  vars:
    request: >-
      {{ query('ansible.builtin.varnames', '.')
         | gpuops.restore.workload_request('restore', inventory_hostname, restore_node_workloads | default(none), workloads | default(none)) }}
  when: request.problem | length > 0
"""

RETURN = r"""
_value:
  description:
    - C(takes_part); C(selects), whether by the selection; the C(problem), empty if there is none; C(empty), the name of a list that is there
      and empty; C(others), lists for other uses.
  type: dict
"""

from collections.abc import Sequence
from typing import Any, Callable


def workload_request(
    names: Sequence[str], use: str, host: str, given: Any = None, selection: Any = None
) -> dict[str, Any]:
    """See DOCUMENTATION."""
    # Here, since Ansible loads all filters of the collection whenever one is called.
    from ansible_collections.gpuops.restore.plugins.module_utils._window import answers

    return answers.request(names, use, host, given, selection)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filter."""
        return {"workload_request": workload_request}
