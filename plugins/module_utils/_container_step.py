# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The step that makes or removes a container with its snapshot. Private: for this collection's own modules only."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.gpuops.restore.plugins.module_utils import (
    _cgroup,
    _checkpoint,
    _containers,
    _content,
    _criu_config,
    _labels,
    _leases,
    _mounts,
    _netns,
    _node,
    _original,
    _paths,
    _rootfs_kinds,
    _snapshots,
    _spec,
    _spec_namespaces,
    _task_end,
    _tasks,
    _unpack,
)
from ansible_collections.gpuops.restore.plugins.module_utils._client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._containers import Container
from ansible_collections.gpuops.restore.plugins.module_utils._errors import (
    AlreadyExistsError,
    ConflictError,
    InputError,
    NodeError,
    RestoreError,
    RpcError,
)
from ansible_collections.gpuops.restore.plugins.module_utils._images import Image
from ansible_collections.gpuops.restore.plugins.module_utils._original import Original
from ansible_collections.gpuops.restore.plugins.module_utils._snapshots import Snapshot


@dataclass(frozen=True)
class Wish:
    """The container that is wanted. ``mounts`` maps old bind sources to new ones; see the module's documentation."""

    container_id: str
    source: _original.Source
    snapshot_id: str = ""
    mounts: Mapping[str, str] = field(default_factory=dict)
    network: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cgroups_path: str = ""
    allow_hooks: bool = False
    allow_annotations: tuple[str, ...] = ()
    criu: _criu_config.CriuOptions = field(default_factory=_criu_config.CriuOptions)
    staging_dir: str = _paths.STATE_ROOT
    owner: str = _labels.DEFAULT_OWNER
    lease: str | None = None
    rebuild: bool = False
    force: bool = False
    assume_prepared: bool = False


@dataclass
class Outcome:
    """What was, or in check mode would be, done."""

    changed: bool = False
    created: bool = False
    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    spec_changes: list[str] = field(default_factory=list)
    spec_before: dict[str, Any] = field(default_factory=dict)
    spec_after: dict[str, Any] = field(default_factory=dict)
    container: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Files:
    """What a container needs on the node outside containerd: its CRIU configuration and, rarely, a namespace."""

    wish: Wish
    namespace: str
    criu_config: str
    own_netns: bool

    @property
    def _config_path(self) -> str:
        return _paths.criu_config(self.wish.staging_dir, self.namespace, self.wish.container_id)

    def planned(self) -> tuple[str, ...]:
        """Paths that need not be there before."""
        return (_netns.path(self.wish.container_id),) if self.own_netns else ()

    def lacking(self) -> list[str]:
        """What :meth:`make` would do, as actions."""
        found = []
        if _paths.read_text(self._config_path) != self.criu_config:
            found.append("write the CRIU configuration")
        if self.own_netns and not _netns.exists(self.wish.container_id):
            found.append(f"make the network namespace {_netns.path(self.wish.container_id)}")
        return found

    def make(self) -> None:
        """Make what lacks."""
        _paths.make_private(os.path.dirname(self._config_path), self.wish.staging_dir)
        _criu_config.write(self._config_path, self.criu_config)
        if self.own_netns and not _netns.exists(self.wish.container_id):
            _netns.make(self.wish.container_id)

    def undo(self) -> Callable[[], None]:
        """What takes away again what :meth:`make`, called after this, will have made, and no more."""
        keep_work = _paths.exists(_paths.work_dir(self.wish.staging_dir, self.namespace, self.wish.container_id))
        keep_netns = not self.own_netns or _netns.exists(self.wish.container_id)

        def act() -> None:
            if not keep_work:
                _paths.remove_work(self.wish.staging_dir, self.namespace, self.wish.container_id)
            if not keep_netns:
                _netns.remove(self.wish.container_id)

        return act


def _uses_own_netns(wish: Wish, spec: Mapping[str, Any]) -> bool:
    entries = (spec.get("linux") or {}).get("namespaces") or []
    return any(entry.get("path") == _netns.path(wish.container_id) for entry in entries)


