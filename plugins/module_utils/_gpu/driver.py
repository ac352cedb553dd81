# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The CUDA driver's calls for checkpointed processes, made by a helper process.

Facts: NVIDIA's CUDA driver API, group "CUDA Checkpointing"; cuda-bindings' ``cuda.bindings.driver``. The calls came
with driver 570 (CUDA 12.8); another GPU at the restore with driver 580 (CUDA 13.0). A call that hangs cannot be
interrupted: its helper is killed, and nobody knows whether the call took effect.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from .._core.errors import RETRYABLE, NodeError, RestoreError
from .._core.helper_process import Child, ChildEndedError
from .._host.processes import Process
from . import driver_library, driver_worker
from .driver_library import Place

RUNNING, LOCKED, CHECKPOINTED, FAILED = "RUNNING", "LOCKED", "CHECKPOINTED", "FAILED"
#: Of a process that has ended meanwhile.
GONE = "GONE"
_STATES = (RUNNING, LOCKED, CHECKPOINTED, FAILED, "CHECKPOINTING", "RESTORING")

#: The calls, as ``details.operation`` of failures names them. QUERY: whether a process has CUDA, and its state.
QUERY, LOCK, CHECKPOINT, RESTORE, UNLOCK = "ask", "lock", "checkpoint", "restore", "unlock"

#: Codes that say that a node cannot serve CUDA processes, rather than that one of them is ill.
UNAVAILABLE = frozenset(
    {
        "dependency_missing",
        "bindings_too_old",
        "driver_library_missing",
        "driver_root_invalid",
        "driver_too_old",
        "cuda_init_failed",
    }
)

INVALID_VALUE, OUT_OF_MEMORY, NOT_INITIALIZED, NOT_READY = 1, 2, 3, 600
NO_DEVICE = 100

#: What cuDriverGetVersion says of the first driver that can put memory elsewhere.
MAP_SINCE = 13000


@dataclass(frozen=True)
class Done:
    """The answer to one call."""

    process: Process
    #: A CUresult (0: success) and its name.
    error: int
    name: str
    #: As read after the call; None where it was not told.
    state: str | None
    #: The process has ended.
    gone: bool
    seconds: float = 0.0
    #: The id of the restore thread; of QUERY only.
    thread: int | None = None


@dataclass(frozen=True)
class Round:
    """What has become of one call for several processes."""

    #: The answers by process id.
    done: dict[int, Done] = field(default_factory=dict)
    #: Those that never answered, and why, in words for a message.
    pending: tuple[Process, ...] = ()
    reason: str = ""
    #: Whether that is because the time was up, rather than because the helper has ended.
    timed_out: bool = False


def version_text(version: int | None) -> str | None:
    """``13.0`` of 13000."""
    return None if version is None else f"{version // 1000}.{version % 1000 // 10}"


class Driver:
    """An initialised driver."""

    def __init__(self, child: Child, place: Place, version: int, gpu_pairs: bool, init_seconds: float) -> None:
        #: Where its library was found.
        self.place = place
        #: As cuDriverGetVersion has it.
        self.version = version
        self.init_seconds = init_seconds
        self._gpu_pairs = gpu_pairs
        self._child = child
        self._number = 0
        #: What hangs in the kernel and cannot be killed; empty for nothing.
        self.stuck: str = ""

    def require_map(self) -> None:
        """Raise NodeError ``driver_too_old`` or ``bindings_too_old`` unless memory can be put onto other GPUs."""
        if self.version < MAP_SINCE:
            raise _too_old("restoring onto other GPUs (gpu_map)", self.version, "580", "13.0")
        if not self._gpu_pairs:
            raise _old_bindings("CUcheckpointRestoreArgs has no gpuPairs")

    def call(
        self,
        operation: str,
        processes: Iterable[Process],
        deadline: float,
        lock_timeout: float = 0.0,
        pairs: Sequence[tuple[str, str]] = (),
    ) -> Round:
        """Make one call for each process, all side by side. ``deadline`` is one of time.monotonic().

        ``lock_timeout`` in seconds, for locks; ``pairs`` of GPU UUIDs, old and new, for restores. Past the deadline
        the helper is killed: the processes that had not answered are ``pending``, and this driver is of no more use.
        """
        waiting: dict[int, Process] = {}
        done: dict[int, Done] = {}
        reason, timed_out = "", False
        try:
            for process in processes:
                self._number += 1
                waiting[self._number] = process
                self._child.send(
                    {
                        "id": self._number,
                        "op": operation,
                        "pid": process.pid,
                        "start_time": process.start_time,
                        "timeout_ms": int(lock_timeout * 1000),
                        "pairs": [[_hex(old), _hex(new)] for old, new in pairs],
                    }
                )
            while waiting:
                answer = self._child.receive(deadline)
                if answer is None:
                    reason, timed_out = "did not answer in time", True
                    break
                process = waiting.pop(answer["id"])
                done[process.pid] = _done(process, answer)
        except ChildEndedError as error:
            reason = f"lost its helper process ({error})"
        if reason and not self._child.kill():
            self.stuck = f"the helper process {self._child.pid}, which hangs in the kernel"
        return Round(done, tuple(waiting.values()), reason, timed_out)

    def close(self) -> None:
        """Let the helper go."""
        if not self.stuck:
            self._child.close()


