#!/usr/bin/python
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cuda_process
short_description: Bring the CUDA processes of a task to a state
version_added: 0.1.0
description:
  - Brings GPU memory back to processes that were restored with CRIU (V(running)), or takes it off the GPUs into host
    memory, which is what a checkpoint of the process needs (V(checkpointed)).
  - Only processes with CUDA state are touched, each as its own state demands; those that are where they are wanted are
    left alone. All take the same call side by side, and the next call when all have answered.
  - When a process cannot be locked or checkpointed, all of them are brought back to where they were. When one cannot be
    restored, the others stay locked, because a part of a workload must not go on without the rest; remove the task
    then and restore its container anew.
  - A restore that fails poisons its process, whatever state the driver names afterwards. It is never tried again; the
    module remembers it below C(/run/gpuops-restore) as long as the process lives.
  - The driver's calls run in a helper process, which is killed past O(cuda_timeout). The failure's outcome is V(unknown)
    then, and nothing is replayed by itself.
extends_documentation_fragment:
  - gpuops.restore.containerd
  - gpuops.restore.attributes
  - gpuops.restore.attributes.full
  - gpuops.restore.gpu
  - gpuops.restore.gpu.lock
  - gpuops.restore.gpu.processes
  - gpuops.restore.workload.gpu_map
  - gpuops.restore.ownership
  - gpuops.restore.prepared
attributes:
  check_mode:
    details:
      - The driver is initialised and asked for the processes' states, which changes nothing.
      - With O(assume_prepared) the task is taken to run anew with its CUDA processes checkpointed.
requirements:
  - NVIDIA driver 570 or later (580 for O(gpu_map) to other GPUs)
  - cuda-bindings >= 12.8 (Python package, by itself or with cuda-python)
  - nvidia-ml-py (Python package) for sizes, GPU names, and the checks that rest on them
options:
  pids:
    description:
      - Process ids on the node. Each must have CUDA state.
      - One of O(container_id) and O(pids) is required.
  state:
    description:
      - V(running) restores what is checkpointed and then unlocks all.
      - V(locked) locks what is running, so that it begins no more work on the GPU, and restores what is checkpointed.
      - V(checkpointed) locks all and then takes their memory off the GPUs.
    type: str
    choices: [running, locked, checkpointed]
    default: running
  vram:
    description:
      - Bytes that the checkpoint held on each GPU, by old UUID. If given, a restore is refused while a GPU has less
        free, before anything is touched, and O(gpu_map) is checked for being complete.
    type: dict
    default: {}
seealso:
  - module: gpuops.restore.cuda_process_info
  - module: gpuops.restore.containerd_task
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Give the restored training its GPU memory back
  gpuops.restore.cuda_process:
    container_id: pytorch-training

- name: Take it off the GPU, before the task is removed
  gpuops.restore.cuda_process:
    container_id: pytorch-training
    state: checkpointed

- name: Restore onto another GPU of the same kind
  gpuops.restore.cuda_process:
    container_id: pytorch-training
    gpu_map:
      GPU-6b5d7bd4-6b1c-4a3e-9a9a-1f8d4a1f0b01: GPU-0c2f2a52-8f8c-4f0e-8d55-3f0f6f1f7a02
    vram:
      GPU-6b5d7bd4-6b1c-4a3e-9a9a-1f8d4a1f0b01: 17179869184
"""

RETURN = r"""
processes:
  description:
    - The processes with CUDA state. C(before) and C(after) are V(RUNNING), V(LOCKED), V(CHECKPOINTED) or V(FAILED), or
      V(GONE) for one that has ended meanwhile. In check mode C(after) is what it would be.
    - C(start_time) is in clock ticks after boot, C(seconds) per call of the driver, C(bytes) the memory on all GPUs, and
      C(gpus) those where it lies (C(uuid), C(index), C(name), C(memory)). V(checkpointed) reads sizes before the calls,
      V(running) after them. C(bytes) is null where NVML does not tell.
  type: list
  elements: dict
  returned: success
  sample:
    - pid: 41235
      start_time: 5238730
      before: CHECKPOINTED
      after: RUNNING
      seconds: {restore: 3.71, unlock: 0.002}
      bytes: 17679253504
      gpus:
        - {uuid: GPU-6b5d7bd4-6b1c-4a3e-9a9a-1f8d4a1f0b01, index: 0, name: NVIDIA H100 80GB HBM3, memory: 17679253504}
