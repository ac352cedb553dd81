#!/usr/bin/python
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_checkpoint_registry
short_description: A checkpoint image goes to a registry, or comes from one
version_added: 0.1.0
description:
  - Pushes a checkpoint image from containerd's content store to a registry, or pulls one into it.
  - Most registries refuse the index that containerd makes of a checkpoint. It is pushed as an ordinary OCI image manifest whose layers
    are the index and all blobs that it names, with their own digests. A pull gives the same index with the same digest.
  - Blobs stream from the store to the registry and back; memory use does not depend on the size of the checkpoint, and there is no copy on
    disk. A blob that is there already is not sent. What a registry sends is verified by type, size and digest.
  - A checkpoint that lives on its node (O(gpuops.restore.containerd_checkpoint#module:store=node)) comes as it is from a server that is known by
    O(certificate), its memory into O(staging_dir) without an image. No registry is given such a one, and none is believed to have it.
  - A checkpoint holds the memory of processes, with all the secrets in it. Who may read the repository may read them. C(docs/registry.md) has more.
extends_documentation_fragment:
  - gpuops.restore.containerd
  - gpuops.restore.attributes
  - gpuops.restore.attributes.full
  - gpuops.restore.lease
  - gpuops.restore.progress
  - gpuops.restore.ownership
  - gpuops.restore.staging
attributes:
  check_mode:
    details:
      - The registry is asked what it has. A pull reads the manifest and the index, no memory.
options:
  state:
    description:
      - V(pushed) has the checkpoint O(name) of this node at O(reference).
      - V(pulled) has the checkpoint of O(reference) on this node under O(name).
      - V(absent) has no tag O(reference) in the registry, with O(digest) only if it stands for that checkpoint. The registry frees the blobs
        when it collects its garbage. Nothing on this node is changed.
    type: str
    choices: [pushed, pulled, absent]
    required: true
  name:
    description:
      - Reference of the checkpoint image in containerd.
    type: str
    required: true
  reference:
    description:
      - Where in the registry, in full, C(HOST[:PORT]/REPOSITORY:TAG). For V(pulled) it may end with C(@) and the digest of the manifest.
      - By default the same as O(name).
    type: str
  base:
    description:
      - Whether the base image goes along. When pushed, its blobs become layers too, and it has to be whole on this node. When pulled, it gets
        a name (O(tag_base)), so that a restore finds it; that it did not come along is a warning.
      - Without it the base image has to come to the other node by itself (M(gpuops.restore.containerd_image)).
    type: bool
    default: true
  tag_base:
    description:
      - Whether a base image that comes without a name of anybody's gets the one that the checkpoint has for it, where that is free. A pod that
        asks for an image of that name then gets this one, so only say so of checkpoints that you trust.
      - Otherwise it gets a name that ends in its digest, C(NAME@sha256:...), by which restores find it as well.
    type: bool
    default: false
  digest:
    description:
      - The digest that the checkpoint image must have, V(sha256:) and 64 hexadecimal digits. This is that of the index in containerd, not that of
        the manifest in the registry.
      - With it, a checkpoint that is whole on this node is not asked for at the registry any more.
    type: str
  server:
    description:
      - URL of the registry, where it is not C(https://) and the host of O(reference). So an address, another port, a mirror or plain HTTP are given.
    type: str
  username:
    description:
      - User at the registry, or at the token server that it names.
    type: str
  password:
    description:
      - Password of O(username).
    type: str
  token:
    description:
      - A bearer token for the registry, instead of user and password.
    type: str
  auth_file:
    description:
      - Path of a file on the node with credentials, as C(docker login) and C(podman login) write it. Credential helpers are not run.
    type: path
  ca_file:
    description:
      - Path of a file on the node with the certificates, in PEM, of the authorities to trust in place of the system's.
    type: path
  certificate:
    description:
      - The certificate of the server itself, in PEM, the only one that is trusted. That of M(gpuops.restore.containerd_checkpoint_serve).
      - Its dates do not count, for the clocks of two nodes differ; the name or address in it does.
    type: str
  insecure:
    description:
      - Allow plain HTTP to other machines. Without it only registries on the node itself (V(localhost), V(127.0.0.1), V([::1])) may be asked by
        HTTP. Certificates are verified in any case.
    type: bool
    default: false
  lease:
    description:
      - Lease under which a pull creates content. Without it the module holds one of its own while it works.
      - With one, blobs that came whole stay after a failure, and the next run does not fetch them again.
  owner:
    description:
      - Recorded as a label of the image.
  force:
    description:
      - Move a tag that stands for something else, or an image O(name) that has another digest.
notes:
  - O(timeout) also bounds how long a registry may be silent.
  - Proxies are those of the environment (C(https_proxy), C(no_proxy)), but for registries on the node itself.
seealso:
  - module: gpuops.restore.containerd_checkpoint
  - module: gpuops.restore.containerd_checkpoint_archive
  - module: gpuops.restore.containerd_checkpoint_serve
  - module: gpuops.restore.containerd_image
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Push a checkpoint
  gpuops.restore.containerd_checkpoint_registry:
    state: pushed
    name: registry.example:5000/checkpoints/pytorch-training:001
    username: trainer
    password: "{{ registry_password }}"
    ca_file: /etc/ssl/registry-ca.pem

- name: Pull it on another node
  gpuops.restore.containerd_checkpoint_registry:
    state: pulled
    name: registry.example:5000/checkpoints/pytorch-training:001
    auth_file: /root/.docker/config.json
    ca_file: /etc/ssl/registry-ca.pem

- name: Push to a registry on this node, under another name and without the base image
  gpuops.restore.containerd_checkpoint_registry:
    state: pushed
    name: local/pytorch-training:001
    reference: localhost:5000/pytorch-training:001
    server: http://localhost:5000
    base: false

- name: Delete a tag again that was only for the way
  gpuops.restore.containerd_checkpoint_registry:
    state: absent
    name: registry.example:5000/checkpoints/pytorch-training:moved
    auth_file: /root/.docker/config.json
"""

RETURN = r"""
digest:
  description: Digest of the checkpoint image in containerd, here and on the other node.
  type: str
  returned: success
  sample: sha256:3f1c0d5a7b3d1d3d1c3ef6a9b1c0b1f7d9e4c6b8a2f0e1d2c3b4a5968778695a
registry:
  description:
    - What the registry has. C(manifest_digest) is the digest there, by which O(reference) can be pinned.
    - C(blobs) is the number of its blobs, C(kept) how many of them had not to be transferred, because they were there, C(bytes) the size of
      the others. Of a pull that had nothing to ask the registry for, these are null.
  type: dict
  returned: success
  sample:
    reference: registry.example:5000/checkpoints/pytorch-training:001
    manifest_digest: sha256:9f2b6c1d0e8a7f5b4c3d2e1f0a9b8c7d6e5f4a3b2c1d0e9f8a7b6c5d4e3f2a1b
    blobs: 10
    kept: 4
    bytes: 1098123321
seconds:
  description: Seconds that it took.
  type: float
  returned: success
  sample: 9.781
actions:
  description: What was done, or in check mode would be.
  type: list
  elements: str
  returned: success
  sample: ["push sha256:3f1c to registry.example:5000/checkpoints/pytorch-training:001"]
failure:
  description: What went wrong. C(code) is stable, C(outcome) is V(retryable), V(terminal) or V(unknown).
  type: dict
  returned: failure
  sample:
    code: registry_unreachable
    outcome: retryable
    rpc: null
    hint: See that it runs and that this node reaches it, then run again.
    details: {url: "https://registry.example:5000/v2/checkpoints/pytorch-training/manifests/001"}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuops.restore.plugins.module_utils import _module, _options
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core import progress_file
from ansible_collections.gpuops.restore.plugins.module_utils._transfer import pull, push, registry
from ansible_collections.gpuops.restore.plugins.module_utils._transfer.registry import Access, RegistryParams


def step(module: AnsibleModule, client: Client) -> dict[str, Any]:
    """Carry out one call of the module."""
    state = module.params["state"]
    params = RegistryParams.from_options(module.params)
    repository = registry.open_repository(params.reference, Access.from_options(module.params), state)
    if state == registry.ABSENT:
        result = push.absent(repository, params, module.check_mode)
    else:
        run = push.run if state == registry.PUSHED else pull.run
        result = run(client, repository, params, module.check_mode)
    for warning in result.warnings:
        module.warn(warning)
    return result.rendered("registry")


ARGUMENT_SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["pushed", "pulled", "absent"], "required": True},
    "name": {"type": "str", "required": True},
    "reference": {"type": "str"},
    "base": {"type": "bool", "default": True},
    "tag_base": {"type": "bool", "default": False},
    "digest": {"type": "str"},
    "server": {"type": "str"},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "token": {"type": "str", "no_log": True},
    "auth_file": {"type": "path"},
    "ca_file": {"type": "path"},
    "certificate": {"type": "str"},
    "insecure": {"type": "bool", "default": False},
    **_options.LEASE,
    **_options.PROGRESS,
    **_options.OWNERSHIP,
    **_options.STAGING,
}
RULES: dict[str, Any] = {
    "required_together": [("username", "password")],
    "mutually_exclusive": [("username", "token", "auth_file"), ("ca_file", "certificate")],
}


def main() -> None:
    """Entry point of the module."""
    _module.run(ARGUMENT_SPEC, step, board=progress_file.board, **RULES)


if __name__ == "__main__":
    main()
