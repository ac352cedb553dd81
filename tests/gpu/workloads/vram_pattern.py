# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fills VRAM with a known pattern, counts with calls to the GPU, and digests the VRAM when asked.

Runs in the container, with cuda-bindings alone. In --work: ``count.log`` grows by a line per number counted,
``ready`` is written when the VRAM is filled, and a text in ``request`` is answered by ``digest.json``
({"token": the text, "count": N, "digest": sha256 of the sha256 of all blocks of VRAM}).
--processes N: N of them, in work/0, work/1 and so on, with --spread each on a GPU of its own. --device N: the GPU.
--host-memory: no GPU, for a rehearsal.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import ctypes
import hashlib
import importlib
import json
import mmap
import pathlib
import random
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any, Protocol

BLOCK = 64 << 20
THREADS = 8


class Memory(Protocol):
    """Blocks of BLOCK bytes, and one counter."""

    def fill(self, block: int, source: int) -> None: ...

    def read(self, block: int, target: int) -> None: ...

    def count(self, number: int) -> int: ...


class Vram:
    """VRAM of one GPU; one allocation for each block, so that the card need not have one large hole."""

    def __init__(self, blocks: int, ordinal: int) -> None:
        driver: Any = importlib.import_module("cuda.bindings.driver")

        self._driver = driver
        self._call(driver.cuInit, 0)
        device = self._call(driver.cuDeviceGet, ordinal)
        context = self._call(driver.cuDevicePrimaryCtxRetain, device)
        self._call(driver.cuCtxSetCurrent, context)
        self._blocks = [self._call(driver.cuMemAlloc, BLOCK) for _ in range(blocks)]
        self._counter = self._call(driver.cuMemAlloc, 4)

    def fill(self, block: int, source: int) -> None:
        self._call(self._driver.cuMemcpyHtoD, self._blocks[block], source, BLOCK)

    def read(self, block: int, target: int) -> None:
        self._call(self._driver.cuMemcpyDtoH, target, self._blocks[block], BLOCK)

    def count(self, number: int) -> int:
        """Write the number to the GPU and read it back."""
        self._call(self._driver.cuMemsetD32, self._counter, number, 1)
        answer = ctypes.c_uint32(0)
        self._call(self._driver.cuMemcpyDtoH, ctypes.addressof(answer), self._counter, 4)
        return int(answer.value)

    def _call(self, function: Any, *arguments: Any) -> Any:
        status, *rest = function(*arguments)
        if int(status):
            raise SystemExit(f"{function.__name__} answered {status}")
        return rest[0] if rest else None


class HostMemory:
    """The same in host memory, for a rehearsal without a GPU."""

    def __init__(self, blocks: int) -> None:
        self._memory = [mmap.mmap(-1, BLOCK) for _ in range(blocks)]
        self._counter = 0

    def fill(self, block: int, source: int) -> None:
        self._memory[block][:] = ctypes.string_at(source, BLOCK)

    def read(self, block: int, target: int) -> None:
        ctypes.memmove(target, self._memory[block][:], BLOCK)

    def count(self, number: int) -> int:
        self._counter = number
        return self._counter


def pattern(seed: int) -> bytes:
    """Two blocks of noise; a window of it, at another place for each block, is what a block holds."""
    return random.Random(seed).randbytes(2 * BLOCK)


def window(block: int) -> int:
    """Offset of the block's window; different for up to 65521 blocks."""
    return (block * 1021) % BLOCK


def combined(digests: Iterable[bytes]) -> str:
    """One digest of the digests of all blocks; blocks are hashed side by side, for one core is slow."""
    return hashlib.sha256(b"".join(digests)).hexdigest()


def digest(memory: Memory, blocks: int) -> str:
    """What the memory holds now. Its buffers go again: a checkpoint would hold them too."""
    buffers = [mmap.mmap(-1, BLOCK) for _ in range(min(THREADS, blocks))]
    found: list[bytes] = []
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        for first in range(0, blocks, len(buffers)):
            used = buffers[: blocks - first]
            for number, buffer in enumerate(used):
                memory.read(first + number, ctypes.addressof(ctypes.c_char.from_buffer(buffer)))
            found += pool.map(sha256, used)
    return combined(found)


def sha256(block: Any) -> bytes:
    return hashlib.sha256(block).digest()


def expected(noise: bytes, blocks: int) -> str:
    """The digest that the memory should have, without asking it."""
    view = memoryview(noise)
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        return combined(pool.map(sha256, (view[window(block) : window(block) + BLOCK] for block in range(blocks))))


def write(path: pathlib.Path, text: str) -> None:
    """Never half a file, for whoever waits for it."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text)
    temporary.replace(path)


def work(gib: float, seed: int, directory: pathlib.Path, host_memory: bool, device: int) -> None:
    directory.mkdir(exist_ok=True)
    blocks = max(1, round(gib * 1024 / 64))
    memory: Memory = HostMemory(blocks) if host_memory else Vram(blocks, device)
    noise = pattern(seed)
    source = ctypes.create_string_buffer(noise, len(noise))
    for block in range(blocks):
        memory.fill(block, ctypes.addressof(source) + window(block))
    del source
    answered = ""
    write(directory / "ready", json.dumps({"bytes": blocks * BLOCK, "expected": expected(noise, blocks)}))
    del noise
    with open(directory / "count.log", "a", encoding="ascii") as log:
        count = 0
        while True:
            count += 1
            if memory.count(count) != count:
                raise SystemExit("the GPU does not count")
            log.write(f"{count}\n")
            log.flush()
            request = directory / "request"
            token = request.read_text() if request.exists() else ""
            if token and token != answered:
                answered = token
                found = {"token": token, "count": count, "digest": digest(memory, blocks)}
                write(directory / "digest.json", json.dumps(found))
            time.sleep(0.1)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gib", type=float, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--processes", type=int, default=0)
    parser.add_argument("--device", type=int, default=0)
    parser.add_argument("--spread", action="store_true")
    parser.add_argument("--host-memory", action="store_true")
    options = parser.parse_args()
    if not options.processes:
        work(options.gib, options.seed, options.work, options.host_memory, options.device)
        return 0
    command = [sys.executable, __file__, "--gib", str(options.gib), *["--host-memory"] * options.host_memory]
    children = []
    for number in range(options.processes):
        own = ["--seed", str(number + 1), "--work", str(options.work / str(number))]
        children.append(
            subprocess.Popen([*command, *own, "--device", str(number if options.spread else options.device)])
        )
    # If one ends the container has to end, for then the test has failed.
    while all(child.poll() is None for child in children):
        time.sleep(0.5)
    for child in children:
        child.kill()
    return 1


if __name__ == "__main__":
    sys.exit(main())
