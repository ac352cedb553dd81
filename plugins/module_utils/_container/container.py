# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The step that makes or removes a container with its snapshot."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from .._checkpoint import original as checkpoint_original, reader as checkpoint_reader, staged as checkpoint_staged
from .._checkpoint.original import Original
from .._containerd import containers, daemon, extracted, leases, runtimes, snapshots, task_removal, tasks
from .._containerd.client import Client
from .._containerd.containers import Container
from .._containerd.images import Image
from .._core import labels, state_dir
from .._core.errors import ConflictError, InputError, NodeError, RestoreError, combined
from .._criu import config as criu_config
from .._host import cgroup
from .._image import unpack
from .._oci import spec_adapt, spec_namespaces, spec_summary, spec_validate
from . import build, comparison, driver_files, limits, mounts, netns, network, policy as container_policy, volumes
from .params import ContainerParams, ContainerResult
from .volumes import Volume


def _own_netns(client: Client, container_id: str, spec: Mapping[str, Any]) -> str:
    """The name of the network namespace of ours that the spec has, empty where it has none."""
    entries = (spec.get("linux") or {}).get("namespaces") or []
    paths = [entry.get("path") for entry in entries]
    names = (state_dir.node_name(client.namespace, container_id), container_id)
    return next((name for name in names if netns.path(name) in paths), "")


def plan_volumes(client: Client, params: ContainerParams, original: Original) -> list[Volume]:
    """The memory volumes that the container is to have. Raises InputError ``memory_volumes_invalid``,
    ``memory_volume_unknown``."""
    planned = volumes.plan(
        original.checkpoint.memory_volumes,
        params.memory_volumes,
        lambda source: spec_adapt.moved(source, params.mounts) is not None,
        volumes.default_root(),
        client.namespace,
        params.container_id,
        spec_adapt.mount_label(original.stored_spec or {}) or "",
    )
    return [
        dataclasses.replace(volume, record=params.shared_volumes.get(volume.record.source, volume.record))
        for volume in planned
    ]


def lay_volumes(client: Client, params: ContainerParams, original: Original) -> bool:
    """Have the memory volumes filled, before anything else of the container is made; false if there was nothing to do.

    A container of that name must have no live task. Raises InputError ``spec_invalid`` and as :func:`volumes.lay`.
    """
    if original.stored_spec is not None:
        spec_validate.check(original.stored_spec)
    return bool(volumes.lay(client, plan_volumes(client, params, original), params.container_id, fresh=True))


def release_volumes(client: Client, container_id: str) -> None:
    """Take away the memory volumes of a container that could not be made."""
    if containers.get(client, container_id) is None:
        volumes.release(volumes.default_root(), client.namespace, container_id)


def spec_as_it_was(
    client: Client, params: ContainerParams, original: Original, image: Image | None
) -> Mapping[str, Any]:
    """The original's spec, checked. ``image`` is only needed where it has to be generated from its config."""
    if original.stored_spec is not None:
        before = original.stored_spec
    elif image is not None:
        before = checkpoint_original.spec(client, original, image, params.container_id)
    else:
        raise InputError(
            "base_image_absent",
            f"Neither the checkpoint {original.checkpoint.name} nor metadata has an OCI spec, and the base image "
            "that one could be generated from is not on the node.",
            "Import or pull the base image first, or give the spec in metadata (ociSpec).",
        )
    spec_validate.check(before)
    return before


