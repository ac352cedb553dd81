#!/usr/bin/python
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_checkpoint_serve
short_description: Another node may fetch checkpoints from this one, for a while
version_added: 0.1.0
description:
  - Offers checkpoints to another node, over HTTPS, straight out of containerd's content store; those that live on this node
    (O(gpuops.restore.containerd_checkpoint#module:store=node)) out of O(staging_dir). There M(gpuops.restore.containerd_checkpoint_registry)
    pulls them as from a registry, so it verifies all that it gets, in bounded memory, and goes on where a connection broke.
  - The server is a process of its own that goes on when the module has ended. It answers requests to read exactly these checkpoints, from O(clients),
    with O(token). It ends when it is stopped, after O(idle) seconds in which nobody with the token has made use of it, and in any case after the time
    that all of it takes once at O(minimum_rate).
  - Its certificate is made for this run by the program C(openssl) on the node, and is returned. The key and the token stay in the memory of the server.
  - A checkpoint holds the memory of processes, with all the secrets in it. Make the token for one run (C(no_log)), name the clients, and stop the server
    when the other node is through.
extends_documentation_fragment:
  - gpuops.restore.containerd
  - gpuops.restore.attributes
  - gpuops.restore.attributes.full
  - gpuops.restore.staging
attributes:
  check_mode:
    details:
      - Of a server that would be started neither port nor certificate are known.
options:
  state:
    description:
      - V(started) has a server of O(checkpoints). One that serves the same under the same options stays as it is, another one of that O(id) is replaced.
      - V(stopped) has none.
    type: str
    choices: [started, stopped]
    required: true
  id:
    description:
      - What this server is known by on the node; up to 64 letters, digits, C(_) and C(-).
    type: str
    required: true
  checkpoints:
    description:
      - References of checkpoint images in containerd. Without any it answers, and has nothing, by which another node sees whether it gets through;
        such a server gives way to another one on its port.
    type: list
    elements: str
    default: []
  hosts:
    description:
      - Addresses or names by which the other node reaches this one; the certificate is for them. The first is in the references that are returned.
      - Required for V(started).
    type: list
    elements: str
    default: []
  clients:
    description:
      - From where it is answered at all, addresses, networks, or names that this node knows the addresses of. Empty for from anywhere.
    type: list
    elements: str
    default: []
  token:
    description:
      - What the other node shows, at least 24 characters; required for V(started).
    type: str
  listen:
    description:
      - Address of this node on which it listens. V(::) for all addresses of both kinds.
    type: str
    default: 0.0.0.0
  port:
    description:
      - Port on which it listens. V(0) for one that is free.
    type: int
    default: 0
  base:
    description:
      - Whether the base images are served too.
    type: bool
    default: true
  idle:
    description:
      - Seconds without use after which it ends.
    type: float
    default: 600
notes:
  - Where C(systemd-logind) ends what a session leaves behind (C(KillUserProcesses=yes), no distribution's default for root), it ends with the connection.
  - A server that was killed leaves a file without secrets below C(/run/gpuops-restore/serve), which the next call removes.
seealso:
  - module: gpuops.restore.containerd_checkpoint_registry
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: A token for this run
  ansible.builtin.set_fact:
    move_token: "{{ lookup('ansible.builtin.password', '/dev/null', length=48, chars=['ascii_letters', 'digits']) }}"
  delegate_to: gpu-a
  delegate_facts: true
  no_log: true

- name: Offer the checkpoint to one other node
  gpuops.restore.containerd_checkpoint_serve:
    state: started
    id: move-training
    checkpoints: [registry.local/pytorch-training:moved]
    hosts: [192.0.2.10]
    clients: [192.0.2.11]
    token: "{{ hostvars['gpu-a'].move_token }}"
  delegate_to: gpu-a
  register: served

- name: Fetch it there
  gpuops.restore.containerd_checkpoint_registry:
    state: pulled
    name: registry.local/pytorch-training:moved
    reference: "{{ served.checkpoints['registry.local/pytorch-training:moved'].reference }}"
    digest: "{{ served.checkpoints['registry.local/pytorch-training:moved'].digest }}"
    certificate: "{{ served.certificate }}"
    token: "{{ hostvars['gpu-a'].move_token }}"
  delegate_to: gpu-b

- name: Offer it no longer
  gpuops.restore.containerd_checkpoint_serve:
    state: stopped
    id: move-training
  delegate_to: gpu-a
"""

RETURN = r"""
port:
  description: Port on which it listens; null where there is no server.
  type: int
  returned: success
  sample: 41237
certificate:
  description: The server's certificate, in PEM; null where there is no server.
  type: str
  returned: success
  sample: "-----BEGIN CERTIFICATE-----\nMIIBqj...\n-----END CERTIFICATE-----\n"
checkpoints:
  description: By name, the C(digest) of each checkpoint, and the C(reference) by which it is pulled.
  type: dict
  returned: success
  sample:
    registry.local/pytorch-training:moved:
      digest: sha256:3f1c0d5a7b3d1d3d1c3ef6a9b1c0b1f7d9e4c6b8a2f0e1d2c3b4a5968778695a
      reference: 192.0.2.10:41237/checkpoint:3f1c0d5a7b3d1d3d1c3ef6a9b1c0b1f7d9e4c6b8a2f0e1d2c3b4a5968778695a
actions:
  description: What was done, or in check mode would be.
  type: list
  elements: str
  returned: success
  sample: ["serve registry.local/pytorch-training:moved as move-training"]
failure:
  description: What went wrong. C(code) is stable, C(outcome) is V(retryable), V(terminal) or V(unknown).
  type: dict
  returned: failure
  sample:
    code: openssl_missing
    outcome: terminal
    rpc: null
    hint: Install openssl there, or let the checkpoint go another way.
    details: {}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuops.restore.plugins.module_utils import _module, _options
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._transfer import serve, servers


def step(module: AnsibleModule, client: Client) -> dict[str, Any]:
    """Carry out one call of the module."""
    params = serve.ServeParams.from_options(module.params)
    if module.params["state"] == serve.STARTED:
        return serve.started(client, params, module.check_mode, servers.root()).rendered()
    return serve.stopped(params, module.check_mode, servers.root()).rendered()


ARGUMENT_SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["started", "stopped"], "required": True},
    "id": {"type": "str", "required": True},
    "checkpoints": {"type": "list", "elements": "str", "default": []},
    "hosts": {"type": "list", "elements": "str", "default": []},
    "clients": {"type": "list", "elements": "str", "default": []},
    "token": {"type": "str", "no_log": True},
    "listen": {"type": "str", "default": "0.0.0.0"},
    "port": {"type": "int", "default": 0},
    "base": {"type": "bool", "default": True},
    "idle": {"type": "float", "default": 600.0},
    **_options.STAGING,
}
RULES: dict[str, Any] = {"required_if": [("state", "started", ("token", "hosts"))]}


def main() -> None:
    """Entry point of the module."""
    _module.run(ARGUMENT_SPEC, step, **RULES)


if __name__ == "__main__":
    main()
