# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The labels by which the collection recognises what it made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PREFIX = "io.gpuops.restore/"
#: Who made the object; the default owner is :data:`DEFAULT_OWNER`.
OWNER = PREFIX + "owner"
#: Digest of the checkpoint image (containers, snapshots).
CHECKPOINT = PREFIX + "checkpoint"
#: The container whose snapshot it is (snapshots).
CONTAINER = PREFIX + "container"
#: Digest of the adapted OCI spec (containers).
SPEC = PREFIX + "spec"
#: Digest of the writable layer that was applied completely, or :data:`NO_LAYER` (snapshots).
WRITABLE_LAYER = PREFIX + "writable-layer"
#: ``true`` from the moment before a task is started on the snapshot (snapshots).
USED = PREFIX + "used"
#: The process that works under it: boot, pid and start time (leases).
PROCESS = PREFIX + "process"
#: Who pinned an image that is not ours (images).
PINNED_BY = PREFIX + "pinned-by"
#: Digest of the checkpoint that a capture on this node made; another one under the same name is no capture (images).
CAPTURED = PREFIX + "captured"
#: What a capture recorded about the node and the process, as JSON (annotation of a checkpoint's index).
FACTS = PREFIX + "facts"
#: Signature of the checkpoint's digest (images; annotation in archives and registries).
SIGNATURE = PREFIX + "signature"
#: Mounts that CRIU is told of beside those of the spec: places to sources, as JSON (annotation of an adapted spec).
EXTERNAL_MOUNTS = PREFIX + "external-mounts"
NO_LAYER = "none"
DEFAULT_OWNER = "gpuops.restore"

#: Keeps kubelet's image garbage collection away from an image.
PINNED = "io.cri-containerd.pinned"
#: Keeps an object alive for containerd's garbage collection on its own.
GC_CONTENT = "containerd.io/gc.ref.content"
GC_SNAPSHOT = "containerd.io/gc.ref.snapshot"
GC_EXPIRE = "containerd.io/gc.expire"


#: Characters of a signature; containerd takes 4096 of a label and its key, and RSA keys of 8192 bits sign in 3000.
MAX_SIGNATURE = 4000


def signature_in(annotations: Mapping[str, Any]) -> str:
    """The signature among annotations that anybody may have written, "" where none can be; not verified."""
    found = annotations.get(SIGNATURE)
    return found if isinstance(found, str) and len(found) <= MAX_SIGNATURE else ""


def owner_of(labels: Mapping[str, str]) -> str | None:
    """Who owns an object with these labels, None when it is not ours at all."""
    return labels.get(OWNER)