def plan_spec(client: Client, wish: Wish, original: Original, image: Image | None) -> _spec.Adapted:
    """The adapted spec. ``image`` is only needed where the spec has to be generated from its config."""
    if original.stored_spec is not None:
        before = original.stored_spec
    elif image is not None:
        before = _original.spec(client, original, image, wish.container_id)
    else:
        raise InputError(
            "base_image_absent",
            f"Neither the checkpoint {original.checkpoint.name} nor metadata has an OCI spec, and the base image "
            "that one could be generated from is not on the node.",
            "Import or pull the base image first, or give the spec in metadata (ociSpec).",
        )
    _spec.check(before)
    fresh = _spec_namespaces.needs_fresh_netns(before, wish.network)
    path = wish.cgroups_path or _cgroup.cgroups_path(wish.container_id, original.cgroup_driver)
    return _spec.adapt(
        before,
        _spec.Adaptation(
            container_id=wish.container_id,
            mounts=wish.mounts,
            network=wish.network,
            fresh_netns=_netns.path(wish.container_id) if fresh else "",
            cgroups_path=path,
            env=wish.env,
            allow_hooks=wish.allow_hooks,
            allow_annotations=wish.allow_annotations,
            criu_config_path=_paths.criu_config(wish.staging_dir, client.namespace, wish.container_id),
        ),
    )


def present(client: Client, wish: Wish, check: bool) -> Outcome:
    """Make the container with a fresh snapshot and the adapted spec, unless it is there as wanted.

    Raises InputError, ConflictError and NodeError; after a failure nothing that this call made is left.
    """
    original = _original.read(client, wish.source)
    _checkpoint.require_criu(original.checkpoint)
    outcome = Outcome()
    if original.checkpoint.writable_layer is None:
        outcome.warnings.append(
            f"The checkpoint {original.checkpoint.name} has no writable layer: files that the container had changed "
            "are as in its image, and CRIU refuses if an open one is missing."
        )
    # Only a spec that has to be generated needs the image this early; a container that is there needs none.
    image = _find_base(client, original, wish, check, outcome) if original.stored_spec is None else None
    adapted = plan_spec(client, wish, original, image)
    config_text = _criu_config.render(
        wish.criu, _paths.restore_log(wish.staging_dir, client.namespace, wish.container_id)
    )
    key = wish.snapshot_id or _default_snapshot(wish)
    wanted = Container(
        id=wish.container_id,
        image=image.name if image else original.image_name or original.checkpoint.base_name,
        labels={
            _labels.OWNER: wish.owner,
            _labels.CHECKPOINT: original.checkpoint.digest,
            _labels.SPEC: _spec.digest(adapted.spec),
        },
        runtime=original.runtime,
        runtime_options=original.runtime_options,
        spec=adapted.spec,
        snapshotter=original.snapshotter,
        snapshot_key=key,
    )
    outcome.warnings.extend(adapted.warnings)
    outcome.spec_changes = list(adapted.changes)
    outcome.spec_before = _spec.redacted(original.stored_spec) if original.stored_spec else {}
    outcome.spec_after = _spec.redacted(adapted.spec)
    outcome.container = _result(wanted, original.spec_source)
    files = _Files(wish, client.namespace, config_text, _uses_own_netns(wish, adapted.spec))
    if _agrees(client, wish, wanted, outcome):
        outcome.actions.extend(files.lacking())
        outcome.changed = bool(outcome.actions)
        if not check:
            files.make()
        return outcome
    image = image or _find_base(client, original, wish, check, outcome)
    _node.require_snapshotter(client, original.snapshotter)
    _node.require_runtime(original.runtime, _node.daemon_environment(client)["PATH"])
    problems = _mounts.problems(adapted.spec, planned=files.planned())
    if problems:
        raise combined(problems)
    _require_layer(client, original, check)
    _own_snapshot(client, wish, wanted)
    outcome.changed = outcome.created = True
    outcome.actions.append(f"make snapshot {key} and container {wish.container_id}")
    if image is not None:
        wanted = dataclasses.replace(wanted, image=image.name)
        outcome.container["image"] = image.name
        if not check:
            _build(client, wish, wanted, original, image, files)
    return outcome


