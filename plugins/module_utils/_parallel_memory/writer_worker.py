# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes the large pieces of memory into processes that CRIU has restored and not let go yet.

A program of its own that CRIU starts (:mod:`_parallel_memory.hook`); it imports nothing of this collection. Each
thread has a piece of the pages file mapped and hands it to process_vm_writev(2), during which Python's lock is free.
The pages are allocated there, so they count as the process's.

Where all 2 MiB of a huge page were dumped, the process gets one (MADV_COLLAPSE, Linux 6.1), if that turns out to be the
faster way here: it halves the time on one machine and doubles it on another. Nothing of the node is switched for that,
and no process has more memory than it had.

Arguments: the plan (:mod:`_parallel_memory.split`), how many threads, ``huge`` or ``small`` pages, the report to write,
and the pid of the restored tree's root as CRIU sees it.
Report: bytes, of them those in huge pages, seconds and writers, or the failure, upon which CRIU kills what it has
restored.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: Process, address in it, address of the same bytes here, how many.
_Piece = tuple[int, int, int, int]
#: Borders of pieces within the process: two threads never touch the same huge page. For each piece that gets huge pages
#: the kernel asks every processor to let go of pages that it has set aside.
_PIECE = 16 << 20
_HUGE = 2 << 20
_TRANSPARENT = "/sys/kernel/mm/transparent_hugepage"
#: asm-generic/unistd.h and mman-common.h.
_PIDFD_OPEN, _PROCESS_MADVISE, _COLLAPSE = 434, 440, 25
#: Huge pages have to take so much less time, or they are not worth it.
_WORTH = 0.8
#: Pieces without one, after which none is asked for any more.
_MOST_REFUSED = 4
#: asm-generic/mman-common.h; since Linux 5.14, and not in Python's mmap. Without it the pages come one by one.
_POPULATE_READ = 22


class _Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _FailedError(Exception):
    pass


def processes_of(root: int) -> dict[int, int]:
    """Pids by what they are in their own namespace, which is what CRIU calls them. Raises OSError."""
    found: dict[int, int] = {}
    coming = [root]
    while coming:
        pid = coming.pop()
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as stream:
            inner = next(line.split()[-1] for line in stream if line.startswith("NSpid:"))
        found[int(inner)] = pid
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as stream:
                coming += [int(child) for child in stream.read().split()]
    return found


def pieces_of(processes: Sequence[Mapping[str, Any]], pids: Mapping[int, int]) -> Iterator[_Piece]:
    """What is to be written, in pieces for one thread; maps the files. Raises OSError, _FailedError."""
    for process in processes:
        pid = pids.get(process["pid"])
        if pid is None:
            raise _FailedError(f"the process {process['pid']} was not restored")
        base, size = _mapped(process["file"])
        for address, offset, length in process["pieces"]:
            if offset + length > size:
                raise _FailedError(f"{process['file']} ends before byte {offset + length}")
            end = address + length
            while address < end:
                count = min(end, (address // _PIECE + 1) * _PIECE) - address
                yield pid, address, base + offset, count
                address, offset = address + count, offset + count


def _mapped(path: str) -> tuple[int, int]:
    """Where a file's bytes are, and how many."""
    libc = _libc()
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        address = libc.mmap(
            None, ctypes.c_size_t(size), mmap.PROT_READ, mmap.MAP_PRIVATE, descriptor, ctypes.c_int64(0)
        )
    finally:
        os.close(descriptor)
    if address in (None, ctypes.c_void_p(-1).value):
        raise _FailedError(f"{path} cannot be mapped: {os.strerror(ctypes.get_errno())}")
    # What the page cache lacks is then read in large folios, where the file system knows them.
    libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size), mmap.MADV_HUGEPAGE)
    return int(address), size


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.process_vm_writev.restype = ctypes.c_ssize_t
    libc.syscall.restype = ctypes.c_long
    return libc


class Pages:
    """Small or huge ones, by what the pieces took that have been written so far."""

    def __init__(self, huge: bool) -> None:
        self._huge = huge
        self._bytes = {True: 0, False: 0}
        self._seconds = {True: 0.0, False: 0.0}
        self._pieces = self._refused = 0

    def next(self) -> bool:
        """Whether the next piece gets huge ones."""
        self._pieces += 1
        if not self._huge or self._refused >= _MOST_REFUSED:
            return False
        if not all(self._bytes.values()):
            # Until both are known they take turns.
            return self._pieces % 2 == 1
        huge, small = (self._seconds[kind] / self._bytes[kind] for kind in (True, False))
        return huge <= _WORTH * small

    def took(self, huge: bool, size: int, seconds: float) -> None:
        """A piece was written."""
        self._bytes[huge] += size
        self._seconds[huge] += seconds

    def refused(self) -> None:
        """The kernel has given none: it is too old, or the process wants none."""
        self._refused += 1


