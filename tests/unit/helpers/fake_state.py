# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the test double of containerd remembers, and how its methods change it.

As much of containerd's behaviour as the steps depend on: what exists and what is refused, labels by field mask, and
a garbage collection of snapshots when a lease is deleted. Namespaces are not told apart.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import os
import tarfile
from dataclasses import dataclass, field
from typing import Any, Callable

from ansible_collections.gpuops.restore.plugins.module_utils._containerd.messages import api, message

_TASKS = "containerd.services.tasks.v1"
_CREATED, _RUNNING, _STOPPED, _PAUSED = 1, 2, 3, 4


class AnswerError(Exception):
    """A gRPC status to answer with."""

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(frozen=True)
class Leased:
    """The lease that a call was made under; empty for none."""

    lease: str


@dataclass
class Blob:
    """A blob in the content store."""

    data: bytes
    labels: dict[str, str] = field(default_factory=dict)


@dataclass
class Snapshot:
    """A snapshot; ``layers`` are the digests applied to it."""

    parent: str
    kind: int
    labels: dict[str, str]
    layers: list[str] = field(default_factory=list)


@dataclass
class Task:
    """A task; ``request`` is how it was created, None for one that a test put there."""

    request: Any
    pid: int
    status: int
    exit_status: int = 0


def _missing(what: str) -> AnswerError:
    return AnswerError("NOT_FOUND", f"{what}: not found")


def _exists(what: str) -> AnswerError:
    return AnswerError("ALREADY_EXISTS", f"{what}: already exists")


