# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a node has the memory, in RAM and on its GPUs, for all workloads of a run together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._checkpoint import original as checkpoint_original
from .._checkpoint.original import Original
from .._checkpoint.reader import Checkpoint
from .._container import container as container_steps, volumes as container_volumes
from .._container.volumes import Volume
from .._containerd import task_removal, tasks
from .._containerd.client import Client
from .._core.errors import RETRYABLE, NodeError, RestoreError, as_failure
from .._core.text import gib
from .._gpu import driver, gpu_map, nvml, vram as gpu_vram
from .._host import memory as host_memory
from .._oci import spec_validate
from .._oci.facts import Facts
from . import gpu as restore_gpu
from .params import Job

#: Seconds for the driver to say whether it is there.
_DRIVER_SECONDS = 60.0


@dataclass(frozen=True)
class Demand:
    """What one workload will take."""

    job: Job
    #: The original container, read once for the whole run: from here on a name that moves changes nothing.
    original: Original | None = None
    #: Why there is none; for the workload's own steps to say.
    unreadable: RestoreError | None = None
    #: It runs already.
    live: bool = False
    #: Of the staged directory; empty where the checkpoint cannot be read.
    key: str = ""
    #: Bytes of its memory images.
    memory: int = 0
    #: Bytes, from its spec.
    memory_limit: int | None = None
    gpu_required: bool = False
    #: The memory volumes that it is to have.
    volumes: tuple[Volume, ...] = ()
    #: Bytes that the processes had on each GPU, by old UUID, where that is known.
    vram_at_checkpoint: Mapping[str, int] = field(default_factory=dict)
    #: The old GPUs that they could see.
    visible: tuple[str, ...] = ()
    vram: gpu_vram.Requirement = field(default_factory=gpu_vram.Requirement)

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint image; None where it cannot be read."""
        return self.original.checkpoint if self.original else None

    @property
    def volume_bytes(self) -> int:
        """Host memory that its memory volumes take, as far as they are not there."""
        return 0 if self.live else container_volumes.needed(self.volumes)

    @property
    def facts(self) -> Facts:
        """What its capture recorded, empty where that is not known."""
        return self.original.checkpoint.facts if self.original else Facts()


@dataclass
class Verdict:
    """Workloads that cannot be restored, by name, and why; ``reading`` where the GPUs were looked at."""

    refused: dict[str, list[RestoreError]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    reading: nvml.Reading | None = None

    def refuse(self, name: str, error: RestoreError) -> None:
        """Note a problem of one workload."""
        self.refused.setdefault(name, []).append(error)


def assess(client: Client, job: Job) -> Demand:
    """Read the workload's checkpoint; what it will take, which is nothing where that cannot be told."""
    if job.unusable is not None:
        return Demand(job, unreadable=job.unusable)
    try:
        return _assess(client, job)
    except Exception as error:  # noqa: BLE001
        return Demand(job, unreadable=as_failure(error))


def _assess(client: Client, job: Job) -> Demand:
    original = checkpoint_original.read(client, job.container.source)
    spec: Mapping[str, Any] = original.stored_spec or {}
    try:
        if spec:
            spec_validate.check(spec)
    except RestoreError:
        # Told by the step that adapts it.
        return Demand(job, original)
    try:
        volumes = tuple(container_steps.plan_volumes(client, job.container, original))
    except RestoreError:
        # As above.
        return Demand(job, original)
    checkpoint = original.checkpoint
    size = checkpoint.criu.size if checkpoint.criu else 0
    required = restore_gpu.requires_gpu(job.gpu, spec, checkpoint.facts)
    vram_at_checkpoint = gpu_vram.at_checkpoint(job.gpu.vram, checkpoint.facts)
    memory = ((spec.get("linux") or {}).get("resources") or {}).get("memory")
    limit = memory.get("limit") if isinstance(memory, dict) else None
    return Demand(
        job,
        original,
        live=task_removal.is_live(tasks.get(client, job.name)),
        key=checkpoint.key,
        memory=size,
        memory_limit=limit if isinstance(limit, int) else None,
        gpu_required=required,
        volumes=volumes,
        vram_at_checkpoint=vram_at_checkpoint,
        visible=checkpoint.facts.visible_gpus,
        vram=gpu_vram.requirement(vram_at_checkpoint, checkpoint.facts, size, job.gpu.gpu_map)
        if required
        else gpu_vram.Requirement(),
    )


