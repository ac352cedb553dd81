#!/usr/bin/python
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_park
short_description: Park a running task in host memory, and bring it back in place
version_added: 0.1.0
description:
  - For work on a node without a reboot (a card's reset, fabric manager, the container toolkit, kubelet or containerd itself). The CUDA
    processes of a task are locked and checkpointed by the driver, so that their GPU memory is in host memory; then the task is paused.
    It comes back where it is, resumed, restored and unlocked.
  - B(Nothing is written to disk.) A reboot, or the end of the task, takes everything with it, and so does an update of the driver. What has to
    outlive that is captured with M(gpuops.restore.containerd_checkpoint).
  - Before anything is touched, the rules of a capture that concern the driver are applied, and host memory and the memory limits of the
    container have to hold the GPU memory. On the way back its GPUs have to have room for it again.
  - Whatever fails, the workload goes on, also when the module is told to end (SIGTERM, a connection that breaks). When it is killed, a mark below
    C(/run/gpuops-restore) says what may stand still, and the next run with O(state=resumed), or of any capture of the container, has it go on.
  - What is parked is neither captured, restored over, stopped nor removed by this collection until it is back.
extends_documentation_fragment:
  - gpuops.restore.containerd
  - gpuops.restore.attributes
  - gpuops.restore.attributes.full
  - gpuops.restore.gpu
  - gpuops.restore.gpu.lock
  - gpuops.restore.ownership
  - gpuops.restore.busy
requirements:
  - For GPU memory, NVIDIA driver 570 or later, cuda-bindings >= 12.8 and nvidia-ml-py (Python packages)
options:
  container_id:
    description:
      - Name of the container.
      - One of O(container_id) and O(workloads) is required.
    type: str
  workloads:
    description:
      - Names of several containers, side by side in one call. Host memory has to hold what they bring together. One that fails goes on
        alone; the others stay as they are wanted.
    type: list
    elements: str
  state:
    description:
      - V(parked) has the task paused and its CUDA processes off their GPUs.
      - V(resumed) has what is parked, or half parked, run again. What runs already is left alone; a task that is gone is a failure.
    type: str
    choices: [parked, resumed]
    default: parked
  gpu:
    description:
      - V(auto) takes CUDA processes off their GPUs where there are any. V(required) fails where there are none. V(none) only pauses.
      - It says nothing of the way back, which is the one that the task went.
    type: str
    choices: [auto, required, none]
    default: auto
  force:
    description:
      - Park containers of another owner, or of none, such as a kubelet's, too. To bring one back does not need it.
seealso:
  - module: gpuops.restore.containerd_checkpoint
  - module: gpuops.restore.cuda_process
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Leave the cards while fabric manager is restarted
  gpuops.restore.containerd_park:
    container_id: pytorch-training
    gpu: required
    # The container is one of Kubernetes, without this collection's owner label.
    force: true

- name: Come back in place
  gpuops.restore.containerd_park:
    container_id: pytorch-training
    state: resumed

- name: All of a node at once
  gpuops.restore.containerd_park:
    workloads: [bert, llama]
    force: true
"""

RETURN = r"""
recovered:
  description: Whether a run that was broken off had left the task standing, which was taken back.
  type: bool
  returned: success, with O(container_id)
  sample: false
processes:
  description:
    - The CUDA processes that leave their GPUs, as M(gpuops.restore.cuda_process_info) returns them. Empty where nothing leaves any.
  type: list
  elements: dict
  returned: success, with O(container_id)
  sample: []
pid:
  description: The task's first process. Where it is another one than when the task was parked, that has ended, and somebody has started it anew.
  type: int
  returned: success, with O(container_id)
  sample: 41235
vram:
  description: Bytes on each GPU, by UUID, that are, or come back from, host memory.
  type: dict
  returned: success, with O(container_id)
  sample: {GPU-6b5d7bd4-6b1c-4a3e-9a9a-1f8d4a1f0b01: 17679253504}
host_memory:
  description:
    - What comes into host memory (C(needed)), what was free before (C(available)), and what the tightest memory limit over the container leaves
      (C(limit_leaves), null without one), in bytes. Empty where it was parked already.
  type: dict
  returned: success, with O(container_id)
  sample: {needed: 17679253504, available: 812304113664, limit_leaves: 51539607552}
holding:
  description: Processes of the parked task that still have NVIDIA's devices open, so that a card cannot be reset; each has a warning.
  type: list
  elements: int
  returned: success, with O(container_id)
  sample: []
ended:
  description: Processes that ended when the workload went on, with C(pid) and C(command).
  type: list
  elements: dict
  returned: success, with O(container_id)
  sample: []
actions:
  description: What was done, or in check mode would be, in its order.
  type: list
  elements: str
  returned: success, with O(container_id)
  sample: ["take the CUDA processes of pytorch-training off their GPUs", "pause the task (pid 41235)"]
seconds:
  description: Seconds by phase.
  type: dict
  returned: success, with O(container_id)
  sample: {preflight: 0.9, cuda_suspend: 3.4, pause: 0.02, total: 4.4}
workloads:
  description:
    - With O(workloads), by container id, what a call of its own would return, with C(changed), and C(failure) and C(msg) for one that has failed.
  type: dict
  returned: with O(workloads)
  sample: {}
failure:
  description:
    - What went wrong. C(code) is stable, C(outcome) is V(retryable), V(terminal) or V(unknown). C(details) has C(left_behind) where the task may
      stand still, which the next run takes back, and C(lost) where its GPU memory cannot come back.
  type: dict
  returned: failure
  sample:
    code: host_memory_short
    outcome: retryable
    rpc: null
    hint: Free host memory, or checkpoint fewer processes at a time; nothing was touched.
    details: {needed: 17679253504, available: 8589934592}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuops.restore.plugins.module_utils import _module, _options
from ansible_collections.gpuops.restore.plugins.module_utils._capture import park_batch
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client


def step(module: AnsibleModule, client: Client) -> dict[str, Any]:
    """Carry out one call of the module."""
    found = park_batch.carry_out(
        client.another, module.params["state"], park_batch.jobs_of(module.params), module.check_mode
    )
    for one in found:
        for warning in one.result.warnings if one.result else ():
            module.warn(warning)
    if module.params["workloads"] is None:
        return found[0].answer()
    return park_batch.answer(found)


ARGUMENT_SPEC: dict[str, Any] = {
    "container_id": {"type": "str"},
    "workloads": {"type": "list", "elements": "str"},
    "state": {"type": "str", "choices": ["parked", "resumed"], "default": "parked"},
    **_options.GPU_MODE,
    **_options.GPU,
    **_options.GPU_LOCK,
    **_options.OWNERSHIP,
    **_options.BUSY,
}
RULES: dict[str, Any] = {
    "mutually_exclusive": [("container_id", "workloads")],
    "required_one_of": [("container_id", "workloads")],
}


def main() -> None:
    """Entry point of the module."""
    _module.run(ARGUMENT_SPEC, step, **RULES)


if __name__ == "__main__":
    main()
