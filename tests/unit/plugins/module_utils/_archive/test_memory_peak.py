# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Peak memory does not depend on the size: each case runs in a child of its own, which reports its peak."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MIB = 1 << 20
ALLOWED = 14 * MIB  # between 64 MiB and 512 MiB of data

PRELUDE = """
import hashlib, itertools, os, resource, sys, tarfile
from ansible_collections.gpuops.restore.plugins.module_utils._archive import reader
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import staging, staging_root

size, path = int(sys.argv[1]) << 20, sys.argv[2]
block = os.urandom(1 << 20)

def head(name, length):
    info = tarfile.TarInfo(name)
    info.size = length
    return info.tobuf(tarfile.PAX_FORMAT)

def pages():
    return itertools.repeat(block, size >> 20)

def sha256(parts):
    digest, count = hashlib.sha256(), 0
    for part in parts:
        digest.update(part)
        count += len(part)
    return "sha256:" + digest.hexdigest(), count
"""

STAGE = """
def chunks():
    yield head("inventory.img", 0) + head("descriptors.json", 0) + head("pages-1.img", size)
    yield from pages()
    yield bytes(1024)

name = "a" * 64
digest, count = sha256(chunks())
staged = staging.stage(chunks(), expected_digest=digest, expected_size=count, root=path, name=name)
assert staged.bytes == size
assert staging.remove(path, name) and staging_root.remove_root_if_empty(path)
"""

ARCHIVE = """
import json

digest, count = sha256(pages())
media = "application/vnd.oci.image.index.v1+json"
layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": count}
index = json.dumps({"mediaType": media, "manifests": [layer]}).encode()
name, _ = sha256([index])
top = json.dumps({"manifests": [{"mediaType": media, "digest": name, "size": len(index)}]}).encode()
layout = b'{"imageLayoutVersion": "1.0.0"}'
with open(path, "wb") as stream:
    for member, data in (("oci-layout", layout), ("index.json", top), ("blobs/sha256/" + name[7:], index)):
        stream.write(head(member, len(data)) + data + bytes(-len(data) % 512))
    stream.write(head("blobs/sha256/" + digest[7:], size))
    for part in pages():
        stream.write(part)
    stream.write(bytes(1024))
with reader.open_archive(path) as archive:
    total = sum(len(chunk) for _blob, chunks in archive.blobs(archive.select()) for chunk in chunks)
os.unlink(path)
assert total == size + len(index)
"""

# Zeros are written, and recognised by reading them through.
PACK = """
from ansible_collections.gpuops.restore.plugins.module_utils._archive import existing, record, tar_writer, writer

block = bytes(1 << 20)
digest, count = sha256(pages())
heads = [tar_writer.Item.from_bytes(name, b"{}") for name in ("oci-layout", "index.json")]
items = [*heads, tar_writer.Item("pages", count, digest)]

for kind in ("none", "gzip", "zstd"):
    written = writer.write(path, digest, items, lambda item: pages(), kind)
    os.unlink(record.record_path(path))
    assert existing.find_export(path, digest, items) == written
    os.unlink(path)
"""

# ru_maxrss survives exec, so a fork of a large test process would report that one's peak: VmHWM does not.
REPORT = """
for line in open("/proc/self/status"):
    if line.startswith("VmHWM:"):
        print(int(line.split()[1]) << 10)
"""


def peak(body: str, mib: int, path: Path) -> int:
    """Peak resident bytes of a process that handles ``mib`` MiB."""
    command = [sys.executable, "-c", PRELUDE + body + REPORT, str(mib), str(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=dict(os.environ))
    assert not path.exists()
    return int(json.loads(done.stdout))


@pytest.mark.parametrize("body", [STAGE, ARCHIVE], ids=["stage", "archive"])
def test_peak_memory_is_flat(body: str, tmp_path: Path) -> None:
    small, large = (peak(body, mib, tmp_path / "data") for mib in (64, 512))
    assert large - small < ALLOWED, f"{small >> 20} MiB for 64 MiB, {large >> 20} MiB for 512 MiB"


def test_peak_memory_of_a_written_archive_is_flat(tmp_path: Path) -> None:
    small, large = (peak(PACK, mib, tmp_path / "data") for mib in (32, 256))
    assert large - small < ALLOWED, f"{small >> 20} MiB for 32 MiB, {large >> 20} MiB for 256 MiB"
