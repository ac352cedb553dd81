# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images and checkpoints to put into the test double of containerd, and what a node has for them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from ansible_collections.gpuops.restore.plugins.module_utils._containerd.containers import SPEC_TYPE
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.messages import message, pack
from ansible_collections.gpuops.restore.plugins.module_utils._core import labels as core_labels
from ansible_collections.gpuops.restore.plugins.module_utils._image import unpack
from ansible_collections.gpuops.restore.plugins.module_utils._oci.image import host_platform
from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import INDEX, MANIFEST, tar
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_state import Blob, Snapshot, State

CRIU = "application/vnd.containerd.container.criu.checkpoint.criu.tar"
CONFIG = "application/vnd.containerd.container.checkpoint.config.v1+proto"
OPTIONS = "application/vnd.containerd.container.checkpoint.options.v1+proto"
RUNTIME_OPTIONS = "application/vnd.containerd.container.checkpoint.runtime.options+proto"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
BASE_NAME = "example.test/app:1"
CHECKPOINT_NAME = "example.test/app-checkpoint:1"
CRIU_FILES = {"inventory.img": b"i" * 100, "descriptors.json": b"[]", "pages-1.img": b"p" * 5000}


def spec(**changes: Any) -> dict[str, Any]:
    """A container that needs nothing of the node."""
    return {
        "ociVersion": "1.1.0",
        "process": {"args": ["counter"], "cwd": "/", "env": ["TOKEN=hunter2"]},
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")],
            "cgroupsPath": "/old",
            "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"],
        },
        **changes,
    }


@dataclass(frozen=True)
class Sample:
    """An image in the store. ``document`` is its manifest or index; ``parts`` its blobs by media type or role."""

    name: str
    digest: str
    document: dict[str, Any]
    parts: dict[str, str]
    chain_id: str = ""


def put(state: State, data: bytes) -> tuple[str, int]:
    """Add a blob; digest and size."""
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    state.blobs[digest] = Blob(data)
    return digest, len(data)


def descriptor(state: State, media_type: str, data: bytes, **more: Any) -> dict[str, Any]:
    """Add a blob; its descriptor as JSON has it."""
    digest, size = put(state, data)
    return {"mediaType": media_type, "digest": digest, "size": size, **more}


def record(state: State, name: str, media_type: str, document: Any, labels: dict[str, str] | None = None) -> str:
    """Add a document and an image record for it; the digest."""
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    digest, size = put(state, data)
    target = message("containerd.types.Descriptor", media_type=media_type, digest=digest, size=size)
    state.images[name] = message("containerd.services.images.v1.Image", name=name, labels=labels or {}, target=target)
    return digest


def add_base(state: State, name: str = BASE_NAME, unpacked: bool = True, text: bytes = b"") -> Sample:
    """An image of two layers for this machine; ``unpacked``: its snapshots are there too."""
    layers = [descriptor(state, LAYER, b"layer %d" % number + text) for number in range(2)]
    diff_ids = []
    for layer in layers:
        diff_id = "sha256:" + hashlib.sha256(b"unpacked " + layer["digest"].encode()).hexdigest()
        state.diff_ids[layer["digest"]] = diff_id
        diff_ids.append(diff_id)
    config = descriptor(
        state,
        "application/vnd.oci.image.config.v1+json",
        json.dumps(
            {
                "architecture": host_platform().architecture,
                "os": "linux",
                "rootfs": {"diff_ids": diff_ids},
                "config": {"Cmd": ["counter"]},
            }
        ).encode(),
    )
    document = {"schemaVersion": 2, "config": config, "layers": layers}
    digest = record(state, name, MANIFEST, document)
    chain = unpack.chain_ids(tuple(diff_ids))
    if unpacked:
        for number, name_of in enumerate(chain):
            state.snapshots[("overlayfs", name_of)] = Snapshot(chain[number - 1] if number else "", 3, {})
        state.blobs[config["digest"]].labels["containerd.io/gc.ref.snapshot.overlayfs"] = chain[-1]
    return Sample(name, digest, document, {"config": config["digest"]}, chain[-1])


def add_cri_reference(state: State, base: Sample) -> str:
    """CRI's own record of an image, which goes when the last name of the image does; its name."""
    name = base.parts["config"]
    target = message(
        "containerd.types.Descriptor", media_type=MANIFEST, digest=base.digest, size=len(state.blobs[base.digest].data)
    )
    labels = {"io.cri-containerd.image": "managed"}
    state.images[name] = message("containerd.services.images.v1.Image", name=name, labels=labels, target=target)
    return name


def add_checkpoint(
    state: State,
    name: str = CHECKPOINT_NAME,
    base: Sample | None = None,
    layout: str = "container",
    without: tuple[str, ...] = (),
    original: dict[str, Any] | None = None,
    annotations: dict[str, str] | None = None,
    captured: bool = True,
) -> Sample:
    """A checkpoint image in one of the two layouts; ``without``: media types that it lacks; ``captured``: here."""
    parts = {
        CRIU: tar(CRIU_FILES),
        CONFIG: pack(SPEC_TYPE, json.dumps(original or spec()).encode()).SerializeToString(),
        LAYER: b"writable layer of " + name.encode(),
    }
    if layout == "container":
        parts[OPTIONS] = b""
        runc = message("containerd.runc.v1.Options", binary_name="runc", no_new_keyring=True).SerializeToString()
        parts[RUNTIME_OPTIONS] = pack("containerd.runc.v1.Options", runc).SerializeToString()
    children = [descriptor(state, kind, data) for kind, data in parts.items() if kind not in without]
    labels = {}
    if layout == "container":
        notes = {
            "io.containerd.checkpoint.runtime": "io.containerd.runc.v2",
            "io.containerd.checkpoint.snapshotter": "overlayfs",
            "org.opencontainers.image.ref.name": base.name if base else BASE_NAME,
        }
        if base is not None:
            size = len(state.blobs[base.digest].data)
            children.append({"mediaType": MANIFEST, "digest": base.digest, "size": size})
    else:
        notes = {"image.name": base.name if base else BASE_NAME}
        labels = {"containerd.io/checkpoint": "true"}
    document = {
        "schemaVersion": 2,
        "manifests": children,
        "annotations": notes if annotations is None else annotations,
    }
    digest = record(state, name, INDEX, document, labels)
    if captured:
        state.images[name].labels[core_labels.CAPTURED] = digest
    return Sample(name, digest, document, {child["mediaType"]: child["digest"] for child in children})


def plugin(kind: str, name: str, error: str = "", root: str = "") -> Any:
    """One of the daemon's plugins."""
    return message(
        "containerd.services.introspection.v1.Plugin",
        type=kind,
        id=name,
        exports={"root": root} if root else {},
        init_err={"message": error} if error else None,
    )
