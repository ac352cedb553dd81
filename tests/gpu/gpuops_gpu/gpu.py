# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPUs as NVML sees them: an oracle beside the collection. It only reads."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

MIB = 1 << 20


class NoGpuError(Exception):
    """NVML cannot be used; says why."""


@contextlib.contextmanager
def _nvml() -> Iterator[Any]:
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception as error:  # noqa: BLE001 pynvml's errors have no common public base before they are imported
        raise NoGpuError(f"NVML cannot be used: {error}") from error
    try:
        yield nvml
    finally:
        nvml.nvmlShutdown()


def facts() -> dict[str, Any]:
    """Driver, CUDA version of the driver, and name, memory, persistence and MIG mode of the first GPU."""
    with _nvml() as nvml:
        first = nvml.nvmlDeviceGetHandleByIndex(0)
        found = {
            "gpu": _text(nvml.nvmlDeviceGetName(first)),
            "gpus": nvml.nvmlDeviceGetCount(),
            "gpu_memory_mib": nvml.nvmlDeviceGetMemoryInfo(first).total // MIB,
            "driver": _text(nvml.nvmlSystemGetDriverVersion()),
            "driver_cuda": nvml.nvmlSystemGetCudaDriverVersion(),
        }
        modes: dict[str, Callable[[], Any]] = {
            "persistence_mode": lambda: nvml.nvmlDeviceGetPersistenceMode(first),
            "mig": lambda: nvml.nvmlDeviceGetMigMode(first)[0],
        }
        for name, ask in modes.items():
            try:
                found[name] = ask()
            except nvml.NVMLError as error:
                found[name] = str(error)
        return found


def used() -> int:
    """Bytes of VRAM in use on the first GPU."""
    with _nvml() as nvml:
        return int(nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByIndex(0)).used)


def free() -> int:
    """Bytes of VRAM free on the first GPU."""
    with _nvml() as nvml:
        return int(nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByIndex(0)).free)


def processes() -> list[int]:
    """Pids that hold a context on any GPU; a suspended process is none of them."""
    with _nvml() as nvml:
        found: set[int] = set()
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            found.update(one.pid for one in nvml.nvmlDeviceGetComputeRunningProcesses(handle))
        return sorted(found)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
