# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""CRIU's image files of a process tree's memory and of its deleted files: read, and pagemaps written.

An image file is two little-endian 32-bit numbers (the common magic and the file's own), and then entries, each a
32-bit length and a protobuf message (criu.org/Images; numbers from CRIU 4.2's criu/include/magic.h and image.h). A
process with the pid P (as its own pid namespace has it) has mm-P.img and pagemap-P.img; the latter names pages-N.img,
which has the pages that the entries call present, one after another, without a header.
"""

from __future__ import annotations

import glob
import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .._containerd.messages import api

_COMMON, _PAGEMAP, _MM, _PSTREE = 0x54564319, 0x56084025, 0x57492820, 0x50273030
_CORE, _CREDS = 0x55053847, 0x54023547
_FILES, _REMAP_FPATH, _MNTS = 0x56303138, 0x59133954, 0x55563928
#: The one file that begins with its own number alone.
_INVENTORY = 0x58313116
#: The type of a file that is an internet socket, and how the network is locked where it is not (criu/cr_options.h).
_INET_SOCKET, _NO_LOCK = 4, 2
#: The name of masked files, which all are this one.
_MASK = "/dev/null"
_REMAP_ENTRY = "criu.RemapFilePathEntry"
#: Of a remap: the file is found by a link that CRIU made.
_LINKED = 0
#: Of a pagemap's entry: the pages are in this dump; and they may be restored lazily, which nobody here asks for.
_PRESENT, _LAZY = 1 << 2, 1 << 1
_STACK, _ANONYMOUS_PRIVATE, _SPECIAL = 1 << 1, 1 << 9, (1 << 2) | (1 << 3) | (1 << 12) | (1 << 13) | (1 << 15)
_PROT_WRITE, _GROWS_DOWN, _HUGETLB = 0x2, 0x100, 0x40000
_LONGEST_ENTRY = 1 << 24
#: linux/seccomp.h.
_SECCOMP_FILTER = 2


class UnreadableError(Exception):
    """An image file that is not as it is known here; the text names the file."""


@dataclass(frozen=True)
class Credentials:
    """What the threads of a dump may do, all of them taken together."""

    #: Numbers of capabilities (linux/capability.h), of any of their sets.
    capabilities: frozenset[int] = frozenset()
    #: Some thread has no filter of system calls.
    unfiltered: bool = False


@dataclass(frozen=True)
class Area:
    """A mapping of a process."""

    #: Addresses.
    start: int
    end: int
    #: The process's own writable, nameless memory.
    plain: bool


@dataclass(frozen=True)
class Run:
    """Consecutive pages."""

    address: int
    #: How many.
    pages: int
    #: As the pagemap has them.
    flags: int

    @property
    def present(self) -> bool:
        """Whether they are in this dump's own pages file."""
        return self.flags & ~_LAZY == _PRESENT


@dataclass(frozen=True)
class Pagemap:
    """What is known of the pages of one process."""

    #: The N of pages-N.img.
    pages_id: int
    runs: list[Run]


def parents(directory: str) -> dict[int, int]:
    """Each process of the dump, with its parent. Raises OSError, UnreadableError."""
    found = _entries(directory, "pstree.img", _PSTREE)
    return {entry.pid: entry.ppid for entry in _parsed(found, "pstree.img", "criu.PstreeEntry")}


def credentials(directory: str) -> Credentials:
    """What CRIU gives the processes, whatever a spec says: the images have it. Raises OSError, UnreadableError."""
    numbers: set[int] = set()
    unfiltered = False
    for name in sorted(os.listdir(directory)):
        if name.startswith("core-"):
            for entry in _parsed(_entries(directory, name, _CORE), name, "criu.CoreEntry"):
                if entry.HasField("thread_core"):
                    numbers |= _capabilities(entry.thread_core.creds)
                    unfiltered = unfiltered or entry.thread_core.seccomp_mode != _SECCOMP_FILTER
        elif name.startswith("creds-"):
            # Where a core has none, CRIU still looks for this file of its first versions.
            for entry in _parsed(_entries(directory, name, _CREDS), name, "criu.CredsEntry"):
                numbers |= _capabilities(entry)
    return Credentials(frozenset(numbers), unfiltered)


def _capabilities(creds: Any) -> set[int]:
    sets = (creds.cap_inh, creds.cap_prm, creds.cap_eff, creds.cap_bnd)
    return {
        32 * position + bit
        for words in sets
        for position, word in enumerate(words)
        for bit in range(32)
        if word >> bit & 1
    }


def link_remaps(directory: str) -> list[tuple[str, str]]:
    """Deleted files that another name still leads to: the path that each was opened by, and that of the link which CRIU
    makes at the dump, takes away after it, and looks for at the restore; both as the container sees them.

    Raises OSError, UnreadableError.
    """
    try:
        remaps = list(_parsed(_entries(directory, "remap-fpath.img", _REMAP_FPATH), "remap-fpath.img", _REMAP_ENTRY))
    except FileNotFoundError:
        return []
    linked = [entry for entry in remaps if entry.remap_type == _LINKED]
    if not linked:
        return []
    files = _parsed(_entries(directory, "files.img", _FILES), "files.img", "criu.FileEntry")
    # The name of a link has no slash at the beginning.
    names = {entry.reg.id: "/" + _text(entry.reg.name).lstrip("/") for entry in files if entry.HasField("reg")}
    try:
        return [(names[entry.orig_id], names[entry.remap_id]) for entry in linked]
    except KeyError as error:
        raise UnreadableError(f"files.img has no file {error}, of which remap-fpath.img speaks") from error


def inventory_without_lock(directory: str) -> bytes | None:
    """The inventory of a dump that needs no lock of the network, since no process of it has an internet socket; None
    where one has. A restore locks as the inventory says, whatever it is told. Raises OSError, UnreadableError.
    """
    files = _parsed(_entries(directory, "files.img", _FILES), "files.img", "criu.FileEntry")
    # CRIU before 3.0 has the sockets in a file of their own.
    if _has(directory, "inetsk.img") or any(entry.type == _INET_SOCKET for entry in files):
        return None
    name = "inventory.img"
    with open(os.path.join(directory, name), "rb") as stream:
        head, data = stream.read(8), stream.read(_LONGEST_ENTRY)
    if len(head) != 8 or struct.unpack("<II", head) != (_INVENTORY, len(data)):
        raise UnreadableError(f"{name} does not begin like such a file of CRIU")
    entry = next(_parsed([data], name, "criu.InventoryEntry"))
    # What else it has stays as it is: protobuf keeps fields that it does not know.
    entry.network_lock_method = _NO_LOCK
    changed = entry.SerializeToString()
    return struct.pack("<II", _INVENTORY, len(changed)) + bytes(changed)


def _has(directory: str, name: str) -> bool:
    return os.path.exists(os.path.join(directory, name))


def external_mounts(directory: str) -> list[str]:
    """The mounts for which a restore has to have a source: their names, which are their places where runc gave them.

    Raises OSError, UnreadableError.
    """
    found = []
    for path in sorted(glob.glob(os.path.join(glob.escape(directory), "mountpoints-*.img"))):
        name = os.path.basename(path)
        for entry in _parsed(_entries(directory, name, _MNTS), name, "criu.MntEntry"):
            key = _text(entry.ext_key or (entry.mountpoint if entry.ext_mount else ""))
            if key and key != _MASK:
                found.append(key)
    return list(dict.fromkeys(found))


def _text(name: str | bytes) -> str:
    """A name in a file system, which need not be UTF-8: protobuf then gives its bytes."""
    return os.fsdecode(name)


def areas(directory: str, pid: int) -> list[Area]:
    """The mappings of a process. Raises OSError, UnreadableError."""
    name = f"mm-{pid}.img"
    mm = next(_parsed(_entries(directory, name, _MM), name, "criu.MmEntry"), None)
    if mm is None:
        raise UnreadableError(f"{name} is empty")
    return [Area(vma.start, vma.end, _is_plain(vma)) for vma in mm.vmas]


def _is_plain(vma: Any) -> bool:
    return bool(
        vma.status & _ANONYMOUS_PRIVATE
        and not vma.status & (_STACK | _SPECIAL)
        and vma.prot & _PROT_WRITE
        and not vma.flags & (_GROWS_DOWN | _HUGETLB)
    )


def pagemap(directory: str, pid: int, longest: int) -> Pagemap | None:
    """The pagemap of a process; None where its file is longer than ``longest`` bytes.

    Raises OSError, UnreadableError.
    """
    name = f"pagemap-{pid}.img"
    if os.path.getsize(os.path.join(directory, name)) > longest:
        return None
    entries = _entries(directory, name, _PAGEMAP)
    head = next(_parsed([next(entries, b"")], name, "criu.PagemapHead"))
    runs = []
    for entry in _parsed(entries, name, "criu.PagemapEntry"):
        flags = entry.flags if entry.HasField("flags") else 0
        runs.append(Run(entry.vaddr, entry.nr_pages_long or entry.nr_pages, flags))
    return Pagemap(head.pages_id, runs)


def cut_off(directory: str) -> str:
    """A file with pages that is shorter than its pagemap says; "" where none is. Raises OSError, UnreadableError."""
    for name in sorted(os.listdir(directory)):
        if not name.startswith("pagemap-"):
            continue
        entries = _entries(directory, name, _PAGEMAP)
        head = next(_parsed([next(entries, b"")], name, "criu.PagemapHead"))
        pages = 0
        for entry in _parsed(entries, name, "criu.PagemapEntry"):
            flags = entry.flags if entry.HasField("flags") else 0
            if flags & ~_LAZY != _PRESENT:
                # In another dump, or of a kind that is not known here.
                break
            pages += entry.nr_pages_long or entry.nr_pages
        else:
            file = f"pages-{head.pages_id}.img"
            if pages and os.path.getsize(os.path.join(directory, file)) < pages * mmap.PAGESIZE:
                return file
    return ""


def pagemap_bytes(written: Pagemap) -> bytes:
    """The file of a pagemap."""
    head = api().message("criu.PagemapHead")(pages_id=written.pages_id)
    kind = api().message("criu.PagemapEntry")
    entries = [kind(vaddr=run.address, nr_pages=run.pages, flags=run.flags) for run in written.runs]
    parts = [struct.pack("<II", _COMMON, _PAGEMAP)]
    for entry in [head, *entries]:
        data = entry.SerializeToString()
        parts += [struct.pack("<I", len(data)), data]
    return b"".join(parts)


def _entries(directory: str, name: str, magic: int) -> Iterator[bytes]:
    with open(os.path.join(directory, name), "rb") as stream:
        if stream.read(8) != struct.pack("<II", _COMMON, magic):
            raise UnreadableError(f"{name} does not begin like such a file of CRIU")
        while head := stream.read(4):
            length = struct.unpack("<I", head)[0] if len(head) == 4 else _LONGEST_ENTRY
            data = stream.read(length) if length < _LONGEST_ENTRY else b""
            if len(data) != length:
                raise UnreadableError(f"{name} is cut off")
            yield data


def _parsed(entries: Iterable[bytes], name: str, kind: str) -> Iterator[Any]:
    parse = api().message(kind).FromString
    for data in entries:
        try:
            found = parse(data)
        except Exception as error:  # protobuf's DecodeError has no common base over its versions
            raise UnreadableError(f"{name} has an entry that cannot be read") from error
        yield found
