#!/usr/bin/python
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_checkpoint_stage
short_description: Lay a checkpoint's CRIU images out on the node
version_added: 0.1.0
description:
  - Unpacks the CRIU images of a checkpoint image into a directory that only root can read, so that
    M(gpuops.restore.containerd_task) can restore from it at once. Do it before the maintenance window; nothing stops.
  - The images stream from containerd's content store; their digest is verified while they are read, and only regular files
    and directories with safe names are accepted. The directory gets its name when it is whole. A whole one is recognised
    without reading it again.
  - These files are memory of processes, with all the secrets in it. Remove them with O(state=absent) when they have served.
extends_documentation_fragment:
  - gpuops.restore.containerd
  - gpuops.restore.attributes
  - gpuops.restore.attributes.full
  - gpuops.restore.staging
  - gpuops.restore.verify_key
  - gpuops.restore.lease
  - gpuops.restore.progress
  - gpuops.restore.prepared
  - gpuops.restore.busy
attributes:
  check_mode:
    details:
      - With O(assume_prepared) the checkpoint image is taken to be there.
options:
  checkpoint:
    description:
      - Reference of the checkpoint image. With O(state=absent) its digest (C(sha256:...)) will do, where the image is gone.
      - Either this or O(workloads) is required.
    type: str
  workloads:
    description:
      - Checkpoints of several workloads in one call, side by side (O(parallel)), in place of O(checkpoint) and O(verify_key). What does not
        fit beside those before it is refused before it is written; one that fails does not disturb the others.
    type: list
    elements: dict
    suboptions:
      container_id:
        description:
          - Name of the workload, by which the result tells of it.
        type: str
        required: true
      checkpoint:
        description:
          - As O(checkpoint).
        type: str
        required: true
      verify_key:
        description:
          - As O(verify_key).
        type: list
        elements: str
        default: []
  parallel:
    description:
      - How many of O(workloads) are staged at once at most. V(0) is one for each processor.
    type: int
    default: 0
  state:
    description:
      - Whether the staged directory has to be there.
    type: str
    choices: [present, absent]
    default: present
  keep_captured:
    description:
      - With O(state=absent), leave what is staged of a checkpoint that was captured on this node and lives nowhere else
        (C(store=node) of M(gpuops.restore.containerd_checkpoint)), and warn of it. V(false) deletes the only copy.
    type: bool
    default: true
  staging_dir:
    description:
      - Directory below which checkpoints are staged, each under the hexadecimal digest of its image.
      - It is made with mode 0700. It has to have room for the memory of the process.
seealso:
  - module: gpuops.restore.containerd_task
  - module: gpuops.restore.containerd_checkpoint_info
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Stage the checkpoint before the window
  gpuops.restore.containerd_checkpoint_stage:
    checkpoint: registry.local/pytorch-training-checkpoint:001

- name: Remove the memory images afterwards
  gpuops.restore.containerd_checkpoint_stage:
    checkpoint: registry.local/pytorch-training-checkpoint:001
    state: absent

- name: Stage all that come back to this node, side by side
  gpuops.restore.containerd_checkpoint_stage:
    workloads:
      - container_id: pytorch-training
        checkpoint: registry.local/pytorch-training-checkpoint:001
      - container_id: tf-inference
        checkpoint: registry.local/tf-inference-checkpoint:001
"""

RETURN = r"""
workloads:
  description:
    - With O(workloads), what was done for each of them, by its container id; RV(created), RV(directory), RV(staged) and RV(seconds), or C(msg) and
      RV(failure) of one that failed, which is V(null) otherwise.
  type: dict
  returned: O(workloads) is given
  sample: {pytorch-training: {changed: true, created: true, directory: /var/lib/gpuops-restore/3f1c0d5a7b/images, seconds: 1.204, failure: null}}
directory:
  description: The directory with the CRIU images; empty where there is none.
  type: str
  returned: success and O(workloads) is not given
  sample: /var/lib/gpuops-restore/3f1c0d5a7b/images
staged:
  description: Digest of the CRIU images, and how many files and bytes they are.
  type: dict
  returned: success and O(workloads) is not given
  sample: {digest: "sha256:5c1f", bytes: 1073954816, files: 34}
created:
  description: Whether this call staged them, or would have.
  type: bool
  returned: success and O(workloads) is not given
  sample: true
