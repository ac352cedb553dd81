# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives for the tests of the readers: built in memory, good ones and the pieces of bad ones."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

END = bytes(1024)
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
CRIU = "application/vnd.containerd.container.criu.checkpoint.criu.tar"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info.tobuf(tarfile.GNU_FORMAT)


def entry(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    return header(name, len(data), kind, link) + data + bytes(-len(data) % 512)


def tar(files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return output.getvalue()


def chunked(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def descriptor(media_type: str, data: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}


def dump(document: Any) -> bytes:
    return json.dumps(document).encode()


class Layout:
    """An OCI layout under construction."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.top: list[dict[str, Any]] = []

    def blob(self, media_type: str, data: bytes, **more: Any) -> dict[str, Any]:
        self.blobs["blobs/sha256/" + digest(data)[7:]] = data
        return descriptor(media_type, data, **more)

    def manifest(self, layer: bytes, **more: Any) -> dict[str, Any]:
        config = self.blob(CONFIG, dump({"config of": layer.hex()[:16]}))
        body = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": [self.blob(LAYER, layer)],
        }
        return self.blob(MANIFEST, dump(body), **more)

    def index(self, *children: dict[str, Any], **more: Any) -> dict[str, Any]:
        return self.blob(INDEX, dump({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}), **more)

    def add(self, item: dict[str, Any], name: str | None = None) -> dict[str, Any]:
        annotations = {"io.containerd.image.name": name} if name else {}
        self.top.append({**item, "annotations": annotations})
        return item

    def files(self) -> dict[str, bytes]:
        index = dump({"schemaVersion": 2, "manifests": self.top})
        return {"oci-layout": dump({"imageLayoutVersion": "1.0.0"}), **self.blobs, "index.json": index}

    def tar(self) -> bytes:
        return tar(self.files())


def docker_files(layers: dict[str, bytes], names: list[str], diff_ids: list[str] | None = None) -> dict[str, bytes]:
    """A Docker archive as the old ``docker save`` wrote it, the manifest last."""
    ids = diff_ids if diff_ids is not None else [digest(data) for data in layers.values()]
    config = dump({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": ids}})
    record = {"Config": "config.json", "RepoTags": names, "Layers": list(layers)}
    return {"config.json": config, **layers, "manifest.json": dump([record])}