def absent(
    client: Client,
    container_id: str,
    owner: str,
    force: bool,
    staging_dir: str,
    check: bool,
    assume_prepared: bool = False,
) -> Outcome:
    """Remove a container of ours with its snapshot and files. Raises ConflictError ``task_exists``, ``not_ours``.

    ``assume_prepared``: in check mode, take a live task for gone already.
    """
    outcome = Outcome()
    found = _containers.get(client, container_id)
    snapshotter, key = (found.snapshotter, found.snapshot_key) if found else ("", "")
    if found is not None:
        require_ours(found, owner, force)
        task = None if check and assume_prepared else _tasks.get(client, container_id)
        if task is not None and _task_end.is_live(task):
            raise ConflictError(
                "task_exists",
                f"The container {container_id} has a task that is {task.status} (pid {task.pid}).",
                "End it first: containerd_task with state: absent.",
            )
        if task is not None:
            outcome.actions.append("delete the ended task")
            if not check:
                _task_end.remove(client, container_id, 0.0)
        outcome.actions.append(f"delete container {container_id}")
        if not check:
            _containers.delete(client, container_id)
    if not key:
        # A run that was killed between snapshot and container leaves the snapshot under its derived name.
        snapshotter, key = _orphan(client, container_id, owner)
    if key and _snapshots.stat(client, snapshotter, key) is not None:
        outcome.actions.append(f"remove snapshot {key}")
        if not check:
            _snapshots.remove(client, snapshotter, key)
    work = _paths.work_dir(staging_dir, client.namespace, container_id)
    if _paths.exists(work):
        outcome.actions.append(f"remove {work}")
        if not check:
            _paths.remove_work(staging_dir, client.namespace, container_id)
    if _netns.exists(container_id):
        outcome.actions.append(f"remove the network namespace {_netns.path(container_id)}")
        if not check:
            _netns.remove(container_id)
    outcome.changed = bool(outcome.actions)
    return outcome


def combined(problems: list[NodeError]) -> NodeError:
    """Several problems as one error; a single one stays what it is."""
    if len(problems) == 1:
        return problems[0]
    return NodeError(
        problems[0].code if len({problem.code for problem in problems}) == 1 else "node_problems",
        f"{len(problems)} things are missing on this node: "
        + " ".join(f"({number}) {problem.sentence()}" for number, problem in enumerate(problems, 1)),
        "Mend all of them, then run again.",
        details={"problems": [{"code": problem.code, "message": problem.sentence()} for problem in problems]},
    )


def _default_snapshot(wish: Wish) -> str:
    named = wish.source.metadata.snapshot_id if wish.source.metadata else ""
    return named or derived_snapshot(wish.container_id)


def derived_snapshot(container_id: str) -> str:
    """The snapshot key of a container where none was asked for."""
    return f"gpuops-restore-{container_id}"


def _find_base(client: Client, original: Original, wish: Wish, check: bool, outcome: Outcome) -> Image | None:
    try:
        return _original.base_image(client, original)
    except InputError as error:
        if check and wish.assume_prepared and error.code == "base_image_absent":
            outcome.warnings.append(f"Check mode takes it that the base image will be there. {error.message}")
            return None
        raise


def is_used(client: Client, container: Container) -> bool:
    """Whether a task has run on the container's snapshot, so that its files no longer fit the checkpoint."""
    found = _snapshots.stat(client, container.snapshotter, container.snapshot_key)
    return found is not None and found.labels.get(_labels.USED) == "true"


def used_snapshot(container: Container) -> ConflictError:
    """The refusal to start from a checkpoint on a used snapshot."""
    return ConflictError(
        "snapshot_used",
        f"A task has already run on the snapshot {container.snapshot_key} of {container.id}: its files no longer "
        "fit the memory in the checkpoint.",
        "Have containerd_container make it anew (rebuild: true; the role: restore_node_when_stopped: restore).",
    )


