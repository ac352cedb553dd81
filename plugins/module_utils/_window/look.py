# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is on the node: containers, whether each can be captured, and the checkpoints that are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._capture import capture as capture_steps, mark as capture_mark, rates
from .._capture.params import CaptureParams
from .._checkpoint import reader
from .._containerd import containers, images, task_removal, tasks
from .._containerd.client import Client
from .._containerd.containers import Container
from .._containerd.tasks import Task
from .._core import labels, state_dir
from .._core.errors import InputError, NodeError, RestoreError, as_failure
from .._gpu import devices
from .._gpu.access import GpuAccess
from .._gpu.nvml import Reading
from .._host import cgroup, memory as host_memory, processes as host_processes
from . import identity
from .identity import Identity

#: The state of a container without a task.
ABSENT = "ABSENT"


@dataclass(frozen=True)
class LookParams:
    """What is looked at."""

    #: Containers by their ids; none: all.
    names: Sequence[str] = ()
    #: Whether each that runs goes through the preflight of a capture.
    preflight: bool = True
    staging_dir: str = state_dir.STATE_ROOT
    marks_root: str = field(default_factory=capture_mark.default_root)
    #: What earlier captures took; "" for nowhere.
    rates_file: str = ""
    access: GpuAccess = field(default_factory=GpuAccess)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> LookParams:
        """Of the module's options."""
        return cls(
            names=tuple(options["names"]),
            preflight=options["preflight"],
            staging_dir=options["staging_dir"],
            rates_file=rates.FILE,
            access=GpuAccess.from_options(options),
        )


