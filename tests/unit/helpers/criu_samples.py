# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""CRIU dumps of made-up processes, and what the memory of such a dump is."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.gpuops.restore.plugins.module_utils._containerd.messages import api

PAGE = mmap.PAGESIZE
MIB = 1 << 20
ANONYMOUS, STACK, FILE = 0x201, 0x203, 0x41
READ, WRITE, PRIVATE, HUGETLB = 1, 2, 0x22, 0x40022
PRESENT, LAZY, IN_PARENT = 4, 6, 1
COMMON, PAGEMAP, MM, PSTREE = 0x54564319, 0x56084025, 0x57492820, 0x50273030
CORE, CREDS = 0x55053847, 0x54023547
FILES, REMAP_FPATH, MNTS = 0x56303138, 0x59133954, 0x55563928


@dataclass(frozen=True)
class Vma:
    """A mapping of ``size`` bytes."""

    start: int
    size: int
    prot: int = READ | WRITE
    flags: int = PRIVATE
    status: int = ANONYMOUS


@dataclass
class Process:
    """``runs``: address, bytes and flags of each run of pages, in their order."""

    pid: int
    ppid: int
    vmas: list[Vma]
    runs: list[tuple[int, int, int]] = field(default_factory=list)


INVENTORY = 0x58313116
#: Field 13, text.
UNKNOWN_FIELD = b"\x6a\x05run 1"


def image(magic: int, *entries: Any) -> bytes:
    """An image file."""
    data = [entry.SerializeToString() for entry in entries]
    return struct.pack("<II", COMMON, magic) + b"".join(struct.pack("<I", len(each)) + each for each in data)


def dump(directory: Path, *processes: Process) -> None:
    """Write the dump; each page begins with its process and address."""
    make = api().message
    tree = [make("criu.PstreeEntry")(pid=one.pid, ppid=one.ppid) for one in processes]
    (directory / "pstree.img").write_bytes(image(PSTREE, *tree))
    (directory / "inventory.img").write_bytes(b"inventory")
    for number, one in enumerate(processes, 1):
        vmas = [
            make("criu.VmaEntry")(start=v.start, end=v.start + v.size, prot=v.prot, flags=v.flags, status=v.status)
            for v in one.vmas
        ]
        (directory / f"mm-{one.pid}.img").write_bytes(image(MM, make("criu.MmEntry")(vmas=vmas)))
        (directory / f"core-{one.pid}.img").write_bytes(b"core")
        head = make("criu.PagemapHead")(pages_id=number)
        entries = [
            make("criu.PagemapEntry")(vaddr=address, nr_pages=size // PAGE, flags=flags)
            for address, size, flags in one.runs
        ]
        (directory / f"pagemap-{one.pid}.img").write_bytes(image(PAGEMAP, head, *entries))
        with (directory / f"pages-{number}.img").open("wb") as stream:
            for address, size, flags in one.runs:
                if flags != IN_PARENT:
                    stream.write(b"".join(page(one.pid, at) for at in range(address, address + size, PAGE)))


def core(directory: Path, name: str, capabilities: int | None, seccomp_mode: int = 2) -> None:
    """The core of a thread that may do this, a bit for each; None for one that has ended."""
    make = api().message
    words = [(capabilities or 0) & 0xFFFFFFFF, (capabilities or 0) >> 32]
    thread = make("criu.ThreadCoreEntry")(creds=make("criu.CredsEntry")(cap_bnd=words), seccomp_mode=seccomp_mode)
    entry = make("criu.CoreEntry")(**({} if capabilities is None else {"thread_core": thread}))
    (directory / name).write_bytes(image(CORE, entry))


def dump_mounts(directory: Path, *external: str) -> None:
    """Write the image of a mount namespace with these external mounts, a masked file and mounts of its own."""
    make = api().message("criu.MntEntry")
    entries = [make(mnt_id=1, root="/", mountpoint="/"), make(mnt_id=2, root="/", mountpoint="/proc")]
    entries += [make(mnt_id=3, root="/null", mountpoint="/proc/keys", ext_mount=True, ext_key="/dev/null")]
    entries += [make(mnt_id=4, root="/x", mountpoint=place, ext_mount=True, ext_key=place) for place in external]
    (directory / "mountpoints-12.img").write_bytes(image(MNTS, *entries))


def dump_files(directory: Path, names: Mapping[int, str], remaps: Sequence[tuple[int, int, int]]) -> None:
    """Write the images of files: names by id, and file, other file and kind of each remap."""
    make = api().message
    entry = make("criu.FileEntry")
    regular = [entry(type=1, id=number, reg={"id": number, "name": name}) for number, name in names.items()]
    pipe = entry(type=2, id=99)
    (directory / "files.img").write_bytes(image(FILES, *regular, pipe))
    kind = make("criu.RemapFilePathEntry")
    entries = [kind(orig_id=file, remap_id=other, remap_type=how) for file, other, how in remaps]
    (directory / "remap-fpath.img").write_bytes(image(REMAP_FPATH, *entries))


def dump_inventory(directory: Path, lock: int = 0, sockets: bool = False) -> None:
    """Write the inventory, with a field that nobody here knows, and the image of files, maybe with a socket."""
    make = api().message
    entry = make("criu.InventoryEntry")(network_lock_method=lock).SerializeToString() + UNKNOWN_FIELD
    (directory / "inventory.img").write_bytes(struct.pack("<II", INVENTORY, len(entry)) + entry)
    file = make("criu.FileEntry")
    entries = [file(type=1, id=1, reg={"id": 1, "name": "/log"}), *([file(type=4, id=2)] if sockets else [])]
    (directory / "files.img").write_bytes(image(FILES, *entries))


def page(pid: int, address: int) -> bytes:
    """What lies there."""
    return struct.pack("<QQ", pid, address).ljust(PAGE, b"\xa5")


def memory(directory: Path, pid: int) -> dict[int, bytes]:
    """What CRIU would restore: the beginning of each page by its address."""
    data = (directory / f"pagemap-{pid}.img").read_bytes()
    assert struct.unpack("<II", data[:8]) == (COMMON, PAGEMAP)
    parts, at = [], 8
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        parts.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    head = api().message("criu.PagemapHead").FromString(parts[0])
    found: dict[int, bytes] = {}
    with (directory / f"pages-{head.pages_id}.img").open("rb") as stream:
        for part in parts[1:]:
            entry = api().message("criu.PagemapEntry").FromString(part)
            for number in range(entry.nr_pages):
                address = entry.vaddr + number * PAGE
                assert address not in found
                found[address] = stream.read(PAGE)[:16]
        assert not stream.read()
    return found
