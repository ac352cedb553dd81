#!/usr/bin/python
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_workload_info
short_description: What runs on a node, and whether it can be captured
version_added: 0.1.0
description:
  - The containers of a namespace with their images, pods, tasks, processes, memory and GPU memory; whether each can be captured, and why
    not; and the checkpoints that are on the node.
  - Whether one can be captured is told by the preflight of M(gpuops.restore.containerd_checkpoint) itself, with that module's defaults.
  - The playbooks use it to choose workloads by the selection C(workloads) of the inventory, see P(gpuops.restore.workload_selection#filter).
extends_documentation_fragment:
  - gpuops.restore.containerd
  - gpuops.restore.attributes
  - gpuops.restore.attributes.info
  - gpuops.restore.staging
  - gpuops.restore.gpu
requirements:
  - for GPU memory, what M(gpuops.restore.cuda_process_info) requires
options:
  names:
    description:
      - Ids of the containers to look at; all of the namespace, if it is empty.
    type: list
    elements: str
    default: []
  preflight:
    description:
      - Look whether those that run can be captured. Without it RV(workloads) has C(capturable), C(estimated_size) and C(predicted) null,
        and the answer comes at once.
    type: bool
    default: true
  staging_dir:
    description:
      - Where a capture would put its dump; the preflight looks for room there. It does not have to exist.
  cuda_timeout:
    default: 60
seealso:
  - module: gpuops.restore.containerd_checkpoint
  - module: gpuops.restore.cuda_process_info
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: See what runs on the node
  gpuops.restore.containerd_workload_info:
  register: found

- name: Say what holds GPU memory and cannot be captured
  ansible.builtin.debug:
    msg: "{{ item.name }}: {{ item.problems | map(attribute='message') | join(' ') }}"
  loop: "{{ found.workloads | selectattr('gpu') | selectattr('capturable', 'false') }}"
  loop_control:
    label: "{{ item.id }}"
"""

RETURN = r"""
workloads:
  description:
    - The containers. C(name) is a name that people can read, C(NAMESPACE-POD-CONTAINER) for a container of a pod, and otherwise its C(id).
      C(sandbox) marks a pod's own container, which holds its namespaces and no work. C(labels) are those of the container and of its
      pod, without what CRI and the kubelet set by themselves. C(owner) is who made it by this collection, C(restored_from) the digest
      of the checkpoint that it was restored from; null for others.
    - C(state) is the task's, V(ABSENT) without one; C(live), whether it has processes. C(memory) is what these have of their own in host
      memory, C(gpu_memory) what they hold on GPUs, C(gpu_processes) which of them, on which GPUs; bytes. C(gpu), whether any does.
    - C(capturable) is null where that was not looked at, as for one that does not run; C(problems) say why it cannot be captured, with
      C(code), C(message), C(remedy) and C(outcome). C(estimated_size) is about what a checkpoint would have, in bytes and before compression;
      C(predicted) how long one would take that leaves the workload running and is kept as an image, as
      RV(gpuops.restore.containerd_checkpoint#module:predicted); both are null where it cannot be captured.
  type: list
  elements: dict
  returned: success
  sample:
    - id: 2869cd08a1b2
      name: training-bert-0-trainer
      image: registry.local/bert:3
      runtime: io.containerd.runc.v2
      pod: {namespace: training, name: bert-0, uid: 5c1b7a52-2f7a-4f9e-9f52-0a4f5b3d1e11, container: trainer}
      sandbox: false
      labels: {team: ml}
      owner: null
      restored_from: null
      state: RUNNING
      live: true
      pid: 41235
      processes: [{pid: 41235, command: python3}]
      memory: 1283457024
      gpu: true
      gpu_processes:
        - pid: 41235
          memory: 17679253504
          gpus: [{uuid: GPU-6b5d7bd4-6b1c-4a3e-9a9a-1f8d4a1f0b01, index: 0, name: NVIDIA H100 80GB HBM3, memory: 17679253504}]
      gpu_memory: 17679253504
      gpu_uuids: [GPU-6b5d7bd4-6b1c-4a3e-9a9a-1f8d4a1f0b01]
      capturable: true
      problems: []
      warnings: []
      estimated_size: 18962710528
      predicted: {standstill: 31.5, total: 69.4, phases: {cuda_suspend: 7.8, dump: 13.9}, basis: an estimate, concurrency: 1.0}
checkpoints:
  description:
    - The checkpoints on the node. C(container) is the id of the container that one was captured from, C(called) its readable name;
      C(captured_here), whether this node has captured it; C(size), bytes of its CRIU images; C(gpu), whether it has GPU memory. The facts are
      empty for checkpoints of other tools, which do not record them. C(earlier) is the digest of one whose image was written after it had
      been on the node alone, until then; empty for others.
  type: list
  elements: dict
  returned: success
  sample:
    - name: registry.local/checkpoints/training-bert-0-trainer:001
      digest: sha256:2f5c1e4f0e5d5f4c6f9a9d3f4a1f3c2b1a0e9d8c7b6a5f4e3d2c1b0a9f8e7d6c
      earlier: ""
      container: 2869cd08a1b2
      called: training-bert-0-trainer
      pod: {namespace: training, name: bert-0, uid: 5c1b7a52-2f7a-4f9e-9f52-0a4f5b3d1e11, container: trainer}
      labels: {team: ml}
      taken_at: "2026-11-24T05:31:31Z"
      captured_here: true
      size: 18962710528
      gpu: true
nvml:
  description: Whether NVML is C(available), and the C(reason) if not; then nobody can tell which workloads have GPU memory. The C(driver).
  type: dict
  returned: success
  sample: {available: true, reason: null, driver: 580.159.04}
gpu_node:
  description: Whether the kernel module of NVIDIA's driver serves the node.
  type: bool
  returned: success
  sample: true
gpus:
  description: The GPUs that NVML sees, as M(gpuops.restore.cuda_process_info) returns them.
  type: list
  elements: dict
  returned: success
  sample: []
failure:
  description: What went wrong. C(code) is stable, C(outcome) is V(retryable), V(terminal) or V(unknown).
  type: dict
  returned: failure
  sample:
    code: container_absent
    outcome: terminal
    rpc: null
    hint: Correct names, or leave it out to see all.
    details: {}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuops.restore.plugins.module_utils import _module, _options
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._window import look


def step(module: AnsibleModule, client: Client) -> dict[str, Any]:
    """Carry out one call of the module."""
    return {"changed": False, **look.gather(client, look.LookParams.from_options(module.params))}


ARGUMENT_SPEC: dict[str, Any] = {
    "names": {"type": "list", "elements": "str", "default": []},
    "preflight": {"type": "bool", "default": True},
    **_options.STAGING,
    **_options.GPU,
    "cuda_timeout": {"type": "int", "default": 60},
}


def main() -> None:
    """Entry point of the module."""
    _module.run(ARGUMENT_SPEC, step)


if __name__ == "__main__":
    main()
