# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Computes in managed memory (CuPy, 64 MiB: far below what the card has free), which drivers do not checkpoint."""

from __future__ import annotations

import argparse

import cupy
import steps


def main() -> None:
    options = steps.arguments(argparse.ArgumentParser())
    pool = cupy.cuda.MemoryPool(cupy.cuda.malloc_managed)
    cupy.cuda.set_allocator(pool.malloc)
    values = cupy.arange(8 << 20, dtype=cupy.uint64)
    with steps.Log(options) as log:
        for _number in range(options.steps):
            values = values * cupy.uint64(6364136223846793005) + cupy.uint64(1442695040888963407)
            log.step(hex(int(values.sum())))


if __name__ == "__main__":
    main()
