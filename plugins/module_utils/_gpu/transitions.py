# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which calls bring which process where, decided by the states alone.

The driver's states: RUNNING -lock-> LOCKED -checkpoint-> CHECKPOINTED -restore-> LOCKED -unlock-> RUNNING. FAILED is
the end, and so is CHECKPOINTED after a restore that failed.
"""

from __future__ import annotations

from collections.abc import Sequence

from .._core.errors import RETRYABLE, TERMINAL, UNKNOWN, RestoreError
from . import driver, marks
from .driver import CHECKPOINT, CHECKPOINTED, FAILED, LOCK, LOCKED, RESTORE, RUNNING, UNLOCK
from .processes import CudaProcess

#: What has to be done, by the state that is wanted and the one that is.
_CALLS = {
    RUNNING: {RUNNING: (), LOCKED: (UNLOCK,), CHECKPOINTED: (RESTORE, UNLOCK)},
    LOCKED: {RUNNING: (LOCK,), LOCKED: (), CHECKPOINTED: (RESTORE,)},
    CHECKPOINTED: {RUNNING: (LOCK, CHECKPOINT), LOCKED: (CHECKPOINT,), CHECKPOINTED: ()},
}
#: Each call is made for all processes before the next one for any.
ORDER = {RUNNING: (RESTORE, UNLOCK), LOCKED: (LOCK, RESTORE), CHECKPOINTED: (LOCK, CHECKPOINT)}
#: The states that show that a call has done its work, whatever it answered.
REACHED = {
    LOCK: (LOCKED,),
    CHECKPOINT: (CHECKPOINTED,),
    RESTORE: (LOCKED, RUNNING),
    UNLOCK: (RUNNING,),
}


#: Codes of errors after which nothing brings a process back.
LOST = frozenset(["cuda_restore_failed", "cuda_process_failed"])
#: What the driver answers when it restores memory that it cannot restore, such as that of CUDA IPC before 610.
NOT_SUPPORTED = "NOT_SUPPORTED"


def calls(wanted: str, state: str | None) -> tuple[str, ...]:
    """The calls for a process in ``state``."""
    return _CALLS[wanted].get(state or "", ())


def refuse(wanted: str, found: Sequence[CudaProcess], marks_root: str) -> None:
    """Raise RestoreError for a process that cannot be brought to ``wanted``, before any is touched.

    ``cuda_process_unreadable``, ``cuda_process_failed``, ``cuda_process_busy``; for one whose restore was begun before:
    ``cuda_restore_failed``, and ``cuda_timeout`` with outcome UNKNOWN where its end is not known.
    """
    for entry in found:
        pid = entry.process.pid
        if entry.state is None:
            raise RestoreError(
                "cuda_process_unreadable",
                f"The CUDA driver does not tell the state of process {pid}: {entry.problem}.",
                "If this process does not use CUDA, name the others in pids; if it does, restore its container anew.",
                details={"pid": pid},
            )
        if entry.state == FAILED:
            raise broken(pid)
        if entry.state not in _CALLS[wanted]:
            raise RestoreError(
                "cuda_process_busy",
                f"Process {pid} is in the state {entry.state}: another program is at work on it.",
                "Wait until that has ended, then run again.",
                outcome=RETRYABLE,
                details={"pid": pid, "state": entry.state},
            )
        mark = marks.read(marks_root, entry.process) if RESTORE in calls(wanted, entry.state) else ""
        if mark == marks.BEGUN:
            raise RestoreError(
                "cuda_timeout",
                f"A restore of process {pid} was begun before and its end is not known; it is not begun again.",
                "Look at the process's state once more later; if it stays CHECKPOINTED, remove the task and restore "
                "the container anew from its checkpoint.",
                outcome=UNKNOWN,
                details={"pid": pid, "state": entry.state},
            )
        if mark:
            raise poisoned(pid, mark)


def broken(pid: int) -> RestoreError:
    """RestoreError ``cuda_process_failed``: nothing brings this process back any more."""
    return RestoreError(
        "cuda_process_failed",
        f"Process {pid} is in the state FAILED: an earlier checkpoint or restore broke it for good.",
        "Remove its task and restore the container anew from its checkpoint.",
        details={"pid": pid, "state": FAILED},
    )


def poisoned(pid: int, error: str) -> RestoreError:
    """RestoreError ``cuda_restore_failed``: nothing brings this process back any more."""
    if NOT_SUPPORTED in error:
        return RestoreError(
            "cuda_restore_failed",
            f"The CUDA restore of process {pid} has failed ({error}), which poisons the process: this driver does not "
            "restore what it had, such as GPU memory of other processes (CUDA IPC, NCCL with P2P) or NVLink multicast.",
            "Remove the task and start the workload anew: this driver cannot restore its checkpoint either.",
            details={"pid": pid, "error": error},
        )
    memory = "OUT_OF_MEMORY" in error
    return RestoreError(
        "cuda_restore_failed",
        f"The CUDA restore of process {pid} has failed ({error}), which poisons the process: every retry fails.",
        ("Free GPU memory, remove" if memory else "Remove")
        + " the task, and restore the container anew from its checkpoint, which is unharmed.",
        details={"pid": pid, "error": error},
    )


def refuses_map(operation: str, mapped: bool, done: driver.Done) -> bool:
    """Whether the driver did not like the map, which leaves the process as it was: a better map restores it.

    Seen with driver 580.159.04 for maps that lack a GPU or give one twice.
    """
    return operation == RESTORE and mapped and done.error == driver.INVALID_VALUE and done.state == CHECKPOINTED


def summary(operation: str, failed: Sequence[driver.Done], mapped: bool = False) -> RestoreError:
    """The error for failed calls: ``cuda_process_gone``, ``cuda_lock_timeout``, ``gpu_map_refused``,
    ``cuda_<operation>_failed``. ``mapped``: memory was to go to other GPUs.
    """
    first = failed[0]
    pid, error = first.process.pid, f"{first.name} ({first.error})"
    details = {"pid": pid, "operation": operation, "error": error}
    if first.gone:
        return RestoreError(
            "cuda_process_gone",
            f"Process {pid} ended while it was to be {_PAST[operation]}.",
            "See the task's output and dmesg for what ended it (the kernel for want of memory, for example).",
            details=details,
        )
    if refuses_map(operation, mapped, first):
        return RestoreError(
            "gpu_map_refused",
            f"The CUDA driver refuses gpu_map for process {pid} ({error}), which stays as it was.",
            "List every GPU that the process could see at its checkpoint, also unused ones, each with a new GPU of its "
            "own and of the same chip (nvidia-smi -L here and there), then run again.",
            details=details,
        )
    if operation == RESTORE:
        found = poisoned(pid, error)
        found.details.update(details)
        return found
    if operation == LOCK and first.error == driver.NOT_READY:
        return RestoreError(
            "cuda_lock_timeout",
            f"Process {pid} could not be locked in time: its GPU work did not come to a rest.",
            "Give lock_timeout more seconds, or wait until long kernels have ended.",
            outcome=RETRYABLE,
            details=details,
        )
    return RestoreError(
        _FAILED[operation],
        f"The CUDA driver answers {error} when process {pid} is to be {_PAST[operation]}; its state is {first.state}.",
        "Look at dmesg for Xid lines. UVM-managed memory, MIG and MPS are not supported, IPC and NCCL on newer drivers "
        "only.",
        outcome=RETRYABLE if first.error == driver.OUT_OF_MEMORY else TERMINAL,
        details=details,
    )


_FAILED = {LOCK: "cuda_lock_failed", CHECKPOINT: "cuda_checkpoint_failed", UNLOCK: "cuda_unlock_failed"}
_PAST = {LOCK: "locked", CHECKPOINT: "checkpointed", RESTORE: "restored", UNLOCK: "unlocked"}