def require_ours(found: Container, owner: str, force: bool) -> None:
    """Raise ConflictError ``container_not_ours`` for a container of another owner."""
    present_owner = _labels.owner_of(found.labels)
    if present_owner == owner or force:
        return
    whose = f"belongs to {present_owner}" if present_owner else "was not made by this collection"
    raise ConflictError(
        "container_not_ours",
        f"The container {found.id} exists and {whose}; this run's owner is {owner}.",
        "Choose another name, or remove that container with its own tool; force: true takes it over.",
        details={"container": found.id, "owner": present_owner, "wanted_owner": owner},
    )


def require_same_checkpoint(found: Container, digest: str, force: bool) -> None:
    """Raise ConflictError ``container_other_checkpoint`` for a container that was made from another one."""
    present_digest = found.labels.get(_labels.CHECKPOINT, "")
    if present_digest != digest and not force:
        raise ConflictError(
            "container_other_checkpoint",
            f"The container {found.id} exists from the checkpoint {present_digest or '(none)'}, not from {digest}.",
            "Choose another name, clean the old one up, or set force: true.",
            details={"found": present_digest, "wanted": digest},
        )


def _agrees(client: Client, wish: Wish, wanted: Container, outcome: Outcome) -> bool:
    """Whether the container is there as wanted; raises ConflictError if it must not be replaced."""
    found = _containers.get(client, wish.container_id)
    if found is None:
        return False
    require_ours(found, wish.owner, wish.force)
    require_same_checkpoint(found, wanted.labels[_labels.CHECKPOINT], wish.force)
    task = _tasks.get(client, wish.container_id)
    live = _task_end.is_live(task)
    same = (
        found.labels.get(_labels.CHECKPOINT) == wanted.labels[_labels.CHECKPOINT]
        and found.labels.get(_labels.SPEC) == wanted.labels[_labels.SPEC]
        and found.labels.get(_labels.OWNER) == wish.owner
        and found.snapshotter == wanted.snapshotter
        and found.snapshot_key == wanted.snapshot_key
    )
    whole = _snapshots.stat(client, found.snapshotter, found.snapshot_key) is not None
    if same and whole and (live or not (wish.rebuild and is_used(client, found))):
        return True
    if live:
        raise ConflictError(
            "container_in_use",
            f"The container {wish.container_id} runs (pid {task.pid if task else 0}) with another spec or snapshot "
            "than is wanted now.",
            "End its task first (containerd_task with state: absent), or leave its parameters as they were.",
        )
    outcome.actions.append(
        f"remove container {wish.container_id}: "
        + ("its snapshot is used" if same else "it differs from what is wanted")
    )
    return False


def _require_layer(client: Client, original: Original, check: bool) -> None:
    """The writable layer is whole, before anything is replaced: the daemon would not notice another content.

    Raises InputError ``blob_missing``, ``blob_truncated``, ``blob_digest``. Check mode does not read it through.
    """
    layer = original.checkpoint.writable_layer
    if layer is None:
        return
    if not check:
        _content.verify(client, layer.digest, layer.size)
    elif _content.stat(client, layer.digest) is None:
        raise _content.missing(layer.digest, layer.size)


def _build(client: Client, wish: Wish, wanted: Container, original: Original, image: Image, files: _Files) -> None:
    """Replace what is there by a fresh snapshot and record; whatever this made is undone if any part fails."""
    undo: list[Callable[[], object]] = []
    with _leases.hold(client, wish.lease, f"container {wish.container_id}"):
        rootfs = _unpack.rootfs(client, image.target, image.name)
        try:
            if _unpack.unpack(client, rootfs, wanted.snapshotter):
                undo.append(lambda: _unpack.forget(client, rootfs, wanted.snapshotter))
            # As late as can be: what is removed here does not come back after a failure.
            _remove_old(client, wish.container_id)
            _fresh_snapshot(client, wish, wanted, original, rootfs.chain_id)
            undo.append(lambda: _snapshots.remove(client, wanted.snapshotter, wanted.snapshot_key))
            _require_kinds(client, wanted, files)
            undo.append(files.undo())
            files.make()
            try:
                _containers.create(client, wanted)
            except AlreadyExistsError:
                raise
            except RpcError:
                # It may have taken effect although the answer did not come.
                undo.append(lambda: _containers.delete(client, wanted.id))
                raise
        except BaseException as error:
            _take_back(undo, error)
            raise


