#!/usr/bin/python
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_restore
short_description: Have workloads run from their checkpoints
version_added: 0.1.0
description:
  - The whole of a restore's window in one call, for all workloads of a node side by side. Each gets its container with a fresh
    snapshot, its task started from the staged checkpoint, its GPU memory back, its proof and its receipt.
  - The same as M(gpuops.restore.containerd_container), M(gpuops.restore.containerd_task), M(gpuops.restore.cuda_process) and
    M(gpuops.restore.containerd_probe) one after another, without the seconds that a task of Ansible takes each time.
  - What runs already is left alone. A workload that fails is taken back, its GPU memory first, and the others go on; evidence
    stays on the node. The module fails then, and RV(workloads) tells of all of them.
  - Images have to be on the node and the checkpoints staged before (M(gpuops.restore.containerd_image),
    M(gpuops.restore.containerd_checkpoint_stage)).
extends_documentation_fragment:
  - gpuops.restore.containerd
  - gpuops.restore.attributes
  - gpuops.restore.attributes.full
  - gpuops.restore.workload.workloads
  - gpuops.restore.workload.start
  - gpuops.restore.differences
  - gpuops.restore.gpu
  - gpuops.restore.staging
  - gpuops.restore.huge_pages
  - gpuops.restore.lease
  - gpuops.restore.progress
  - gpuops.restore.ownership
  - gpuops.restore.policy
  - gpuops.restore.prepared
  - gpuops.restore.busy
attributes:
  check_mode:
    details:
      - What a workload's later steps would do is foretold as if its earlier ones had been done.
      - With O(assume_prepared) the images and the staged checkpoints are taken to be there.
requirements:
  - for GPU memory, those of M(gpuops.restore.cuda_process)
options:
  state:
    description:
      - V(restored) has them run.
      - V(checked) only looks whether the node has the host memory, the GPU memory and the driver that all of them need together,
        and tells it in RV(problems); nothing is touched, and the module does not fail for what it finds.
    type: str
    choices: [restored, checked]
    default: restored
  parallel:
    description:
      - How many workloads at once at most; V(0) for four a processor. Fewer are begun while host memory is short.
    type: int
    default: 0
  gpu_retries:
    description:
      - How often a workload is restored anew, from its container on, when the driver could not restore its GPU memory and the
        GPUs have room for it after all. A process is never tried again.
    type: int
    default: 1
  keep_evidence:
    description:
      - How many bundles of evidence are kept for a workload that fails; V(0) writes none.
    type: int
    default: 3
  prewarm:
    description:
      - Whether the staged files are read into the page cache before a workload's window. V(auto) does so when the node has the memory for
        them beside what the process takes, and says when not. What the cache has already is not read again.
    type: str
    choices: [auto, always, never]
    default: auto
  parallel_memory:
    description:
      - Whether a process's large pieces of memory are written by several threads while CRIU waits, which fills memory with one thread.
        V(auto) does so for checkpoints of 256 MiB and more on nodes with two processors and more for each restore at a time. It takes a staged checkpoint, CRIU
        3.19, and memory most of which lies in pieces of 1 MiB and more; what else there is, CRIU restores. RV(workloads) tells what came
        of it, or why not.
      - What is written so gets huge pages of its own (O(huge_pages)).
      - The first restore of a staged checkpoint copies what stays CRIU's beside it, at most a quarter of the rest.
      - Should it fail, the workload is restored anew by CRIU alone, with a warning. V(never) leaves it to CRIU from the beginning.
    type: str
    choices: [auto, always, never]
    default: auto
  record:
    description:
      - Facts to keep in every receipt and in the evidence, about the node for example.
    type: dict
    default: {}
  rebuild:
    description:
      - Whether a container whose process has ended is made anew from the checkpoint. If not, it is left and the workload fails.
    type: bool
    default: true
  force:
    description:
      - Take over containers of another owner or another checkpoint.
seealso:
  - module: gpuops.restore.containerd_checkpoint_stage
  - module: gpuops.restore.containerd_container
  - module: gpuops.restore.containerd_task
  - module: gpuops.restore.cuda_process
  - module: gpuops.restore.containerd_probe
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Two workloads run again
  gpuops.restore.containerd_restore:
    workloads:
      - name: pytorch-training
        checkpoint: registry.local/pytorch-training-checkpoint:001
        gpu: required
        stdout: /var/log/pytorch-training.log
      - name: inference
        checkpoint: registry.local/inference-checkpoint:007
        after_restore:
          http: {url: "http://127.0.0.1:8000/wake_up"}
        probe:
          http: {url: "http://127.0.0.1:8000/healthz"}