seconds:
  description: Seconds that staging took; 0 where nothing was staged.
  type: float
  returned: success and O(workloads) is not given
  sample: 1.204
failure:
  description: What went wrong. C(code) is stable, C(outcome) is V(retryable), V(terminal) or V(unknown).
  type: dict
  returned: failure
  sample:
    code: staging_no_space
    outcome: terminal
    rpc: null
    hint: Free space on that file system, or set staging_dir to a directory on a larger one.
    details: {path: /var/lib/gpuops-restore, needed_bytes: 1342390272, free_bytes: 524288000}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuops.restore.plugins.module_utils import _module, _options
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import stage as stage_steps, stage_batch
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core import progress_file


def step(module: AnsibleModule, client: Client) -> dict[str, Any]:
    """Carry out one call of the module."""
    parameters = module.params
    if parameters["workloads"] is not None:
        return _of_all(module, client)
    name, root = parameters["checkpoint"], parameters["staging_dir"]
    if parameters["state"] == "present":
        done = stage_steps.present(
            client,
            name,
            root,
            parameters["lease"],
            module.check_mode,
            parameters["assume_prepared"],
            parameters["verify_key"],
        )
    else:
        done = stage_steps.absent_by_name(client, name, root, module.check_mode, parameters["keep_captured"])
    return {
        **_shown(module, done),
        "diff": {"before": {"checkpoint": done.before}, "after": {"checkpoint": done.after}},
    }


def _shown(module: AnsibleModule, done: stage_steps.StageResult) -> dict[str, Any]:
    for warning in done.warnings:
        module.warn(warning)
    return {
        "changed": done.changed,
        "created": done.created,
        "directory": done.directory,
        "staged": done.staged,
        "seconds": done.seconds,
    }


def _of_all(module: AnsibleModule, client: Client) -> dict[str, Any]:
    parameters = module.params
    jobs = [stage_batch.Job(**workload) for workload in parameters["workloads"]]
    place = stage_batch.Place(
        parameters["staging_dir"], parameters["lease"], module.check_mode, parameters["assume_prepared"]
    )
    if parameters["state"] == "present":
        found = stage_batch.present(client.another, jobs, place, parameters["parallel"])
    else:
        found = stage_batch.absent(client, jobs, place, parameters["keep_captured"])
    answers: dict[str, dict[str, Any]] = {}
    failed = [one for one in found if one.error is not None]
    for one in found:
        if one.error is not None:
            failure = {"msg": one.error.sentence(), "failure": one.error.failure().result()}
            answers[one.job.container_id] = {"changed": False, **failure}
        elif one.result is not None:
            answers[one.job.container_id] = {**_shown(module, one.result), "failure": None}
    answer: dict[str, Any] = {
        "changed": any(one["changed"] for one in answers.values()),
        "workloads": answers,
        "diff": {
            when: {one.job.container_id: getattr(one.result, when) for one in found if one.result is not None}
            for when in ("before", "after")
        },
    }
    if failed:
        answer["failed"] = True
        answer["failure"] = answers[failed[0].job.container_id]["failure"]
        answer["msg"] = f"{len(failed)} of {len(found)} workload(s) failed. " + " ".join(
            f"{one.job.container_id}: {answers[one.job.container_id]['msg']}" for one in failed
        )
    return answer


ARGUMENT_SPEC: dict[str, Any] = {
    "checkpoint": {"type": "str"},
    "workloads": {
        "type": "list",
        "elements": "dict",
        "options": {
            "container_id": {"type": "str", "required": True},
            "checkpoint": {"type": "str", "required": True},
            **_options.VERIFY_KEY,
        },
    },
    "parallel": {"type": "int", "default": 0},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "keep_captured": {"type": "bool", "default": True},
    **_options.VERIFY_KEY,
    **_options.STAGING,
    **_options.LEASE,
    **_options.PROGRESS,
    **_options.PREPARED,
    **_options.BUSY,
}


def main() -> None:
    """Entry point of the module."""
    _module.run(
        ARGUMENT_SPEC,
        step,
        board=progress_file.board,
        required_one_of=[("checkpoint", "workloads")],
        mutually_exclusive=[("checkpoint", "workloads")],
    )


if __name__ == "__main__":
    main()
