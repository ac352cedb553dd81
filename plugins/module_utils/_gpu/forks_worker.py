# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The helper process that has other processes give up mappings and descriptors: it traces them and calls for them.

Its source is sent to a Python of its own (see _core.helper_process), so it imports only the standard library. Each line
``{"pid", "start_time", "mappings": [[start, end]], "descriptors": [], "owners": [], "seconds"}`` on standard input is
answered by one ``{"pid", "error"}``; ``error`` is empty where all calls were made. ``owners`` are processes whose own
memory and descriptors must not be touched: one that shares either with them is left alone.

How (ptrace(2), Linux x86-64): the process is seized and interrupted, which sends it no signal. At the stop its
registers are kept, ``rip`` is pointed at a ``syscall`` instruction of the vDSO, and munmap(2) and close(2) run one
after the other. Then it is interrupted once more, so that it stops where the kernel looks at interrupted system calls:
with its registers put back there, a call that was interrupted is restarted by the kernel as after any stop. No byte of
its memory is written.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import struct
import sys
import time
from typing import Any, Callable

#: linux/ptrace.h
_CONT, _GETREGS, _SETREGS, _SYSCALL, _DETACH = 7, 12, 13, 24, 17
_SEIZE, _INTERRUPT, _SETSIGMASK, _GETSIGMASK = 0x4206, 0x4207, 0x420B, 0x420A
_GET_RSEQ_CONFIGURATION = 0x420F
_TRACESYSGOOD = 1
_EVENT_STOP = 128
_WALL = 0x40000000
#: asm/unistd_64.h
_CLOSE, _MUNMAP, _KCMP = 3, 11, 312
_KCMP_VM, _KCMP_FILES = 1, 2
#: struct user_regs_struct, sys/user.h.
_NAMES = ("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi") + (
    "orig_rax",
    "rip",
    "cs",
    "eflags",
    "rsp",
    "ss",
    "fs_base",
    "gs_base",
    "ds",
    "es",
    "fs",
    "gs",
)
#: The code segment of 64-bit programs, arch/x86/include/asm/segment.h.
_USER_CS = 0x33
_SYSCALL_INSTRUCTION = b"\x0f\x05"

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.syscall.restype = ctypes.c_long

Registers = ctypes.c_ulong * len(_NAMES)
_AT = {name: index for index, name in enumerate(_NAMES)}


class RefusedError(Exception):
    """Why a process was not dealt with, or not wholly."""


def _ptrace(request: int, pid: int, address: Any = None, data: Any = None) -> int:
    found = int(_libc.ptrace(request, pid, address, data))
    if found == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return found


class Traced:
    """A process that stands still while the block runs, and goes on as it was."""

    def __init__(self, pid: int, start_time: int, seconds: float) -> None:
        self._pid = pid
        self._start_time = start_time
        self._deadline = time.monotonic() + seconds
        self._mask = ctypes.c_uint64()
        self._before = Registers()
        self._gadget = 0

    def __enter__(self) -> Traced:
        _ptrace(_SEIZE, self._pid, None, _TRACESYSGOOD)
        try:
            if _start_time(self._pid) != self._start_time:
                raise RefusedError("another process has its number now")
            self._interrupt()
            _ptrace(_GETREGS, self._pid, None, ctypes.byref(self._before))
            if self._before[_AT["cs"]] != _USER_CS:
                raise RefusedError("it is not a 64-bit x86 program")
            self._gadget = _find_syscall(self._pid)
            self._leave_critical_section()
            # Nothing but a kill may come between two calls.
            _ptrace(_GETSIGMASK, self._pid, 8, ctypes.byref(self._mask))
            _ptrace(_SETSIGMASK, self._pid, 8, ctypes.byref(ctypes.c_uint64(0xFFFFFFFFFFFFFFFF)))
        except BaseException:
            self._detach()
            raise
        return self

    def __exit__(self, *_unused: object) -> None:
        try:
            _ptrace(_SETSIGMASK, self._pid, 8, ctypes.byref(self._mask))
            # Only at such a stop does the kernel look at a call that was interrupted, and restart it.
            self._interrupt(bounded=False)
            _ptrace(_SETREGS, self._pid, None, ctypes.byref(self._before))
        finally:
            self._detach()

    def call(self, number: int, first: int, second: int = 0) -> int:
        """Have it make a system call; the result, negative for an error."""
        registers = Registers(*self._before)
        changes = {"rip": self._gadget, "rax": number, "orig_rax": -1, "rdi": first, "rsi": second}
        for name, value in changes.items():
            registers[_AT[name]] = value & 0xFFFFFFFFFFFFFFFF
        _ptrace(_SETREGS, self._pid, None, ctypes.byref(registers))
        for _entry_and_exit in range(2):
            _ptrace(_SYSCALL, self._pid)
            self._await(lambda status: os.WSTOPSIG(status) == signal.SIGTRAP | 0x80, _SYSCALL, bounded=False)
        _ptrace(_GETREGS, self._pid, None, ctypes.byref(registers))
        return ctypes.c_long(registers[_AT["rax"]]).value

    def _interrupt(self, bounded: bool = True) -> None:
        _ptrace(_INTERRUPT, self._pid)
        if not bounded:
            _ptrace(_CONT, self._pid)
        self._await(lambda status: status >> 16 == _EVENT_STOP, _CONT, bounded)

    def _await(self, is_wanted: Callable[[int], bool], resume: int, bounded: bool) -> None:
        """Wait for one stop; from any other it goes on by ``resume``, with the signal that stopped it.

        ``bounded``: it may take until the deadline.

        Past the first stop there is no way out but to wait: a process whose registers are not put back is lost.
        """
        while True:
            pid, status = os.waitpid(self._pid, _WALL | (os.WNOHANG if bounded else 0))
            if pid == 0:
                if time.monotonic() >= self._deadline:
                    raise RefusedError("it does not stop when asked to (state D?)")
                time.sleep(0.002)
                continue
            if not os.WIFSTOPPED(status):
                raise RefusedError("it has ended")
            if is_wanted(status):
                return
            number = os.WSTOPSIG(status)
            _ptrace(resume, self._pid, None, 0 if status >> 16 or number == signal.SIGTRAP else number)

    def _leave_critical_section(self) -> None:
        """A restartable sequence (rseq(2)) that it stands in is aborted, as the kernel does at each preemption.

        Else the kernel, seeing another address, would forget that the process stands in one.
        """
        found = (ctypes.c_uint64 * 3)()
        try:
            size = _ptrace(_GET_RSEQ_CONFIGURATION, self._pid, ctypes.sizeof(found), ctypes.byref(found))
        except OSError as error:
            if error.errno in (errno.EIO, errno.EINVAL):
                return  # Linux before 5.13
            raise
        if size < 16 or not found[0]:
            return
        # struct rseq: cpu_id_start, cpu_id, rseq_cs.
        # struct rseq_cs: version, flags, start_ip, post_commit_offset, abort_ip.
        (section,) = struct.unpack("<Q", _read(self._pid, found[0] + 8, 8))
        if section:
            start, length, abort = struct.unpack("<QQQ", _read(self._pid, section + 8, 24))
            if start <= self._before[_AT["rip"]] < start + length:
                self._before[_AT["rip"]] = abort

    def _detach(self) -> None:
        try:
            _ptrace(_DETACH, self._pid)
        except OSError as error:
            # It ended meanwhile, or is not stopped; in the second case it goes on when this process ends.
            if error.errno != errno.ESRCH:
                raise


