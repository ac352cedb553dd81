# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: migration_decision
short_description: What a migration does at a step
version_added: 0.1.0
description:
  - Used by the playbooks C(gpuops.restore.migrate) and C(gpuops.restore.settle). What becomes of each workload is said by
    P(gpuops.restore.migration_plan#filter) and P(gpuops.restore.migration_verdicts#filter); this is what lies between.
options:
  _input:
    description:
      - What the step goes by.
    type: dict
    required: true
  step:
    description:
      - V(targets) - what the target has for CUDA processes, as C(checkpoint_node_targets) takes it.
      - V(captures) - what the source captures, as C(checkpoint_node_workloads) takes it.
      - V(taken) - the records of what was captured, with its digests.
      - V(restores) - what has arrived on the target, as C(restore_node_workloads) takes it.
      - V(stayed) - what did not move, and why.
      - V(places) - directories that can go from a host.
      - V(not_settled) - what a host has that could not be settled, in sentences.
    type: str
    required: true
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Say what the target has for CUDA processes
  ansible.builtin.debug:
    msg: "{{ {'target': 'gpu-b', 'gpu': gpu} | gpuops.restore.migration_decision('targets') }}"
"""

RETURN = r"""
_value:
  description: The decision, a list of dictionaries or of texts, by step.
  type: raw
"""

from collections.abc import Mapping
from typing import Any, Callable


def migration_decision(known: Mapping[str, Any], step: str) -> Any:
    """See DOCUMENTATION."""
    # Here, since Ansible loads all filters of the collection whenever one is called.
    from ansible_collections.gpuops.restore.plugins.module_utils._migration import handover

    return handover.decide(step, known)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filter."""
        return {"migration_decision": migration_decision}
