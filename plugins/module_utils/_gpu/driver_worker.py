# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The helper process that speaks to the CUDA driver, one thread for each process.

Its source is sent to a Python of its own (see _child), so it imports only the standard library and cuda.bindings.
It says ``{"ready": {...}}`` or ``{"failed": kind, "text": ...}``; then every line ``{"id", "op", "pid", "start_time",
"timeout_ms", "pairs"}`` on standard input is answered by one ``{"id", "error", "name", "state", "thread", "gone",
"seconds"}``. ``op`` is ask (for the state), lock, checkpoint, restore or unlock; ``error`` a CUresult, ``state`` a
CUprocessState. When standard input ends, calls that have begun are finished first.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import queue
import re
import select
import sys
import threading
import time
from typing import Any, Callable

_FUNCTIONS = ("GetRestoreThreadId", "GetState", "Lock", "Checkpoint", "Restore", "Unlock")
_OPERATING_SYSTEM = 304
#: An answer that could not be had at all.
_UNNAMED = -1
#: What the bindings raise for a result or state that they have no name for; its text begins with the number.
_UNKNOWN_NUMBER = (KeyError, ValueError)


def _number(problem: Exception) -> int:
    return int((re.match(r"\d+", str(problem)) or [_UNNAMED])[0])


class _Process:
    """The process that was meant, not another one that got its number later."""

    def __init__(self, pid: int, start_time: int) -> None:
        self._pid = pid
        self._start_time = start_time
        try:
            # Linux before 5.3, and some sandboxes, have no pidfds: the start time alone has to do.
            self._pidfd = os.pidfd_open(pid)
        except (AttributeError, OSError):
            self._pidfd = -1

    def alive(self) -> bool:
        """Whether it exists, has not ended (a zombie has), and is the same."""
        if self._pidfd >= 0 and select.select([self._pidfd], [], [], 0)[0]:
            return False
        try:
            with open(f"/proc/{self._pid}/stat", "rb") as stream:
                fields = stream.read().rpartition(b")")[2].split()
        except OSError:
            return False
        return fields[0] not in (b"Z", b"X") and int(fields[19]) == self._start_time