def plan_spec(
    client: Client, params: ContainerParams, original: Original, before: Mapping[str, Any], name: str = ""
) -> spec_adapt.Adapted:
    """The adapted spec; ``before``: the original's, ``name``: what its things on the node are named after."""
    name = name or state_dir.node_name(client.namespace, params.container_id)
    fresh = spec_namespaces.needs_fresh_netns(before, params.network)
    spec, left_out = limits.fitted(before) if params.limits == limits.FIT else (before, [])
    path = params.cgroups_path or cgroup.cgroups_path(params.container_id, original.cgroup_driver, name)
    adapted = spec_adapt.adapt(
        spec,
        spec_adapt.Adaptation(
            container_id=params.container_id,
            # What a driver has under another name here, or elsewhere, nobody has to write down.
            mounts={**driver_files.mapping(before, params.mounts), **params.mounts},
            added_mounts=params.added_mounts,
            volumes=_volume_sources(client, params, original),
            network=params.network,
            network_command=params.network_command,
            fresh_netns=netns.path(name) if fresh else "",
            cgroups_path=path,
            env=params.env,
            allow_hooks=params.allow_hooks,
            allow_annotations=params.allow_annotations,
            criu_config_path=state_dir.criu_config(params.staging_dir, client.namespace, params.container_id),
        ),
    )
    changes, warnings = [*left_out, *adapted.changes], [*left_out, *adapted.warnings]
    return dataclasses.replace(adapted, changes=changes, warnings=warnings)


def _plan_again(
    client: Client, params: ContainerParams, original: Original, before: Mapping[str, Any]
) -> spec_adapt.Adapted:
    """The adapted spec; that of an earlier release where a container of its runs with it."""
    adapted = plan_spec(client, params, original, before)
    if client.namespace == state_dir.PLAIN_NAMESPACE:
        return adapted
    found = containers.get(client, params.container_id)
    if found is None or found.labels.get(labels.SPEC) == spec_adapt.digest(adapted.spec):
        return adapted
    # They named things on the node alike in all of containerd's namespaces.
    earlier = plan_spec(client, params, original, before, params.container_id)
    same = found.labels.get(labels.SPEC) == spec_adapt.digest(earlier.spec)
    return earlier if same and task_removal.is_live(tasks.get(client, params.container_id)) else adapted


def spec_problem(
    client: Client, params: ContainerParams, original: Original, before: Mapping[str, Any]
) -> InputError | None:
    """Why the policy forbids a container of that spec; None where it does not."""
    staged = checkpoint_staged.find(params.staging_dir, original.checkpoint.key)
    images = staged.directory if staged else ""
    # A memory volume is no directory of the host's.
    mapped = {**_volume_sources(client, params, original), **params.mounts}
    return container_policy.problem(client, params.policy, original, before, mapped, params.network, images)


def _volume_sources(client: Client, params: ContainerParams, original: Original) -> dict[str, str]:
    return {volume.record.source: volume.content for volume in plan_volumes(client, params, original)}


def lacking(client: Client, params: ContainerParams, original: Original, spec: Mapping[str, Any]) -> list[NodeError]:
    """What the node, or the spec (adapted), lacks for the mounts, devices and namespaces of the checkpoint."""
    own_netns = netns.path(state_dir.node_name(client.namespace, params.container_id))
    planned = (own_netns, *(volume.content for volume in plan_volumes(client, params, original)))
    problems = [*mounts.problems(spec, planned=planned), *limits.problems(spec), *network.problems(spec)]
    staged = checkpoint_staged.find(params.staging_dir, original.checkpoint.key)
    return problems + (mounts.unnamed(staged.directory, spec) if staged else [])


