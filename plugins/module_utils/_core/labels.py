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
#: What the processes of the task had of the kernel, as JSON (annotation of a checkpoint's index).
STATE = PREFIX + "state"
#: Signature of the checkpoint's digest (images; annotation in archives and registries).
SIGNATURE = PREFIX + "signature"
#: Mounts that CRIU is told of beside those of the spec: places to sources, as JSON (annotation of an adapted spec).
EXTERNAL_MOUNTS = PREFIX + "external-mounts"
#: Path of the CNI configuration by which a container's network is made anew (annotation of an adapted spec).
CNI = PREFIX + "cni"
#: The command by which it is, a list in JSON (likewise).
NETWORK_COMMAND = PREFIX + "network-command"
#: Begins the labels that a restored container has of the captured one and its pod. Under their own names the tools that
#: gave them would take it for theirs.
ORIGIN = PREFIX + "origin/"
NO_LAYER = "none"
DEFAULT_OWNER = "gpuops.restore"

#: Keeps kubelet's image garbage collection away from an image.
PINNED = "io.cri-containerd.pinned"
#: Keeps an object alive for containerd's garbage collection on its own.
GC_CONTENT = "containerd.io/gc.ref.content"
GC_SNAPSHOT = "containerd.io/gc.ref.snapshot"
GC_EXPIRE = "containerd.io/gc.expire"


#: Characters of a label and its key that containerd takes.
_LONGEST = 4096
#: Begin labels that CRI, the kubelet, containerd and this collection give by themselves.
_BY_ITSELF = ("io.kubernetes.", "io.cri-containerd.", "containerd.io/", PREFIX)

#: Characters of a signature; containerd takes 4096 of a label and its key, and RSA keys of 8192 bits sign in 3000.
MAX_SIGNATURE = 4000


def signature_in(annotations: Mapping[str, Any]) -> str:
    """The signature among annotations that anybody may have written, "" where none can be; not verified."""
    found = annotations.get(SIGNATURE)
    return found if isinstance(found, str) and len(found) <= MAX_SIGNATURE else ""


def given(*several: Mapping[str, str]) -> dict[str, str]:
    """Of labels of containers those that people gave, or had given to what it was restored from; the last one wins."""
    found: dict[str, str] = {}
    for some in several:
        restored = {key[len(ORIGIN) :]: value for key, value in some.items() if key.startswith(ORIGIN)}
        own = {key: value for key, value in some.items() if not key.startswith(_BY_ITSELF)}
        found.update({**restored, **own})
    return found


def of_origin(origin: Mapping[str, str]) -> dict[str, str]:
    """The labels by which a restored container keeps those of the captured one."""
    kept = {ORIGIN + key: value for key, value in origin.items()}
    # containerd counts bytes.
    return {key: value for key, value in kept.items() if len((key + value).encode()) <= _LONGEST}


def owner_of(labels: Mapping[str, str]) -> str | None:
    """Who owns an object with these labels, None when it is not ours at all."""
    return labels.get(OWNER)
