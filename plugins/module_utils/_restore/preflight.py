# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a checkpoint holds, and what this node lacks for restoring it.

Nothing is changed, and nothing stops at the first problem: an operator wants all of them at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Callable

from .._capture import parked
from .._checkpoint import (
    facts,
    original as checkpoint_original,
    reader as checkpoint_reader,
    staged as staged_checkpoint,
    staging,
)
from .._checkpoint.original import Original
from .._container import container as container_steps, loopback, params as container_params, stdio, volumes
from .._containerd import containers, content, daemon, runtimes, task_removal, tasks
from .._containerd.client import Client
from .._containerd.images import Image
from .._containerd.tasks import Task
from .._core import files, labels, state_dir
from .._core.errors import InputError, NodeError, RestoreError
from .._criu import dump_config
from .._gpu import nvml
from .._oci import depth, spec_summary, spec_validate
from .._oci.facts import Facts, GpuFacts
from .._oci.image import Descriptor


@dataclass
class Report:
    """``checkpoint`` is None where nothing could be read; ``problems`` is empty where the restore may begin."""

    checkpoint: dict[str, Any] | None = None
    problems: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=dict)

    def add(self, error: RestoreError) -> None:
        """Note a problem, once."""
        entry = error.problem()
        if entry not in self.problems:
            self.problems.append(entry)


def report(client: Client, params: container_params.ContainerParams, stdout: str = "", stderr: str = "") -> Report:
    """Read the checkpoint that ``params`` names and check everything that the restore needs.

    An empty ``container_id`` asks for the checkpoint alone; the container, its name and output are not looked at.
    """
    found = Report()
    try:
        original = checkpoint_original.read(client, params.source)
    except RestoreError as error:
        found.add(error)
        return found
    image = _collect(found, lambda: checkpoint_original.base_image(client, original))
    found.checkpoint = _describe(original, image)
    _collect(found, lambda: checkpoint_reader.require_criu(original.checkpoint))
    for part in _parts(original.checkpoint):
        _collect(found, lambda part=part: _require_blob(client, part))  # type: ignore[misc]
    _node_problems(client, found, original, params)
    _compare(client, found, original)
    _room(client, found, original, params)
    _spec_problems(client, found, original, image, params, stdout, stderr)
    return found


def _collect(found: Report, check: Callable[[], Any]) -> Any:
    try:
        return check()
    except RestoreError as error:
        found.add(error)
        return None


def _parts(checkpoint: checkpoint_reader.Checkpoint) -> list[Descriptor]:
    volumes_of = [volume.descriptor for volume in checkpoint.memory_volumes]
    # What lies on the node alone is no blob.
    criu = None if checkpoint.on_node else checkpoint.criu
    layers = (checkpoint.writable_layer, checkpoint.written)
    every = (criu, checkpoint.config, *layers, checkpoint.runtime_options, *volumes_of)
    return [part for part in every if part is not None]


def _require_blob(client: Client, part: Descriptor) -> None:
    blob = content.stat(client, part.digest)
    if blob is None or blob.size != part.size:
        raise InputError(
            "blob_missing" if blob is None else "blob_truncated",
            f"The blob {part.digest} ({part.media_type}) of the checkpoint "
            + ("is not in containerd's content store." if blob is None else f"has {blob.size} bytes, not {part.size}."),
            "Delete the checkpoint image, then import or pull it again.",
        )


def _node_problems(client: Client, found: Report, original: Original, params: container_params.ContainerParams) -> None:
    path = daemon.daemon_environment(client)["PATH"]
    _collect(found, lambda: daemon.require_snapshotter(client, original.snapshotter))
    runtime = _collect(
        found, lambda: runtimes.choose(client, params.runtimes, original.runtime, original.runtime_options)
    )
    if runtime is not None:
        found.warnings.extend(runtime.warnings)
        _collect(found, lambda: daemon.require_runtime(runtime.name, path, runtime.program))
    iptables = dump_config.locks_by_iptables(original.checkpoint.facts.criu_options, dump_config.config_of({}, {}))
    program = runtime.program if runtime is not None else daemon.RUNC
    for problem in daemon.restore_problems(path, iptables, program):
        found.add(problem)


def _compare(client: Client, found: Report, original: Original) -> None:
    """What a capture of this collection recorded, beside this node."""
    recorded = original.checkpoint.facts
    if recorded == Facts():
        return
    path = daemon.daemon_environment(client)["PATH"]
    here = facts.node(path, original.runtime)
    if recorded.gpu:
        here = replace(here, gpu=GpuFacts(driver=nvml.read().driver))
    compared = facts.compare(recorded, here)
    for code, message in compared.problems.items():
        found.add(NodeError(code, message, "Restore on a node like the one that it was captured on."))
    found.warnings.extend(compared.warnings)
    found.warnings.extend(depth.warnings(recorded.container or "The container", recorded.written_steps))


