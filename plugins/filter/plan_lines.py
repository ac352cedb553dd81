# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: plan_lines
short_description: What a plan of restores says
version_added: 0.1.0
description:
  - Used by the playbook C(gpuops.restore.plan).
options:
  _input:
    description:
      - The fact C(restore_node_plan) of each host, empty for one that gave no answer.
    type: dict
    required: true
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Show the plan
  ansible.builtin.debug:
    msg: "{{ {inventory_hostname: restore_node_plan} | gpuops.restore.plan_lines }}"
"""

RETURN = r"""
_value:
  description: A table, and below each workload what would be done and what is in the way.
  type: list
  elements: str
"""

from collections.abc import Mapping
from typing import Any, Callable


def plan_lines(plans: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """See DOCUMENTATION."""
    # Here, since Ansible loads all filters of the collection whenever one is called.
    from ansible_collections.gpuops.restore.plugins.module_utils._roles import plan

    return plan.table(plans)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filter."""
        return {"plan_lines": plan_lines}