def _find_syscall(pid: int) -> int:
    """Where the process has a ``syscall`` instruction: in the vDSO, which every program has, or else anywhere."""
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as stream:
        lines = [line.split(maxsplit=5) for line in stream]
    code = [line for line in lines if "x" in line[1] and "r" in line[1]]
    for line in sorted(code, key=lambda words: words[-1].strip() != "[vdso]"):
        start, end = (int(text, 16) for text in line[0].split("-"))
        if line[-1].strip() == "[vsyscall]":
            continue
        at = _read(pid, start, min(end - start, 1 << 22)).find(_SYSCALL_INSTRUCTION)
        if at >= 0:
            return start + at
    raise RefusedError("it has no system call instruction")


def _read(pid: int, address: int, length: int) -> bytes:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as stream:
        stream.seek(address)
        return stream.read(length)


def _start_time(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as stream:
        return int(stream.read().rpartition(b")")[2].split()[19])


def _shares(pid: int, other: int, kind: int) -> bool:
    """Whether two processes share memory or the table of descriptors (kcmp(2))."""
    found = int(_libc.syscall(_KCMP, pid, other, kind, 0, 0))
    if found < 0 and ctypes.get_errno() != errno.ESRCH:
        raise RefusedError(f"kcmp does not tell what it shares: {os.strerror(ctypes.get_errno())}")
    return found == 0


def detach(request: dict[str, Any]) -> str:
    """Carry out one request; why it was not, or not wholly, empty if it was."""
    pid = request["pid"]
    try:
        for owner in request["owners"]:
            if _shares(pid, owner, _KCMP_VM) or _shares(pid, owner, _KCMP_FILES):
                raise RefusedError(f"it shares its memory or its descriptors with process {owner}, which uses CUDA")
        with Traced(pid, request["start_time"], request["seconds"]) as traced:
            calls = [(_MUNMAP, start, end - start) for start, end in request["mappings"]]
            calls += [(_CLOSE, descriptor, 0) for descriptor in request["descriptors"]]
            for number, first, second in calls:
                done = traced.call(number, first, second)
                if done < 0:
                    what = "munmap" if number == _MUNMAP else "close"
                    raise RefusedError(f"{what} of {first:#x} answered {os.strerror(-done)}")
    except RefusedError as error:
        return str(error)
    except (OSError, ValueError) as error:
        return f"it cannot be traced: {error}"
    return ""


def main() -> None:
    """Answer requests until standard input ends; a hang-up does not break one off."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # Through the buffer that the boot code has read from: it may hold requests already.
    for line in sys.stdin.buffer:
        request = json.loads(line)
        sys.stdout.write(json.dumps({"pid": request["pid"], "error": detach(request)}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
