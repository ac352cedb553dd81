# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container is built from its parts, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from .._checkpoint import written as checkpoint_written
from .._checkpoint.differences import Difference
from .._checkpoint.original import Original
from .._containerd import containers, content, leases, snapshots, task_removal
from .._containerd.client import COMPRESSED, Client
from .._containerd.containers import Container
from .._containerd.images import Image
from .._containerd.snapshots import Snapshot
from .._core import labels as core_labels, state_dir
from .._core.errors import AlreadyExistsError, ConflictError, RestoreError, RpcError, combined
from .._criu import config as criu_config_file
from .._host import run_lock
from .._image import unpack
from . import mounts, netns, volumes
from .params import ContainerParams
from .volumes import Volume


@dataclass(frozen=True)
class Files:
    """What a container needs outside of containerd: its CRIU configuration, memory volumes, a network namespace."""

    container_id: str
    staging_dir: str
    #: containerd's.
    namespace: str
    #: The text of the configuration.
    criu_config: str
    #: The name of its own network namespace, empty where it has none.
    netns_name: str
    volumes_root: str = ""
    volumes: Sequence[Volume] = ()

    @property
    def _config_path(self) -> str:
        return state_dir.criu_config(self.staging_dir, self.namespace, self.container_id)

    def planned_paths(self) -> tuple[str, ...]:
        """What :meth:`make` makes and a check of the node therefore need not find."""
        own = (netns.path(self.netns_name),) if self.netns_name else ()
        return (*own, *(volume.content for volume in self.volumes))

    def planned_actions(self) -> list[str]:
        """What :meth:`make` would do, as actions."""
        found = []
        if state_dir.read_text(self._config_path) != self.criu_config:
            found.append("write the CRIU configuration")
        if self.netns_name and not netns.exists(self.netns_name):
            found.append(f"make the network namespace {netns.path(self.netns_name)}")
        return found + self.planned_volumes(fresh=False)

    def planned_volumes(self, fresh: bool) -> list[str]:
        """The part of memory volumes; ``fresh`` as of :func:`volumes.lay`."""
        return [
            f"fill the memory volume {volume.content}"
            for volume in volumes.missing(self.volumes, self.container_id, fresh)
        ]

    def make(self, client: Client, fresh: bool) -> None:
        """Make what is missing; ``fresh``: memory volumes that a task has run on are made anew."""
        volumes.lay(client, self.volumes, self.container_id, fresh)
        state_dir.make_private(os.path.dirname(self._config_path), self.staging_dir)
        criu_config_file.write(self._config_path, self.criu_config)
        if self.netns_name and not netns.exists(self.netns_name):
            netns.make(self.netns_name)

    def undo(self) -> Callable[[], None]:
        """What takes away again what :meth:`make`, called after this, will have made, and no more."""
        keep_work = state_dir.exists(state_dir.work_dir(self.staging_dir, self.namespace, self.container_id))
        keep_netns = not self.netns_name or netns.exists(self.netns_name)
        keep_volumes = not volumes.missing(self.volumes, self.container_id, fresh=True)

        def act() -> None:
            if not keep_work:
                state_dir.remove_work(self.staging_dir, self.namespace, self.container_id)
            if not keep_netns:
                netns.remove(self.netns_name)
            if not keep_volumes:
                volumes.release(self.volumes_root, self.namespace, self.container_id)

        return act


def build(
    client: Client, params: ContainerParams, wanted: Container, original: Original, image: Image, files: Files
) -> list[Difference]:
    """Replace what is there by a fresh snapshot and record; whatever this made is undone if any part fails.

    What of the files is not as it was.
    """
    undo: list[Callable[[], object]] = []
    rootfs = unpack.rootfs(client, image.target, image.name)
    written = original.checkpoint.writable_layer
    size = sum(layer.size for layer in (*rootfs.layers, *([written] if written else [])))
    with ExitStack() as stack:
        for digest in (original.checkpoint.digest, image.target.digest):
            stack.enter_context(run_lock.kept(digest, client.busy_seconds))
        seconds = client.seconds_for(size * COMPRESSED)
        stack.enter_context(leases.hold(client, params.lease, purpose(params.container_id), seconds))
        try:
            if unpack.unpack(client, rootfs, wanted.snapshotter):
                undo.append(lambda: unpack.forget(client, rootfs, wanted.snapshotter))
            # As late as can be: what is removed here does not come back after a failure.
            _remove_old(client, params.container_id)
            unlike = _fresh_snapshot(client, params, wanted, original, rootfs.chain_id)
            undo.append(lambda: snapshots.remove(client, wanted.snapshotter, wanted.snapshot_key))
            _require_kinds(client, wanted, files)
            undo.append(files.undo())
            files.make(client, fresh=True)
            try:
                containers.create(client, wanted)
            except AlreadyExistsError:
                raise
            except RpcError:
                # It may have taken effect although the answer did not come.
                undo.append(lambda: containers.delete(client, wanted.id))
                raise
        except BaseException as error:
            _roll_back(undo, error)
            raise
    return unlike