def _require_kinds(client: Client, wanted: Container, files: _Files) -> None:
    """Every bind source is what the container had there, as its files tell. Raises NodeError ``mount_source_kind``."""
    rootfs = _snapshots.mounts(client, wanted.snapshotter, wanted.snapshot_key)
    kinds = _rootfs_kinds.of_binds(rootfs, wanted.spec.get("mounts") or ())
    problems = _mounts.problems(wanted.spec, expected_kinds=kinds, planned=files.planned())
    if problems:
        raise combined(problems)


def _remove_old(client: Client, container_id: str) -> None:
    old = _containers.get(client, container_id)
    if old is None:
        return
    _task_end.remove(client, container_id, 0.0)
    _containers.delete(client, container_id)
    _snapshots.remove(client, old.snapshotter, old.snapshot_key)


def _take_back(undo: list[Callable[[], object]], reason: BaseException) -> None:
    """Undo in reverse order, as far as it goes; what stays is said in the failure, which is not hidden."""
    for act in reversed(undo):
        try:
            act()
        except (RestoreError, OSError) as error:
            if isinstance(reason, RestoreError):
                reason.left_behind(str(error))


def _own_snapshot(client: Client, wish: Wish, wanted: Container) -> Snapshot | None:
    """The snapshot under the key that we want, if there is one. Raises ConflictError ``snapshot_in_use``."""
    found = _snapshots.stat(client, wanted.snapshotter, wanted.snapshot_key)
    if found is None:
        return None
    owner = _labels.owner_of(found.labels)
    if owner != wish.owner and not wish.force:
        raise ConflictError(
            "snapshot_in_use",
            f"The snapshot {wanted.snapshot_key} exists and "
            + (f"belongs to {owner}." if owner else "was not made by this collection."),
            "Choose another snapshot_id, or remove that snapshot.",
            details={"snapshot": wanted.snapshot_key, "owner": owner},
        )
    return found


def _fresh_snapshot(client: Client, wish: Wish, wanted: Container, original: Original, parent: str) -> None:
    """The snapshot with the writable layer applied exactly once; its label says that the apply was complete."""
    layer = original.checkpoint.writable_layer
    applied = layer.digest if layer else _labels.NO_LAYER
    found = _own_snapshot(client, wish, wanted)
    if found is not None:
        whole = found.labels.get(_labels.WRITABLE_LAYER) == applied and found.parent == parent
        same = found.labels.get(_labels.CHECKPOINT) == original.checkpoint.digest
        if whole and same and found.labels.get(_labels.USED) != "true":
            return
        _snapshots.remove(client, wanted.snapshotter, wanted.snapshot_key)
    labels = {_labels.OWNER: wish.owner, _labels.CHECKPOINT: original.checkpoint.digest}
    onto = _snapshots.prepare(client, wanted.snapshotter, wanted.snapshot_key, parent, labels)
    try:
        if layer is not None:
            _snapshots.apply(client, layer, onto)
        _snapshots.set_labels(client, wanted.snapshotter, wanted.snapshot_key, {_labels.WRITABLE_LAYER: applied})
    except BaseException as error:
        _take_back([lambda: _snapshots.remove(client, wanted.snapshotter, wanted.snapshot_key)], error)
        raise


def _orphan(client: Client, container_id: str, owner: str) -> tuple[str, str]:
    key = derived_snapshot(container_id)
    for snapshotter in _node.snapshotters(_node.plugins(client)):
        found = _snapshots.stat(client, snapshotter, key)
        if found is not None and _labels.owner_of(found.labels) == owner:
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
