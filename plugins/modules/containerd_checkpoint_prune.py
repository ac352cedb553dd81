#!/usr/bin/python
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_checkpoint_prune
short_description: Delete captured checkpoints by a rule
version_added: 0.1.0
description:
  - Deletes the images of checkpoints that M(gpuops.restore.containerd_checkpoint) has captured on this node, and what is staged of them,
    by how many there are and how old they are. Nothing else deletes them unasked, since the node may have their only copy.
  - What a container was restored from stays, and what keeps a workload paused, whatever the rule says. Images that were imported or
    pulled, and those of other owners, are not looked at. Archives and registries stay as they are.
extends_documentation_fragment:
  - gpuops.restore.containerd
  - gpuops.restore.attributes
  - gpuops.restore.attributes.full
  - gpuops.restore.staging
  - gpuops.restore.busy
options:
  keep:
    description:
      - How many checkpoints of each container stay, the newest.
    type: int
  older_than:
    description:
      - Younger checkpoints stay. A number with one of C(s), C(m), C(h), C(d), C(w), such as V(14d).
      - With O(keep) too, a checkpoint goes that neither of the two keeps. Without it any that is older goes, the last one of a container too.
    type: str
  containers:
    description:
      - Look at checkpoints of these containers only. Without it, at all.
    type: list
    elements: str
    default: []
  owner:
    description:
      - The owner label of the images.
    type: str
    default: gpuops.restore
seealso:
  - module: gpuops.restore.containerd_checkpoint
  - module: gpuops.restore.containerd_image
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Keep the three newest checkpoints of each container
  gpuops.restore.containerd_checkpoint_prune:
    keep: 3

- name: Keep the newest checkpoint of the training, and what is younger than two weeks
  gpuops.restore.containerd_checkpoint_prune:
    containers: [pytorch-training]
    keep: 1
    older_than: 14d
"""

RETURN = r"""
removed:
  description: The checkpoints that were deleted, or in check mode would be.
  type: list
  elements: dict
  returned: success
  sample:
    - name: registry.local/pytorch-training-checkpoint:001
      digest: sha256:574c096c9ca73cde8ff38898fb7eff5c4ea3cf471578f65c801b24c05943dacb
      container: pytorch-training
      taken_at: "2026-01-31T12:00:00Z"
kept:
  description: The others, each with the reason under C(kept).
  type: list
  elements: dict
  returned: success
  sample:
    - name: registry.local/pytorch-training-checkpoint:002
      digest: sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
      container: pytorch-training
      taken_at: "2026-02-01T12:00:00Z"
      kept: one of the 3 newest of pytorch-training
actions:
  description: What was done, or in check mode would be.
  type: list
  elements: str
  returned: success
  sample: ["delete the image registry.local/pytorch-training-checkpoint:001 (sha256:574c...)"]
failure:
  description: What went wrong. C(code) is stable, C(outcome) is V(retryable), V(terminal) or V(unknown).
  type: dict
  returned: failure
  sample:
    code: retention_invalid
    outcome: terminal
    rpc: null
    hint: "Give a number and one of s, m, h, d, w, such as 14d."
    details: {}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuops.restore.plugins.module_utils import _module, _options
from ansible_collections.gpuops.restore.plugins.module_utils._capture import prune
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client


def step(module: AnsibleModule, client: Client) -> dict[str, Any]:
    """Carry out one call of the module."""
    done = prune.prune(client, prune.PruneParams.from_options(module.params), module.check_mode)
    for warning in done.warnings:
        module.warn(warning)
    return {
        "changed": bool(done.removed),
        "removed": [found.result() for found in done.removed],
        "kept": [{**found.result(), "kept": found.kept} for found in done.kept],
        "actions": done.actions,
    }


ARGUMENT_SPEC: dict[str, Any] = {
    "keep": {"type": "int"},
    "older_than": {"type": "str"},
    "containers": {"type": "list", "elements": "str", "default": []},
    "owner": _options.OWNERSHIP["owner"],
    **_options.STAGING,
    **_options.BUSY,
}


def main() -> None:
    """Entry point of the module."""
    _module.run(ARGUMENT_SPEC, step, required_one_of=[["keep", "older_than"]])


if __name__ == "__main__":
    main()
