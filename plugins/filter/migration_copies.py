# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: migration_copies
short_description: Which copies of workloads have to be ended on the target of a migration
version_added: 0.1.0
description:
  - Used by the playbooks C(gpuops.restore.migrate) and C(gpuops.restore.settle). A source that a migration keeps paused may go on only when
    its target has no copy any more. This filter says which copies that are.
  - A copy that has proved itself, and a container from another checkpoint than the captured one, are not among them.
options:
  _input:
    description:
      - Answers of M(gpuops.restore.containerd_migration_info) on the sources, by host.
    type: dict
    required: true
  host:
    description:
      - The target, as the inventory calls it.
    type: str
    required: true
  answer:
    description:
      - The answer of M(gpuops.restore.containerd_migration_info) on the target.
    type: dict
    required: true
  migration:
    description:
      - The migration that is about to begin, as for P(gpuops.restore.migration_plan#filter). What it goes on from is not ended.
    type: dict
  others:
    description:
      - Runs on other controllers, whose end cannot be seen from here, are taken to have ended. What a run notes is otherwise left to it.
    type: bool
    default: false
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Choose what has to end here
  ansible.builtin.set_fact:
    copies: "{{ {'gpu-a': hostvars['gpu-a'].looked} | gpuops.restore.migration_copies(inventory_hostname, looked) }}"
"""

RETURN = r"""
_value:
  description: For each, C(record), what the migration has noted, as M(gpuops.restore.containerd_migration_info) returns it.
  type: list
  elements: dict
"""

from collections.abc import Mapping
from typing import Any, Callable


def migration_copies(
    sources: Mapping[str, Any],
    host: str,
    answer: Any,
    migration: Mapping[str, Any] | None = None,
    others: bool = False,
) -> list[dict[str, Any]]:
    """See DOCUMENTATION."""
    # Here, since Ansible loads all filters of the collection whenever one is called.
    from ansible_collections.gpuops.restore.plugins.module_utils._migration import answers

    return [{"record": record.to_json()} for record in answers.copies_to_end(host, answer, sources, migration, others)]


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filter."""
        return {"migration_copies": migration_copies}
