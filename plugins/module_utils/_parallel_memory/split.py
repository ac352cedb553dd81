# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A staged checkpoint in two parts: what CRIU restores, and the large pieces of memory, written beside it.

    <root>/<name>/images/            the staged checkpoint, which stays as it is
    <root>/<name>/memory/images/     the same files (hard links), but pagemaps and pages without the large pieces, and
                                     an inventory that asks for no lock of the network where no socket needs one
    <root>/<name>/memory/plan.json   where in images/ the large pieces are, and where in which process they belong

CRIU fills a process's memory with one thread (2 to 4 GiB/s); with several, a host does many times that. Nothing reads
the memory before CRIU lets the processes go, so :mod:`_parallel_memory.writer_worker` can write it while CRIU waits
(:mod:`_parallel_memory.hook`). The parts are made once for a staged checkpoint, and go with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO  # pylint: disable=unused-import

from .._checkpoint.staged import Staged
from .._core import files
from .._criu import image_files
from .._criu.image_files import Area, Pagemap, Run, UnreadableError

FORMAT = "gpuops.restore/memory/2"
MEMORY, IMAGES, PLAN = "memory", "images", "plan.json"
_INVENTORY = "inventory.img"
#: A run of pages shorter than this stays CRIU's: that many fit into half a huge page.
_LEAST_PIECE = 1 << 20
#: What stays CRIU's is copied, so it has to be less than that part of the rest.
_LARGEST_REST = 0.25
#: Scattered over more runs than such a file holds (some 500,000), memory is no large pieces.
_LONGEST_PAGEMAP = 8 << 20
_COPY = 8 << 20


class NotSplitError(Exception):
    """Why CRIU has to restore this checkpoint's memory alone. The text says it."""


@dataclass(frozen=True)
class Split:
    """``images``: CRIU's image path; ``plan``: a file for :mod:`_parallel_memory.writer_worker`, of ``bytes``."""

    images: str
    plan: str
    bytes: int
    #: Whether the process may get huge pages for it.
    huge: bool = False


@dataclass(frozen=True)
class _Process:
    """``large``: runs of pages with their offset in the pages file; ``rest``: what stays CRIU's, likewise."""

    pid: int
    pages_id: int
    large: list[tuple[Run, int]]
    rest: list[tuple[Run, int]]


