# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A checkpoint that lives on the node gets its image: what it was captured for, or what somebody wants later.

It only reads what is staged, so the workload may run meanwhile, have ended, or have been restored from it. The name
leads to one of both at any moment; what is staged goes, or becomes the image's, when it leads to the image.
"""

from __future__ import annotations

import os
import time

from .._checkpoint import (
    on_node,
    reader as checkpoint_reader,
    staged as staged_checkpoint,
    staging,
    staging_root,
    writer as checkpoint_writer,
)
from .._checkpoint.reader import Checkpoint
from .._containerd import images, leases
from .._containerd.client import Client
from .._core import labels
from .._core.errors import RETRYABLE, ConflictError
from .._host import run_lock
from .._host.run_lock import Subject
from .params import CaptureParams, CaptureResult


def completed(client: Client, params: CaptureParams, check: bool) -> CaptureResult:
    """Have the checkpoint of that name as an image; one that is an image already stays as it is.

    Raises InputError (``checkpoint_absent``, ``node_checkpoint_gone``), ConflictError (``checkpoint_name_taken``,
    ``busy``), NodeError.
    """
    result = CaptureResult()
    checkpoint = checkpoint_reader.load(client, params.name)
    if checkpoint.facts.container != params.container_id:
        raise ConflictError(
            "checkpoint_name_taken",
            f"The checkpoint {params.name} is one of {checkpoint.facts.container or 'an unknown container'}, not of "
            f"{params.container_id}.",
            "Correct container_id or name.",
            details={"found": checkpoint.digest, "container": checkpoint.facts.container},
        )
    result.digest, result.facts = checkpoint.digest, checkpoint.facts
    result.before = result.after = {"digest": checkpoint.digest}
    if not checkpoint.on_node:
        return result
    if staged_checkpoint.find(params.staging_dir, checkpoint.key) is None:
        raise checkpoint_reader.gone(checkpoint, params.staging_dir)
    foretell(result)
    if not check:
        complete(client, params, checkpoint, result)
    return result


def foretell(result: CaptureResult) -> None:
    """What :func:`complete` will have done."""
    result.changed = True
    result.actions.append("write the image from the checkpoint on the node")
    result.after = {"digest": "to be taken"}


def complete(client: Client, params: CaptureParams, checkpoint: Checkpoint, result: CaptureResult) -> None:
    """Write the image of a checkpoint that lives on the node. Raises as :func:`completed`."""
    begun = time.monotonic()
    subject = Subject("checkpoint", client.namespace, checkpoint.key)
    with run_lock.held(subject, "completes it", client.busy_seconds):
        written = _write(client, params, checkpoint, result)
        result.staged = _settle_staged(client, params, checkpoint, written, result)
    result.digest = written.digest
    result.after = {"digest": written.digest}
    result.sizes = {**result.sizes, "criu": written.criu.size if written.criu else 0}
    result.seconds["complete"] = round(time.monotonic() - begun, 3)


def _write(client: Client, params: CaptureParams, checkpoint: Checkpoint, result: CaptureResult) -> Checkpoint:
    size = checkpoint.criu.size if checkpoint.criu else 0
    purpose = f"complete {client.namespace} {checkpoint.digest}"
    seconds = float(params.lease_seconds or client.seconds_for(size))
    with run_lock.kept(checkpoint.digest, client.busy_seconds), leases.hold(client, params.lease, purpose, seconds):
        found = staged_checkpoint.find(params.staging_dir, checkpoint.key)
        before = images.get(client, params.name)
        if found is None or before is None or before.target.digest != checkpoint.digest:
            raise ConflictError(
                "busy",
                f"The checkpoint {params.name} is no longer {checkpoint.digest}: another run has been at work on it.",
                "Run again.",
                outcome=RETRYABLE,
            )
        criu = checkpoint_writer.packed_by_daemon(client, found.directory)
        target = on_node.store_completed(client, params.name, before.target, criu)
        owner = labels.owner_of(before.labels) or params.owner
        if labels.SIGNATURE in before.labels:
            result.warnings.append(
                f"The signature of {params.name} was one of {checkpoint.digest}, not of the image: sign it again."
            )
        checkpoint_writer.record(client, params.name, target, {labels.OWNER: owner}, captured=True)
    return checkpoint_reader.load(client, params.name)


def _settle_staged(
    client: Client, params: CaptureParams, old: Checkpoint, new: Checkpoint, result: CaptureResult
) -> str:
    """What is staged becomes the image's, or goes; its new path."""
    if images.by_digest(client, old.digest):
        # It has another name, too.
        return ""
    try:
        with run_lock.removing(old.digest, client.busy_seconds):
            return _hand_over(params, old, new) if params.keeps_staged else _remove(params, old)
    except ConflictError as error:
        # A restore reads it; containerd_leftovers takes it away, since no name leads there any more.
        result.warnings.append(error.sentence())
        return ""


def _hand_over(params: CaptureParams, old: Checkpoint, new: Checkpoint) -> str:
    root = params.staging_dir
    directory = os.path.join(root, old.key, staged_checkpoint.IMAGES)
    if new.criu is None:
        return ""
    try:
        staged = staging.adopt(directory, digest=new.criu.digest, size=new.criu.size, root=root, name=new.key)
    finally:
        staging.remove(root, old.key)
    return staged.directory


def _remove(params: CaptureParams, old: Checkpoint) -> str:
    staging.remove(params.staging_dir, old.key)
    staging_root.remove_root_if_empty(params.staging_dir)
    return ""
