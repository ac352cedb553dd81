#!/usr/bin/python
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cuda_process_info
short_description: Which processes hold CUDA state, and what the GPUs of a node offer
version_added: 0.1.0
description:
  - The processes of a container that have CUDA state, with their state as the driver tells it, and the GPUs and memory
    that they hold as NVML tells it. A checkpointed process holds no GPU, and NVML does not know it.
  - Works on a node without GPU, driver or Python bindings too, and says what is missing.
extends_documentation_fragment:
  - gpuops.restore.containerd
  - gpuops.restore.attributes
  - gpuops.restore.attributes.info
  - gpuops.restore.gpu
  - gpuops.restore.gpu.processes
requirements:
  - NVIDIA driver 570 or later, for the processes' states
  - cuda-bindings >= 12.8 (Python package, by itself or with cuda-python), for the processes' states
  - nvidia-ml-py (Python package), for GPUs and memory
options:
  pids:
    description:
      - Process ids on the node. Those without CUDA state are left out.
      - Without these and O(container_id), all processes that hold GPU memory now are listed.
  cuda_timeout:
    description:
      - Seconds that the driver may take to answer.
    default: 60
seealso:
  - module: gpuops.restore.cuda_process
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: See which processes of the training hold GPU memory
  gpuops.restore.cuda_process_info:
    container_id: pytorch-training
  register: cuda

- name: Insist on a driver that can restore
  gpuops.restore.cuda_process_info:
  register: cuda
  failed_when: not cuda.available
"""

RETURN = r"""
available:
  description: Whether the node has what M(gpuops.restore.cuda_process) needs, a GPU and the driver's checkpoint calls among them.
  type: bool
  returned: success
  sample: true
reason:
  description: Why it is not available; null if it is.
  type: str
  returned: success
  sample: null
reason_code:
  description:
    - The same as a stable code, one of V(dependency_missing), V(bindings_too_old), V(driver_library_missing),
      V(driver_root_invalid), V(driver_too_old) and V(cuda_init_failed); null if it is available.
  type: str
  returned: success
  sample: null
driver:
  description:
    - The driver's C(version), the C(cuda) version that it supports, the place of its C(library), and whether memory can
      be restored onto other GPUs (C(gpu_map)). Null what is not known.
  type: dict
  returned: success
  sample: {version: 580.159.04, cuda: "13.0", library: the loader's default path, gpu_map: true}
nvml:
  description: Whether NVML is C(available), and the C(reason) if not.
  type: dict
  returned: success
  sample: {available: true, reason: null}
gpus:
  description:
    - The GPUs that NVML sees. Sizes in bytes; C(persistence) mode; C(mig) for a GPU that is divided; C(minor) number of
      its device node.
  type: list
  elements: dict
  returned: success
  sample:
    - uuid: GPU-6b5d7bd4-6b1c-4a3e-9a9a-1f8d4a1f0b01
      index: 0
      name: NVIDIA H100 80GB HBM3
      memory_total: 85520809984
      memory_free: 67653402624
      persistence: true
      mig: false
      minor: 0
processes:
  description:
    - The processes with CUDA state. C(state) is V(RUNNING), V(LOCKED), V(CHECKPOINTED), V(FAILED), V(CHECKPOINTING),
      V(RESTORING), or null with the C(problem).
    - C(memory) is what they hold on all GPUs, C(host_memory) their own memory in RAM, which for a checkpointed process
      is an upper bound of what it needs on the GPUs; both in bytes.
    - C(visible) are the GPUs that the process can see, by UUID, since its container has their device nodes. A map onto
      other GPUs has to list all of them.
    - C(restore_failed) is set for a checkpointed process that cannot be restored any more, and says why.
    - C(start_time) is in clock ticks after boot.
  type: list
  elements: dict
  returned: success
  sample:
    - pid: 41235
      start_time: 5238730
      state: RUNNING
      problem: null
      restore_thread_id: 41260
      restore_failed: null
      gpus:
        - {uuid: GPU-6b5d7bd4-6b1c-4a3e-9a9a-1f8d4a1f0b01, index: 0, name: NVIDIA H100 80GB HBM3, memory: 17679253504}
      visible: [GPU-6b5d7bd4-6b1c-4a3e-9a9a-1f8d4a1f0b01]
      memory: 17679253504
      host_memory: 1283457024
failure:
  description: What went wrong. C(code) is stable, C(outcome) is V(retryable), V(terminal) or V(unknown).
  type: dict
  returned: failure
  sample:
    code: task_paused
    outcome: terminal
    rpc: null
    hint: "Have it go on as it was paused: a parked one by containerd_park with state: resumed. Then run again."
    details: {pid: 41235}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuops.restore.plugins.module_utils import _module, _options
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._gpu import info as gpu_info


def step(module: AnsibleModule, client: Client | None) -> dict[str, Any]:
    """Carry out one call of the module."""
    return {"changed": False, **gpu_info.gather(client, gpu_info.InfoParams.from_options(module.params))}


ARGUMENT_SPEC: dict[str, Any] = {
    **_options.GPU_PROCESSES,
    **_options.GPU,
    "cuda_timeout": {"type": "int", "default": 60},
}
RULES: dict[str, Any] = {"mutually_exclusive": [("container_id", "pids")]}


def main() -> None:
    """Entry point of the module."""
    _module.run(ARGUMENT_SPEC, step, client=_module.FOR_CONTAINER, **RULES)


if __name__ == "__main__":
    main()
