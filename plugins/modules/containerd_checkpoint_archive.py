#!/usr/bin/python
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_checkpoint_archive
short_description: A checkpoint image as a file
version_added: 0.1.0
description:
  - Exports a checkpoint image from containerd's content store to an archive in OCI image layout, imports one from such an archive,
    or converts a checkpoint that another tool made into a checkpoint image.
  - Everything streams; memory use does not depend on the size of the checkpoint. The archive is written under a temporary name, synced and
    renamed; its mode is 0600. What a killed export left is removed by the next one, which begins anew.
  - Beside the archive lies a small file, its name with C(.gpuops.json) appended, that records what the archive holds, and its digest, size and time.
    By it a whole archive of the same checkpoint is left alone without being read. Where it lacks, or does not fit, the archive is read through.
  - An import does not read again what containerd's content store has already.
  - An archive holds the memory of processes, with all the secrets in it, and is not encrypted. Keep it on an encrypted file system, or encrypt the
    file with a tool such as C(age) or C(gpg) when it leaves the node; C(docs/checkpoints.md) says why this module does not.
  - Archives to import or to convert are not trusted. Names, types, sizes, digests and how far they expand are checked before anything is created.
extends_documentation_fragment:
  - gpuops.restore.containerd
  - gpuops.restore.attributes
  - gpuops.restore.attributes.full
  - gpuops.restore.lease
  - gpuops.restore.progress
  - gpuops.restore.ownership
options:
  operation:
    description:
      - V(export) writes the image O(name) to the archive O(path).
      - V(import) brings the checkpoint of the archive O(path) in under O(name). Plain, gzip and zstd are told apart by content.
      - V(convert) makes the image O(name) from O(path), which is a checkpoint archive of the kubelet, CRI-O or podman, a directory of CRIU images
        (with O(spec) or O(metadata)), or an archive that V(import) takes.
      - V(remove) has no archive at O(path), with what is recorded beside it and what exports that were broken off have left there. An image
        stays as it is.
    type: str
    choices: [export, import, convert, remove]
    required: true
  name:
    description:
      - Reference of the checkpoint image in containerd.
    type: str
    required: true
  path:
    description:
      - The archive, or with O(operation=convert) the directory, on the node.
    type: path
    required: true
  compression:
    description:
      - How O(operation=export) compresses. V(zstd) needs the C(zstd) program on the node, Python 3.14, or backports.zstd.
      - Without it the ending of O(path) says - C(.gz) and C(.tgz) for V(gzip), C(.zst) for V(zstd), anything else for V(none).
    type: str
    choices: [none, gzip, zstd]
  base:
    description:
      - Whether the base image goes along. With V(include) an export writes it to the archive too, and fails where it is not whole on this
        node; an import and a conversion give it a name (O(tag_base)), so that a restore finds it.
      - With V(omit) an archive is smaller by the base image, which then has to come to the other node by itself (M(gpuops.restore.containerd_image)).
        C(ctr images import) may refuse such an archive.
    type: str
    choices: [include, omit]
    default: include
  tag_base:
    description:
      - Whether a base image that comes without a name of anybody's gets the one that the checkpoint has for it, where that is free. A pod that
        asks for an image of that name then gets this one, so only say so of checkpoints that you trust.
      - Otherwise it gets a name that ends in its digest, C(NAME@sha256:...), by which restores find it as well.
    type: bool
    default: false
  digest:
    description:
      - The digest that the checkpoint image must have. Not for a conversion.
    type: str
  image:
    description:
      - For a conversion, reference of the image that the container was made from, in containerd on this node. By default what O(path) says.
    type: str
  spec:
    description:
      - For a directory of CRIU images, path of the container's OCI spec as JSON on the node.
    type: path
  metadata:
    description:
      - For a directory of CRIU images, path of the JSON file with C(originalImage), C(ociSpec) and where known C(snapshotter).
    type: path
  rootfs_diff:
    description:
      - For a directory of CRIU images, path of a tar (plain, gzip or zstd) of the files that the container had changed, as an image layer has them.
      - Without it the container is restored on its unchanged image.
    type: path
  snapshotter:
    description:
      - For a conversion, the snapshotter on which the container is restored.
      - By default that of O(metadata), else V(overlayfs).
    type: str
  runtime:
    description:
      - For a conversion, the runtime under which the container is restored.
    type: str
    default: io.containerd.runc.v2
  systemd_cgroup:
    description:
      - For a conversion, whether runc on this node makes cgroups through systemd.
    type: bool
    default: false
  max_bytes:
    description:
      - The most that the files of an archive to import or convert may add up to when they are decompressed, in bytes.
      - By default what is free in containerd's content store, for an import less what is there already.
    type: int
  owner:
    description:
      - Recorded as a label of the image.
  force:
    description:
      - Replace a file at O(path) that is no whole archive of the checkpoint, or an image O(name) that has another digest.
      - In a conversion, take a base image whose identity is not the recorded one.