def present(client: Client, params: ContainerParams, check: bool, original: Original | None = None) -> ContainerResult:
    """Make the container with a fresh snapshot and the adapted spec, unless it is there as wanted.

    ``original``: what ``params.source`` describes, where that is read already.
    Raises InputError, ConflictError and NodeError; after a failure nothing that this call made is left.
    """
    if original is None:
        try:
            original = checkpoint_original.read(client, params.source)
        except RestoreError as error:
            return without_checkpoint(params, error, check)
    checkpoint_reader.require_criu(original.checkpoint)
    result = ContainerResult()
    if original.checkpoint.writable_layer is None:
        result.warnings.append(
            f"The checkpoint {original.checkpoint.name} has no writable layer: files that the container had changed "
            "are as in its image, and CRIU refuses if an open one is missing."
        )
    # Only a spec that has to be generated needs the image this early; a container that is there needs none.
    image = _find_base(client, original, params, check, result) if original.stored_spec is None else None
    before = spec_as_it_was(client, params, original, image)
    adapted = _plan_again(client, params, original, before)
    refused = spec_problem(client, params, original, before)
    if refused is not None and not task_removal.is_live(tasks.get(client, params.container_id)):
        # What runs already is not asked again.
        raise refused
    config_text = criu_config.render(
        criu_config.taken_over(params.criu, original.dump_options),
        state_dir.restore_log(params.staging_dir, client.namespace, params.container_id),
    )
    key = params.snapshot_id or _default_snapshot(params)
    runtime = runtimes.choose(client, params.runtimes, original.runtime, original.runtime_options)
    wanted = Container(
        id=params.container_id,
        image=image.name if image else original.image_name or original.checkpoint.base_name,
        labels={
            **labels.of_origin(original.checkpoint.facts.labels),
            labels.OWNER: params.owner,
            labels.CHECKPOINT: _known_digest(client, params.container_id, original.checkpoint),
            labels.SPEC: spec_adapt.digest(adapted.spec),
        },
        runtime=runtime.name,
        runtime_options=runtime.options,
        spec=adapted.spec,
        snapshotter=original.snapshotter,
        snapshot_key=key,
    )
    result.warnings.extend(adapted.warnings)
    result.warnings.extend(runtime.warnings)
    result.spec_changes = list(adapted.changes)
    result.spec_before = spec_summary.redacted(original.stored_spec) if original.stored_spec else {}
    result.spec_after = spec_summary.redacted(adapted.spec)
    result.container = _result(wanted, original.spec_source)
    own_netns = _own_netns(client, params.container_id, adapted.spec)
    files = build.Files(
        params.container_id,
        params.staging_dir,
        client.namespace,
        config_text,
        own_netns,
        volumes.default_root(),
        plan_volumes(client, params, original),
    )
    if _is_as_wanted(client, params, wanted, original, result):
        if task_removal.is_live(tasks.get(client, params.container_id)):
            # Its task has them.
            files = dataclasses.replace(files, volumes=())
        result.actions.extend(files.planned_actions())
        if not check:
            files.make(client, fresh=False)
        _drop_lease(client, params.container_id, check, result)
        result.changed = bool(result.actions)
        return result
    image = image or _find_base(client, original, params, check, result)
    daemon.require_snapshotter(client, original.snapshotter)
    daemon.require_runtime(wanted.runtime, daemon.daemon_environment(client)["PATH"], runtime.program)
    problems = lacking(client, params, original, adapted.spec)
    if problems:
        raise combined(problems)
    build.require_layer(client, original, check)
    build.own_snapshot(client, params, wanted)
    result.changed = result.created = True
    result.actions += files.planned_volumes(fresh=True)
    if check:
        volumes.require_room(params.container_id, files.volumes)
    result.actions.append(f"make snapshot {key} and container {params.container_id}")
    if image is not None:
        wanted = dataclasses.replace(wanted, image=image.name)
        result.container["image"] = image.name
        if not check:
            earlier = _netns_names(client, params.container_id, containers.get(client, params.container_id))
            result.differences = build.build(client, params, wanted, original, image, files)
            result.warnings += comparison.warnings(params.container_id, result.differences)
            if own_netns:
                # One with the name that an earlier release gave it.
                for name in set(earlier) - {own_netns}:
                    netns.remove(name)
    return result


def _known_digest(client: Client, container_id: str, checkpoint: checkpoint_reader.Checkpoint) -> str:
    """The checkpoint's digest; the earlier one where the container is from before its image was written."""
    found = containers.get(client, container_id) if checkpoint.earlier else None
    return checkpoint.digest_for(found.labels.get(labels.CHECKPOINT, "")) if found else checkpoint.digest


