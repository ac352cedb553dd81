# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One workload of a restore, as the operator describes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._checkpoint import metadata, original
from .._container import params as container_params, task as task_steps
from .._core import labels, state_dir
from .._core.errors import InputError
from .._criu import config as criu_config
from .._gpu import devices, teardown, vram
from .._host import cgroup, huge_pages as host_huge_pages
from .._parallel_memory import policy as memory_policy
from .._probe import probe as probes
from . import gpu as restore_gpu, prewarm as restore_prewarm, rates


@dataclass(frozen=True)
class Settings:
    """What all workloads of one call have in common. Times in seconds."""

    staging_dir: str = state_dir.STATE_ROOT
    owner: str = labels.DEFAULT_OWNER
    force: bool = False
    lease: str | None = None
    rebuild: bool = True
    alive_seconds: float = 1.0
    restore_timeout: float = 1800.0
    cuda_timeout: float = 600.0
    driver_root: str = ""
    gpu_retries: int = 1
    keep_evidence: int = 3
    huge_pages: str = host_huge_pages.KEEP
    prewarm: str = restore_prewarm.NEVER
    parallel_memory: str = memory_policy.NEVER
    #: Where the node's rates are kept; "" for nowhere.
    rates_file: str = ""
    assume_prepared: bool = False
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One workload: the container, its task, its GPU memory, its proof; ``record`` goes into its receipt as it is."""

    name: str
    checkpoint: str
    container: container_params.ContainerParams
    task: task_steps.TaskParams
    gpu: restore_gpu.GpuParams
    probe: probes.ProbeParams | None
    settings: Settings
    record: Mapping[str, Any] = field(default_factory=dict)
    #: As given, less what may be secret; for evidence.
    shown: Mapping[str, Any] = field(default_factory=dict)


def settings_of(parameters: Mapping[str, Any]) -> Settings:
    """The module's own options."""
    return Settings(
        staging_dir=parameters["staging_dir"],
        owner=parameters["owner"],
        force=parameters["force"],
        lease=parameters["lease"],
        rebuild=parameters["rebuild"],
        alive_seconds=parameters["alive_seconds"],
        restore_timeout=float(parameters["restore_timeout"]),
        cuda_timeout=float(parameters["cuda_timeout"]),
        driver_root=parameters["driver_root"] or "",
        gpu_retries=parameters["gpu_retries"],
        keep_evidence=parameters["keep_evidence"],
        huge_pages=parameters["huge_pages"],
        prewarm=parameters["prewarm"],
        parallel_memory=parameters["parallel_memory"],
        rates_file=rates.FILE,
        assume_prepared=parameters["assume_prepared"],
        record=parameters["record"] or {},
    )


def jobs_of(workloads: Sequence[Mapping[str, Any]], settings: Settings) -> list[Job]:
    """All ``workloads``. Raises InputError ``workload_duplicate`` and what :func:`job_of` raises."""
    names = [workload["name"] for workload in workloads]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                "workload_duplicate", f"The name {name} stands twice in workloads.", "Give each workload its own name."
            )
    return [job_of(workload, settings) for workload in workloads]


def job_of(workload: Mapping[str, Any], settings: Settings) -> Job:
    """One entry of ``workloads``. Raises InputError ``container_id_invalid`` and others."""
    name = workload["name"]
    # Files are named after it, evidence of its failure too.
    cgroup.cgroups_path(name, cgroup.CGROUPFS)
    shared: dict[str, Any] = {
        "container_id": name,
        "staging_dir": settings.staging_dir,
        "owner": settings.owner,
        "force": settings.force,
        "assume_prepared": settings.assume_prepared,
    }
    criu = workload.get("criu") or {}
    policy = teardown.Policy(
        mode=workload.get("gpu") or devices.AUTO,
        driver_root=settings.driver_root,
        cuda_timeout=settings.cuda_timeout,
    )
    return Job(
        name=name,
        checkpoint=workload["checkpoint"],
        container=container_params.ContainerParams(
            source=original.Source(
                checkpoint=workload["checkpoint"],
                metadata=metadata.of_parameters({**workload, "metadata": None}),
                image=workload.get("image") or "",
                snapshotter=workload.get("snapshotter") or "",
            ),
            snapshot_id=workload.get("snapshot_id") or "",
            mounts=_texts(workload.get("mounts")),
            network=workload.get("network"),
            env=_texts(workload.get("env")),
            cgroups_path=workload.get("cgroups_path") or "",
            allow_hooks=bool(workload.get("allow_hooks")),
            allow_annotations=tuple(workload.get("allow_annotations") or ()),
            criu=criu_config.CriuOptions(**{key: value for key, value in criu.items() if value is not None}),
            lease=settings.lease,
            rebuild=settings.rebuild,
            **shared,
        ),
        task=task_steps.TaskParams(
            checkpoint=workload["checkpoint"],
            route=workload.get("route") or task_steps.STAGED,
            stdout=workload.get("stdout") or "",
            stderr=workload.get("stderr") or "",
            alive_seconds=settings.alive_seconds,
            restore_timeout=settings.restore_timeout,
            gpu=policy,
            **shared,
        ),
        gpu=restore_gpu.GpuParams(
            policy=policy,
            gpu_map=_texts(workload.get("gpu_map")),
            vram=vram.sizes(workload.get("vram")),
            retries=max(0, settings.gpu_retries),
        ),
        probe=probe_of(name, workload.get("probe"), settings.staging_dir),
        settings=settings,
        record=workload.get("record") or {},
        shown={
            **{key: value for key, value in workload.items() if key not in ("env", "metadata_content", "record")},
            "env": sorted(workload.get("env") or {}),
        },
    )


def probe_of(name: str, probe: Mapping[str, Any] | None, staging_dir: str) -> probes.ProbeParams | None:
    """The proof that is wanted, None for none. Raises InputError ``probe_invalid`` unless it is exactly one."""
    given = {key: value for key, value in (probe or {}).items() if value is not None}
    if not given:
        return None
    kinds = [kind for kind in (probes.COMMAND, probes.FILE, probes.HTTP) if kind in given]
    if len(kinds) != 1:
        raise InputError(
            "probe_invalid",
            f"The probe of {name} has {' and '.join(kinds) or 'none of command, file and http'}.",
            "Give exactly one of command, file and http.",
        )
    params: dict[str, Any] = {"container_id": name, "staging_dir": staging_dir}
    if probes.COMMAND in given:
        params.update(
            command=tuple(given["command"]) or ("",),
            exit_status=given.get("exit_status", 0),
            seconds=given.get("command_seconds", 30.0),
        )
    else:
        details = {key: value for key, value in given[kinds[0]].items() if value is not None}
        network = details.pop("network", None)
        if network is not None:
            params["in_container"] = network == "container"
        names = {"path": "path", "seconds": "seconds", "url": "url", "status": "statuses"}
        params.update({names.get(key, key): value for key, value in details.items()})
    return probes.ProbeParams(**params)


def _texts(given: Mapping[Any, Any] | None) -> dict[str, str]:
    return {str(key): str(value) for key, value in (given or {}).items()}