seealso:
  - module: gpuops.restore.containerd_image
  - module: gpuops.restore.containerd_checkpoint_info
  - module: gpuops.restore.containerd_checkpoint_stage
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Write a checkpoint and its base image to a file
  gpuops.restore.containerd_checkpoint_archive:
    operation: export
    name: registry.local/pytorch-training-checkpoint:001
    path: /srv/checkpoints/pytorch-training-001.tar.zst

- name: Take it in on another node
  gpuops.restore.containerd_checkpoint_archive:
    operation: import
    name: registry.local/pytorch-training-checkpoint:001
    path: /srv/checkpoints/pytorch-training-001.tar.zst

- name: Remove the file, and what exports that were broken off have left beside it
  gpuops.restore.containerd_checkpoint_archive:
    operation: remove
    name: registry.local/pytorch-training-checkpoint:001
    path: /srv/checkpoints/pytorch-training-001.tar.zst

- name: Make a checkpoint image of what the kubelet wrote
  gpuops.restore.containerd_checkpoint_archive:
    operation: convert
    name: registry.local/pytorch-training-checkpoint:002
    path: /var/lib/kubelet/checkpoints/checkpoint-training_default-trainer-2026-11-24T05:31:31Z.tar
"""

RETURN = r"""
digest:
  description: Digest of the checkpoint image, in check mode as it would be.
  type: str
  returned: success
  sample: sha256:3f1c0d5a7b3d1d3d1c3ef6a9b1c0b1f7d9e4c6b8a2f0e1d2c3b4a5968778695a
archive:
  description:
    - The archive. C(size) is in bytes, null where nothing is written yet or where it was not opened.
    - C(blobs) is the number of its blobs, C(kept) how many of them had not to be transferred, because they were there.
    - C(kind) is for a conversion only, one of V(kubelet), V(podman), V(directory) and V(oci).
  type: dict
  returned: success
  sample: {path: /srv/checkpoints/pytorch-training-001.tar.zst, compression: zstd, size: 512340981, blobs: 9, kept: 0}
seconds:
  description: Seconds that it took.
  type: float
  returned: success
  sample: 4.102
actions:
  description: What was done, or in check mode would be.
  type: list
  elements: str
  returned: success
  sample: ["import sha256:3f1c from /srv/checkpoints/pytorch-training-001.tar.zst"]
failure:
  description: What went wrong. C(code) is stable, C(outcome) is V(retryable), V(terminal) or V(unknown).
  type: dict
  returned: failure
  sample:
    code: archive_no_space
    outcome: retryable
    rpc: null
    hint: Free space on that file system, or give a path on a larger one.
    details: {path: /srv/checkpoints, needed: 9123450880, free: 524288000}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuops.restore.plugins.module_utils import _module, _options
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core import progress_file
from ansible_collections.gpuops.restore.plugins.module_utils._transfer import convert, export_archive, import_archive
from ansible_collections.gpuops.restore.plugins.module_utils._transfer.convert import ConvertParams
from ansible_collections.gpuops.restore.plugins.module_utils._transfer.export_archive import ExportParams
from ansible_collections.gpuops.restore.plugins.module_utils._transfer.import_archive import ImportParams


def step(module: AnsibleModule, client: Client) -> dict[str, Any]:
    """Carry out one call of the module."""
    options, check = module.params, module.check_mode
    if options["operation"] == "export":
        result = export_archive.run(client, ExportParams.from_options(options), check)
    elif options["operation"] == "import":
        result = import_archive.run(client, ImportParams.from_options(options), check)
    elif options["operation"] == "remove":
        result = export_archive.remove(options["path"], check)
    else:
        result = convert.run(client, ConvertParams.from_options(options), check)
    for warning in result.warnings:
        module.warn(warning)
    return result.rendered("archive")


ARGUMENT_SPEC: dict[str, Any] = {
    "operation": {"type": "str", "choices": ["export", "import", "convert", "remove"], "required": True},
    "name": {"type": "str", "required": True},
    "path": {"type": "path", "required": True},
    "compression": {"type": "str", "choices": ["none", "gzip", "zstd"]},
    "base": {"type": "str", "choices": ["include", "omit"], "default": "include"},
    "tag_base": {"type": "bool", "default": False},
    "digest": {"type": "str"},
    "image": {"type": "str"},
    "spec": {"type": "path"},
    "metadata": {"type": "path"},
    "rootfs_diff": {"type": "path"},
    "snapshotter": {"type": "str"},
    "runtime": {"type": "str", "default": "io.containerd.runc.v2"},
    "systemd_cgroup": {"type": "bool", "default": False},
    "max_bytes": {"type": "int"},
    **_options.LEASE,
    **_options.PROGRESS,
    **_options.OWNERSHIP,
}
RULES: dict[str, Any] = {"mutually_exclusive": [("spec", "metadata")]}


def main() -> None:
    """Entry point of the module."""
    _module.run(ARGUMENT_SPEC, step, board=progress_file.board, **RULES)


if __name__ == "__main__":
    main()