def purpose(container_id: str) -> str:
    """What the lease of a build is for."""
    return f"container {container_id}"


def require_layer(client: Client, original: Original, check: bool) -> None:
    """The writable layer is whole, before anything is replaced: the daemon would not notice another content.

    Raises InputError ``blob_missing``, ``blob_truncated``, ``blob_digest``. Check mode does not read it through.
    """
    layer = original.checkpoint.writable_layer
    if layer is None:
        return
    if not check:
        content.verify(client, layer.digest, layer.size)
    elif content.stat(client, layer.digest) is None:
        raise content.missing(layer.digest, layer.size)


def own_snapshot(client: Client, params: ContainerParams, wanted: Container) -> Snapshot | None:
    """The snapshot under the key that we want, if there is one. Raises ConflictError ``snapshot_in_use``."""
    found = snapshots.stat(client, wanted.snapshotter, wanted.snapshot_key)
    if found is None:
        return None
    owner = core_labels.owner_of(found.labels)
    container = found.labels.get(core_labels.CONTAINER, params.container_id)
    if container != params.container_id:
        # Two workloads with one snapshotID in their metadata: one would run on the other's files.
        whose = f"is that of the container {container}"
    elif owner != params.owner and not params.force:
        whose = f"belongs to {owner}" if owner else "was not made by this collection"
    else:
        return found
    raise ConflictError(
        "snapshot_in_use",
        f"The snapshot {wanted.snapshot_key} exists and {whose}.",
        "Choose another snapshot_id, or remove that snapshot.",
        details={"snapshot": wanted.snapshot_key, "owner": owner},
    )


def _fresh_snapshot(
    client: Client, params: ContainerParams, wanted: Container, original: Original, parent: str
) -> list[Difference]:
    """The snapshot with the writable layer applied exactly once; its label says that the apply was complete."""
    layer = original.checkpoint.writable_layer
    applied = layer.digest if layer else core_labels.NO_LAYER
    found = own_snapshot(client, params, wanted)
    if found is not None:
        whole = found.labels.get(core_labels.WRITABLE_LAYER) == applied and found.parent == parent
        same = found.labels.get(core_labels.CHECKPOINT) == wanted.labels[core_labels.CHECKPOINT]
        if whole and same and found.labels.get(core_labels.USED) != "true":
            return []
        snapshots.remove(client, wanted.snapshotter, wanted.snapshot_key)
    labels = {
        core_labels.OWNER: params.owner,
        core_labels.CHECKPOINT: wanted.labels[core_labels.CHECKPOINT],
        core_labels.CONTAINER: params.container_id,
    }
    onto = snapshots.prepare(client, wanted.snapshotter, wanted.snapshot_key, parent, labels)
    unlike: list[Difference] = []
    try:
        if layer is not None:
            snapshots.apply(client, layer, onto)
        if original.checkpoint.written is not None:
            unlike = checkpoint_written.lay(checkpoint_written.read(client, original.checkpoint.written), onto)
        snapshots.set_labels(client, wanted.snapshotter, wanted.snapshot_key, {core_labels.WRITABLE_LAYER: applied})
    except BaseException as error:
        _roll_back([lambda: snapshots.remove(client, wanted.snapshotter, wanted.snapshot_key)], error)
        raise
    return unlike


def _require_kinds(client: Client, wanted: Container, files: Files) -> None:
    """Every bind source is what the container had there, as its files tell. Raises NodeError ``mount_source_kind``."""
    rootfs = snapshots.mounts(client, wanted.snapshotter, wanted.snapshot_key)
    kinds = mounts.bind_kinds(rootfs, wanted.spec.get("mounts") or ())
    resolve = mounts.resolver(rootfs)
    problems = mounts.problems(wanted.spec, expected_kinds=kinds, planned=files.planned_paths(), resolve=resolve)
    if problems:
        raise combined(problems)


def _remove_old(client: Client, container_id: str) -> None:
    old = containers.get(client, container_id)
    if old is None:
        return
    task_removal.remove(client, container_id, 0.0)
    containers.delete(client, container_id)
    snapshots.remove(client, old.snapshotter, old.snapshot_key)


def _roll_back(undo: list[Callable[[], object]], reason: BaseException) -> None:
    """Undo in reverse order, as far as it goes; what stays is said in the failure, which is not hidden."""
    for act in reversed(undo):
        try:
            act()
        except (RestoreError, OSError) as error:
            if isinstance(reason, RestoreError):
                reason.left_behind(str(error))