- name: A checkpoint that is meant and no other, by NVIDIA's runtime, with no more of the host than this
  gpuops.restore.containerd_restore:
    workloads:
      - name: pytorch-training
        checkpoint: registry.local/pytorch-training-checkpoint:001
        digest: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    runtimes:
      - {name: io.containerd.runc.v2}
      - {name: io.containerd.runc.v2, binary_name: /usr/bin/nvidia-container-runtime}
    policy:
      capabilities: [SYS_PTRACE, IPC_LOCK]
      host_namespaces: [ipc]
      bind_sources: [/srv/datasets:ro, /scratch]

- name: The same, when another controller may be at it; busy only after two minutes
  gpuops.restore.containerd_restore:
    workloads:
      - {name: pytorch-training, checkpoint: "registry.local/pytorch-training-checkpoint:001"}
    busy_timeout: 120

- name: Could they run on this node?
  gpuops.restore.containerd_restore:
    state: checked
    workloads:
      - {name: pytorch-training, checkpoint: "registry.local/pytorch-training-checkpoint:001"}
  register: found
  failed_when: found.problems | length > 0
"""

RETURN = r"""
workloads:
  description:
    - What became of each workload, by its name. C(failure) is null where it runs as wanted; else it has C(step), C(code), C(outcome),
      C(msg), C(failure) as the module of that step returns it, the path of the C(evidence), and what was C(left_behind).
    - C(container), C(task), C(probe) as their modules return them; C(after_restore) like C(probe), null where it was not run;
      C(gpu) with C(processes) as M(gpuops.restore.cuda_process) returns them, C(bytes), C(gb_per_s) of the driver's restore, and the
      C(gpus) before and after; C(seconds) by step, of which C(window) is the time until the GPU memory was back, and C(volumes) what
      memory volumes took before it; C(differences) and C(not_compared) as M(gpuops.restore.containerd_task) returns them;
      C(huge_pages) and C(prewarm) tell what was made ready before; C(predicted) as in RV(predicted), and the receipt's C(seconds) have
      it as C(predicted) beside C(window); C(receipt) as it lies on the node.
  type: dict
  returned: O(state=restored)
  sample:
    pytorch-training:
      changed: true
      actions: ["make snapshot gpuops-restore-pytorch-training and container pytorch-training", "start the task"]
      differences: []
      failure: null
      seconds: {container: 0.11, task: 2.31, gpu: 1.72, window: 4.15, alive: 0.0, probe: 0.3, receipt: 0.01}
problems:
  description: What stands in the way, with C(workload), C(code), C(message), C(remedy) and C(outcome) each.
  type: list
  elements: dict
  returned: O(state=checked)
  sample:
    - workload: pytorch-training
      code: vram_short
      message: The GPU 0 has 12.0 GiB of VRAM free, and the checkpoint of pytorch-training held 16.5 GiB on it.
      remedy: Free GPU memory there, or restore onto another GPU with gpu_map, then run again.
      outcome: retryable
predicted:
  description:
    - How long the window of each workload will take, by its name; null where it runs already, where its checkpoint is not on the
      node, and with C(route=descriptor).
    - C(seconds) until it runs with its GPU memory; C(ahead), seconds of reading the staged files into the page cache, and of filling
      memory volumes, before; C(layout), seconds of the window for very deep directories, where there are any; C(crowd),
      how many workloads share a processor; C(basis), C(earlier restores) of this node, C(a measurement) of a moment, or
      C(an estimate) from figures of other machines.
  type: dict
  returned: O(state=checked)
  sample:
    pytorch-training: {seconds: 4.2, ahead: 0.0, crowd: 1.0, basis: earlier restores}
failure:
  description: The failure of the first workload that failed, or why containerd could not be asked.
  type: dict
  returned: failure
  sample: {code: criu_restore_failed, outcome: terminal, rpc: null, hint: Map it with mounts., details: {}}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuops.restore.plugins.module_utils import _module, _options
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core import progress_file
from ansible_collections.gpuops.restore.plugins.module_utils._restore import (
    batch as restore_batch,
    params as restore_params,
)
from ansible_collections.gpuops.restore.plugins.module_utils._restore.result import Result


