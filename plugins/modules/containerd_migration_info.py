#!/usr/bin/python
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_migration_info
short_description: What a node knows of migrations
version_added: 0.1.0
description:
  - What migrations from this node have noted and is not settled, the containers that they are about, and their directories with archives.
  - The playbooks C(gpuops.restore.migrate) and C(gpuops.restore.settle) ask both nodes, and decide by both answers.
extends_documentation_fragment:
  - gpuops.restore.containerd
  - gpuops.restore.attributes
  - gpuops.restore.attributes.info
  - gpuops.restore.staging
options:
  names:
    description:
      - Containers to look at, beside those that were migrated from this node.
    type: list
    elements: str
    default: []
  directories:
    description:
      - Directories in which migrations may have left theirs.
    type: list
    elements: path
    default: [/var/tmp]
  staging_dir:
    description:
      - Directory below which the records and the receipts lie. It does not have to exist.
seealso:
  - module: gpuops.restore.containerd_checkpoint
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: See what migrations have left
  gpuops.restore.containerd_migration_info:
    names: [pytorch-training]
  register: looked
"""

RETURN = r"""
records:
  description:
    - What was noted of each workload, the oldest first. C(state) is V(begun), V(captured), V(moved) or V(returned).
  type: list
  elements: dict
  returned: success
  sample:
    - id: 0a1b2c3d4e5f
      source: gpu-a
      target: gpu-b
      source_name: training
      name: pytorch-training
      checkpoint: registry.local/pytorch-training:moved
      digest: sha256:2f5c1e4f0e5d5f4c6f9a9d3f4a1f3c2b1a0e9d8c7b6a5f4e3d2c1b0a9f8e7d6c
      state: captured
      directory: /var/tmp
      reference: ""
unreadable:
  description: Files that should be records and are none.
  type: list
  elements: str
  returned: success
  sample: []
containers:
  description:
    - By name, whether there is a container, the digest of the checkpoint that it was restored from, its task's status, and the digest in its
      receipt; empty where there is none.
    - C(capture) is V(held) where a capture keeps it paused on purpose, V(capturing) or V(ending) where one was broken off, V(busy) while one is under
      way. C(captured_as) is the reference of its image, C(captured_digest) what that stands for.
  type: dict
  returned: success
  sample:
    training:
      exists: true
      checkpoint: ""
      task: PAUSED
      receipt: ""
      capture: held
      captured_as: registry.local/pytorch-training:moved
      captured_digest: sha256:2f5c1e4f0e5d5f4c6f9a9d3f4a1f3c2b1a0e9d8c7b6a5f4e3d2c1b0a9f8e7d6c
places:
  description: Directories of migrations below O(directories), and for how many seconds nothing in them has changed.
  type: list
  elements: dict
  returned: success
  sample: [{path: /var/tmp/gpuops-migrate-0a1b2c3d4e5f, idle: 86}]
failure:
  description: What went wrong. C(code) is stable, C(outcome) is V(retryable), V(terminal) or V(unknown).
  type: dict
  returned: failure
  sample:
    code: socket_absent
    outcome: terminal
    rpc: null
    hint: Start containerd, or set address to where its socket is.
    details: {}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuops.restore.plugins.module_utils import _module, _options
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._migration import look


def step(module: AnsibleModule, client: Client) -> dict[str, Any]:
    """Carry out one call of the module."""
    return {"changed": False, **look.gather(client, look.LookParams.from_options(module.params))}


ARGUMENT_SPEC: dict[str, Any] = {
    "names": {"type": "list", "elements": "str", "default": []},
    "directories": {"type": "list", "elements": "path", "default": ["/var/tmp"]},
    **_options.STAGING,
}


def main() -> None:
    """Entry point of the module."""
    _module.run(ARGUMENT_SPEC, step)


if __name__ == "__main__":
    main()
