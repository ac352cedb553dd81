# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: window_decision
short_description: What a maintenance window does next on a node
version_added: 0.1.0
description:
  - Used by the playbook C(gpuops.restore.maintenance). Each step of it is decided by what the journal on the node
    (M(gpuops.restore.containerd_window)) and a look at it (M(gpuops.restore.containerd_workload_info)) say.
options:
  _input:
    description:
      - What the step goes by.
    type: dict
    required: true
  step:
    description:
      - V(refused) - why a run may not begin as it is asked for; empty where it may.
      - V(course) - whether to capture, to do the work, to restore, or nothing; the workloads; the problems.
      - V(heard) - by host, what the report goes by.
      - V(named) - the hosts of each name of C(maintenance_spares).
      - V(spares) - by host, what spare nodes have answered.
      - V(rounds) - the nodes of each batch, where they are evacuated.
      - V(place) - by node, its records with the spare node of each workload, and the problems.
      - V(leaves) - entries of C(checkpoint_node_workloads) by which moves are foretold.
      - V(departs) - go or no-go as V(judge), and the C(moves).
      - V(turns) - moves in turns, in each of which no host is twice.
      - V(evacuated), V(home) - the records after moves away and back, the C(phase) of the node, and the C(problems).
      - V(way_home) - what comes back and what stays, and the C(moves).
      - V(to_clear) - what a spare node has of workloads that are back.
      - V(foretell) - the C(workloads) of one call of M(gpuops.restore.containerd_checkpoint) in check mode.
      - V(judge) - go or no-go, by captures that were foretold and the policy for what cannot be captured.
      - V(captured), V(restored) - the records with what receipts and failures of a role say.
      - V(restores) - the list for C(restore_node_workloads).
      - V(needs) - what each workload needs to be parked, in sentences.
      - V(parked), V(resumed), V(probed) - the records with what M(gpuops.restore.containerd_park), M(gpuops.restore.containerd_probe) have said;
        V(parked) has them as C(records), beside the C(phase) of the node.
      - V(way_back) - what is parked and can be resumed, what is lost, and the problems.
      - V(said) - what there is to say of workloads that are not lost.
      - V(to_probe) - calls of M(gpuops.restore.containerd_probe) for what is back.
      - V(gate) - what of the node is not as it was, in sentences.
      - V(phase) - the node's phase.
      - V(after) - whether the hook after the window has yet to run.
      - V(stop) - why no further batch of nodes may begin; empty where one may.
      - V(late) - why a batch may not begin, since the window's time is over or would be; empty where it may.
      - V(before) - the node as it was when the first of an attempt's workloads was captured.
      - V(controller) - this run, as the journal names it.
    type: str
    required: true
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: See whether the workloads could come back here
  ansible.builtin.debug:
    msg: "{{ known | gpuops.restore.window_decision('gate') }}"
  vars:
    known: {records: "{{ noted.workloads }}", before: "{{ noted.node.before }}", after: "{{ noted.facts }}", gpu_map: {}}
"""

RETURN = r"""
_value:
  description: The decision; a dictionary, a list or a text, by step.
  type: raw
"""

from collections.abc import Mapping
from typing import Any, Callable


def window_decision(known: Mapping[str, Any], step: str) -> Any:
    """See DOCUMENTATION."""
    # Here, since Ansible loads all filters of the collection whenever one is called.
    from ansible_collections.gpuops.restore.plugins.module_utils._window import steps

    return steps.decide(step, known)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filter."""
        return {"window_decision": window_decision}
