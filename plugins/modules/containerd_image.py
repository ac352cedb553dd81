#!/usr/bin/python
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_image
short_description: Have an image in containerd, whole, unpacked and pinned
version_added: 0.1.0
description:
  - Imports an image from an archive on the node, or has containerd pull it from a registry; unpacks it for a snapshotter;
    keeps kubelet's image garbage collection away from it; or removes it.
  - Ordinary images and checkpoint images alike. A checkpoint image is not unpacked, and may lack the base image that it names.
  - Identity is the digest. The name stands for the image only after every blob has been verified, labelled against
    containerd's garbage collection and unpacked, so a failure leaves neither record nor content nor snapshots behind.
  - An image that is there already is checked for completeness and mended where blobs are missing. Layers may be missing
    once they are unpacked, since containerd can be configured to discard them then.
extends_documentation_fragment:
  - gpuops.restore.containerd
  - gpuops.restore.attributes
  - gpuops.restore.attributes.full
  - gpuops.restore.lease
  - gpuops.restore.progress
  - gpuops.restore.ownership
  - gpuops.restore.busy
attributes:
  check_mode:
    details:
      - What a registry has is not known without pulling. With O(digest) the prediction is exact; without it, O(pull=always) on an
        image that is there only warns.
  idempotent:
    details:
      - With O(pull=always) as long as the registry has nothing new.
options:
  name:
    description:
      - Reference under which the image is known, in full, such as V(docker.io/library/busybox:1.36).
    type: str
    required: true
  state:
    description:
      - V(present) has the image as the other options say. V(absent) deletes its record and collects the garbage, with the second
        record that containerd's CRI plugin makes for every image in the namespace V(k8s.io).
    type: str
    choices: [present, absent]
    default: present
  archive:
    description:
      - Path of an archive on the node, in the OCI layout (C(ctr images export), C(skopeo copy ... oci-archive:)) or as C(docker save)
        writes it; plain, gzip or zstd. Nothing is pulled then.
      - Of several images in it the one called O(name) is taken, or the one with O(digest). The only image of an archive is also
        taken if the archive gives it no name, or just a tag.
      - A compressed archive is decompressed twice, once to see what it holds; a plain one is read once.
    type: path
  pull:
    description:
      - When to pull, if there is no O(archive). V(missing) pulls what is not there or not whole. V(always) asks the registry even then, and
        lets an image of our own follow it to another digest. V(never) fails where the image is missing.
      - It takes containerd's transfer service, which containerd 1.6 lacks. Credentials are not passed; pull such images beforehand.
    type: str
    choices: [missing, always, never]
    default: missing
  hosts_dir:
    description:
      - Directory of registry configurations on the node, usually V(/etc/containerd/certs.d), to pull by.
      - Only containerd 2 heeds it; containerd 1.7 pulls by its built-in defaults.
    type: path
  snapshotter:
    description:
      - The snapshotter to unpack for, and to say for whether the image is unpacked.
    type: str
    default: overlayfs
  unpack:
    description:
      - Unpack the image, so that a container starts without delay. V(false) leaves it as it is.
    type: bool
    default: true
  pinned:
    description:
      - V(true) sets the label that keeps kubelet's image garbage collection away from the image, V(false) removes it. Without the option
        it stays as it is.
      - An image of somebody else's can be pinned as well, and the pin is marked as ours. Somebody else's pin is only released with O(force).
    type: bool
  digest:
    description:
      - The digest that the image must have, V(sha256:) and 64 hexadecimal digits. With it a registry is asked for precisely that.
    type: str
  keep_captured:
    description:
      - With O(state=absent), leave a checkpoint alone that a capture on this node has made, with a warning, since the node may have its
        only copy.
    type: bool
    default: false
  lease:
    description:
      - Name of a lease, see M(gpuops.restore.containerd_lease), to put what is made under. What a failed call has brought in then stays
        until the lease is deleted.
      - Without it the call has a lease of its own.
  owner:
    description:
      - The owner label for an image that the call creates. Only images with it are removed.
  force:
    description:
      - Move the name to another digest, remove an image that is not ours, or release somebody else's pin.
seealso:
  - module: gpuops.restore.containerd_lease
  - module: gpuops.restore.containerd_checkpoint_info
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Import a checkpoint
  gpuops.restore.containerd_image:
    name: registry.local/pytorch-training-checkpoint:001
    archive: /srv/checkpoints/pytorch-training-001.tar.zst

