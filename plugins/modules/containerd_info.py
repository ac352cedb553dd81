#!/usr/bin/python
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_info
short_description: What a node offers for restores
version_added: 0.1.0
description:
  - Versions, snapshotters, the programs that a restore needs, control groups, free space and leases.
  - Programs are looked up as containerd finds them, on the E(PATH) of its process, since its shim is what runs them.
extends_documentation_fragment:
  - gpuops.restore.containerd
  - gpuops.restore.attributes
  - gpuops.restore.attributes.info
  - gpuops.restore.staging
options:
  staging_dir:
    description:
      - Directory below which checkpoints are staged, to report the free space there. It does not have to exist.
seealso:
  - module: gpuops.restore.containerd_checkpoint_info
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Look at the node
  gpuops.restore.containerd_info:
  register: node

- name: Insist on CRIU
  ansible.builtin.assert:
    that: node.criu.present
    fail_msg: There is no CRIU on {{ inventory_hostname }}.
"""

RETURN = r"""
containerd:
  description: The daemon's version, source revision, the UUID of its installation, and its process id.
  type: dict
  returned: success
  sample: {version: "2.1.9", revision: "", uuid: 4f9aa3a1-6b34-4e12-b9b7-5e1b0c8e4d0a, pid: 812}
namespaces:
  description: containerd's namespaces.
  type: list
  elements: str
  returned: success
  sample: [default, k8s.io]
snapshotters:
  description: The snapshotters that work.
  type: list
  elements: str
  returned: success
  sample: [native, overlayfs]
default_runtime:
  description: The runtime of containers that name none, and whether its shim is installed.
  type: dict
  returned: success
  sample: {name: io.containerd.runc.v2, present: true, path: /usr/bin/containerd-shim-runc-v2, version: ""}
runtime:
  description: runc as containerd finds it.
  type: dict
  returned: success
  sample: {present: true, path: /usr/sbin/runc, version: 1.1.15}
criu:
  description: CRIU as containerd finds it.
  type: dict
  returned: success
  sample: {present: true, path: /usr/sbin/criu, version: 4.1.1}
iptables_restore:
  description: The C(iptables-restore) that CRIU runs, as containerd finds it.
  type: dict
  returned: success
  sample: {present: true, path: /usr/sbin/iptables-restore, version: 1.8.11}
cgroup:
  description:
    - C(mode) is V(v1), V(hybrid) or V(unified), or null where no control groups are mounted.
    - C(driver) is V(cgroupfs) where systemd is not the init system. Where it is, the options of each runtime decide, and this is null.
  type: dict
  returned: success
  sample: {mode: unified, driver: null}
free_bytes:
  description: Bytes that root may still write where content, snapshots and staged checkpoints lie; null where unknown.
  type: dict
  returned: success
  sample: {content: 187904819200, snapshots: 187904819200, staging: 187904819200}
plugins:
  description: The daemon's plugins that failed to load. Those that are not meant for this machine do not count.
  type: list
  elements: dict
  returned: success
  sample: []
cri_ok:
  description: Whether the daemon's CRI plugin works; null when it has none.
  type: bool
  returned: success
  sample: true
leases:
  description: The leases of the containerd namespace O(namespace).
  type: list
  elements: dict
  returned: success
  sample:
    - id: restore-pytorch-training
      expires: "2026-01-31T14:00:00Z"
      labels: {}
      owner: gpuops.restore
kernel:
  description: Release of the kernel.
  type: str
  returned: success
  sample: 6.12.43+deb13-amd64
architecture:
  description: The machine's architecture as images name it.
  type: str
  returned: success
  sample: amd64
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
from ansible_collections.gpuops.restore.plugins.module_utils._containerd import info as containerd_info
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client


def step(module: AnsibleModule, client: Client) -> dict[str, Any]:
    """Carry out one call of the module."""
    return {"changed": False, **containerd_info.gather(client, module.params["staging_dir"])}


ARGUMENT_SPEC: dict[str, Any] = _options.STAGING


def main() -> None:
    """Entry point of the module."""
    _module.run(ARGUMENT_SPEC, step)


if __name__ == "__main__":
    main()