def step(module: AnsibleModule, client: Client) -> dict[str, Any]:
    """Carry out one call of the module."""
    parameters = module.params
    settings = restore_params.Settings.from_options(parameters)
    jobs = restore_params.jobs_of(parameters["workloads"], settings)
    if parameters["state"] == "checked":
        return _checked(module, client, jobs)
    found = restore_batch.restore_all(client.another, jobs, parameters["parallel"], module.check_mode)
    return _restored(module, found)


def _checked(module: AnsibleModule, client: Client, jobs: list[restore_params.Job]) -> dict[str, Any]:
    verdict, predicted = restore_batch.check_all(client.another, jobs, module.params["parallel"], module.check_mode)
    for warning in verdict.warnings:
        module.warn(warning)
    return {
        "changed": False,
        "problems": [
            {"workload": name, **error.problem()} for name, errors in verdict.refused.items() for error in errors
        ],
        "predicted": {name: found.result() if found else None for name, found in predicted.items()},
    }


def _restored(module: AnsibleModule, found: list[Result]) -> dict[str, Any]:
    for result in found:
        for warning in result.warnings:
            module.warn(warning)
    answer: dict[str, Any] = {
        "changed": any(result.changed for result in found),
        "workloads": {result.job.name: result.shown() for result in found},
        "diff": {
            when: {result.job.name: result.state(when) for result in found if result.changed}
            for when in ("before", "after")
        },
    }
    failed = {result.job.name: result.failure for result in found if result.failure}
    if failed:
        first = next(iter(failed.values()))
        answer["failed"] = True
        answer["failure"] = first.error.result()
        answer["msg"] = f"{len(failed)} of {len(found)} workload(s) failed. " + " ".join(
            f"{name}: {failure.msg}" for name, failure in failed.items()
        )
    return answer


_PROBE: dict[str, Any] = {
    "command": {"type": "list", "elements": "str"},
    "command_seconds": {"type": "float"},
    "exit_status": {"type": "int"},
    "file": {"type": "dict", "options": {"path": {"type": "str", "required": True}, "seconds": {"type": "float"}}},
    "http": {
        "type": "dict",
        "options": {
            "url": {"type": "str", "required": True},
            "status": {"type": "list", "elements": "int"},
            "seconds": {"type": "float"},
            "network": {"type": "str", "choices": ["container", "host"]},
            "validate_certs": {"type": "bool"},
        },
    },
}
ARGUMENT_SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["restored", "checked"], "default": "restored"},
    # Documented as a whole by the fragment ``workload``.
    "workloads": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "checkpoint": {"type": "str", "required": True},
            **_options.WORKLOAD_ORIGINAL,
            **_options.WORKLOAD_CONTAINER,
            **_options.WORKLOAD_ROUTE,
            **_options.WORKLOAD_OUTPUT,
            **_options.GPU_MODE,
            **_options.WORKLOAD_GPU_MAP,
            "vram": {"type": "dict", "default": {}},
            "probe": {"type": "dict", "default": {}, "options": _PROBE},
            "after_restore": {"type": "dict", "options": _options.HOOK},
            "record": {"type": "dict", "default": {}},
        },
    },
    "parallel": {"type": "int", "default": 0},
    "gpu_retries": {"type": "int", "default": 1},
    **_options.GPU,
    **_options.WORKLOAD_START,
    **_options.DIFFERENCES,
    **_options.STAGING,
    "keep_evidence": {"type": "int", "default": 3},
    "prewarm": {"type": "str", "choices": ["auto", "always", "never"], "default": "auto"},
    "parallel_memory": {"type": "str", "choices": ["auto", "always", "never"], "default": "auto"},
    **_options.HUGE_PAGES,
    "record": {"type": "dict", "default": {}},
    "rebuild": {"type": "bool", "default": True},
    **_options.LEASE,
    **_options.PROGRESS,
    **_options.OWNERSHIP,
    **_options.POLICY,
    **_options.PREPARED,
    **_options.BUSY,
}


def main() -> None:
    """Entry point of the module."""
    _module.run(ARGUMENT_SPEC, step, board=progress_file.board)


if __name__ == "__main__":
    main()