def huge_wanted(asked: str, directory: str = _TRANSPARENT) -> bool:
    """Whether to try huge pages: not where somebody has said never, and where it is always they come by themselves."""
    try:
        with open(f"{directory}/enabled", encoding="ascii") as stream:
            setting = stream.read().partition("[")[2].partition("]")[0]
        with open(f"{directory}/hpage_pmd_size", encoding="ascii") as stream:
            size = int(stream.read())
    except (OSError, ValueError):
        return False
    return asked == "huge" and setting == "madvise" and size == _HUGE


def write_all(pieces: Iterator[_Piece], writers: int, pages: Pages) -> tuple[int, int]:
    """Write all pieces with so many threads; the bytes that were written, and how many of them into huge pages. Raises
    what the first thread met."""
    lock = threading.Lock()
    problems: list[Exception] = []
    written: list[tuple[int, int]] = []

    def work() -> None:
        libc, total, in_huge = _libc(), 0, 0
        try:
            while not problems:
                with lock:
                    piece, huge = next(pieces, None), pages.next()
                if piece is None:
                    break
                begun = time.monotonic()
                collapsed = collapse(libc, *piece) if huge else 0
                total += _write(libc, *piece)
                in_huge += collapsed
                with lock:
                    if huge and not collapsed:
                        pages.refused()
                    else:
                        pages.took(huge, piece[-1], time.monotonic() - begun)
        except Exception as error:  # noqa: BLE001 - whatever it is, another thread tells it
            problems.append(error)
        written.append((total, in_huge))

    threads = [threading.Thread(target=work) for _number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    return sum(total for total, _huge in written), sum(huge for _total, huge in written)


def collapse(libc: ctypes.CDLL, pid: int, there: int, here: int, length: int) -> int:
    """Have the process get huge pages for what of a piece fills them; their bytes, 0 where the piece fills none or the
    kernel gives none."""
    start = -(-there // _HUGE) * _HUGE
    count = (there + length) // _HUGE - start // _HUGE
    if count < 1:
        return 0
    # The kernel collapses only where a page is: the first byte of each.
    local = (_Vector * count)(*(_Vector(here + start - there + at * _HUGE, 1) for at in range(count)))
    remote = (_Vector * count)(*(_Vector(start + at * _HUGE, 1) for at in range(count)))
    number, none = ctypes.c_ulong(count), ctypes.c_ulong(0)
    if libc.process_vm_writev(pid, local, number, remote, number, none) != count:
        # Why is for the write itself to say.
        return 0
    process = libc.syscall(_PIDFD_OPEN, pid, 0)
    if process < 0:
        return 0
    try:
        area = _Vector(start, count * _HUGE)
        done = int(libc.syscall(_PROCESS_MADVISE, process, ctypes.byref(area), ctypes.c_ulong(1), _COLLAPSE, none))
    finally:
        os.close(process)
    return max(0, done)


def _write(libc: ctypes.CDLL, pid: int, there: int, here: int, length: int) -> int:
    start, size = ctypes.c_void_p(here), ctypes.c_size_t(length)
    libc.madvise(start, size, _POPULATE_READ)
    done = 0
    while done < length:
        local, remote = _Vector(here + done, length - done), _Vector(there + done, length - done)
        one, none = ctypes.c_ulong(1), ctypes.c_ulong(0)
        count = libc.process_vm_writev(pid, ctypes.byref(local), one, ctypes.byref(remote), one, none)
        if count <= 0:
            reason = os.strerror(ctypes.get_errno()) if count else "nothing was written"
            raise _FailedError(f"{length - done} bytes at {there + done:#x} of the process {pid}: {reason}")
        done += count
    # The cache keeps them; mapped, they would count as memory of this program.
    libc.madvise(start, size, mmap.MADV_DONTNEED)
    return length


def main() -> int:
    """Do it, and say how it went; the exit status."""
    plan, writers, asked, report, root = sys.argv[1], int(sys.argv[2]), *sys.argv[3:5], int(sys.argv[5])
    begun = time.monotonic()
    try:
        with open(plan, encoding="utf-8") as stream:
            split = json.load(stream)
        pieces = pieces_of(split["processes"], processes_of(root))
        written, in_huge = write_all(pieces, writers, Pages(huge_wanted(asked)))
        if written != split["bytes"]:
            raise _FailedError(f"{written} of {split['bytes']} bytes were written")
        seconds = round(time.monotonic() - begun, 3)
        answer: dict[str, Any] = {"bytes": written, "huge": in_huge, "seconds": seconds, "writers": writers}
    except Exception as error:  # noqa: BLE001 - whatever it is, nobody else would hear of it
        answer = {"failed": f"{type(error).__name__}: {error}" if not isinstance(error, _FailedError) else str(error)}
    with open(report, "w", encoding="utf-8") as stream:
        json.dump(answer, stream)
    return 1 if "failed" in answer else 0


if __name__ == "__main__":
    raise SystemExit(main())