class State:
    """Everything in the daemon. Keys: image name, digest, (snapshotter, key), container id, lease id."""

    def __init__(self) -> None:
        self.images: dict[str, Any] = {}
        self.blobs: dict[str, Blob] = {}
        self.ingests: dict[str, bytes] = {}
        #: What Diff/Diff has read of a directory already.
        self.tars: dict[str, bytes] = {}
        self.snapshots: dict[tuple[str, str], Snapshot] = {}
        self.containers: dict[str, Any] = {}
        self.tasks: dict[str, Task] = {}
        self.leases: dict[str, dict[str, str]] = {}
        self.plugins: list[Any] = []
        #: Layer digest -> diff id, for Diff/Apply; a layer that is not named has its own digest.
        self.diff_ids: dict[str, str] = {}
        #: What Tasks/Checkpoint writes into the directory that it is given: name and content.
        self.dump: dict[str, bytes] = {}
        #: Signals that end a task.
        self.deadly = {9, 15}
        #: Exit status with which a started task ends at once; None: it stays.
        self.dies_with: int | None = None
        #: What starts a container's process, as its pid, and what ends it, for tests with real processes.
        #: By default it is this process, which lives.
        self.spawn: Callable[[str], int] = lambda _container_id: os.getpid()
        self.reap: Callable[[str], object] = lambda _container_id: None
        self._leased: dict[str, set[tuple[str, str]]] = {}

    def listing(self) -> dict[str, Any]:
        """All of it as plain values, to compare."""
        return {
            "images": {name: image.SerializeToString(deterministic=True) for name, image in self.images.items()},
            "blobs": {digest: (blob.data, dict(blob.labels)) for digest, blob in self.blobs.items()},
            "ingests": sorted(self.ingests),
            "snapshots": {
                key: (found.parent, found.kind, dict(found.labels), tuple(found.layers))
                for key, found in self.snapshots.items()
            },
            "containers": {key: found.SerializeToString(deterministic=True) for key, found in self.containers.items()},
            "tasks": {key: (task.pid, task.status) for key, task in self.tasks.items()},
            "leases": sorted(self.leases),
        }

    def handle(self, name: str, request: Any, leased: Leased) -> Any:
        """Carry out ``Service/Method``. Raises AnswerError."""
        act = getattr(self, "_" + name.replace("/", "_").lower(), None)
        if act is None:
            raise AnswerError("UNIMPLEMENTED", f"the fake has no {name}")
        return act(request, leased)

    def exit_status(self, request: Any) -> int | None:
        """For Tasks/Wait: None while it runs."""
        task = self._task(request.container_id)
        return task.exit_status if task.status == _STOPPED else None

    def end(self, container_id: str, exit_status: int) -> None:
        """The process ends by itself."""
        self.tasks[container_id].status = _STOPPED
        self.tasks[container_id].exit_status = exit_status
        self.reap(container_id)

    # --- version, introspection, namespaces

    def _namespaces_list(self, _request: Any, _leased: Leased) -> Any:
        found = [message("containerd.services.namespaces.v1.Namespace", name="tests")]
        return message("containerd.services.namespaces.v1.ListNamespacesResponse", namespaces=found)

    def _version_version(self, _request: Any, _leased: Leased) -> Any:
        return message("containerd.services.version.v1.VersionResponse", version="fake", revision="0")

    def _introspection_plugins(self, _request: Any, _leased: Leased) -> Any:
        return message("containerd.services.introspection.v1.PluginsResponse", plugins=self.plugins)

    def _introspection_server(self, _request: Any, _leased: Leased) -> Any:
        return message("containerd.services.introspection.v1.ServerResponse", uuid="fake", pid=1)

    # --- images

    def _images_get(self, request: Any, _leased: Leased) -> Any:
        if request.name not in self.images:
            raise _missing(f'image "{request.name}"')
        return message("containerd.services.images.v1.GetImageResponse", image=self.images[request.name])

    def _images_list(self, request: Any, _leased: Leased) -> Any:
        wanted = {text.partition("==")[2] for text in request.filters}
        found = [image for image in self.images.values() if not wanted or image.target.digest in wanted]
        return message("containerd.services.images.v1.ListImagesResponse", images=found)

    def _images_create(self, request: Any, _leased: Leased) -> Any:
        if request.image.name in self.images:
            raise _exists(request.image.name)
        self.images[request.image.name] = request.image
        return message("containerd.services.images.v1.CreateImageResponse", image=request.image)

    def _images_update(self, request: Any, _leased: Leased) -> Any:
        if request.image.name not in self.images:
            raise _missing(f'image "{request.image.name}"')
        updated = message("containerd.services.images.v1.Image")
        updated.CopyFrom(self.images[request.image.name])
        for path in request.update_mask.paths:
            if path == "target":
                updated.target.CopyFrom(request.image.target)
            elif path == "labels":
                updated.labels.clear()
                updated.labels.update(request.image.labels)
            else:
                _relabel(updated.labels, path, request.image.labels)
        self.images[request.image.name] = updated
        return message("containerd.services.images.v1.UpdateImageResponse", image=updated)

    def _images_delete(self, request: Any, _leased: Leased) -> Any:
        if self.images.pop(request.name, None) is None:
            raise _missing(request.name)
        return message("google.protobuf.Empty")

    # --- content

    def _blob(self, digest: str) -> Blob:
        if digest not in self.blobs:
            raise _missing(f"content {digest}")
        return self.blobs[digest]

    def _content_info(self, request: Any, _leased: Leased) -> Any:
        blob = self._blob(request.digest)
        info = message(
            "containerd.services.content.v1.Info", digest=request.digest, size=len(blob.data), labels=blob.labels
        )
        return message("containerd.services.content.v1.InfoResponse", info=info)

    def _content_update(self, request: Any, _leased: Leased) -> Any:
        for path in request.update_mask.paths:
            _relabel(self._blob(request.info.digest).labels, path, request.info.labels)
        return message("containerd.services.content.v1.UpdateResponse", info=request.info)

    def expiries(self) -> list[datetime.datetime]:
        """When the leases expire."""
        times = [labels.get("containerd.io/gc.expire", "") for labels in self.leases.values()]
        return [datetime.datetime.strptime(time, "%Y-%m-%dT%H:%M:%S%z") for time in times if time]

    def _content_read(self, request: Any, _leased: Leased) -> Any:
        end = request.offset + request.size if request.size else None
        data = self._blob(request.digest).data[request.offset : end]
        kind = "containerd.services.content.v1.ReadContentResponse"
        step = 1 << 20
        return [message(kind, offset=at, data=data[at : at + step]) for at in range(0, len(data), step)]

    def _content_write(self, request: Any, leased: Leased) -> Any:
        if request.expected in self.blobs:
            self.ingests.pop(request.ref, None)
            raise _exists(f"content {request.expected}")
        data = self.ingests.get(request.ref, b"") + request.data
        self.ingests[request.ref] = data
        if request.action == 2:
            found = "sha256:" + hashlib.sha256(data).hexdigest()
            if found != request.expected or len(data) != request.total:
                raise AnswerError("FAILED_PRECONDITION", f"unexpected commit {found} of {len(data)} bytes")
            self.blobs[found] = Blob(self.ingests.pop(request.ref), dict(request.labels))
            self._leased.setdefault(leased.lease, set()).add(("", found))
        kind = "containerd.services.content.v1.WriteContentResponse"
        return message(kind, action=request.action, offset=len(data))

    def _content_status(self, request: Any, _leased: Leased) -> Any:
        if request.ref not in self.ingests:
            raise AnswerError("NOT_FOUND", f"ingest {request.ref}: not found")
        kind = "containerd.services.content.v1.Status"
        status = message(kind, ref=request.ref, offset=len(self.ingests[request.ref]))
        return message("containerd.services.content.v1.StatusResponse", status=status)

    def _content_abort(self, request: Any, _leased: Leased) -> Any:
        if self.ingests.pop(request.ref, None) is None:
            raise _missing(f"ingest {request.ref}")
        return message("google.protobuf.Empty")

    # --- snapshots, diff

    def _snapshot(self, snapshotter: str, key: str) -> Snapshot:
        if (snapshotter, key) not in self.snapshots:
            raise _missing(f"snapshot {key}")
        return self.snapshots[(snapshotter, key)]

    def _snapshots_stat(self, request: Any, _leased: Leased) -> Any:
        found = self._snapshot(request.snapshotter, request.key)
        info = message(
            "containerd.services.snapshots.v1.Info",
            name=request.key,
            parent=found.parent,
            kind=found.kind,
            labels=found.labels,
        )
        return message("containerd.services.snapshots.v1.StatSnapshotResponse", info=info)

    def _snapshots_prepare(self, request: Any, leased: Leased) -> Any:
        key = (request.snapshotter, request.key)
        if key in self.snapshots:
            raise _exists(f"snapshot {request.key}")
        if request.parent:
            self._snapshot(request.snapshotter, request.parent)
        self.snapshots[key] = Snapshot(request.parent, 2, dict(request.labels))
        self._leased.setdefault(leased.lease, set()).add(key)
        mounts = self._snapshots_mounts(request, leased).mounts
        return message("containerd.services.snapshots.v1.PrepareSnapshotResponse", mounts=mounts)

    def _snapshots_view(self, request: Any, leased: Leased) -> Any:
        mounts = self._snapshots_prepare(request, leased).mounts
        self.snapshots[(request.snapshotter, request.key)].kind = 1
        return message("containerd.services.snapshots.v1.ViewSnapshotResponse", mounts=mounts)

    def _snapshots_mounts(self, request: Any, _leased: Leased) -> Any:
        self._snapshot(request.snapshotter, request.key)
        mount = message("containerd.types.Mount", type="fake", source=f"{request.snapshotter}|{request.key}")
        return message("containerd.services.snapshots.v1.MountsResponse", mounts=[mount])

    def _snapshots_commit(self, request: Any, leased: Leased) -> Any:
        found = self._snapshot(request.snapshotter, request.key)
        if (request.snapshotter, request.name) in self.snapshots:
            raise _exists(f"snapshot {request.name}")
        del self.snapshots[(request.snapshotter, request.key)]
        found.kind = 3
        self.snapshots[(request.snapshotter, request.name)] = found
        self._leased.setdefault(leased.lease, set()).add((request.snapshotter, request.name))
        return message("google.protobuf.Empty")

    def _snapshots_remove(self, request: Any, _leased: Leased) -> Any:
        self._snapshot(request.snapshotter, request.key)
        if any(found.parent == request.key for found in self.snapshots.values()):
            raise AnswerError("FAILED_PRECONDITION", f"snapshot {request.key} has children")
        del self.snapshots[(request.snapshotter, request.key)]
        return message("google.protobuf.Empty")

    def _snapshots_update(self, request: Any, _leased: Leased) -> Any:
        for path in request.update_mask.paths:
            _relabel(self._snapshot(request.snapshotter, request.info.name).labels, path, request.info.labels)
        return message("containerd.services.snapshots.v1.UpdateSnapshotResponse", info=request.info)

    def _diff_apply(self, request: Any, _leased: Leased) -> Any:
        snapshotter, _bar, key = request.mounts[0].source.partition("|")
        self._snapshot(snapshotter, key).layers.append(request.diff.digest)
        found = self.diff_ids.get(request.diff.digest, request.diff.digest)
        applied = message("containerd.types.Descriptor", digest=found)
        return message("containerd.services.diff.v1.ApplyResponse", applied=applied)

    def _diff_diff(self, request: Any, _leased: Leased) -> Any:
        if [mount.type for mount in request.right] == ["bind"]:
            source = request.right[0].source
            data = self.tars.pop(source) if source in self.tars else tar_of(source)
        else:
            data = "|".join(mount.source for mount in (*request.left, *request.right)).encode()
        found = "sha256:" + hashlib.sha256(data).hexdigest()
        self.blobs.setdefault(found, Blob(data))
        kind = "containerd.types.Descriptor"
        diff = message(kind, media_type=request.media_type, digest=found, size=len(data))
        return message("containerd.services.diff.v1.DiffResponse", diff=diff)

    # --- containers, leases

    def _containers_get(self, request: Any, _leased: Leased) -> Any:
        if request.id not in self.containers:
            raise _missing(f'container "{request.id}"')
        found = self.containers[request.id]
        return message("containerd.services.containers.v1.GetContainerResponse", container=found)

    def _containers_list(self, request: Any, _leased: Leased) -> Any:
        label = request.filters[0].split('"')[1] if request.filters else ""
        found = [record for record in self.containers.values() if not label or label in record.labels]
        return message("containerd.services.containers.v1.ListContainersResponse", containers=found)

    def _containers_create(self, request: Any, _leased: Leased) -> Any:
        if request.container.id in self.containers:
            raise _exists(f'container "{request.container.id}"')
        self.containers[request.container.id] = request.container
        return message("containerd.services.containers.v1.CreateContainerResponse", container=request.container)

    def _containers_delete(self, request: Any, _leased: Leased) -> Any:
        if self.containers.pop(request.id, None) is None:
            raise _missing(f'container "{request.id}"')
        return message("google.protobuf.Empty")

    def _leases_list(self, _request: Any, _leased: Leased) -> Any:
        kind = "containerd.services.leases.v1.Lease"
        found = [message(kind, id=name, labels=labels) for name, labels in self.leases.items()]
        return message("containerd.services.leases.v1.ListResponse", leases=found)

    def _leases_create(self, request: Any, _leased: Leased) -> Any:
        if request.id in self.leases:
            raise _exists(f"lease {request.id}")
        self.leases[request.id] = dict(request.labels)
        return message("containerd.services.leases.v1.CreateResponse")

    def _leases_delete(self, request: Any, _leased: Leased) -> Any:
        if self.leases.pop(request.id, None) is None:
            raise _missing(f"lease {request.id}")
        self.collect(self._leased.pop(request.id, set()))
        return message("google.protobuf.Empty")

    def collect(self, candidates: set[tuple[str, str]]) -> None:
        """Remove those snapshots and blobs that only a lease had kept: no container, image, label or child has them."""
        for digest in {key for kind, key in candidates if not kind} - self._kept_blobs():
            self.blobs.pop(digest, None)
        kept = {(found.snapshotter, found.snapshot_key) for found in self.containers.values()}
        for blob in self.blobs.values():
            for name, value in blob.labels.items():
                if name.startswith("containerd.io/gc.ref.snapshot."):
                    kept.add((name.rsplit(".", 1)[-1], value))
        while True:
            parents = {(key[0], found.parent) for key, found in self.snapshots.items()}
            doomed = (candidates & set(self.snapshots)) - kept - parents
            if not doomed:
                return
            for key in doomed:
                del self.snapshots[key]

    def _kept_blobs(self) -> set[str]:
        """What garbage collection reaches from the images."""
        kept: set[str] = set()
        pending = {image.target.digest for image in self.images.values()}
        while pending:
            digest = pending.pop()
            kept.add(digest)
            labels = self.blobs[digest].labels if digest in self.blobs else {}
            below = {value for name, value in labels.items() if name.startswith("containerd.io/gc.ref.content")}
            pending |= below - kept
        return kept

    # --- tasks

    def _task(self, container_id: str) -> Task:
        if container_id not in self.tasks:
            raise _missing(f"task {container_id}")
        return self.tasks[container_id]

    def _tasks_get(self, request: Any, _leased: Leased) -> Any:
        task = self._task(request.container_id)
        process = api().message("containerd.v1.types.Process")(
            container_id=request.container_id,
            pid=task.pid,
            status=task.status,
            exit_status=task.exit_status,
            stdout=task.request.stdout if task.request else "",
            stderr=task.request.stderr if task.request else "",
        )
        return message(f"{_TASKS}.GetResponse", process=process)

    def _tasks_create(self, request: Any, _leased: Leased) -> Any:
        if request.container_id not in self.containers:
            raise _missing(f'container "{request.container_id}"')
        if request.container_id in self.tasks:
            raise _exists(f"task {request.container_id}")
        options = message("containerd.runc.v1.Options")
        options.ParseFromString(request.options.value)
        restored = bool(request.checkpoint.digest or options.criu_image_path)
        task = Task(request, 0 if restored else os.getpid(), _CREATED)
        self.tasks[request.container_id] = task
        return message(f"{_TASKS}.CreateTaskResponse", container_id=request.container_id, pid=task.pid)

    def _tasks_start(self, request: Any, _leased: Leased) -> Any:
        task = self._task(request.container_id)
        task.pid, task.status = self.spawn(request.container_id), _RUNNING
        if self.dies_with is not None:
            self.end(request.container_id, self.dies_with)
        return message(f"{_TASKS}.StartResponse", pid=task.pid)

    def _tasks_pause(self, request: Any, _leased: Leased) -> Any:
        self._turn(request.container_id, _RUNNING, _PAUSED)
        return message("google.protobuf.Empty")

    def _tasks_resume(self, request: Any, _leased: Leased) -> Any:
        self._turn(request.container_id, _PAUSED, _RUNNING)
        return message("google.protobuf.Empty")

    def _turn(self, container_id: str, before: int, after: int) -> None:
        task = self._task(container_id)
        if task.status != before:
            raise AnswerError("UNKNOWN", "the container is not in the right state")
        task.status = after

    def _tasks_checkpoint(self, request: Any, _leased: Leased) -> Any:
        if self._task(request.container_id).status != _PAUSED:
            raise AnswerError("FAILED_PRECONDITION", "the fake only dumps a paused task")
        options = message("containerd.runc.v1.CheckpointOptions")
        options.ParseFromString(request.options.value)
        for name, data in self.dump.items():
            with open(os.path.join(options.image_path, name), "wb") as stream:
                stream.write(data)
        return message(f"{_TASKS}.CheckpointTaskResponse")

    def _tasks_kill(self, request: Any, _leased: Leased) -> Any:
        task = self._task(request.container_id)
        if task.status == _STOPPED:
            raise _missing("process already finished")
        if request.signal in self.deadly:
            self.end(request.container_id, 128 + request.signal)
        return message("google.protobuf.Empty")

    def _tasks_delete(self, request: Any, _leased: Leased) -> Any:
        task = self._task(request.container_id)
        if task.status != _STOPPED and task.pid:
            raise AnswerError("FAILED_PRECONDITION", "task must be stopped before deletion")
        del self.tasks[request.container_id]
        return message(f"{_TASKS}.DeleteResponse", id=request.container_id)


def tar_of(directory: str) -> bytes:
    """The files of a flat directory."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name in sorted(os.listdir(directory)):
            archive.add(os.path.join(directory, name), name)
    return target.getvalue()


def _relabel(labels: Any, path: str, given: Any) -> None:
    """``labels.NAME`` of a field mask; an empty value takes the label away, as containerd's metadata store does."""
    name = path[len("labels.") :]
    if given.get(name):
        labels[name] = given[name]
    else:
        labels.pop(name, None)
