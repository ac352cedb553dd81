# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record beside an archive of ours: what the file holds, and its own digest, size and time.

By it a file is known for the whole archive of a checkpoint without being decompressed or even read. A file that was
changed since has another time or size; one that was only copied has another time, and is known by its digest.
The record is a convenience, not a proof: who can change the archive can change the record. An import believes neither.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from .._core import strict_json
from .._streams.streams import Hasher, file_chunks
from .tar_writer import Item

SUFFIX = ".gpuops.json"
_VERSION = 1
#: Bytes that a record may have.
_LIMIT = 1 << 16


@dataclass(frozen=True)
class Record:
    """What is known of an archive file."""

    #: Digest of the checkpoint, for people who look into the record.
    checkpoint: str
    #: Digest of the list of members with their sizes and digests.
    members: str
    #: Digest of the file itself.
    digest: str
    #: Bytes of the file.
    size: int
    #: When the file was last written to, in nanoseconds.
    mtime_ns: int

    def matches(self, stat: os.stat_result) -> bool:
        """Whether the file is unchanged since the record was made, as far as size and time tell."""
        return (self.size, self.mtime_ns) == (stat.st_size, stat.st_mtime_ns)


def record_path(path: str) -> str:
    """Where the record of the archive ``path`` lies."""
    return path + SUFFIX


def members_digest(items: Sequence[Item]) -> str:
    """The digest of the list of members."""
    listed = json.dumps([[item.name, item.size, item.digest] for item in items], separators=(",", ":"))
    return "sha256:" + hashlib.sha256(listed.encode()).hexdigest()


def measure(descriptor: int, checkpoint: str, items: Sequence[Item]) -> Record:
    """The record of an open file that holds these members; this reads the file through. Raises OSError."""
    # Taken first: what is written while it is read gives the file a later time.
    stat = os.fstat(descriptor)
    hasher = Hasher()
    try:
        for chunk in file_chunks(descriptor):
            hasher.update(chunk)
    finally:
        digest = "sha256:" + hasher.close()
    return Record(checkpoint, members_digest(items), digest, stat.st_size, stat.st_mtime_ns)


def read(path: str) -> Record | None:
    """The record of the archive ``path``; None where there is none that this version understands."""
    try:
        descriptor = os.open(record_path(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        found = strict_json.parse_object(os.pread(descriptor, _LIMIT, 0))
    except (OSError, strict_json.StrictJsonError):
        return None
    finally:
        os.close(descriptor)
    checkpoint, members, digest = found.get("checkpoint"), found.get("members"), found.get("digest")
    size, mtime_ns = found.get("size"), found.get("mtime_ns")
    if found.get("version") != _VERSION or not isinstance(size, int) or not isinstance(mtime_ns, int):
        return None
    if not isinstance(checkpoint, str) or not isinstance(members, str) or not isinstance(digest, str):
        return None
    return Record(checkpoint, members, digest, size, mtime_ns)


def write(path: str, record: Record) -> None:
    """Put the record beside the archive ``path``, with mode 0600, whole or not at all. Raises OSError."""
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}{SUFFIX}.partial")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)  # left by a run that was killed
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, json.dumps({"version": _VERSION, **asdict(record)}).encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, record_path(path))
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
