# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: restore_decision
short_description: What a restore does at a step
version_added: 0.1.0
description:
  - Used by the role P(gpuops.restore.restore_node#role), which hands on what its tasks have registered. What a module has said is trusted no
    further than it goes; a task that was skipped, or whose module was killed, has said nothing.
options:
  _input:
    description:
      - What the step goes by.
    type: dict
    required: true
  step:
    description:
      - V(metadata) - the files with metadata that are on the controller, by what the workloads call them.
      - V(input_problems) - problems that can be seen without asking the node.
      - V(problems) - all of them, with those that the modules have reported.
      - V(readings) - the workloads as M(gpuops.restore.containerd_checkpoint_info) takes them.
      - V(found) - what that module has said of each.
      - V(arrived) - problems of one workload, by what was read of its checkpoint.
      - V(archives) - archives of images that are not on the node yet.
      - V(base) - the reference of a workload's base image.
      - V(going) - the names of the workloads that go on.
      - V(jobs) - these as M(gpuops.restore.containerd_restore) takes them.
      - V(failures), V(receipts) - what that module came to, by workload.
      - V(to_bring) - the names of the workloads an image of which has to be brought.
      - V(brought) - what came of that for one of them.
      - V(to_stage) - the workloads as M(gpuops.restore.containerd_checkpoint_stage) takes them.
      - V(staged) - C(stages) and C(failures) after that module.
      - V(removed) - whether removing what was staged has C(changed) anything, and C(failed).
      - V(stage_failure) - why a workload failed before that.
      - V(orphans) - what was C(staged), and which C(images) were imported, for workloads that failed only.
      - V(plan) - what a run would do for a workload, and whether it could.
      - V(cleanup) - C(paths), C(checkpoints) and C(images) that a cleanup deletes.
      - V(problem_lines), V(failure_lines) - problems and failures in words.
    type: str
    required: true
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Say what would keep a restore from beginning
  ansible.builtin.debug:
    msg: "{{ known | gpuops.restore.restore_decision('input_problems') }}"
  vars:
    known:
      workloads: [{name: trainer, checkpoint: "registry.local/trainer:1", probe: {}}]
      metadata: {}
"""

RETURN = r"""
_value:
  description: The decision; a dictionary, a list or a text, by step.
  type: raw
"""

from collections.abc import Mapping
from typing import Any, Callable


def restore_decision(known: Mapping[str, Any], step: str) -> Any:
    """See DOCUMENTATION."""
    # Here, since Ansible loads all filters of the collection whenever one is called.
    from ansible_collections.gpuops.restore.plugins.module_utils._roles import restore_steps, steps

    return steps.decide(restore_steps.STEPS, step, known)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filter."""
        return {"restore_decision": restore_decision}
