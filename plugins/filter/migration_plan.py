# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: migration_plan
short_description: What a migration has to do, after earlier ones were settled
version_added: 0.1.0
description:
  - Used by the playbook C(gpuops.restore.migrate). A workload that has moved already is left alone, one whose capture was broken off goes
    on from there, and every other is captured under names of its own.
options:
  _input:
    description:
      - The migration - C(id), C(source), C(target), C(workloads) with C(name), C(source_name) and C(checkpoint), and C(directory) or C(registry).
    type: dict
    required: true
  source:
    description:
      - The answer of M(gpuops.restore.containerd_migration_info) on the source.
    type: dict
    required: true
  target:
    description:
      - The answer of M(gpuops.restore.containerd_migration_info) on the target.
    type: dict
    required: true
  targets:
    description:
      - As for P(gpuops.restore.migration_verdicts#filter).
    type: dict
    required: true
  others:
    description:
      - Runs on other controllers, whose end cannot be seen from here, are taken to have ended. What a run notes is otherwise left to it.
    type: bool
    default: false
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Plan
  ansible.builtin.set_fact:
    plan: "{{ migration | gpuops.restore.migration_plan(looked, hostvars['gpu-b'].looked, {}) }}"
  vars:
    migration:
      id: 0a1b2c3d4e5f
      source: gpu-a
      target: gpu-b
      directory: /var/tmp
      workloads:
        - name: training
          checkpoint: registry.local/training:moved
"""

RETURN = r"""
_value:
  description:
    - C(going) has the records of what has to move, C(moved) the names of what has, C(problems) what keeps the migration from beginning.
  type: dict
"""

from collections.abc import Mapping
from typing import Any, Callable


def migration_plan(
    migration: Mapping[str, Any], source: Any, target: Any, targets: Mapping[str, Any], others: bool = False
) -> dict[str, Any]:
    """See DOCUMENTATION."""
    # Here, since Ansible loads all filters of the collection whenever one is called.
    from ansible_collections.gpuops.restore.plugins.module_utils._migration import answers

    found = answers.verdicts(str(migration["source"]), source, targets, migration=migration, others=others)
    planned = answers.plan(migration, source, target, found)
    return {
        "going": [{**record.to_json(), "place": record.place, "path": record.file_name} for record in planned.going],
        "moved": list(planned.moved),
        "problems": list(planned.problems),
    }


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filter."""
        return {"migration_plan": migration_plan}
