#!/usr/bin/python
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_task
short_description: Run, stop or remove a containerd task
version_added: 0.1.0
description:
  - Starts the process of a container from the CRIU images that M(gpuops.restore.containerd_checkpoint_stage) has staged,
    so that it goes on where it was checkpointed; or stops it; or takes it away.
  - A snapshot on which a task has run no longer fits the checkpoint. It is marked before the start, and starting from
    the checkpoint on it again is refused; have M(gpuops.restore.containerd_container) make it anew with
    O(gpuops.restore.containerd_container#module:rebuild=true).
  - When CRIU refuses, the module returns the log's own error lines, a likely cause and a remedy. The log stays in the
    container's work directory until M(gpuops.restore.containerd_container) removes it.
extends_documentation_fragment:
  - gpuops.restore.containerd
  - gpuops.restore.attributes
  - gpuops.restore.attributes.full
  - gpuops.restore.workload.route
  - gpuops.restore.workload.output
  - gpuops.restore.workload.start
  - gpuops.restore.differences
  - gpuops.restore.gpu
  - gpuops.restore.staging
  - gpuops.restore.ownership
  - gpuops.restore.prepared
  - gpuops.restore.busy
attributes:
  check_mode:
    details:
      - With O(assume_prepared) the container and the staged directory are taken to be there and new.
options:
  container_id:
    description:
      - Name of the container.
    type: str
    required: true
  state:
    description:
      - V(started) has the task run. V(stopped) ends its processes with TERM and, after O(grace_seconds), with KILL, and
        leaves the ended task. V(absent) also deletes the task, as well after a start that failed.
    type: str
    choices: [started, stopped, absent]
    default: started
  checkpoint:
    description:
      - Reference of the checkpoint image to start from. It has to be the one that the container was made for.
      - Without it V(started) is an ordinary start from the image.
    type: str
  grace_seconds:
    description:
      - Seconds between TERM and KILL. V(0) kills at once.
    type: float
    default: 10.0
  gpu:
    description:
      - What becomes of GPU memory before a process is killed. Killing a process with live CUDA state has hung whole hosts on some
        drivers.
      - V(auto) first takes it off the card (as M(gpuops.restore.cuda_process) with V(checkpointed)) where the node has NVIDIA's
        driver, V(required) insists on asking the driver, V(none) just kills. A process without its GPU gets no time after TERM.
      - Used by V(stopped) and V(absent).
    type: str
    choices: [auto, required, none]
    default: auto
seealso:
  - module: gpuops.restore.containerd_container
  - module: gpuops.restore.containerd_checkpoint_stage
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Let the training go on where it was
  gpuops.restore.containerd_task:
    container_id: pytorch-training
    checkpoint: registry.local/pytorch-training-checkpoint:001
    stdout: /var/log/pytorch-training.log

- name: Stop it, with a minute to save its work
  gpuops.restore.containerd_task:
    container_id: pytorch-training
    state: stopped
    grace_seconds: 60

- name: Take the task away
  gpuops.restore.containerd_task:
    container_id: pytorch-training
    state: absent
"""

RETURN = r"""
task:
  description: The task as it is now; empty when there is none, and in check mode where it would be new.
  type: dict
  returned: success
  sample:
    id: pytorch-training
    pid: 41235
    status: RUNNING
    exit_status: null
created:
  description: Whether this call started the task, or would have.
  type: bool
  returned: success
  sample: true
actions:
  description: What was done, or in check mode would be.
  type: list
  elements: str
  returned: success
  sample: ["start the task from the checkpoint registry.local/pytorch-training-checkpoint:001"]
seconds:
  description: Seconds for creating the task, for CRIU's restore, and for watching that the process stays alive.
  type: dict
  returned: when a task was started
  sample: {create: 0.051, start: 0.212, alive: 1.001}
output_created:
  description: The output files that this call made; one that was there is appended to.
  type: list
  elements: str
  returned: when a task was started
  sample: [/var/log/pytorch-training.log]
differences:
  description:
    - What the restored task has otherwise than the captured one had, with C(kind), a sentence (C(message)), and what it was C(before) and
      C(after). Empty where all is as it was; null where the checkpoint does not record it, or nobody could look, as C(not_compared) says.
  type: list
  elements: dict
  returned: when a task was started from a checkpoint
  sample:
    - kind: limits
      message: Max open files of process 1 was 4096 4096 and is 1024 4096.
      before: 4096 4096
      after: 1024 4096
not_compared:
  description: Why there is nothing to compare, or not all of it; empty where there is.
  type: str
  returned: when a task was started from a checkpoint
  sample: ""
failure:
  description:
    - What went wrong. C(code) is stable, C(outcome) is V(retryable), V(terminal) or V(unknown).
    - After a failed restore C(details) has C(kind), C(cause), CRIU's C(errors) and the path of its C(log).
  type: dict
  returned: failure
  sample:
    code: criu_restore_failed
    outcome: terminal
    rpc: containerd.services.tasks.v1.Tasks/Start
    hint: Map the old source to one of this node with mounts.
    details: {kind: mounts, log: /var/lib/gpuops-restore/work/k8s.io/pytorch-training/restore.log}
"""

import contextlib
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuops.restore.plugins.module_utils import _module, _options
from ansible_collections.gpuops.restore.plugins.module_utils._container import task as task_steps, task_end
from ansible_collections.gpuops.restore.plugins.module_utils._container.task_params import TaskParams
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._host import run_lock


def step(module: AnsibleModule, client: Client) -> dict[str, Any]:
    """Carry out one call of the module."""
    with contextlib.ExitStack() as stack:
        if not module.check_mode:
            what = module.params["container_id"], "containerd_task"
            stack.enter_context(run_lock.changing(client.namespace, *what, client.busy_seconds))
        return _carry_out(module, client)


def _carry_out(module: AnsibleModule, client: Client) -> dict[str, Any]:
    act = {"started": task_steps.started, "stopped": task_end.stopped, "absent": task_end.absent}
    done = act[module.params["state"]](client, TaskParams.from_options(module.params), module.check_mode)
    for warning in done.warnings:
        module.warn(warning)
    result: dict[str, Any] = {
        "changed": done.changed,
        "created": done.created,
        "actions": done.actions,
        "task": done.task,
        "diff": {"before": {"status": done.before}, "after": {"status": done.after}},
    }
    if done.seconds:
        result["seconds"] = done.seconds
        result["output_created"] = done.output_created
        if module.params["checkpoint"]:
            result["differences"] = done.differences
            result["not_compared"] = done.not_compared
    return result


ARGUMENT_SPEC: dict[str, Any] = {
    "container_id": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["started", "stopped", "absent"], "default": "started"},
    "checkpoint": {"type": "str"},
    **_options.WORKLOAD_ROUTE,
    **_options.WORKLOAD_OUTPUT,
    **_options.WORKLOAD_START,
    **_options.DIFFERENCES,
    "grace_seconds": {"type": "float", "default": 10.0},
    **_options.GPU_MODE,
    **_options.GPU,
    **_options.STAGING,
    **_options.OWNERSHIP,
    **_options.PREPARED,
    **_options.BUSY,
}


def main() -> None:
    """Entry point of the module."""
    _module.run(ARGUMENT_SPEC, step)


if __name__ == "__main__":
    main()
