# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: workload_selection
short_description: The workloads of a node that a selection takes
version_added: 0.1.0
description:
  - Used by the playbooks of this collection. By one selection it makes the list that a capture, a restore or a migration of the node takes.
  - A capture takes containers that have a task, and those whose task has ended after that checkpoint was taken. A restore takes what has
    its checkpoint on the node, under the reference that the selection gives it.
options:
  _input:
    description:
      - The answer of M(gpuops.restore.containerd_workload_info) on the node.
    type: dict
    required: true
  selection:
    description:
      - The selection, as the variable C(workloads) of the inventory has it.
      - C(gpu) (whether it has GPU memory), C(labels) (of the container or its pod), C(namespaces) (of pods) and C(names) (ids, readable
        names, pods or containers of pods) say which; all that are given have to fit. Texts are patterns. C(exclude) has names, or rules
        of the same keys. At least one of the four is needed.
      - C(checkpoint) is the reference of each checkpoint, V(gpuops.local/checkpoint/{name}:latest) by default, C(restore_as) the name of the
        restored container, V({name}). Both, and paths in options, may have V({id}), V({name}), V({namespace}), V({pod}), V({pod_uid}),
        V({container}), V({host}).
      - C(defaults) are options of all of them, C(overrides) a list of C(match), a rule, and C(set), options for those that it takes;
        the last one wins. Options are those of C(checkpoint_node_workloads) and C(restore_node_workloads); for a capture C(criu), C(accept)
        and C(memory_volumes) are called C(capture_criu), C(capture_accept) and C(capture_memory_volumes).
      - A node on which it takes nothing is a failure, unless C(allow_none) is true.
    type: dict
    required: true
  use:
    description:
      - What the workloads are chosen for, as for P(gpuops.restore.workload_request#filter). For V(prune) and V(cleanup) there may be none.
    type: str
    required: true
  host:
    description:
      - The node, as the inventory calls it.
    type: str
    required: true
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: See what runs on the node
  gpuops.restore.containerd_workload_info:
    preflight: false
  register: found

- name: Say what would be captured
  ansible.builtin.debug:
    msg: "{{ (found | gpuops.restore.workload_selection(selection, 'capture', inventory_hostname)).workloads }}"
  vars:
    selection:
      gpu: true
      namespaces: [training]
      exclude: ["*-sidecar"]
      checkpoint: "registry.local/checkpoints/{name}:001"
      defaults: {network: host}
      overrides:
        - match: {labels: {app: bert}}
          set: {probe: {file: {path: /workspace/progress.log}}}
"""

RETURN = r"""
_value:
  description:
    - C(workloads), the list; C(problems), sentences that say what is wrong with the selection, empty if nothing is; C(note), why the list is
      empty where that is no problem.
  type: dict
"""

from collections.abc import Mapping
from typing import Any, Callable


def workload_selection(answer: Any, selection: Mapping[str, Any], use: str, host: str) -> dict[str, Any]:
    """See DOCUMENTATION."""
    # Here, since Ansible loads all filters of the collection whenever one is called.
    from ansible_collections.gpuops.restore.plugins.module_utils._window import answers

    return answers.select(answer, selection, use, host)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filter."""
        return {"workload_selection": workload_selection}
