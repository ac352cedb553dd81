#!/usr/bin/python
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_checkpoint_info
short_description: Tell what a checkpoint image holds and what the node lacks for it
version_added: 0.1.0
description:
  - Reads a checkpoint image, as C(ctr containers checkpoint) and C(ctr tasks checkpoint) make it, and returns its parts, sizes and the original
    OCI spec in short.
  - With O(container_id) it also checks everything that a restore under that name needs on this node, and returns all problems
    at once. It never fails because of them, and it changes nothing.
  - O(workloads) asks for all workloads of a node in one call.
extends_documentation_fragment:
  - gpuops.restore.containerd
  - gpuops.restore.attributes
  - gpuops.restore.attributes.info
  - gpuops.restore.workload.metadata
  - gpuops.restore.workload.original
  - gpuops.restore.workload.output
  - gpuops.restore.workload.reads
  - gpuops.restore.staging
  - gpuops.restore.ownership
  - gpuops.restore.policy
options:
  checkpoint:
    description:
      - Reference of the checkpoint image.
      - Either this or O(workloads) is required.
    type: str
  container_id:
    description:
      - Name of the container that would be restored. Without it only the checkpoint itself is looked at.
    type: str
  rebuild:
    description:
      - Whether a container on whose snapshot a task has run would be made anew.
    type: bool
    default: false
  owner:
    description:
      - Owner label that the container would have.
  force:
    description:
      - Whether objects of others would be taken over.
seealso:
  - module: gpuops.restore.containerd_container
  - module: gpuops.restore.containerd_checkpoint_stage
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: What is in it
  gpuops.restore.containerd_checkpoint_info:
    checkpoint: registry.local/pytorch-training-checkpoint:001
  register: found

- name: May the restore begin?
  gpuops.restore.containerd_checkpoint_info:
    checkpoint: registry.local/pytorch-training-checkpoint:001
    container_id: pytorch-training
    mounts:
      /var/lib/kubelet/pods/0b2d/volumes/data: /srv/data
  register: found
  failed_when: found.problems | length > 0

- name: What would it have of the host that this node does not give?
  gpuops.restore.containerd_checkpoint_info:
    checkpoint: registry.local/pytorch-training-checkpoint:001
    digest: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    container_id: pytorch-training
    policy:
      host_namespaces: []
      host_control: false
  register: asked
"""

RETURN = r"""
workloads:
  description: With O(workloads), what is told of each of them, by its container id; RV(checkpoint), RV(problems) and RV(status).
  type: dict
  returned: success and O(workloads) is given
  sample: {pytorch-training: {checkpoint: {digest: "sha256:3f1c"}, problems: [], status: {staged: true, container: false, task: absent}}}
checkpoint:
  description:
    - What the image holds; V(null) when it cannot be read, in which case RV(problems) says why. Sizes are bytes.
    - C(layout) is V(container) or V(task), after the C(ctr) command that writes it. C(spec_source) says where the spec for
      the restore comes from, V(metadata), V(checkpoint) or V(generated). C(store) is V(node) where its memory is staged on this node
      alone, V(image) otherwise.
  type: dict
  returned: success and O(workloads) is not given
  sample:
    name: registry.local/pytorch-training-checkpoint:001
    digest: "sha256:3f1c"
    layout: container
    base_image:
      name: "docker.io/pytorch/pytorch:2.1.2"
      digest: "sha256:77aa"
      present: true
      private_name: "docker.io/pytorch/pytorch@sha256:77aa"
    runtime: io.containerd.runc.v2
    cgroup_driver: systemd
    snapshotter: overlayfs
    criu: {digest: "sha256:5c1f", size: 1073954816}
    store: image
    writable_layer: {digest: "sha256:9b2e", size: 20480}
    memory_volumes: [{destination: /dev/shm, digest: "sha256:41c7", size: 67119616, used: 67108864, shared: []}]
    options: {digest: "sha256:11d0", size: 49}
    spec_source: checkpoint
    spec:
      namespaces: [{type: network, path: /proc/4711/ns/net}]
      mounts: [{destination: /data, source: /srv/data, type: bind, options: [rbind]}]
      cgroup_path: /k8s.io/pytorch-training
      terminal: false
problems:
  description: Everything that stands in the way of the restore, with code, message, remedy and outcome each.
  type: list
  elements: dict
  returned: success and O(workloads) is not given
  sample:
    - code: mount_source_missing
      message: The source /srv/data of the mount /data does not exist on this node.
      remedy: Map it with mounts.
      outcome: terminal
status:
  description: What of the restore is there already; the staged images, the container, the status of its task.
  type: dict
  returned: success and O(workloads) is not given
  sample: {staged: true, container: false, task: absent}
failure:
  description: What went wrong when containerd could not be asked at all.
  type: dict
  returned: failure
  sample: {code: socket_absent, outcome: terminal, rpc: null, hint: Start containerd., details: {}}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuops.restore.plugins.module_utils import _module, _options
from ansible_collections.gpuops.restore.plugins.module_utils._container.params import ContainerParams
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError
from ansible_collections.gpuops.restore.plugins.module_utils._restore import preflight as restore_preflight


def _report(parameters: dict[str, Any], client: Client) -> restore_preflight.Report:
    try:
        params = ContainerParams.from_options(parameters)
    except InputError as error:
        found = restore_preflight.Report()
        found.add(error)
        return found
    return restore_preflight.report(client, params, parameters["stdout"] or "", parameters["stderr"] or "")


def _told(module: AnsibleModule, client: Client, parameters: dict[str, Any]) -> dict[str, Any]:
    found = _report(parameters, client)
    for warning in found.warnings:
        module.warn(warning)
    return {"checkpoint": found.checkpoint, "problems": found.problems, "status": found.status}


def step(module: AnsibleModule, client: Client) -> dict[str, Any]:
    """Carry out one call of the module."""
    workloads = module.params["workloads"]
    if workloads is None:
        return {"changed": False, **_told(module, client, module.params)}
    names = [one["container_id"] for one in workloads]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                "workload_twice",
                f"The container {name} stands more than once in workloads.",
                "Give each workload a name of its own.",
            )
    told = {one["container_id"]: _told(module, client, {**module.params, **one}) for one in workloads}
    return {"changed": False, "workloads": told}


_WORKLOAD: dict[str, Any] = {**_options.WORKLOAD_ORIGINAL, **_options.WORKLOAD_OUTPUT}
ARGUMENT_SPEC: dict[str, Any] = {
    "checkpoint": {"type": "str"},
    **_options.WORKLOAD_METADATA,
    **_WORKLOAD,
    "container_id": {"type": "str"},
    # Documented as a whole by the fragment ``workload.reads``.
    "workloads": {
        "type": "list",
        "elements": "dict",
        "options": {
            "container_id": {"type": "str", "required": True},
            "checkpoint": {"type": "str", "required": True},
            **_WORKLOAD,
        },
    },
    **_options.STAGING,
    "rebuild": {"type": "bool", "default": False},
    **_options.OWNERSHIP,
    **_options.POLICY,
}
RULES: dict[str, Any] = {
    "required_one_of": [("checkpoint", "workloads")],
    "mutually_exclusive": [
        ("metadata", "metadata_content"),
        ("checkpoint", "workloads"),
        ("container_id", "workloads"),
    ],
}


def main() -> None:
    """Entry point of the module."""
    _module.run(ARGUMENT_SPEC, step, **RULES)


if __name__ == "__main__":
    main()
