# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The helper process that asks NVML, once for each line that it is sent.

Its source is sent to a Python of its own (see _child), so it imports only the standard library and pynvml. It says
``{"open": true}`` first, then ``{"driver", "cuda", "gpus": [...], "processes": [...]}`` (sizes in bytes) each time; or
``{"failed": kind, "text": ...}``, with which it ends.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any, Callable


def _optional(read: Callable[[], Any], nvml: Any) -> Any:
    """What not every GPU tells: None then."""
    try:
        return read()
    except nvml.NVMLError:
        return None


def _gpu(nvml: Any, index: int, device: Any) -> dict[str, Any]:
    memory = _optional(lambda: nvml.nvmlDeviceGetMemoryInfo(device), nvml)
    persistence = _optional(lambda: nvml.nvmlDeviceGetPersistenceMode(device), nvml)
    mig = _optional(lambda: nvml.nvmlDeviceGetMigMode(device)[0], nvml)
    return {
        "uuid": nvml.nvmlDeviceGetUUID(device),
        "index": index,
        "name": nvml.nvmlDeviceGetName(device),
        "memory_total": memory and int(memory.total),
        "memory_free": memory and int(memory.free),
        "persistence": None if persistence is None else bool(persistence),
        # A GPU that cannot be divided does not know the question.
        "mig": bool(mig),
        "minor": _optional(lambda: nvml.nvmlDeviceGetMinorNumber(device), nvml),
    }


def _read(nvml: Any) -> dict[str, Any]:
    gpus, processes = [], []
    for index in range(nvml.nvmlDeviceGetCount()):
        device = _optional(lambda at=index: nvml.nvmlDeviceGetHandleByIndex(at), nvml)  # type: ignore[misc]
        if device is None:
            # One that has fallen off the bus must not hide the others.
            continue
        gpu = _gpu(nvml, index, device)
        gpus.append(gpu)
        for found in _optional(lambda at=device: nvml.nvmlDeviceGetComputeRunningProcesses(at), nvml) or []:  # type: ignore[misc]
            processes.append({"pid": int(found.pid), "gpu": gpu["uuid"], "bytes": found.usedGpuMemory})
    return {
        "driver": nvml.nvmlSystemGetDriverVersion(),
        "cuda": _optional(nvml.nvmlSystemGetCudaDriverVersion_v2, nvml),
        "gpus": gpus,
        "processes": processes,
    }


def _say(output: int, answer: dict[str, Any]) -> None:
    data = json.dumps(answer).encode() + b"\n"
    while data:
        data = data[os.write(output, data) :]


def main() -> None:
    """Answer requests until standard input ends, or until NVML fails."""
    output = os.dup(1)
    # What libraries print must not get into our answer.
    os.dup2(2, 1)
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError as error:
        _say(output, {"failed": "bindings", "text": f"{type(error).__name__}: {error}"})
        return
    try:
        nvml.nvmlInit()
        _say(output, {"open": True})
        for _request in sys.stdin.buffer:
            _say(output, _read(nvml))
        nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        absent = error.value == nvml.NVML_ERROR_LIBRARY_NOT_FOUND
        _say(output, {"failed": "library" if absent else "nvml", "text": str(error)})


if __name__ == "__main__":
    main()