def without_checkpoint(params: ContainerParams, error: RestoreError, check: bool) -> ContainerResult:
    """What :func:`present` does where the checkpoint could not be read because of ``error``: raise it, unless check
    mode takes it that the checkpoint is still to come."""
    if check and params.assume_prepared and error.code == "checkpoint_absent":
        action = f"make a snapshot and the container {params.container_id}"
        return ContainerResult(changed=True, created=True, actions=[action])
    raise error


def absent(
    client: Client,
    container_id: str,
    owner: str,
    force: bool,
    staging_dir: str,
    check: bool,
    assume_prepared: bool = False,
) -> ContainerResult:
    """Remove a container of ours with its snapshot and files. Raises ConflictError ``task_exists``, ``not_ours``.

    ``assume_prepared``: in check mode, take a live task for gone already.
    """
    result = ContainerResult()
    found = containers.get(client, container_id)
    snapshotter, key = (found.snapshotter, found.snapshot_key) if found else ("", "")
    if found is not None:
        containers.require_ours(found, owner, force)
        task = None if check and assume_prepared else tasks.get(client, container_id)
        if task is not None and task_removal.is_live(task):
            raise ConflictError(
                "task_exists",
                f"The container {container_id} has a task that is {task.status} (pid {task.pid}).",
                "End it first: containerd_task with state: absent.",
            )
        if task is not None:
            result.actions.append("delete the ended task")
            if not check:
                task_removal.remove(client, container_id, 0.0)
        result.actions.append(f"delete container {container_id}")
        if not check:
            containers.delete(client, container_id)
    if not key:
        # A run that was killed between snapshot and container leaves the snapshot under its derived name.
        snapshotter, key = _orphan(client, container_id, owner)
    if key and snapshots.stat(client, snapshotter, key) is not None:
        result.actions.append(f"remove snapshot {key}")
        if not check:
            snapshots.remove(client, snapshotter, key)
    work = state_dir.work_dir(staging_dir, client.namespace, container_id)
    if network.is_noted(work):
        result.actions.append("have what made the network take it away")
        if not check:
            result.warnings += network.release(work)
    if state_dir.exists(work):
        result.actions.append(f"remove {work}")
        if not check:
            # What is noted there is found by that note alone.
            result.warnings += extracted.remove_abandoned(client, staging_dir, work)
            state_dir.remove_work(staging_dir, client.namespace, container_id)
    for name in _netns_names(client, container_id, found):
        result.actions.append(f"remove the network namespace {netns.path(name)}")
        if not check:
            netns.remove(name)
    for place in volumes.places(volumes.default_root(), client.namespace, container_id):
        result.actions.append(f"release the memory volume {place}")
    if not check:
        volumes.release(volumes.default_root(), client.namespace, container_id)
    _drop_lease(client, container_id, check, result)
    result.changed = bool(result.actions)
    return result


def _netns_names(client: Client, container_id: str, found: Container | None) -> list[str]:
    """The network namespaces of ours that a container has on the node."""
    names = {state_dir.node_name(client.namespace, container_id)}
    if found is not None and _own_netns(client, container_id, found.spec) not in ("", *names):
        # An earlier release's, which the container of that name in the plain namespace may have, too.
        with client.using_namespace(state_dir.PLAIN_NAMESPACE):
            if containers.get(client, container_id) is None:
                names.add(container_id)
    return sorted(name for name in names if netns.exists(name))


def _drop_lease(client: Client, container_id: str, check: bool, result: ContainerResult) -> None:
    if leases.drop_abandoned(client, build.purpose(container_id), check):
        result.actions.append("drop the lease of a run that was killed")


def _default_snapshot(params: ContainerParams) -> str:
    named = params.source.metadata.snapshot_id if params.source.metadata else ""
    return named or derived_snapshot(params.container_id)


