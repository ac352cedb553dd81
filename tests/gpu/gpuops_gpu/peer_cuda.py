#!/usr/bin/env python3
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""peer_cuda.py restore|suspend PID: what a tool that serves one process a call does; nothing but libcuda is loaded.

The peer of the window's measurements: each process costs a start, a cuInit and the calls. Facts: NVIDIA's CUDA driver
API, group "CUDA Checkpointing"; the argument structures are 64 bytes, the lock's begins with the timeout in ms.
"""

from __future__ import annotations

import ctypes
import sys


def main(action: str, pid: int) -> int:
    driver = ctypes.CDLL("libcuda.so.1")
    nothing = ctypes.create_string_buffer(64)
    lock = ctypes.create_string_buffer(64)
    ctypes.cast(lock, ctypes.POINTER(ctypes.c_uint))[0] = 10_000
    calls = {
        "restore": [("Restore", nothing), ("Unlock", nothing)],
        "suspend": [("Lock", lock), ("Checkpoint", nothing)],
    }
    error = driver.cuInit(0)
    for name, arguments in calls[action]:
        error = error or getattr(driver, f"cuCheckpointProcess{name}")(pid, arguments)
        if error:
            print(f"{name} of {pid}: CUDA error {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