def _room(client: Client, found: Report, original: Original, params: container_params.ContainerParams) -> None:
    criu = original.checkpoint.criu
    if criu is None:
        return
    staged = _collect(found, lambda: staged_checkpoint.find(params.staging_dir, original.checkpoint.key))
    found.status["staged"] = staged is not None
    if staged is None and original.checkpoint.on_node:
        found.add(checkpoint_reader.gone(original.checkpoint, params.staging_dir))
    elif staged is None:
        free, needed = files.free_bytes(params.staging_dir), criu.size + files.RESERVE
        if needed > free:
            found.add(staging.no_space(params.staging_dir, needed, free))


def _spec_problems(
    client: Client,
    found: Report,
    original: Original,
    image: Image | None,
    params: container_params.ContainerParams,
    stdout: str,
    stderr: str,
) -> None:
    if original.stored_spec is not None and found.checkpoint is not None:
        try:
            spec_validate.check(original.stored_spec)
        except InputError as error:
            found.add(error)
            return
        found.checkpoint["spec"] = spec_summary.summary(original.stored_spec)
    if not params.container_id or (original.stored_spec is None and image is None):
        return
    live = _present(client, found, original, params)
    before = _collect(found, lambda: container_steps.spec_as_it_was(client, params, original, image))
    if before is None:
        return
    refused = None if live else container_steps.spec_problem(client, params, original, before)
    if refused is not None:
        found.add(refused)
    adapted = _collect(found, lambda: container_steps.plan_spec(client, params, original, before))
    if adapted is None:
        return
    found.warnings.extend(adapted.warnings)
    if live:
        # It runs already: what it was started with no longer has to be there.
        return
    laid = container_steps.plan_volumes(client, params, original)
    _collect(found, lambda: volumes.require_room(params.container_id, laid))
    for problem in _collect(found, lambda: container_steps.lacking(client, params, original, adapted.spec)) or ():
        found.add(problem)
    terminal = bool(adapted.spec.get("process", {}).get("terminal"))
    output = _collect(found, lambda: stdio.plan(stdout, stderr, terminal, "stdin"))
    staged = _collect(found, lambda: staged_checkpoint.find(params.staging_dir, original.checkpoint.key))
    if output is not None and staged is not None:
        found.warnings.extend(output.warnings(staged.directory))
    if loopback.is_down(adapted.spec, client.namespace, params.container_id):
        work = state_dir.work_dir(params.staging_dir, client.namespace, params.container_id)
        why = loopback.problem(client, work)
        if why:
            found.warnings.append(loopback.warning(params.container_id, why))


def _present(client: Client, found: Report, original: Original, params: container_params.ContainerParams) -> bool:
    """Look at a container of that name; True if its task lives."""
    container = containers.get(client, params.container_id)
    task = tasks.get(client, params.container_id) if container else None
    found.status["container"] = container is not None
    found.status["task"] = task.status if task else "absent"
    if container is None:
        return False
    _collect(found, lambda: containers.require_ours(container, params.owner, params.force))
    _collect(
        found,
        lambda: containers.require_same_checkpoint(
            container, original.checkpoint.digest_for(container.labels.get(labels.CHECKPOINT, "")), params.force
        ),
    )
    if task is not None and task.status in ("PAUSED", "PAUSING"):
        _collect(found, lambda: _refuse_paused(client, task))
    used = containers.is_used(client, container)
    found.status["used"] = used
    live = task_removal.is_live(task)
    if used and not live and not params.rebuild:
        found.add(containers.used_snapshot(container))
    return live


def _refuse_paused(client: Client, task: Task) -> None:
    parked.refuse(client.namespace, task)
    tasks.refuse_paused(task)


def _describe(original: Original, image: Image | None) -> dict[str, Any]:
    checkpoint = original.checkpoint

    def shown(part: Descriptor | None) -> dict[str, Any] | None:
        return {"digest": part.digest, "size": part.size} if part else None

    return {
        "name": checkpoint.name,
        "digest": checkpoint.digest,
        "layout": checkpoint.layout,
        "base_image": {
            "name": original.image_name or checkpoint.base_name,
            "digest": checkpoint.base.digest if checkpoint.base else (image.target.digest if image else ""),
            "present": image is not None,
            "private_name": checkpoint_reader.private_name(checkpoint.base_name, checkpoint.base.digest)
            if checkpoint.base
            else "",
        },
        "runtime": checkpoint.runtime,
        "cgroup_driver": original.cgroup_driver,
        "snapshotter": original.snapshotter,
        "criu": shown(checkpoint.criu),
        "store": "node" if checkpoint.on_node else "image",
        "writable_layer": shown(checkpoint.writable_layer),
        "memory_volumes": [volume.shown() for volume in checkpoint.memory_volumes],
        "options": shown(checkpoint.options),
        "spec_source": original.spec_source,
        "spec": None,
        "recorded": checkpoint.facts.to_json() or None,
    }