def split_checkpoint(staged: Staged) -> Split:
    """The two parts, found or made. Raises NotSplitError, OSError."""
    above = os.path.dirname(staged.directory)
    home, partial = os.path.join(above, MEMORY), os.path.join(above, f".{MEMORY}.partial")
    found = _find(home, staged)
    if found:
        return found
    with _locked(above):
        found = _find(home, staged)
        if found is None:
            # Of a run that was killed, or of another release.
            shutil.rmtree(home, ignore_errors=True)
            shutil.rmtree(partial, ignore_errors=True)
            try:
                os.mkdir(partial, 0o700)
                size = _make(partial, staged)
                os.rename(partial, home)
                files.sync_directory(above)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            found = _split(home, size)
    return found


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[None]:
    """One run at a time makes the parts of a checkpoint; the others wait for them."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _find(home: str, staged: Staged) -> Split | None:
    try:
        with open(os.path.join(home, PLAN), encoding="utf-8") as stream:
            document = json.load(stream)
        known = document["format"] == FORMAT and document["digest"] == staged.digest
        return _split(home, document["bytes"]) if known else None
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def _split(home: str, size: int) -> Split:
    return Split(os.path.join(home, IMAGES), os.path.join(home, PLAN), size)


def _make(partial: str, staged: Staged) -> int:
    """Both parts; the bytes of the large pieces."""
    try:
        processes = _processes(staged.directory)
    except UnreadableError as error:
        raise NotSplitError(f"CRIU's files are not as they are known here: {error}") from error
    if not processes:
        raise NotSplitError("none of the memory lies in large pieces")
    large = _bytes(process.large for process in processes)
    rest = _bytes(process.rest for process in processes)
    if rest > large * _LARGEST_REST:
        raise NotSplitError(f"{rest >> 20} MiB of the memory lie in small pieces, {large >> 20} MiB in large ones")
    if rest + files.RESERVE > files.free_bytes(partial):
        raise NotSplitError(f"the staging directory has no room for a copy of {rest >> 20} MiB")
    images = os.path.join(partial, IMAGES)
    os.mkdir(images, 0o700)
    written = {f"{kind}.img" for one in processes for kind in (f"pagemap-{one.pid}", f"pages-{one.pages_id}")}
    inventory = _inventory(staged.directory)
    if inventory is not None:
        written.add(_INVENTORY)
        with _durable(os.path.join(images, _INVENTORY)) as target:
            target.write(inventory)
    for name in os.listdir(staged.directory):
        if name not in written:
            os.link(os.path.join(staged.directory, name), os.path.join(images, name), follow_symlinks=False)
    for process in processes:
        pagemap = Pagemap(process.pages_id, [run for run, _offset in process.rest])
        with _durable(os.path.join(images, f"pagemap-{process.pid}.img")) as target:
            target.write(image_files.pagemap_bytes(pagemap))
        _copy(staged.directory, images, process)
    files.sync_directory(images)
    with _durable(os.path.join(partial, PLAN)) as target:
        target.write(json.dumps(_document(staged, processes, large)).encode())
    files.sync_directory(partial)
    return large


def _inventory(directory: str) -> bytes | None:
    """One that asks for no lock of the network, which takes four runs of iptables; None where it stays as it is."""
    try:
        return image_files.inventory_without_lock(directory)
    except (OSError, UnreadableError):
        return None


def _document(staged: Staged, processes: list[_Process], large: int) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "digest": staged.digest,
        "bytes": large,
        "processes": [
            {
                "pid": process.pid,
                "file": os.path.join(staged.directory, f"pages-{process.pages_id}.img"),
                "pieces": [[run.address, offset, run.pages * mmap.PAGESIZE] for run, offset in process.large],
            }
            for process in processes
        ],
    }


def _processes(directory: str) -> list[_Process]:
    """Those with large pieces. Raises OSError, UnreadableError, NotSplitError."""
    parents = image_files.parents(directory)
    areas = {pid: image_files.areas(directory, pid) for pid in parents if _has(directory, f"mm-{pid}.img")}
    found = []
    for pid, own in areas.items():
        pagemap = image_files.pagemap(directory, pid, _LONGEST_PAGEMAP)
        if pagemap is None:
            raise NotSplitError(f"the memory of the process {pid} is scattered over too many pieces")
        size = os.path.getsize(os.path.join(directory, f"pages-{pagemap.pages_id}.img"))
        pages = sum(run.pages for run in pagemap.runs)
        if not all(run.present for run in pagemap.runs) or pages * mmap.PAGESIZE != size:
            # An incremental dump, or a kind of entry that is not known here.
            continue
        shared = _starts(areas, parents, pid)
        large, rest = _divide(pagemap, [area for area in own if area.plain and area.start not in shared])
        if large:
            found.append(_Process(pid, pagemap.pages_id, large, rest))
    return found


def _has(directory: str, name: str) -> bool:
    # A zombie has no memory.
    return os.path.exists(os.path.join(directory, name))


def _starts(areas: dict[int, list[Area]], parents: dict[int, int], pid: int) -> set[int]:
    """Where areas of the process begin that it may share with its parent or a child until one of them writes.

    CRIU restores the sharing by comparing pages (criu/mem.c, prepare_cow_vmas), for which both have to be its own.
    """
    kin = [parents[pid], *(child for child, parent in parents.items() if parent == pid)]
    return {area.start for other in kin for area in areas.get(other, [])}


def _divide(pagemap: Pagemap, plain: list[Area]) -> tuple[list[tuple[Run, int]], list[tuple[Run, int]]]:
    """Large pieces within ``plain``, and the rest; each run with its offset in the pages file, in bytes."""
    large: list[tuple[Run, int]] = []
    rest: list[tuple[Run, int]] = []
    offset, coming = 0, iter(plain)
    area = next(coming, None)
    for run in _joined(pagemap.runs):
        address, end = run.address, run.address + run.pages * mmap.PAGESIZE
        while address < end:
            while area is not None and area.end <= address:
                area = next(coming, None)
            within = area is not None and area.start <= address
            border = end if area is None else min(end, area.end if within else area.start)
            part = Run(address, (border - address) // mmap.PAGESIZE, run.flags)
            (large if within and border - address >= _LEAST_PIECE else rest).append((part, offset))
            offset += border - address
            address = border
    return large, rest


def _joined(runs: list[Run]) -> Iterator[Run]:
    """CRIU ends an entry after a MiB, wherever its buffer is full."""
    last: Run | None = None
    for run in runs:
        if last is not None and (last.address + last.pages * mmap.PAGESIZE, last.flags) == (run.address, run.flags):
            last = Run(last.address, last.pages + run.pages, last.flags)
            continue
        if last is not None:
            yield last
        last = run
    if last is not None:
        yield last


def _bytes(parts: Iterator[list[tuple[Run, int]]]) -> int:
    return sum(run.pages * mmap.PAGESIZE for part in parts for run, _offset in part)


def _copy(directory: str, images: str, process: _Process) -> None:
    """The pages that stay CRIU's, one after another."""
    name = f"pages-{process.pages_id}.img"
    source = os.open(os.path.join(directory, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with _durable(os.path.join(images, name)) as target:
            for run, offset in process.rest:
                end = offset + run.pages * mmap.PAGESIZE
                while offset < end:
                    # On file systems that can, nothing is copied at all.
                    count = os.copy_file_range(source, target.fileno(), min(_COPY, end - offset), offset)
                    if count == 0:
                        raise NotSplitError(f"{name} is shorter than it was")
                    offset += count
    finally:
        os.close(source)


@contextlib.contextmanager
def _durable(path: str) -> Iterator[BinaryIO]:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
