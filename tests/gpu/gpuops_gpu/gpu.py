# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPUs as NVML sees them: an oracle beside the collection. It only reads."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

from gpuops_gpu.runner import StepError

MIB = 1 << 20


class NoGpuError(StepError):
    """NVML cannot be used; says why."""


@contextlib.contextmanager
def _nvml() -> Iterator[Any]:
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError as error:
        raise NoGpuError(f"nvidia-ml-py cannot be imported: {error}") from error
    try:
        nvml.nvmlInit()
        try:
            yield nvml
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        raise NoGpuError(f"NVML cannot be used: {error}") from error


def facts() -> dict[str, Any]:
    """Driver, CUDA version of the driver, and name, memory, persistence and MIG mode of the first GPU.

    What NVML does not tell, for some cards have no MIG, is its words why.
    """
    with _nvml() as nvml:
        first = nvml.nvmlDeviceGetHandleByIndex(0)
        questions: dict[str, Callable[[], Any]] = {
            "gpu": lambda: _text(nvml.nvmlDeviceGetName(first)),
            "gpus": nvml.nvmlDeviceGetCount,
            "gpu_memory_mib": lambda: nvml.nvmlDeviceGetMemoryInfo(first).total // MIB,
            "driver": lambda: _text(nvml.nvmlSystemGetDriverVersion()),
            "driver_cuda": lambda: nvml.nvmlSystemGetCudaDriverVersion(),
            "persistence_mode": lambda: nvml.nvmlDeviceGetPersistenceMode(first),
            "mig": lambda: nvml.nvmlDeviceGetMigMode(first)[0],
        }
        found = {}
        for name, ask in questions.items():
            try:
                found[name] = ask()
            except nvml.NVMLError as error:
                found[name] = str(error)
        return found


def used(index: int | None = None) -> int:
    """Bytes of VRAM in use on one GPU, or on all of them."""
    with _nvml() as nvml:
        chosen = range(nvml.nvmlDeviceGetCount()) if index is None else [index]
        return sum(nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByIndex(one)).used for one in chosen)


def uuids() -> list[str]:
    """The GPUs by their index."""
    with _nvml() as nvml:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return [_text(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]


def device_nodes() -> list[str]:
    """The GPUs' device nodes by their index; the numbers of the nodes may be in another order."""
    with _nvml() as nvml:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return [f"/dev/nvidia{nvml.nvmlDeviceGetMinorNumber(handle)}" for handle in handles]


def free(index: int = 0) -> int:
    """Bytes of VRAM free on a GPU."""
    with _nvml() as nvml:
        return int(nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByIndex(index)).free)


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
