#!/usr/bin/python
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_container
short_description: Make or remove the container that a checkpoint is restored into
version_added: 0.1.0
description:
  - Makes a containerd container from a checkpoint image, with the base image by its recorded digest, a new snapshot onto
    which the checkpoint's writable layer is applied exactly once, and the original OCI spec adapted to this node.
  - The adaptation gives the container a cgroup of its own outside of C(kubepods), namespaces that do not lead to dead
    processes, bind sources of this node, and a CRIU configuration of its own. Hooks and the annotations of CRI and CDI are
    dropped unless allowed. Nothing of it is visible to Kubernetes. The difference to the original is shown by C(--diff), with the values
    of environment variables masked.
  - Everything is checked before anything is made. A container of another owner, or from another checkpoint, is refused.
  - No process runs yet; M(gpuops.restore.containerd_task) starts it.
extends_documentation_fragment:
  - gpuops.restore.containerd
  - gpuops.restore.attributes
  - gpuops.restore.attributes.full
  - gpuops.restore.workload.metadata
  - gpuops.restore.workload.original
  - gpuops.restore.workload.container
  - gpuops.restore.staging
  - gpuops.restore.lease
  - gpuops.restore.ownership
  - gpuops.restore.policy
  - gpuops.restore.prepared
  - gpuops.restore.busy
attributes:
  check_mode:
    details:
      - With O(assume_prepared) the checkpoint and its base image are taken to be there, or with O(state=absent) the task to be gone.
options:
  container_id:
    description:
      - Name of the restored container.
    type: str
    required: true
  state:
    description:
      - Whether the container has to be there. V(absent) also removes its snapshot, its work directory with CRIU's log, and
        an ended task; a task that lives is refused.
    type: str
    choices: [present, absent]
    default: present
  checkpoint:
    description:
      - Reference of the checkpoint image. Required with O(state=present).
    type: str
  rebuild:
    description:
      - Make container and snapshot anew when a task has run on the snapshot and none lives now. Without it such a container
        is left as it is, and M(gpuops.restore.containerd_task) refuses to start from the checkpoint on it.
    type: bool
    default: false
  force:
    description:
      - Take over an object of another owner or from another checkpoint.
seealso:
  - module: gpuops.restore.containerd_task
  - module: gpuops.restore.containerd_checkpoint_info
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: The container for a training that goes on on another node
  gpuops.restore.containerd_container:
    container_id: pytorch-training
    checkpoint: registry.local/pytorch-training-checkpoint:001
    mounts:
      /var/lib/kubelet/pods/0b2d/volumes/data: /srv/data
    network: host

- name: From a checkpoint of ctr's, which lacks what the original's runtime had added
  gpuops.restore.containerd_container:
    container_id: pytorch-training
    checkpoint: registry.local/pytorch-training-checkpoint:by-ctr
    added_mounts:
      /usr/lib/x86_64-linux-gnu/libcuda.so.580.159.04: /usr/lib/x86_64-linux-gnu/libcuda.so.580.159.04

- name: Remove it again, its task having been removed before
  gpuops.restore.containerd_container:
    container_id: pytorch-training
    state: absent

- name: Its container, of a checkpoint that anybody could have pushed, with nothing of the host
  gpuops.restore.containerd_container:
    container_id: pytorch-training
    checkpoint: registry.local/pytorch-training-checkpoint:001
    runtimes:
      - {name: io.containerd.runc.v2}
    policy:
      own_captures: false
      bind_sources: []
      seccomp_unconfined: false
"""

RETURN = r"""
container:
  description: The container. C(spec_source) says where the original spec came from, V(metadata), V(checkpoint) or V(generated).
  type: dict
  returned: when O(state=present)
  sample:
    id: pytorch-training
    image: docker.io/pytorch/pytorch:2.1.2-cuda12.1-cudnn8-runtime
    runtime: io.containerd.runc.v2
    snapshotter: overlayfs
    snapshot_key: gpuops-restore-pytorch-training
    spec_source: checkpoint
    labels: {io.gpuops.restore/owner: gpuops.restore}
created:
  description: Whether this call made the container, or would have.
  type: bool
  returned: success
  sample: true
actions:
  description: What was done, or in check mode would be.
  type: list
  elements: str
  returned: success
  sample: ["make snapshot gpuops-restore-pytorch-training and container pytorch-training"]
spec_changes:
  description: How the spec differs from the original, one sentence each.
  type: list
  elements: str
  returned: when O(state=present)
  sample: ["The cgroup path is /gpuops-restore-pytorch-training instead of /k8s.io/0b2d."]
failure:
  description: What went wrong. C(code) is stable, C(outcome) is V(retryable), V(terminal) or V(unknown).
  type: dict
  returned: failure
  sample:
    code: mount_source_missing
    outcome: terminal
    rpc: null
    hint: Map it with mounts.
    details: {source: /srv/data}
"""

import contextlib
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuops.restore.plugins.module_utils import _module, _options
from ansible_collections.gpuops.restore.plugins.module_utils._container import container as container_steps
from ansible_collections.gpuops.restore.plugins.module_utils._container.params import ContainerParams
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._host import run_lock


def step(module: AnsibleModule, client: Client) -> dict[str, Any]:
    """Carry out one call of the module."""
    with contextlib.ExitStack() as stack:
        if not module.check_mode:
            what = module.params["container_id"], "containerd_container"
            stack.enter_context(run_lock.changing(client.namespace, *what, client.busy_seconds))
        return _carry_out(module, client)


def _carry_out(module: AnsibleModule, client: Client) -> dict[str, Any]:
    parameters = module.params
    if parameters["state"] == "absent":
        done = container_steps.absent(
            client,
            parameters["container_id"],
            parameters["owner"],
            parameters["force"],
            parameters["staging_dir"],
            module.check_mode,
            parameters["assume_prepared"],
        )
        state = {"container": "present" if done.changed else "absent"}
        return {
            "changed": done.changed,
            "created": False,
            "actions": done.actions,
            "diff": {"before": state, "after": {"container": "absent"}},
        }
    done = container_steps.present(client, ContainerParams.from_options(parameters), module.check_mode)
    for warning in done.warnings:
        module.warn(warning)
    return {
        "changed": done.changed,
        "created": done.created,
        "actions": done.actions,
        "container": done.container,
        "spec_changes": done.spec_changes,
        "diff": {"before": done.spec_before, "after": done.spec_after} if done.changed else {},
    }


ARGUMENT_SPEC: dict[str, Any] = {
    "container_id": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "checkpoint": {"type": "str"},
    **_options.WORKLOAD_METADATA,
    **_options.WORKLOAD_ORIGINAL,
    **_options.WORKLOAD_CONTAINER,
    **_options.STAGING,
    "rebuild": {"type": "bool", "default": False},
    **_options.LEASE,
    **_options.OWNERSHIP,
    **_options.POLICY,
    **_options.PREPARED,
    **_options.BUSY,
}
RULES: dict[str, Any] = {
    "required_if": [("state", "present", ("checkpoint",))],
    "mutually_exclusive": [("metadata", "metadata_content")],
}


def main() -> None:
    """Entry point of the module."""
    _module.run(ARGUMENT_SPEC, step, **RULES)


if __name__ == "__main__":
    main()
