# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A process that has a device mapped and open, as a fork of a CUDA process has the driver's, and counts on.

/dev/zero, which anybody can map, stands in for the driver's device files.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

DEVICE = "/dev/zero"

#: Counts on each line that it is sent; in between it rests in the way that its argument names.
PROGRAM = """
import ctypes, mmap, os, select, signal, sys, threading, time

device = os.open("/dev/zero", os.O_RDWR)
kept = [mmap.mmap(device, 1 << 16, flags=mmap.MAP_PRIVATE) for _ in range(3)]
how, count, heard = sys.argv[1], 0, 0
libc = ctypes.CDLL(None, use_errno=True)

def hear(*_arguments):
    global heard
    heard += 1

signal.signal(signal.SIGUSR1, hear)
if how == "thread":
    threading.Thread(target=lambda: [time.sleep(0.001) for _ in iter(int, 1)], daemon=True).start()
print("ready", flush=True)
while True:
    if how == "nanosleep":
        # Unlike Python's own sleep it tells of an interruption.
        if libc.nanosleep((ctypes.c_long * 2)(0, 20_000_000), None):
            print("interrupted", ctypes.get_errno(), flush=True)
    elif how == "spin":
        sum(range(20000))
    elif how == "select":
        select.select([], [], [], 0.02)
    elif how == "thread":
        time.sleep(0.02)
    count += 1
    if select.select([0], [], [], 0)[0]:
        line = sys.stdin.readline()
        if not line:
            break
        print(count, heard, flush=True)
"""


class Forked:
    """A running PROGRAM."""

    def __init__(self, how: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.line() == "ready"

    def line(self) -> str:
        """What it says next."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def count(self) -> tuple[int, int]:
        """How far it has counted, and how many signals it has heard. Whatever else it says fails the test."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        count, heard = self.line().split()
        return int(count), int(heard)


@contextlib.contextmanager
def forked(how: str = "select") -> Iterator[Forked]:
    """One that is killed at the end of the block."""
    child = Forked(how)
    with child.process:
        try:
            yield child
        finally:
            child.process.kill()