actions:
  description: The calls that were made, or in check mode would be, in their order.
  type: list
  elements: str
  returned: success
  sample: ["restore process 41235", "unlock process 41235"]
lock_attempts:
  description: How often it was tried to lock all processes, which may wait for each other; 0 where there was none to lock.
  type: int
  returned: success
  sample: 0
seconds:
  description: Seconds for initialising the driver, for each call (all processes side by side), and altogether.
  type: dict
  returned: success
  sample: {init: 0.011, restore: 3.714, unlock: 0.003, total: 4.2}
failure:
  description:
    - What went wrong. C(code) is stable, C(outcome) is V(retryable), V(terminal) or V(unknown).
    - After the first call C(details) has C(processes) as above, with C(problem) where one has failed, C(error) (the
      driver's own), C(pending) (those that never answered), C(rolled_back) (whether all are where they were) and
      C(left_behind).
    - Codes are C(cuda_restore_failed) (poisoned), C(cuda_process_failed), C(cuda_timeout), C(cuda_helper_died),
      C(cuda_lock_timeout), C(cuda_lock_failed), C(cuda_checkpoint_failed), C(cuda_unlock_failed), C(cuda_process_gone),
      C(cuda_process_busy), C(cuda_process_unreadable), C(cuda_processes_keep_coming), C(cuda_init_failed),
      C(driver_library_missing), C(driver_root_invalid), C(driver_too_old), C(bindings_too_old), C(dependency_missing),
      C(host_memory_short), C(container_memory_short), C(vram_short), C(gpu_map_invalid), C(gpu_map_incomplete), C(gpu_map_refused),
      C(gpu_map_unchecked), C(gpu_absent), C(gpu_other_chip), C(task_paused), C(task_absent), C(container_absent),
      C(container_not_ours), C(process_gone), C(pid_invalid), C(not_a_cuda_process) and those of containerd.
  type: dict
  returned: failure
  sample:
    code: cuda_restore_failed
    outcome: terminal
    rpc: null
    hint: >-
      Free GPU memory, remove the task, and restore the container anew from its checkpoint, which is unharmed.
    details: {pid: 41235, operation: restore, error: CUDA_ERROR_OUT_OF_MEMORY (2), processes: []}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuops.restore.plugins.module_utils import _module, _options
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._gpu import state as gpu_state


def step(module: AnsibleModule, client: Client | None) -> dict[str, Any]:
    """Carry out one call of the module."""
    params = gpu_state.StateParams.from_options(module.params)
    done = gpu_state.ensure(client, params, module.check_mode)
    for warning in done.warnings:
        module.warn(warning)
    return {
        "changed": done.changed,
        "actions": done.actions,
        "processes": done.processes,
        "lock_attempts": done.lock_attempts,
        "seconds": done.seconds,
        "diff": {
            when: {str(process["pid"]): process[when] for process in done.processes} for when in ("before", "after")
        },
    }


ARGUMENT_SPEC: dict[str, Any] = {
    **_options.GPU_PROCESSES,
    "state": {"type": "str", "choices": ["running", "locked", "checkpointed"], "default": "running"},
    **_options.WORKLOAD_GPU_MAP,
    "vram": {"type": "dict", "default": {}},
    **_options.GPU,
    **_options.GPU_LOCK,
    **_options.OWNERSHIP,
    **_options.PREPARED,
}
RULES: dict[str, Any] = {
    "mutually_exclusive": [("container_id", "pids")],
    "required_one_of": [("container_id", "pids")],
}


def main() -> None:
    """Entry point of the module."""
    _module.run(ARGUMENT_SPEC, step, client=_module.FOR_CONTAINER, **RULES)


if __name__ == "__main__":
    main()