def judge(demands: Sequence[Demand], available: int | None, thorough: bool) -> Verdict:
    """Compare what is wanted with what is there. ``available``: bytes of host memory, None where not told.

    ``thorough``: ask the CUDA driver too, as a preflight does; without, only memory is looked at.
    """
    verdict = Verdict()
    coming = [demand for demand in demands if not demand.live]
    _judge_memory(coming, available, verdict)
    on_gpus = [demand for demand in coming if demand.gpu_required]
    if not on_gpus:
        return verdict
    verdict.reading = on_gpus[0].job.gpu.policy.access.read_nvml()
    if thorough:
        _judge_driver(on_gpus, verdict)
    taken: dict[str, int] = {}
    for demand in on_gpus:
        gpu = demand.job.gpu
        try:
            pairs = gpu_map.pairs(gpu.gpu_map, {*demand.vram_at_checkpoint, *demand.visible})
            gpu_map.require_targets(pairs, verdict.reading)
            warnings = gpu_vram.require_room(demand.job.name, demand.vram, taken, verdict.reading)
        except Exception as error:  # noqa: BLE001
            verdict.refuse(demand.job.name, as_failure(error))
            continue
        if thorough:
            verdict.warnings += [warning for warning in warnings if warning not in verdict.warnings]
        for uuid, size in demand.vram.by_gpu.items() or {"": demand.vram.total}.items():
            taken[uuid] = taken.get(uuid, 0) + size
    return verdict


def _judge_memory(coming: Sequence[Demand], available: int | None, verdict: Verdict) -> None:
    """The memory of a workload on GPUs goes to them and is free again, so only the largest of these counts.

    Memory volumes stay; one that several workloads have counts once.
    """
    kept, passing = 0, 0
    places: set[str] = set()
    for demand in coming:
        new = [volume for volume in demand.volumes if volume.place not in places]
        in_volumes = container_volumes.needed(new)
        if available is not None and kept + passing + in_volumes > available:
            verdict.refuse(demand.job.name, _volumes_short(demand.job.name, in_volumes, available - kept - passing))
            continue
        kept += in_volumes
        places |= {volume.place for volume in new}
        name, size = demand.job.name, demand.memory
        if demand.memory_limit is not None and 0 < demand.memory_limit < size:
            verdict.refuse(name, _over_limit(name, size, demand.memory_limit))
            continue
        now = (kept, max(passing, size)) if demand.gpu_required else (kept + size, passing)
        if available is not None and sum(now) > available:
            verdict.refuse(name, _short(name, size, available - kept - (0 if demand.gpu_required else passing)))
            continue
        kept, passing = now


def _judge_driver(on_gpus: Sequence[Demand], verdict: Verdict) -> None:
    access = on_gpus[0].job.gpu.policy.access.limited_to(_DRIVER_SECONDS)
    reading = verdict.reading or nvml.Reading()
    problem, version = None, 0
    try:
        with access.open_driver(time.monotonic() + access.cuda_timeout) as opened:
            version = opened.version
    except NodeError as error:
        problem = error
    for demand in on_gpus:
        if problem is not None:
            verdict.refuse(
                demand.job.name,
                NodeError(
                    problem.code,
                    f"The GPU memory of {demand.job.name} cannot be restored on this node: {problem.message}",
                    "Mend that, or set gpu of the workload to none if its processes hold no CUDA state.",
                ),
            )
        elif demand.job.gpu.gpu_map and version < driver.MAP_SINCE:
            verdict.refuse(
                demand.job.name,
                NodeError(
                    "driver_too_old",
                    f"The NVIDIA driver {reading.driver} of this node cannot restore {demand.job.name} onto other GPUs "
                    "(gpu_map).",
                    "Update the driver to 580 or later (CUDA 13.0).",
                ),
            )
    for gpu in reading.gpus:
        if gpu.persistence is False:
            verdict.warnings.append(
                f"The GPU {gpu.index} is not in persistence mode, so the driver sets it up anew for the restore, "
                "which takes longer (nvidia-smi -pm 1, or nvidia-persistenced)."
            )
        if gpu.mig:
            verdict.warnings.append(f"The GPU {gpu.index} is in MIG mode, which driver checkpoints do not support.")


def _over_limit(name: str, size: int, limit: int) -> NodeError:
    return NodeError(
        "container_memory_short",
        f"The memory images of {name} hold {gib(size)}, and the container's memory limit is {gib(limit)}: the kernel "
        "would kill it half-way.",
        "Raise the limit (linux.resources.memory.limit of ociSpec in metadata).",
        details={"needed": size, "available": limit},
    )


def _short(name: str, size: int, available: int) -> NodeError:
    return NodeError(
        "host_memory_short",
        f"The memory images of {name} hold {gib(size)}, and the node has {gib(max(0, available))} left for it.",
        "Free host memory, or restore fewer workloads on this node.",
        outcome=RETRYABLE,
        details={"needed": size, "available": available},
    )


def _volumes_short(name: str, size: int, available: int) -> NodeError:
    return NodeError(
        "host_memory_short",
        f"The memory volumes of {name} hold {gib(size)}, and the node has {gib(max(0, available))} left for them.",
        "Free host memory, or restore fewer workloads on this node.",
        outcome=RETRYABLE,
        details={"needed": size, "available": available},
    )


def available_memory() -> int | None:
    """Bytes of host memory that can be had now."""
    return host_memory.available()
