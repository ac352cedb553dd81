# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One workload of a restore, as the operator describes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._container import params as container_params
from .._container.task_params import TaskParams
from .._core import labels, state_dir
from .._core.errors import InputError, RestoreError
from .._gpu import vram
from .._gpu.access import GpuAccess
from .._host import cgroup, huge_pages as host_huge_pages, page_cache
from .._parallel_memory import hook as memory_hook
from .._probe import hook as probe_hook, probe as probes
from .._probe.hook import Hook
from . import gpu as restore_gpu, rates

#: What may be secret of a workload's options, or is kept elsewhere.
_UNSHOWN = ("env", "metadata_content", "record", "after_restore")


@dataclass(frozen=True)
class Settings:
    """What all workloads of one call have in common. Times in seconds."""

    staging_dir: str = state_dir.STATE_ROOT
    owner: str = labels.DEFAULT_OWNER
    force: bool = False
    lease: str | None = None
    rebuild: bool = True
    alive_seconds: float = 1.0
    #: 0: as long as the size of a checkpoint allows.
    restore_timeout: float = 0.0
    access: GpuAccess = field(default_factory=GpuAccess)
    gpu_retries: int = 1
    keep_evidence: int = 3
    huge_pages: str = host_huge_pages.KEEP
    prewarm: str = page_cache.NEVER
    parallel_memory: str = memory_hook.NEVER
    #: Where the node's rates are kept; "" for nowhere.
    rates_file: str = ""
    assume_prepared: bool = False
    record: Mapping[str, Any] = field(default_factory=dict)
    #: As the option has them, for the workloads' containers.
    runtimes: Sequence[Mapping[str, Any]] = ()
    policy: Mapping[str, Any] = field(default_factory=dict)
    differences: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Settings:
        """From the options of ``containerd_restore`` outside of ``workloads``."""
        return cls(
            staging_dir=options["staging_dir"],
            owner=options["owner"],
            force=options["force"],
            lease=options["lease"],
            rebuild=options["rebuild"],
            alive_seconds=options["alive_seconds"],
            restore_timeout=float(options["restore_timeout"]),
            access=GpuAccess.from_options(options),
            gpu_retries=options["gpu_retries"],
            keep_evidence=options["keep_evidence"],
            huge_pages=options["huge_pages"],
            prewarm=options["prewarm"],
            parallel_memory=options["parallel_memory"],
            rates_file=rates.FILE,
            assume_prepared=options["assume_prepared"],
            record=options["record"] or {},
            runtimes=options["runtimes"] or (),
            policy=options["policy"] or {},
            differences=options.get("differences") or {},
        )


@dataclass(frozen=True)
class Job:
    """One workload: the container, its task, its GPU memory, its proof; ``record`` goes into its receipt as it is."""

    name: str
    checkpoint: str
    container: container_params.ContainerParams
    task: TaskParams
    gpu: restore_gpu.GpuParams
    probe: probes.ProbeParams | None
    settings: Settings
    after_restore: Hook | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    #: What is wrong with a document that came beside the checkpoint; it is this workload's failure, and no other's.
    unusable: RestoreError | None = None
    #: As given, less what may be secret; for evidence.
    shown: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_options(cls, workload: Mapping[str, Any], settings: Settings) -> Job:
        """From one entry of ``workloads``. Raises InputError ``container_id_invalid`` and others."""
        name = workload["name"]
        # Files are named after it, evidence of its failure too.
        cgroup.cgroups_path(name, cgroup.CGROUPFS, name)
        # What the modules of the single steps take; what they call alike holds for all workloads of the call.
        options = {**workload, **vars(settings), "container_id": name, "metadata": None}
        task = TaskParams.from_options(options, settings.access)
        container, unusable = _container(options)
        return cls(
            name=name,
            checkpoint=workload["checkpoint"],
            container=container,
            task=task,
            gpu=restore_gpu.GpuParams(
                policy=task.gpu,
                gpu_map=container_params.texts(workload.get("gpu_map")),
                vram=vram.sizes(workload.get("vram")),
                retries=max(0, settings.gpu_retries),
            ),
            probe=_probe(name, workload.get("probe") or {}, settings),
            settings=settings,
            after_restore=Hook.from_options(
                probe_hook.AFTER_RESTORE, workload.get("after_restore") or {}, name, settings.staging_dir
            ),
            record=workload.get("record") or {},
            unusable=unusable,
            shown={
                **{key: value for key, value in workload.items() if key not in _UNSHOWN},
                "env": sorted(workload.get("env") or {}),
            },
        )


def _container(options: Mapping[str, Any]) -> tuple[container_params.ContainerParams, RestoreError | None]:
    """The container, and what is wrong with the metadata, without which it is then."""
    try:
        return container_params.ContainerParams.from_options(options), None
    except InputError as error:
        if not error.code.startswith("metadata_"):
            raise
        return container_params.ContainerParams.from_options({**options, "metadata_content": None}), error


def jobs_of(workloads: Sequence[Mapping[str, Any]], settings: Settings) -> list[Job]:
    """All ``workloads``. Raises InputError ``workload_duplicate`` and what :meth:`Job.from_options` raises."""
    names = [workload["name"] for workload in workloads]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                "workload_duplicate", f"The name {name} stands twice in workloads.", "Give each workload its own name."
            )
    return [Job.from_options(workload, settings) for workload in workloads]


def _probe(name: str, options: Mapping[str, Any], settings: Settings) -> probes.ProbeParams | None:
    if all(value is None for value in options.values()):
        return None
    return probes.ProbeParams.from_options({**options, "container_id": name, "staging_dir": settings.staging_dir})
