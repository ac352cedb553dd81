# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""GPU memory goes back to the card before a task is killed.

Killing a process with live CUDA state has hung whole hosts on some drivers. So it is locked and checkpointed first,
its memory is seen to leave the GPUs, and only then it is killed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Callable

from .._containerd import tasks
from .._containerd.client import Client
from .._core.errors import UNKNOWN, InputError, RestoreError
from . import devices, driver, state
from .access import GpuAccess

#: Seconds within which the card shows its memory free again.
_DROP_SECONDS = 10.0
_INTERVAL = 0.2


@dataclass(frozen=True)
class Policy:
    """Whether the GPU memory of a task is dealt with, and how."""

    #: As in :mod:`_gpu.devices`.
    mode: str = devices.AUTO
    access: GpuAccess = field(default_factory=GpuAccess)


@dataclass
class Suspended:
    """What was, or in check mode would be, done."""

    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    #: Whether any has CUDA state.
    processes: bool = False


def suspend(
    client: Client,
    container_id: str,
    policy: Policy,
    owner: str,
    force: bool,
    check: bool,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Suspended:
    """Lock and checkpoint the CUDA processes of a task that is about to be killed.

    Where that is not possible the task may be killed all the same, with a warning; but not when a call of the driver
    did not return: then RestoreError with the outcome ``unknown`` is raised, and the task stays.
    """
    done = Suspended()
    if policy.mode == devices.NONE or (
        policy.mode == devices.AUTO and not devices.has_driver(policy.access.control_device)
    ):
        return done
    task = tasks.get(client, container_id)
    if task is not None and task.status in ("PAUSED", "PAUSING"):
        done.warnings.append(
            f"The task of {container_id} is paused, so CUDA processes in it cannot be suspended before they are killed."
        )
    if task is None or task.status != "RUNNING":
        return done
    params = state.StateParams(
        state=driver.CHECKPOINTED,
        container_id=container_id,
        owner=owner,
        force=force,
        access=policy.access,
    )
    try:
        found = state.ensure(client, params, check)
    except InputError:
        # It ended by itself meanwhile.
        return done
    except RestoreError as error:
        if error.outcome == UNKNOWN:
            error.remedy = (
                f"The task was not killed, since that could hang the node. {error.remedy} With gpu: none it is killed."
            )
            raise
        done.warnings.append(f"The task of {container_id} goes without being suspended first: {error.message}")
        return done
    done.actions, done.warnings, done.processes = found.actions, found.warnings, bool(found.processes)
    if found.changed and not check:
        _await_drop({process["pid"] for process in found.processes}, container_id, policy, done, sleep, clock)
    return done


def _await_drop(
    pids: set[int],
    container_id: str,
    policy: Policy,
    done: Suspended,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> None:
    give_up = clock() + _DROP_SECONDS
    while True:
        reading = policy.access.read_nvml()
        if reading.reason:
            done.warnings.append(f"Whether the VRAM of {container_id} is free was not seen: {reading.reason}.")
            return
        left = [holder for holder in reading.holders if holder.pid in pids]
        if not left:
            return
        if clock() >= give_up:
            done.warnings.append(
                f"The GPUs still show memory of process {', '.join(str(holder.pid) for holder in left)} of "
                f"{container_id} {_DROP_SECONDS:g} s after it was checkpointed."
            )
            return
        sleep(_INTERVAL)
