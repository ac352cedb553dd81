#!/usr/bin/python
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_checkpoint_signature
short_description: Who vouches for a checkpoint
version_added: 0.1.0
description:
  - A checkpoint comes back as root. A signature says that it is one that you took, wherever it was meanwhile; it is an SSH key's, made on the
    controller with C(ssh-keygen -Y sign), so the private key never comes to a node.
  - What is signed is the digest of the checkpoint image, and a newline, under the namespace C(checkpoint@gpuops.restore).
    The digest stands for everything in it.
  - This module puts such a signature on the checkpoint image in containerd, as a label, where
    M(gpuops.restore.containerd_checkpoint_archive) and M(gpuops.restore.containerd_checkpoint_registry) take it with them, and
    C(verify_key) of the modules that restore looks for it. Or it verifies the one that is there.
  - The node needs C(ssh-keygen) of OpenSSH 8.2 or later.
extends_documentation_fragment:
  - gpuops.restore.containerd
  - gpuops.restore.attributes
  - gpuops.restore.attributes.full
  - gpuops.restore.verify_key
options:
  name:
    description:
      - Reference of the checkpoint image in containerd.
    type: str
    required: true
  state:
    description:
      - V(present) puts O(signature) on the image. One that is there and was made by the same key stays, since some kinds of keys sign
        differently each time.
      - V(verified) fails where the image is not signed by one of O(verify_key), and changes nothing.
      - V(absent) removes the signature.
    type: str
    choices: [present, verified, absent]
    default: present
  signature:
    description:
      - The signature, as C(ssh-keygen -Y sign) gives it.
    type: str
  sign_key:
    description:
      - Private SSH key on the controller to make O(signature) with, or the public half of one that its SSH agent has. It needs O(digest).
    type: path
  digest:
    description:
      - Digest that the checkpoint image must have.
    type: str
  verify_key:
    description:
      - With O(state=present), O(signature) has to be by one of these; empty, by whatever key.
seealso:
  - module: gpuops.restore.containerd_checkpoint
  - module: gpuops.restore.containerd_restore
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Sign a checkpoint with a key of the controller
  gpuops.restore.containerd_checkpoint_signature:
    name: registry.example:5000/checkpoints/pytorch-training:001
    digest: "{{ captured.checkpoint.digest }}"
    sign_key: ~/.ssh/checkpoints

- name: Put a signature on it that was made elsewhere
  gpuops.restore.containerd_checkpoint_signature:
    name: registry.example:5000/checkpoints/pytorch-training:001
    signature: "{{ lookup('ansible.builtin.file', 'pytorch-training.sig') }}"

- name: Is this checkpoint one of ours?
  gpuops.restore.containerd_checkpoint_signature:
    name: registry.example:5000/checkpoints/pytorch-training:001
    state: verified
    verify_key:
      - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEIxbyAzJk1ZJkzqOkSrc0I4yoZb1CWFWqkYkCmdM9xM checkpoints
"""

RETURN = r"""
digest:
  description: Digest of the checkpoint image.
  type: str
  returned: success
  sample: sha256:3f1c0d5a7b3d1d3d1c3ef6a9b1c0b1f7d9e4c6b8a2f0e1d2c3b4a5968778695a
signer:
  description: Fingerprint of the key that signed it, empty where nobody did.
  type: str
  returned: success
  sample: SHA256:dImFF2As3sUWhQiPXu6bCJOAtjBIlepkQIFsAUcc/T4
failure:
  description: What went wrong. C(code) is stable, C(outcome) is V(retryable), V(terminal) or V(unknown).
  type: dict
  returned: failure
  sample:
    code: checkpoint_unsigned
    outcome: terminal
    rpc: null
    hint: Sign it where it was taken (checkpoint_node_sign_key), or pin its digest in place of verify_key.
    details: {digest: "sha256:3f1c"}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuops.restore.plugins.module_utils import _module, _options
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import signature_label
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client


def step(module: AnsibleModule, client: Client) -> dict[str, Any]:
    """Carry out one call of the module."""
    options = module.params
    params = signature_label.SignatureParams(
        name=options["name"],
        signature=options["signature"] or "",
        digest=options["digest"] or "",
        verify_key=tuple(options["verify_key"]),
    )
    if options["state"] == "present":
        done = signature_label.present(client, params, module.check_mode)
    elif options["state"] == "verified":
        done = signature_label.verified(client, params)
    else:
        done = signature_label.absent(client, params, module.check_mode)
    return {
        "changed": done.changed,
        "digest": done.digest,
        "signer": done.signer,
        "diff": {"before": {"signer": done.before}, "after": {"signer": done.signer}},
    }


ARGUMENT_SPEC: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "verified", "absent"], "default": "present"},
    "signature": {"type": "str"},
    # The action plugin of the same name turns it into the signature.
    "sign_key": {"type": "path", "no_log": False},
    "digest": {"type": "str"},
    **_options.VERIFY_KEY,
}
RULES: dict[str, Any] = {
    "required_if": [("state", "present", ["signature", "sign_key"], True)],
    "mutually_exclusive": [("signature", "sign_key")],
}


def main() -> None:
    """Entry point of the module."""
    _module.run(ARGUMENT_SPEC, step, **RULES)


if __name__ == "__main__":
    main()