@dataclass(frozen=True)
class Verdict:
    """What the preflight of a capture says of one container."""

    #: None where nobody asked.
    capturable: bool | None = None
    problems: tuple[Mapping[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    #: Bytes that a checkpoint would have about; None where that cannot be told.
    size: int | None = None
    #: What a capture would take, as the capture's prediction returns it; None as above.
    predicted: Mapping[str, Any] | None = None


def gather(client: Client, params: LookParams) -> dict[str, Any]:
    """All of it, as the module returns it. Nothing is changed. Raises InputError ``container_absent``."""
    records = containers.list_all(client)
    pods = _pods(records)
    wanted = [record for record in records if not params.names or record.id in params.names]
    lost = sorted(set(params.names) - {record.id for record in wanted})
    if lost:
        raise InputError(
            "container_absent",
            f"There is no container {', '.join(lost)} in containerd's namespace {client.namespace}.",
            "Correct names, or leave it out to see all.",
        )
    reading = params.access.read_nvml()
    who = {record.id: _identify(record, pods) for record in records}
    return {
        "workloads": [_workload(client, params, record, who[record.id], reading) for record in wanted],
        "checkpoints": _checkpoints(client, who, params.names),
        "nvml": {"available": not reading.reason, "reason": reading.reason or None, "driver": reading.driver},
        "gpu_node": devices.has_driver(params.access.control_device),
        "gpus": [gpu.result() for gpu in reading.gpus],
    }


def _pods(records: Iterable[Container]) -> dict[str, Mapping[str, str]]:
    """The labels of pods by their uids: CRI keeps them on the pod's own container."""
    found: dict[str, Mapping[str, str]] = {}
    for record in records:
        one = identity.identify(record.id, record.labels, record.spec)
        if one.sandbox and one.pod_uid:
            found[one.pod_uid] = one.labels
    return found


def _identify(record: Container, pods: Mapping[str, Mapping[str, str]]) -> Identity:
    uid = identity.identify(record.id, record.labels, record.spec).pod_uid
    return identity.identify(record.id, record.labels, record.spec, pods.get(uid))


def _workload(client: Client, params: LookParams, record: Container, who: Identity, reading: Reading) -> dict[str, Any]:
    task = tasks.get(client, record.id)
    live = task is not None and task_removal.is_live(task) and task.pid > 0
    pids = _processes(task.pid, params) if task is not None and live else []
    holders = [_gpu_process(pid, reading) for pid in pids if reading.shares_of(pid)]
    verdict = _verdict(client, params, record, who, task)
    return {
        "id": record.id,
        "name": who.name,
        "image": record.image,
        "runtime": record.runtime,
        "pod": who.result(),
        "sandbox": who.sandbox,
        "labels": dict(who.labels),
        "owner": labels.owner_of(record.labels),
        "restored_from": record.labels.get(labels.CHECKPOINT),
        "state": task.status if task is not None else ABSENT,
        "live": live,
        "pid": task.pid if task is not None and live else None,
        "processes": [{"pid": pid, "command": host_processes.command(pid, params.access.proc)} for pid in pids],
        "memory": host_memory.own(pids, params.access.proc) if pids else 0,
        "gpu": bool(holders),
        "gpu_processes": holders,
        "gpu_memory": sum(holder["memory"] or 0 for holder in holders),
        "gpu_uuids": sorted({share["uuid"] for holder in holders for share in holder["gpus"]}),
        "capturable": verdict.capturable,
        "problems": [dict(problem) for problem in verdict.problems],
        "warnings": list(verdict.warnings),
        "estimated_size": verdict.size,
        "predicted": verdict.predicted,
    }


def _processes(pid: int, params: LookParams) -> list[int]:
    try:
        return cgroup.tgids_of(pid, params.access.proc, params.access.cgroup_root)
    except NodeError:
        # It has ended since.
        return []


def _gpu_process(pid: int, reading: Reading) -> dict[str, Any]:
    return {"pid": pid, "memory": reading.bytes_of(pid), "gpus": reading.shares_of(pid)}


def _verdict(client: Client, params: LookParams, record: Container, who: Identity, task: Task | None) -> Verdict:
    """Whether it can be captured with the options that a capture has by default, by the capture's own preflight."""
    if not params.preflight or task is None or not task_removal.is_live(task):
        return Verdict()
    if who.sandbox:
        return Verdict(
            False,
            (
                InputError(
                    "pod_sandbox",
                    f"{record.id} only holds the namespaces of the pod {who.namespace}/{who.pod}.",
                    "Capture the containers of the pod.",
                ).problem(),
            ),
        )
    wish = CaptureParams(
        record.id,
        # No image has this name, so that the container is looked at and not what was captured of it.
        f"gpuops.local/foretold/{record.id.lower()}:none",
        staging_dir=params.staging_dir,
        marks_root=params.marks_root,
        rates_file=params.rates_file,
        access=params.access,
    )
    try:
        plan = capture_steps.foretold(client, wish)
    except (RestoreError, OSError) as error:
        return Verdict(False, tuple(_problems(as_failure(error))))
    size = plan.subject.estimated_bytes if plan.subject is not None else None
    return Verdict(True, (), tuple(plan.result.warnings), size, plan.result.predicted or None)


def _problems(error: RestoreError) -> list[dict[str, str]]:
    """Several that were found at once are told one by one."""
    several = error.details.get("problems")
    if not isinstance(several, list):
        return [error.problem()]
    return [{"code": one["code"], "message": one["message"], "remedy": "", "outcome": error.outcome} for one in several]


def checkpoints(client: Client) -> list[dict[str, Any]]:
    """Only the checkpoints, of all containers."""
    found = containers.list_all(client)
    pods = _pods(found)
    return _checkpoints(client, {record.id: _identify(record, pods) for record in found}, ())


def _checkpoints(client: Client, who: Mapping[str, Identity], names: Sequence[str]) -> list[dict[str, Any]]:
    """Checkpoints of other tools too. One that cannot be read is none; whoever restores it hears why."""
    found = []
    for image in images.list_all(client):
        if not image.target.is_index:
            continue
        try:
            checkpoint = reader.load(client, image.name)
            spec = reader.spec(client, checkpoint) or {}
        except InputError:
            continue
        facts = checkpoint.facts
        origin = who.get(facts.container) or identity.identify(facts.container, facts.labels, spec)
        if names and facts.container not in names:
            continue
        found.append(
            {
                "name": image.name,
                "digest": checkpoint.digest,
                "earlier": checkpoint.earlier,
                "container": facts.container,
                "called": origin.name,
                "pod": origin.result(),
                "labels": dict(origin.labels),
                "taken_at": facts.taken_at,
                "captured_here": checkpoint.captured_here,
                "size": checkpoint.criu.size if checkpoint.criu else 0,
                "gpu": bool(facts.gpu),
            }
        )
    return sorted(found, key=lambda one: (str(one["name"]), str(one["digest"])))