- name: Have its base image, and keep kubelet from collecting it
  gpuops.restore.containerd_image:
    name: registry.local/pytorch-training:24.10
    digest: sha256:574c096c9ca73cde8ff38898fb7eff5c4ea3cf471578f65c801b24c05943dacb
    pinned: true

- name: Fail unless the image is there already
  gpuops.restore.containerd_image:
    name: registry.local/pytorch-training:24.10
    pull: never

- name: Remove the checkpoint, unless it was captured here
  gpuops.restore.containerd_image:
    name: registry.local/pytorch-training-checkpoint:001
    state: absent
    keep_captured: true

- name: Remove the checkpoint
  gpuops.restore.containerd_image:
    name: registry.local/pytorch-training-checkpoint:001
    state: absent
"""

RETURN = r"""
image:
  description:
    - The image as it is now, in check mode as it would be; empty when there is none.
    - C(size) is in bytes, of all its blobs on this node. C(chain_id) names the snapshot that holds all layers. C(unpacked) is null for
      a checkpoint. C(owner) is null for an image that is not ours.
  type: dict
  returned: success
  sample:
    name: registry.local/pytorch-training:24.10
    digest: sha256:574c096c9ca73cde8ff38898fb7eff5c4ea3cf471578f65c801b24c05943dacb
    media_type: application/vnd.oci.image.manifest.v1+json
    size: 2806413
    checkpoint: false
    chain_id: sha256:700699f5a2d56ede5c0ec1f5118cc6cd734ae7f85f499cbe0926a8c8fe9bd876
    unpacked: true
    pinned: true
    owner: gpuops.restore
before:
  description: C(digest), C(unpacked) and C(pinned) of the image that was there before; empty when there was none.
  type: dict
  returned: success
  sample:
    digest: sha256:574c096c9ca73cde8ff38898fb7eff5c4ea3cf471578f65c801b24c05943dacb
    unpacked: true
    pinned: true
created:
  description: Whether this call made the image's record, or would have.
  type: bool
  returned: success
  sample: true
actions:
  description: What was done, or in check mode would be.
  type: list
  elements: str
  returned: success
  sample: ["pull registry.local/pytorch-training:24.10", "pin it"]
failure:
  description: What went wrong. C(code) is stable, C(outcome) is V(retryable), V(terminal) or V(unknown).
  type: dict
  returned: failure
  sample:
    code: image_digest_mismatch
    outcome: terminal
    rpc: null
    hint: Give the archive or the reference of the expected image, or correct digest.
    details: {}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuops.restore.plugins.module_utils import _module, _options
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core import progress_file
from ansible_collections.gpuops.restore.plugins.module_utils._image import image as image_steps, state as image_state


def step(module: AnsibleModule, client: Client) -> dict[str, Any]:
    """Carry out one call of the module."""
    parameters = module.params
    params = image_state.ImageParams(
        name=parameters["name"],
        archive=parameters["archive"] or "",
        pull=parameters["pull"],
        hosts_dir=parameters["hosts_dir"] or "",
        snapshotter=parameters["snapshotter"],
        unpack=parameters["unpack"],
        pinned=parameters["pinned"],
        digest=parameters["digest"] or "",
        lease=parameters["lease"] or "",
        owner=parameters["owner"],
        force=parameters["force"],
        keep_captured=parameters["keep_captured"],
    )
    act = image_steps.present if parameters["state"] == "present" else image_steps.absent
    done = act(client, params, module.check_mode)
    for warning in done.warnings:
        module.warn(warning)
    return {
        "changed": done.changed,
        "created": done.created,
        "actions": done.actions,
        "image": done.image,
        "before": done.before,
        "diff": {"before": done.before, "after": done.after},
    }


ARGUMENT_SPEC: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "archive": {"type": "path"},
    "pull": {"type": "str", "choices": ["missing", "always", "never"], "default": "missing"},
    "hosts_dir": {"type": "path"},
    "snapshotter": {"type": "str", "default": "overlayfs"},
    "unpack": {"type": "bool", "default": True},
    "pinned": {"type": "bool"},
    "digest": {"type": "str"},
    "keep_captured": {"type": "bool", "default": False},
    **_options.LEASE,
    **_options.PROGRESS,
    **_options.OWNERSHIP,
    **_options.BUSY,
}


def main() -> None:
    """Entry point of the module."""
    _module.run(ARGUMENT_SPEC, step, board=progress_file.board)


if __name__ == "__main__":
    main()