@contextlib.contextmanager
def opened(deadline: float, driver_root: str = "", fallback: str = driver_library.DRIVER_CONTAINER) -> Iterator[Driver]:
    """The driver, initialised once for all calls of the block.

    Raises NodeError ``dependency_missing``, ``bindings_too_old``, ``driver_root_invalid``, ``driver_library_missing``,
    ``driver_too_old``, ``cuda_init_failed`` and RestoreError ``cuda_timeout``; nothing was changed then.
    """
    driver_library.require_cuda()
    texts = []
    for place in driver_library.places(driver_root, fallback):
        # contextlib closes this generator, and with it the file that the environment may need.
        with driver_library.environment(place) as variables:  # pylint: disable=contextmanager-generator-missing-cleanup
            child = Child(driver_worker, variables)
            found = _begin(child, place, deadline)
            if isinstance(found, str):
                texts.append(f"{place}: {found}")
                continue
            try:
                yield found
            finally:
                found.close()
            return
    raise NodeError(
        "driver_library_missing",
        f"{driver_library.CUDA} cannot be loaded ({'; '.join(texts)}).",
        "Install the NVIDIA driver on this node, or name the root of its installation in driver_root.",
        details={"tried": texts},
    )


class Opening:
    """A driver that is opened while something else is done; to be used with ``with``, which closes it."""

    def __init__(self, opened: contextlib.AbstractContextManager[Driver]) -> None:
        self._opened = opened
        self._stack = contextlib.ExitStack()
        self._driver: Driver | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._open, daemon=True)

    def __enter__(self) -> Opening:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.join()
        self._stack.close()

    def driver(self) -> Driver:
        """The driver, as soon as it is initialised. Raises what :func:`opened` raises."""
        self._thread.join()
        if self._driver is None:
            raise self._error or RuntimeError("the driver was not opened")
        return self._driver

    def _open(self) -> None:
        try:
            self._driver = self._stack.enter_context(self._opened)
        except Exception as error:  # noqa: BLE001 - whoever asks for the driver gets it
            self._error = error


def _begin(child: Child, place: Place, deadline: float) -> Driver | str:
    """The driver, or why its library is not to be had here. Raises as :func:`opened`."""
    try:
        answer = child.receive(deadline)
    except ChildEndedError as error:
        child.close()
        raise NodeError(
            "cuda_init_failed",
            f"The CUDA driver of {place} broke the helper process that initialised it: {error}.",
            "Look at dmesg for NVRM and Xid lines; the driver's library and its kernel module may not fit each other.",
        ) from error
    if answer is None:
        child.kill()
        raise RestoreError(
            "cuda_timeout",
            "The CUDA driver was not initialised in time (cuInit did not come back).",
            "Look at dmesg for Xid lines and processes in state D; nothing was changed, so run again afterwards.",
            outcome=RETRYABLE,
        )
    if "ready" in answer:
        ready = answer["ready"]
        return Driver(child, place, ready["version"], ready["gpu_pairs"], ready["init_seconds"])
    child.close()
    kind, text = answer["failed"], answer["text"]
    if kind == "library":
        return str(text)
    if kind == "bindings":
        raise _old_bindings(text)
    if kind == "function":
        raise _too_old(f"the checkpoint calls ({text})", answer["version"], "570", "12.8")
    raise NodeError(
        "cuda_init_failed",
        f"The CUDA driver of {place} cannot be initialised: cuInit answers {answer['error']} ({text}).",
        "See that nvidia-smi works on this node; dmesg tells what ails the kernel module."
        if answer["error"] != NO_DEVICE
        else "There is a driver but no GPU that it sees: run this on a node with one.",
        details={"error": answer["error"], "name": text},
    )


def _done(process: Process, answer: dict[str, object]) -> Done:
    state, thread = answer.get("state"), answer.get("thread")
    known = isinstance(state, int) and 0 <= state < len(_STATES)
    gone = bool(answer["gone"])
    return Done(
        process=process,
        error=int(str(answer["error"])),
        name=str(answer["name"]),
        state=GONE if gone else (_STATES[state] if isinstance(state, int) and known else None),
        gone=gone,
        seconds=round(float(str(answer.get("seconds", 0.0))), 3),
        thread=thread if isinstance(thread, int) else None,
    )


def _hex(uuid: str) -> str:
    return uuid.partition("-")[2].replace("-", "")


def _too_old(what: str, version: int | None, driver: str, cuda: str) -> NodeError:
    has = f"CUDA {version_text(version)}" if version else "an older CUDA"
    return NodeError(
        "driver_too_old",
        f"The NVIDIA driver of this node ({has}) does not have {what}.",
        f"Update the driver to {driver} or later (CUDA {cuda}).",
        details={"version": version, "required": driver},
    )


def _old_bindings(text: str) -> NodeError:
    return NodeError(
        "bindings_too_old",
        f"The cuda-bindings of this node's Python are of no use here: {text}.",
        "Install cuda-bindings 12.8 or later (13.0 or later for gpu_map; 13.3.1 or later with CUDA 13.3 drivers).",
        details={"text": text},
    )
