#!/usr/bin/python
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_window
short_description: What a maintenance window has noted on a node
version_added: 0.1.0
description:
  - The journal of a maintenance window on a node - how far the node is, and each workload that was captured for the window. It outlives a
    reboot of the node and the end of the controller, so that the next run of C(gpuops.restore.maintenance) goes on from there.
  - What is given is written, and fsync'd, before the module returns; it then tells all that is noted. It does not speak with containerd.
extends_documentation_fragment:
  - gpuops.restore.containerd
  - gpuops.restore.attributes
  - gpuops.restore.attributes.full
  - gpuops.restore.staging
  - gpuops.restore.gpu
attributes:
  diff_mode:
    support: none
options:
  window:
    description:
      - The window's name, up to 64 letters, digits, dots, dashes and underscores.
    type: str
    required: true
  node:
    description:
      - What is to be noted of the node. Keys that are not given stay.
    type: dict
    default: {}
  workloads:
    description:
      - What is to be noted of workloads, by their key C(id). Keys that are not given stay.
    type: list
    elements: dict
    default: []
  claim:
    description:
      - V(take) makes the node the run's of O(controller), if nothing was noted or claimed on it since it was in O(revision);
        otherwise the module fails with C(window_busy), which says who is at work there since when. V(release) gives it back.
    type: str
    choices: [keep, take, release]
    default: keep
  controller:
    description:
      - The run of Ansible that notes. If it is given, notes are only taken from the run that has the node.
    type: str
    default: ""
  revision:
    description:
      - The RV(revision) by which the run has decided to take the node.
    type: str
    default: ""
  staging_dir:
    description:
      - Directory below which the journal lies.
  cuda_timeout:
    default: 60
seealso:
  - module: gpuops.restore.containerd_workload_info
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: See how far the window is
  gpuops.restore.containerd_window:
    window: 2026-12-kernel
  register: noted

- name: Note that the work is done
  gpuops.restore.containerd_window:
    window: 2026-12-kernel
    node: {phase: worked}
"""

RETURN = r"""
node:
  description:
    - What is noted of the node, empty if nothing is. C(phase) is V(planned), V(captured), V(parked), V(evacuated), V(working), V(worked),
      V(returning), V(done), V(returned) or V(skipped); C(mode) is V(evacuate) where workloads are moved to spare nodes; C(method) is V(park)
      where workloads are parked instead of captured; C(attempt) counts how often the window was
      begun here; C(before) are the facts of the time of the capture; C(reboot_from) is the boot from which it was to be rebooted;
      C(after) is the attempt whose hook after the window has been run; C(history) has each phase with its time.
  type: dict
  returned: success
  sample: {window: 2026-12-kernel, phase: worked, attempt: 1, history: [{at: "2026-12-02T20:14:03Z", phase: worked}]}
workloads:
  description:
    - What is noted of workloads. C(phase) is V(planned), V(captured), V(restored), V(parked), V(resumed), V(away), V(stays), V(left out) or V(lost);
      C(id) is the container's, C(called) its readable name, C(restored) the name that it comes back under; C(checkpoint) and C(digest) are
      its checkpoint's; C(message) says what went wrong.
  type: list
  elements: dict
  returned: success
  sample:
    - id: 2869cd08a1b2
      called: training-bert-0-trainer
      phase: captured
      digest: sha256:2f5c1e4f0e5d5f4c6f9a9d3f4a1f3c2b1a0e9d8c7b6a5f4e3d2c1b0a9f8e7d6c
others:
  description: Other windows that are not over on this node, and their phases.
  type: list
  elements: dict
  returned: success
  sample: []
claim:
  description: The run that is at work on the node, C(window), C(controller) and C(since); empty where there is none.
  type: dict
  returned: success
  sample: {window: 2026-12-kernel, controller: bastion 4f9aa3a1-6b34-4e12-b9b7-5e1b0c8e4d0a/811/5120, since: "2026-12-02T20:14:03Z"}
revision:
  description: Another one whenever anything was noted or claimed on the node.
  type: str
  returned: success
  sample: 6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b
facts:
  description:
    - What the node is now - C(boot), C(kernel), C(time), the C(driver)'s version, and the C(gpus); of the C(state), the directory that
      the journal lies below, C(path) and C(file_system).
  type: dict
  returned: success
  sample:
    boot: 4f9aa3a1-6b34-4e12-b9b7-5e1b0c8e4d0a
    kernel: 6.12.43+deb13-amd64
    time: 1796155200
    driver: 580.159.04
    gpus: [{uuid: GPU-6b5d7bd4-6b1c-4a3e-9a9a-1f8d4a1f0b01, name: NVIDIA H100 80GB HBM3}]
    state: {path: /var/lib/gpuops-restore, file_system: ext4}
room:
  description:
    - What the node could take in - bytes of host C(memory), of the C(disk) below O(staging_dir), and C(free) on each of its C(cards), null
      where that is not known; its C(architecture) and the C(cpu_features) that programs depend on.
  type: dict
  returned: success
  sample:
    memory: 1073741824000
    disk: 187904819200
    cards: [{uuid: GPU-6b5d7bd4-6b1c-4a3e-9a9a-1f8d4a1f0b01, name: NVIDIA H100 80GB HBM3, free: 67653402624}]
    architecture: x86_64
    cpu_features: [avx, avx2]
failure:
  description: What went wrong. C(code) is stable, C(outcome) is V(retryable), V(terminal) or V(unknown).
  type: dict
  returned: failure
  sample:
    code: window_name_invalid
    outcome: terminal
    rpc: null
    hint: Use up to 64 letters, digits, dots, dashes and underscores, such as 2026-12-kernel (maintenance_window).
    details: {}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuops.restore.plugins.module_utils import _module, _options
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._window import node


def step(module: AnsibleModule, _client: Client | None) -> dict[str, Any]:
    """Carry out one call of the module."""
    return node.gather(node.NodeParams.from_options(module.params), module.check_mode)


ARGUMENT_SPEC: dict[str, Any] = {
    "window": {"type": "str", "required": True},
    "node": {"type": "dict", "default": {}},
    "workloads": {"type": "list", "elements": "dict", "default": []},
    "claim": {"type": "str", "choices": list(node.CLAIMS), "default": node.KEEP},
    "controller": {"type": "str", "default": ""},
    "revision": {"type": "str", "default": ""},
    **_options.STAGING,
    **_options.GPU,
    "cuda_timeout": {"type": "int", "default": 60},
}


def main() -> None:
    """Entry point of the module."""
    _module.run(ARGUMENT_SPEC, step, client=_module.NEVER)


if __name__ == "__main__":
    main()
