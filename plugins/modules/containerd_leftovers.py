#!/usr/bin/python
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_leftovers
short_description: Have no memory images of runs that were broken off
version_added: 0.1.0
description:
  - A run that was killed, a full disk or a loss of power can leave memory of processes on the node. This module finds it where it lies,
    of whatever workload, and removes it. The roles call it in each run.
  - It removes half-made dumps of captures, half-staged checkpoints, the copies that containerd extracts on the descriptor route, and
    leases and temporary names in containerd's namespace, with what only they have kept.
  - It removes what servers of checkpoints (M(gpuops.restore.containerd_checkpoint_serve)) that were killed have left below C(/run).
  - What a run holds that is still at work stays. A workload that a capture has left paused stays so until the next capture or
    O(gpuops.restore.containerd_checkpoint#module:state=settled).
extends_documentation_fragment:
  - gpuops.restore.containerd
  - gpuops.restore.attributes
  - gpuops.restore.attributes.full
  - gpuops.restore.staging
options:
  keep_partials:
    description:
      - Keep half-staged checkpoints whose image is still in containerd, and what half an import has brought, so that
        M(gpuops.restore.containerd_checkpoint_stage) and imports go on with them and do not begin anew. What nobody goes on with goes
        with the next lease.
    type: bool
    default: false
  idle_servers:
    description:
      - Also end servers of checkpoints that nobody has made use of for a minute, whatever they were told. Such a one is left where a run
        was broken off, and would offer memory until its time is over.
    type: bool
    default: false
seealso:
  - module: gpuops.restore.containerd_checkpoint
  - module: gpuops.restore.containerd_checkpoint_stage
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: No memory of processes stays on the node
  gpuops.restore.containerd_leftovers:

- name: What can still be used stays
  gpuops.restore.containerd_leftovers:
    keep_partials: true
"""

RETURN = r"""
removed:
  description:
    - What was removed, or in check mode would be. C(kind) is V(dump), V(partial_staging), V(extracted_checkpoint), V(lease),
      V(pulled_image), V(nameless_checkpoint) (one that lived on the node, to which no name leads any more), V(criu_mount) (an empty
      mount C(.criu.mntns.*) of a CRIU whose restore failed, in the node's mount namespace or containerd's), V(criu_network_lock) (the
      rules by which a CRIU that was killed drops all packets of a network namespace) or V(checkpoint_server) (the file below C(/run) of a
      server of checkpoints that was killed, or with O(idle_servers) of one that was ended), C(name) a path, a name in containerd, or what
      it is and where, C(bytes) what it takes on the disk, where that is known.
  type: list
  elements: dict
  returned: success
  sample: [{kind: dump, name: /var/lib/gpuops-restore/capture/k8s.io/training, bytes: 403701760}]
actions:
  description: What was done, or in check mode would be.
  type: list
  elements: str
  returned: success
  sample: ["remove /var/lib/gpuops-restore/capture/k8s.io/training, which a run that was broken off has left"]
failure:
  description: What went wrong. C(code) is stable, C(outcome) is V(retryable), V(terminal) or V(unknown).
  type: dict
  returned: failure
  sample:
    code: staging_dir_unsafe
    outcome: terminal
    rpc: null
    hint: "Set staging_dir to the absolute path of a new directory, or of one of root's with mode 0700."
    details: {path: /var/lib/gpuops-restore}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuops.restore.plugins.module_utils import _module, _options
from ansible_collections.gpuops.restore.plugins.module_utils._capture import leftovers
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._transfer import servers

#: A server of checkpoints, or the record of one.
SERVER = "checkpoint_server"
#: A server that nobody has used for so long waits for nobody.
_QUIET_SECONDS = 60.0


def step(module: AnsibleModule, client: Client) -> dict[str, Any]:
    """Carry out one call of the module."""
    keep = module.params["keep_partials"]
    swept = leftovers.sweep(client, module.params["staging_dir"], module.check_mode, keep)
    quiet = _QUIET_SECONDS if module.params["idle_servers"] else None
    left = servers.leftovers(servers.root(), quiet, module.check_mode)
    swept.removed += [leftovers.Leftover(SERVER, path) for path in left]
    for warning in swept.warnings:
        module.warn(warning)
    return {
        "changed": bool(swept.removed),
        "removed": [found.result() for found in swept.removed],
        "actions": swept.actions,
    }


ARGUMENT_SPEC: dict[str, Any] = {
    "keep_partials": {"type": "bool", "default": False},
    "idle_servers": {"type": "bool", "default": False},
    **_options.STAGING,
}


def main() -> None:
    """Entry point of the module."""
    _module.run(ARGUMENT_SPEC, step)


if __name__ == "__main__":
    main()