class _Calls:
    """The driver's calls for one process, and the clock."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def query(self, request: dict[str, Any]) -> dict[str, Any]:
        """The restore thread tells whether it has CUDA: GetState alone also answers for coordinators without state."""
        error, thread = self._driver.cuCheckpointProcessGetRestoreThreadId(request["pid"])
        # A live process that was poisoned may answer so too; then the state decides.
        if int(error) not in (0, _OPERATING_SYSTEM):
            return self._answer(error)
        return {**self._answer(error), "thread": thread if int(error) == 0 else None, **self.state(request["pid"])}

    def act(self, request: dict[str, Any]) -> dict[str, Any]:
        """Lock, checkpoint, restore or unlock; the state is read afterwards, whatever the call has said."""
        operation, pid, arguments, kept = request["op"], request["pid"], None, None
        if operation == "lock":
            arguments = self._driver.CUcheckpointLockArgs()
            arguments.timeoutMs = request["timeout_ms"]
        elif operation == "restore" and request.get("pairs"):
            arguments, kept = self._restore_arguments(request["pairs"])
        call: Callable[..., Any] = getattr(self._driver, f"cuCheckpointProcess{operation.capitalize()}")
        begun = time.monotonic()
        try:
            (error,) = call(pid, arguments)
            answer = self._answer(error)
        except _UNKNOWN_NUMBER as problem:
            answer = {"error": _number(problem), "name": "an error that is new to these bindings"}
        answer["seconds"] = time.monotonic() - begun
        del kept
        answer["state"] = self.state(pid)["state"]
        return answer

    def state(self, pid: int) -> dict[str, Any]:
        """``state`` (None: not told), and the error that stands in its way."""
        try:
            error, state = self._driver.cuCheckpointProcessGetState(pid)
        except _UNKNOWN_NUMBER as problem:
            # Earlier bindings do not have the states of a checkpoint to other storage.
            return {"error": 0, "name": "CUDA_SUCCESS", "state": _number(problem)}
        return {**self._answer(error), "state": int(state) if int(error) == 0 else None}

    def _restore_arguments(self, pairs: list[list[str]]) -> tuple[Any, Any]:
        found = []
        for old, new in pairs:
            pair = self._driver.CUcheckpointGpuPair()
            # CUuuid.bytes cannot be written in the bindings; the struct is two UUIDs of 16 bytes.
            ctypes.memmove(int(pair.getPtr()), bytes.fromhex(old) + bytes.fromhex(new), 32)
            found.append(pair)
        arguments = self._driver.CUcheckpointRestoreArgs()
        arguments.gpuPairs = found
        arguments.gpuPairsCount = len(found)
        return arguments, found

    @staticmethod
    def _answer(error: Any) -> dict[str, Any]:
        return {"error": int(error), "name": error.name}


class _Output:
    """Whole lines from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file = os.dup(1)
        # What libraries print must not get between our lines.
        os.dup2(2, 1)

    def write(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        with self._lock:
            while data:
                data = data[os.write(self._file, data) :]


def _serve(requests: Any, calls: _Calls, output: _Output) -> None:
    """The thread of one process: its calls in their order."""
    process: _Process | None = None
    while True:
        request = requests.get()
        if request is None:
            return
        if process is None:
            process = _Process(request["pid"], request["start_time"])
        answer: dict[str, Any] = {"error": _OPERATING_SYSTEM, "name": "CUDA_ERROR_OPERATING_SYSTEM"}
        try:
            if process.alive():
                answer = (calls.query if request["op"] == "ask" else calls.act)(request)
        except Exception as error:  # noqa: BLE001 - the thread's caller has to hear of anything at all
            answer = {"error": _UNNAMED, "name": f"{type(error).__name__}: {error}"}
        output.write({"id": request["id"], **answer, "gone": not process.alive()})


def _open(output: _Output) -> Any:
    """The initialised driver, None after having said what stands in the way."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        output.write({"failed": "library", "text": str(error)})
        return None
    try:
        driver: Any = importlib.import_module("cuda.bindings.driver")
    except ImportError as error:
        output.write({"failed": "bindings", "text": f"{type(error).__name__}: {error}"})
        return None
    names = [f"cuCheckpointProcess{name}" for name in _FUNCTIONS]
    lacking = [name for name in names if not hasattr(driver, name)]
    if lacking:
        output.write({"failed": "bindings", "text": f"cuda.bindings.driver has no {', '.join(lacking)}"})
        return None
    begun = time.monotonic()
    try:
        (result,) = driver.cuInit(0)
        version = driver.cuDriverGetVersion()[1]
        if int(result) != 0:
            output.write({"failed": "init", "text": result.name, "error": int(result), "version": version})
            return None
        lacking = [name for name in names if not driver.cuGetProcAddress(name.encode(), version, 0)[1]]
    except RuntimeError as problem:
        # The bindings' words for a library that lacks a function.
        output.write({"failed": "function", "text": str(problem), "version": None})
        return None
    if lacking:
        output.write({"failed": "function", "text": ", ".join(lacking), "version": version})
        return None
    gpu_pairs = hasattr(driver.CUcheckpointRestoreArgs(), "gpuPairs")
    output.write(
        {"ready": {"version": version, "gpu_pairs": gpu_pairs, "init_seconds": time.monotonic() - begun}},
    )
    return driver


def main() -> None:
    """Answer requests until standard input ends."""
    output = _Output()
    driver = _open(output)
    if driver is None:
        return
    calls = _Calls(driver)
    threads: dict[int, tuple[Any, threading.Thread]] = {}
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if request["pid"] not in threads:
            requests: Any = queue.Queue()
            thread = threading.Thread(target=_serve, args=(requests, calls, output), daemon=True)
            thread.start()
            threads[request["pid"]] = (requests, thread)
        threads[request["pid"]][0].put(request)
    for requests, _thread in threads.values():
        requests.put(None)
    for _requests, thread in threads.values():
        thread.join()


if __name__ == "__main__":
    main()
