# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: capture_decision
short_description: What captures do at a step
version_added: 0.1.0
description:
  - Used by the role P(gpuops.restore.checkpoint_node#role), which hands on what its tasks have registered.
options:
  _input:
    description:
      - What the step goes by.
    type: dict
    required: true
  step:
    description:
      - V(requests) - the workloads as M(gpuops.restore.containerd_checkpoint) takes them.
      - V(problems) - why nothing is captured, in sentences.
      - V(taken) - the C(captures) and the C(failures) of that module, by workload.
      - V(failures) - those of another step, by the results of a loop.
      - V(failure_lines) - failures in words.
      - V(receipts) - the captures, and where they were handed on to.
    type: str
    required: true
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Say what would keep these from being captured
  ansible.builtin.debug:
    msg: "{{ {'workloads': checkpoint_node_workloads, 'foretold': foretold} | gpuops.restore.capture_decision('problems') }}"
"""

RETURN = r"""
_value:
  description: The decision; a dictionary or a list, by step.
  type: raw
"""

from collections.abc import Mapping
from typing import Any, Callable


def capture_decision(known: Mapping[str, Any], step: str) -> Any:
    """See DOCUMENTATION."""
    # Here, since Ansible loads all filters of the collection whenever one is called.
    from ansible_collections.gpuops.restore.plugins.module_utils._roles import capture_steps, steps

    return steps.decide(capture_steps.STEPS, step, known)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filter."""
        return {"capture_decision": capture_decision}
