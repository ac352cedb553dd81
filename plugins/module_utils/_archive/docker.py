# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Docker image archives (``docker save``), for whose images manifests are made.

Shape: Docker image specification v1.2, "Combined Image JSON + Filesystem Changeset Format": ``manifest.json``
is a list of ``{Config, RepoTags, Layers}``, each a member's name. A layer that is a plain tar has its diff
id, which the config names, as digest; a compressed one has to be read once to know it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from .._core.text import check_digest
from .._oci.image import MAX_BLOBS, MAX_MANIFEST, Descriptor, Platform, invalid, parse_json, parse_object
from .._streams.decompression import compression
from .members import ArchiveFile

MANIFEST = "manifest.json"
_MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
_LAYER_TYPES = {
    "none": "application/vnd.docker.image.rootfs.diff.tar",
    "gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "zstd": "application/vnd.docker.image.rootfs.diff.tar.zstd",
}


@dataclass(frozen=True)
class DockerImage:
    """One image of a Docker archive."""

    names: tuple[str, ...]
    #: Of the manifest that was made for it.
    descriptor: Descriptor
    manifest: bytes
    #: Digest of every blob -> name of the member.
    members: dict[str, str]


def read_images(file: ArchiveFile, max_index: int) -> list[DockerImage]:
    """The images of a Docker archive. InputError ``manifest_invalid``, ``blob_missing``, ``too_many_blobs``,
    ``manifest_too_large`` and what reading the archive raises."""
    what = f"{MANIFEST} of {file.what[0].lower() + file.what[1:]}"
    records = parse_json(file.read([MANIFEST], max_index)[MANIFEST], what)
    if not isinstance(records, list):
        raise invalid(what, "it is not a list of images")
    parsed = [_record(record, file, what) for record in records]
    if sum(len(layers) + 1 for _config, layers, _names in parsed) > MAX_BLOBS:
        raise invalid(what, f"it names more than {MAX_BLOBS} blobs", "too_many_blobs")
    packed = {name for _c, layers, _n in parsed for name in layers if _compression(file, name) != "none"}
    digests = _digests(file, packed)
    configs = file.read([config for config, _layers, _names in parsed], MAX_MANIFEST)
    if len(configs) != len(parsed):
        raise invalid(what, "it names a config twice")
    return [_image(file, config, configs[config], layers, names, digests, what) for config, layers, names in parsed]


def _record(record: Any, file: ArchiveFile, what: str) -> tuple[str, list[str], tuple[str, ...]]:
    if not isinstance(record, dict):
        raise invalid(what, "an image in it is not an object")
    config, layers, names = record.get("Config"), record.get("Layers") or [], record.get("RepoTags") or []
    if not isinstance(config, str) or not _strings(layers) or not _strings(names):
        raise invalid(what, "an image in it lacks Config, Layers or RepoTags of the right type")
    for name in [config, *layers]:
        if name not in file.entries:
            raise invalid(file.what, f"{name[:120]!r} is named in {MANIFEST} and not in it", "blob_missing")
    return config, [file.real(name) for name in layers], tuple(names)


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _compression(file: ArchiveFile, name: str) -> str:
    return compression(file.entries[name].head)


def _digests(file: ArchiveFile, names: set[str]) -> dict[str, str]:
    result = {}
    for name, chunks in file.stream(names):
        digest = hashlib.sha256()
        for chunk in chunks:
            digest.update(chunk)
        result[name] = "sha256:" + digest.hexdigest()
    return result


def _image(
    file: ArchiveFile,
    config: str,
    data: bytes,
    layers: list[str],
    names: tuple[str, ...],
    digests: dict[str, str],
    what: str,
) -> DockerImage:
    document = parse_object(data, f"The image config {config!r}")
    rootfs = document.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if diff_ids is None and not layers:
        diff_ids = []
    if not isinstance(diff_ids, list) or len(diff_ids) != len(layers):
        raise invalid(what, f"it names {len(layers)} layers, and the config {config!r} does not")
    config_descriptor = Descriptor(_CONFIG_TYPE, "sha256:" + hashlib.sha256(data).hexdigest(), len(data))
    members = {config_descriptor.digest: file.real(config)}
    layer_descriptors = []
    for name, diff_id in zip(layers, diff_ids):
        kind = _compression(file, name)
        digest = digests.get(name) or check_digest(diff_id, f"a layer in the config {config!r}")
        layer_descriptors.append(Descriptor(_LAYER_TYPES[kind], digest, file.entries[name].size))
        members[digest] = name
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE,
            "config": _plain(config_descriptor),
            "layers": [_plain(layer) for layer in layer_descriptors],
        },
        separators=(",", ":"),
    ).encode("utf-8")
    parts = [document.get(key) or "" for key in ("os", "architecture", "variant")]
    platform = Platform(*(str(part) for part in parts)) if parts[0] and parts[1] else None
    digest = "sha256:" + hashlib.sha256(manifest).hexdigest()
    return DockerImage(names, Descriptor(_MANIFEST_TYPE, digest, len(manifest), {}, platform), manifest, members)


def _plain(descriptor: Descriptor) -> dict[str, Any]:
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}
