# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes the large pieces of memory into processes that CRIU has restored and not let go yet.

A program of its own that CRIU starts (:mod:`_parallel_memory.hook`); it imports nothing of this collection. Each
thread has a piece of the pages file mapped and hands it to process_vm_writev(2), during which Python's lock is free.
The pages are allocated there, so they count as the process's, and are huge ones where it may have them.

Arguments: the plan (:mod:`_parallel_memory.split`), how many threads, the report to write, and the pid of the restored
tree's root as CRIU sees it.
Report: bytes, seconds and writers, or the failure, upon which CRIU kills what it has restored.
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
#: Borders of pieces within the process: two threads never touch the same huge page.
_PIECE = 4 << 20
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
    return libc


def write_all(pieces: Iterator[_Piece], writers: int) -> int:
    """Write all pieces with so many threads; the bytes that were written. Raises what the first thread met."""
    lock = threading.Lock()
    problems: list[Exception] = []
    written: list[int] = []

    def work() -> None:
        libc, total = _libc(), 0
        try:
            while not problems:
                with lock:
                    piece = next(pieces, None)
                if piece is None:
                    break
                total += _write(libc, *piece)
        except Exception as error:  # noqa: BLE001 - whatever it is, another thread tells it
            problems.append(error)
        written.append(total)

    threads = [threading.Thread(target=work) for _number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    return sum(written)


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
    plan, writers, report, root = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    begun = time.monotonic()
    try:
        with open(plan, encoding="utf-8") as stream:
            split = json.load(stream)
        written = write_all(pieces_of(split["processes"], processes_of(root)), writers)
        if written != split["bytes"]:
            raise _FailedError(f"{written} of {split['bytes']} bytes were written")
        answer: dict[str, Any] = {"bytes": written, "seconds": round(time.monotonic() - begun, 3), "writers": writers}
    except Exception as error:  # noqa: BLE001 - whatever it is, nobody else would hear of it
        answer = {"failed": f"{type(error).__name__}: {error}" if not isinstance(error, _FailedError) else str(error)}
    with open(report, "w", encoding="utf-8") as stream:
        json.dump(answer, stream)
    return 1 if "failed" in answer else 0


if __name__ == "__main__":
    raise SystemExit(main())
