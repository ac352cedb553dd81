#!/usr/bin/python
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_lease
short_description: Have a lease that protects what is being built
version_added: 0.1.0
description:
  - containerd collects content and snapshots that nothing refers to. A lease keeps them until the image, container or snapshot that needs
    them is there; other modules of this collection take its name in their option O(gpuops.restore.containerd_image#module:lease).
  - When the lease is deleted or expires, containerd collects whatever only it has kept. So a play that fails half-way cleans up by
    deleting its lease.
extends_documentation_fragment:
  - gpuops.restore.containerd
  - gpuops.restore.attributes
  - gpuops.restore.attributes.full
  - gpuops.restore.ownership
attributes:
  idempotent:
    details:
      - Until the lease expires.
options:
  id:
    description:
      - Name of the lease, unique within the containerd namespace.
    type: str
    required: true
  state:
    description:
      - V(present) makes the lease if there is none, or only an expired one. V(absent) deletes it and waits until the garbage is collected.
    type: str
    choices: [present, absent]
    default: present
  expire_seconds:
    description:
      - Seconds after which containerd drops a lease that this call makes, should nobody delete it before.
      - A lease that is there keeps its own time as long as at least half of this is left; after that it is made anew.
    type: int
    default: 3600
  bytes:
    description:
      - Bytes that are moved under the lease. It lasts as much longer as they take at O(minimum_rate).
    type: int
    default: 0
  labels:
    description:
      - Further labels for a lease that this call makes. containerd cannot change those of a lease that is there.
    type: dict
    default: {}
  owner:
    description:
      - The owner label. Only leases with it are used and deleted.
  force:
    description:
      - Use or delete a lease of somebody else's too.
seealso:
  - module: gpuops.restore.containerd_info
    description: Lists the leases.
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Protect what this play builds, for at most two hours
  gpuops.restore.containerd_lease:
    id: restore-pytorch-training
    expire_seconds: 7200

- name: Protect the import of 640 GB
  gpuops.restore.containerd_lease:
    id: restore-large-model
    bytes: 640000000000
    minimum_rate: 200

- name: It is built, or not wanted any more
  gpuops.restore.containerd_lease:
    id: restore-pytorch-training
    state: absent
"""

RETURN = r"""
lease:
  description:
    - The lease; empty when there is none. C(expires) is null for a lease that never expires, and in check mode for one that would be new.
  type: dict
  returned: success
  sample:
    id: restore-pytorch-training
    expires: "2026-01-31T14:00:00Z"
    labels: {}
    owner: gpuops.restore
actions:
  description: What was done, or in check mode would be.
  type: list
  elements: str
  returned: success
  sample: ["create the lease restore-pytorch-training for 7200 s"]
failure:
  description: What went wrong. C(code) is stable, C(outcome) is V(retryable), V(terminal) or V(unknown).
  type: dict
  returned: failure
  sample:
    code: lease_not_ours
    outcome: terminal
    rpc: null
    hint: "Choose another name; force: true acts on it all the same."
    details: {lease: restore-pytorch-training, owner: null, wanted_owner: gpuops.restore}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuops.restore.plugins.module_utils import _module, _options
from ansible_collections.gpuops.restore.plugins.module_utils._containerd import leases
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client


def step(module: AnsibleModule, client: Client) -> dict[str, Any]:
    """Carry out one call of the module."""
    params = leases.LeaseParams.from_options(module.params)
    act = leases.present if module.params["state"] == "present" else leases.absent
    done = act(client, params, module.check_mode)
    for warning in done.warnings:
        module.warn(warning)
    return {
        "changed": done.changed,
        "actions": done.actions,
        "lease": done.lease,
        "diff": {"before": {"state": done.before}, "after": {"state": done.after}},
    }


ARGUMENT_SPEC: dict[str, Any] = {
    "id": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "expire_seconds": {"type": "int", "default": 3600},
    "bytes": {"type": "int", "default": 0},
    "labels": {"type": "dict", "default": {}},
    **_options.OWNERSHIP,
}


def main() -> None:
    """Entry point of the module."""
    _module.run(ARGUMENT_SPEC, step)


if __name__ == "__main__":
    main()
