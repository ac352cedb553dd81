# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Members of an archive that is written, as the tests of writer, record and existing archives use them."""

from __future__ import annotations

import gzip
import random
import subprocess
from collections.abc import Iterable
from pathlib import Path

from ansible_collections.gpuops.restore.plugins.module_utils._archive import writer as archive_writer
from ansible_collections.gpuops.restore.plugins.module_utils._archive.record import Record, record_path
from ansible_collections.gpuops.restore.plugins.module_utils._archive.tar_writer import Item

DIGEST = "sha256:" + 64 * "a"
KINDS = ["none", "gzip", "zstd"]
#: Random, so that what is compressed is as large as what is not.
BLOBS = {f"blobs/{size}": random.Random(size).randbytes(size) for size in (0, 1, 511, 512, 513, 9000)}
ITEMS = [
    Item.from_bytes("oci-layout", b"{}"),
    Item.from_bytes("index.json", b"[]" * 200),
    *(Item(name, len(data), Item.from_bytes(name, data).digest) for name, data in BLOBS.items()),
    Item.from_bytes("tail", b"x"),
]


def read(item: Item) -> Iterable[bytes]:
    """The bytes of a member, in two pieces."""
    data = BLOBS[item.name]
    yield data[:100]
    yield data[100:]


def write(path: Path, kind: str) -> Record:
    """Write the archive of all members."""
    return archive_writer.write(str(path), DIGEST, ITEMS, read, kind)


def record_of(path: Path) -> Path:
    """Where the record of that archive lies."""
    return Path(record_path(str(path)))


def tar_of(path: Path, kind: str) -> bytes:
    """The tar that is in the file, as other programs see it."""
    data = path.read_bytes()
    if kind == "gzip":
        return gzip.decompress(data)
    if kind == "zstd":
        return subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout
    return data
