# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Defective and hostile checkpoint images and archives, made of a good checkpoint that ctr took in a node.

The good one is taken apart into its index and blobs, changed, and imported again under another name with
``ctr images import``. containerd verifies digests when content comes in, so what has to be wrong in the store is made
wrong there afterwards, in the blob's own file.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gzip
import hashlib
import json
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gpuops_lab import workload
from gpuops_lab.config import Node

#: The name of images that exist for one test.
REFERENCE = "gpuops.test/made:1"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
#: The children of a checkpoint index, by the names that tests use.
KINDS: Mapping[str, str] = {
    "criu": "application/vnd.containerd.container.criu.checkpoint.criu.tar",
    "spec": "application/vnd.containerd.container.checkpoint.config.v1+proto",
    "options": "application/vnd.containerd.container.checkpoint.options.v1+proto",
    # containerd 1.6 writes it even when there are none.
    "runtime-options": "application/vnd.containerd.container.checkpoint.runtime.options+proto",
    "layer": "application/vnd.oci.image.layer.v1.tar+gzip",
    "base": MANIFEST,
}
_BLOBS = "/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256"
_ARCHIVE = "/var/lib/gpuops-lab/made.tar"
_SPEC_TYPE = b"types.containerd.io/opencontainers/runtime-spec/1/Spec"


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def encoded(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


@dataclasses.dataclass(frozen=True)
class Parts:
    """A checkpoint image, taken apart. ``blobs``: digest -> content; None: the archive goes without it."""

    index: dict[str, Any]
    blobs: dict[str, bytes | None]

    @property
    def digest(self) -> str:
        """The digest of the index as it is now."""
        return digest_of(encoded(self.index))

    def child(self, kind: str) -> dict[str, Any]:
        """The descriptor of that kind; KeyError where there is none."""
        for entry in self.index["manifests"]:
            if entry["mediaType"] == KINDS[kind]:
                return dict(entry)
        raise KeyError(kind)

    def content(self, kind: str) -> bytes:
        return self.blobs[self.child(kind)["digest"]] or b""

    def without(self, *kinds: str) -> Parts:
        """The same without these children."""
        made = copy.deepcopy(self)
        gone = {KINDS[kind] for kind in kinds}
        made.index["manifests"] = [entry for entry in made.index["manifests"] if entry["mediaType"] not in gone]
        return made

    def ordinary(self) -> Parts:
        """Nothing but the base image, under an index that says nothing of a checkpoint."""
        made = self.without(*(kind for kind in KINDS if kind != "base"))
        made.index["annotations"] = {"test": "no checkpoint"}
        return made

    def having(self, kind: str, content: bytes) -> Parts:
        """The same with other content for that child."""
        made = copy.deepcopy(self)
        entry = next(entry for entry in made.index["manifests"] if entry["mediaType"] == KINDS[kind])
        entry.update(digest=digest_of(content), size=len(content))
        made.blobs[entry["digest"]] = content
        return made

    def lacking(self, kind: str) -> Parts:
        """The same with a child whose blob is nowhere."""
        made = self.having(kind, b"nobody has this " + kind.encode())
        made.blobs[made.child(kind)["digest"]] = None
        return made

    def noted(self, **annotations: str) -> Parts:
        """The same with these annotations on the index; an empty one is removed."""
        made = copy.deepcopy(self)
        notes = {**made.index.get("annotations", {}), **annotations}
        made.index["annotations"] = {name: value for name, value in notes.items() if value}
        return made

    def own(self) -> Parts:
        """The same with CRIU images, spec, layer and index of its own, so that damage hits no other image."""
        made = self.having("criu", self.content("criu") + bytes(512))
        made = made.having("spec", spec_blob({**spec_of(self), "hostname": "damaged"}))
        return made.having("layer", gzip.compress(gzip.decompress(self.content("layer")), 1)).noted(test="own")


def good(node: Node, reference: str, mib: int = 0) -> Parts:
    """Have a counter run, checkpointed by ctr under that reference, and gone; the checkpoint's parts."""
    identifier = "original"
    workload.start(node, identifier, mib)
    workload.await_count(node, identifier, 3)
    workload.checkpoint(node, identifier, reference)
    workload.delete(node, identifier)
    return take_apart(node, reference)


def take_apart(node: Node, reference: str, namespace: str = workload.NAMESPACE) -> Parts:
    """A checkpoint image of the node, as it is in its content store."""
    rows = [row.split() for row in workload.ctr(node, namespace, "images", "ls").splitlines()]
    digest = next(row[2] for row in rows if row and row[0] == reference)
    index = json.loads(stored(node, digest).read_bytes())
    blobs: dict[str, bytes | None] = {}
    pending = list(index["manifests"])
    while pending:
        entry = pending.pop()
        content = stored(node, entry["digest"]).read_bytes()
        blobs[entry["digest"]] = content
        if entry["mediaType"] == MANIFEST:
            manifest = json.loads(content)
            pending += [manifest["config"], *manifest["layers"]]
    return Parts(index, blobs)


def stored(node: Node, digest: str) -> Any:
    """The file of a blob in the node's content store."""
    return node.inside(f"{_BLOBS}/{digest.split(':', 1)[1]}")


def archive(parts: Parts, reference: str, extra: Iterable[bytes] = ()) -> bytes:
    """An OCI archive with that one image, and with further entries."""
    index = encoded(parts.index)
    entry = {
        "mediaType": INDEX,
        "digest": digest_of(index),
        "size": len(index),
        "annotations": {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": reference},
    }
    blobs = {**parts.blobs, digest_of(index): index}
    files = {f"blobs/sha256/{digest[7:]}": content for digest, content in blobs.items() if content is not None}
    files["oci-layout"] = encoded({"imageLayoutVersion": "1.0.0"})
    files["index.json"] = encoded({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
    return tar([*(member(name, content) for name, content in files.items()), *extra])


@contextlib.contextmanager
def imported(node: Node, parts: Parts, reference: str = REFERENCE) -> Iterator[str]:
    """The parts as an image of the node for the length of the block, by ``ctr images import``; gives its name."""
    path = node.inside(_ARCHIVE)
    path.write_bytes(archive(parts, reference))
    try:
        workload.ctr(node, workload.NAMESPACE, "images", "import", "--no-unpack", _ARCHIVE)
    finally:
        path.unlink()
    try:
        collect_garbage(node)
        yield reference
    finally:
        workload.ctr(node, workload.NAMESPACE, "images", "rm", "--sync", reference)


def collect_garbage(node: Node) -> None:
    """Have containerd collect at once what nothing refers to, such as the archive's own index after an import."""
    for arguments in (("create", "--id", "collect"), ("delete", "--sync", "collect")):
        workload.ctr(node, workload.NAMESPACE, "leases", *arguments)


def truncate(node: Node, digest: str) -> None:
    """Cut the last byte of a blob in the store."""
    file = stored(node, digest)
    _rewrite(file, file.read_bytes()[:-1])


def corrupt(node: Node, digest: str) -> None:
    """Change a byte in the middle of a blob in the store; its size stays."""
    file = stored(node, digest)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x20
    _rewrite(file, bytes(content))


def remove(node: Node, digest: str) -> None:
    """Take a blob's file out of the store; containerd's records still name it."""
    stored(node, digest).unlink()


def _rewrite(file: Any, content: bytes) -> None:
    # A new file: containerd may hold the old one open.
    file.unlink()
    file.write_bytes(content)


def spec_of(parts: Parts) -> dict[str, Any]:
    """The OCI spec in a checkpoint: the value of a marshalled Any, whose type stands before it."""
    content = parts.content("spec")
    spec = json.loads(content[content.index(b"{") :])
    assert isinstance(spec, dict)
    return spec


def spec_blob(spec: Mapping[str, Any] | bytes) -> bytes:
    """A marshalled google.protobuf.Any with that OCI spec, as ctr stores it."""
    value = spec if isinstance(spec, bytes) else encoded(spec)
    return b"\x0a" + _varint(len(_SPEC_TYPE)) + _SPEC_TYPE + b"\x12" + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def layer(files: Mapping[str, bytes]) -> bytes:
    """A writable layer with these files, and directories, whose names end in a slash."""
    kinds = {name: tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE for name in files}
    return gzip.compress(tar([member(name, content, kinds[name]) for name, content in files.items()]), 1)


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """One entry of a tar, header and content."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, link, 0o600, len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def tar(members: Iterable[bytes]) -> bytes:
    """A whole tar of such entries."""
    return b"".join(members) + bytes(tarfile.RECORDSIZE)


def zeros(mib: int, head: Iterable[bytes] = ()) -> bytes:
    """A tar that begins with these entries and has one file of so many MiB of zeros."""
    info = tarfile.TarInfo("zeros")
    info.size = mib << 20
    return b"".join(head) + info.tobuf(tarfile.USTAR_FORMAT) + bytes(info.size) + bytes(tarfile.RECORDSIZE)


def zstd(node: Node, content: bytes) -> bytes:
    """Compressed with the node's own zstd."""
    command = [str(node.directory / "enter"), "zstd", "-q", "-c"]
    return subprocess.run(command, input=content, capture_output=True, check=True).stdout