def derived_snapshot(container_id: str) -> str:
    """The snapshot key of a container where none was asked for."""
    return f"gpuops-restore-{container_id}"


def _find_base(
    client: Client, original: Original, params: ContainerParams, check: bool, result: ContainerResult
) -> Image | None:
    try:
        return checkpoint_original.base_image(client, original)
    except InputError as error:
        if check and params.assume_prepared and error.code == "base_image_absent":
            result.warnings.append(f"Check mode takes it that the base image will be there. {error.message}")
            return None
        raise


def _is_as_wanted(
    client: Client, params: ContainerParams, wanted: Container, original: Original, result: ContainerResult
) -> bool:
    """Whether the container is there as wanted; raises ConflictError if it must not be replaced."""
    found = containers.get(client, params.container_id)
    if found is None:
        return False
    containers.require_ours(found, params.owner, params.force)
    containers.require_same_checkpoint(found, wanted.labels[labels.CHECKPOINT], params.force)
    task = tasks.get(client, params.container_id)
    live = task_removal.is_live(task)
    same = (
        found.labels.get(labels.CHECKPOINT) == wanted.labels[labels.CHECKPOINT]
        and found.labels.get(labels.SPEC) == wanted.labels[labels.SPEC]
        and found.labels.get(labels.OWNER) == params.owner
        and found.snapshotter == wanted.snapshotter
        and found.snapshot_key == wanted.snapshot_key
        # What runs already has its runtime, and an image whose name was moved meanwhile is no wish of anybody's.
        and not ((not live or original.image_name) and _is_of_another_image(client, params, original, found))
        and (live or _runtime_of(found) == _runtime_of(wanted))
    )
    whole = snapshots.stat(client, found.snapshotter, found.snapshot_key) is not None
    if same and whole and (live or not (params.rebuild and containers.is_used(client, found))):
        result.container["image"] = found.image
        return True
    if live:
        raise ConflictError(
            "container_in_use",
            f"The container {params.container_id} runs (pid {task.pid if task else 0}) with another image, spec or "
            "snapshot than is wanted now.",
            "End its task first (containerd_task with state: absent), or leave its parameters as they were.",
        )
    result.actions.append(
        f"remove container {params.container_id}: "
        + ("its snapshot is used" if same else "it differs from what is wanted")
    )
    return False


def _runtime_of(container: Container) -> runtimes.Runtime:
    return runtimes.recorded(container.runtime, container.runtime_options)


def _is_of_another_image(client: Client, params: ContainerParams, original: Original, found: Container) -> bool:
    """Whether the container's snapshot stands on another image than the one that is meant now.

    Its name proves nothing, since names are moved. Where the image is not on the node (any more) and its digest is not
    recorded, a name is all that there is. Raises ConflictError ``base_image_moved`` for an image that the operator
    names.
    """
    own = snapshots.stat(client, found.snapshotter, found.snapshot_key)
    if own is None:
        return False
    try:
        image = checkpoint_original.base_image(client, original)
        return own.parent != unpack.rootfs(client, image.target, image.name).chain_id
    except ConflictError:
        if params.source.image:
            raise
        return False
    except InputError:
        return original.checkpoint.base is None and original.image_name not in ("", found.image)


def _orphan(client: Client, container_id: str, owner: str) -> tuple[str, str]:
    key = derived_snapshot(container_id)
    for snapshotter in daemon.snapshotters(daemon.plugins(client)):
        found = snapshots.stat(client, snapshotter, key)
        if found is not None and labels.owner_of(found.labels) == owner:
            return snapshotter, key
    return "", ""


def _result(container: Container, spec_source: str) -> dict[str, Any]:
    return {
        "id": container.id,
        "image": container.image,
        "runtime": container.runtime,
        "snapshotter": container.snapshotter,
        "snapshot_key": container.snapshot_key,
        "spec_source": spec_source,
        "labels": dict(container.labels),
    }
