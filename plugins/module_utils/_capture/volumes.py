# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Memory volumes of a container: binds of a tmpfs that is not the container's own, such as a pod's /dev/shm.

CRIU notes that they were there, and a restore finds another file system, empty. So their content is kept: packed into
a file while the workload stands still, and stored when it goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .._checkpoint import volumes as memory_volumes
from .._checkpoint.volumes import MemoryVolume
from .._containerd import containers, content, tasks
from .._containerd.client import Client
from .._containerd.containers import Container
from .._core.errors import InputError, NodeError, RestoreError
from .._host import mountinfo
from .._host.mountinfo import Mount
from .._oci import spec_validate
from .._oci.image import Descriptor
from .._streams import streams, tree_tar
from .._streams.tar_reader import Limits
from .._streams.tree_tar import UnfitError
from . import mounts as container_mounts

#: Where a node has file systems in memory of its own, which hold what other programs have written there.
_OF_NODE = ("/dev", "/dev/shm", "/run", "/run/lock", "/tmp", "/var/run", "/var/tmp")
#: The bound of what a tree may hold: what is packed has been measured before.
_BOUNDS = Limits.of_tree((1 << 62) - 1)
#: The container of a pod that only keeps its namespaces, as CRI labels it: it does nothing.
_KIND, _SANDBOX = "io.cri-containerd.kind", "sandbox"


@dataclass(frozen=True)
class Found:
    """A memory volume of the running container."""

    destination: str
    #: Of the bind, as the spec has it.
    source: str
    mount: Mount
    #: Bytes of memory that its files take.
    used: int = 0


@dataclass(frozen=True)
class Packed:
    """The content of one, in a file of ours."""

    path: str
    volume: MemoryVolume


def find(container: Container, pid: int, wish: tuple[str, ...], proc: str = "/proc", root: str = "") -> list[Found]:
    """Those that are meant, each file system once.

    ``pid``: the container's first process; ``root``: its root file system, in which links of its spec are followed.

    Raises InputError ``memory_volumes_invalid``, ``memory_volume_unknown``, NodeError ``memory_volume_unfit``.
    """
    memory_volumes.check_wish(wish)
    mounts = {
        os.path.normpath(one.mount_point): one for one in mountinfo.parse(mountinfo.read(f"{proc}/{pid}/mountinfo"))
    }
    devices = _devices_of_node()
    found: dict[tuple[str, str], Found] = {}
    named: set[str] = set()
    for bind in container.spec.get("mounts") or ():
        destination = os.path.normpath(str(bind.get("destination") or ""))
        mount = mounts.get(container_mounts.place(destination, root))
        if mount is None or mount.fstype != "tmpfs" or not spec_validate.is_bind(bind):
            continue
        own = mount.device not in devices and "rw" in mount.options
        if not memory_volumes.chosen(wish, destination, own):
            continue
        named.add(destination)
        source = os.path.normpath(str(bind.get("source") or ""))
        try:
            with opened(pid, mount.mount_point, proc) as top:
                used = tree_tar.survey(top, _BOUNDS).bytes
        except NotADirectoryError:
            if memory_volumes.AUTO in wish:
                continue
            raise _unfit(container.id, destination, "it is a single file") from None
        except UnfitError as error:
            raise _unfit(container.id, destination, str(error)) from error
        except OSError as error:
            raise _unfit(container.id, destination, f"it cannot be read: {error.strerror}") from error
        found.setdefault((mount.device, mount.root), Found(destination, source, mount, used))
    unknown = sorted(set(wish) - named - {memory_volumes.AUTO, memory_volumes.NONE})
    if unknown:
        raise InputError(
            "memory_volume_unknown",
            f"{container.id} has no mount from outside that is in memory at {', '.join(unknown)}.",
            "Correct memory_volumes: a tmpfs that the spec has as a bind is meant, such as a pod's /dev/shm.",
        )
    return list(found.values())


def devices(found: Sequence[Found]) -> frozenset[str]:
    """Their file systems, as mountinfo names devices."""
    return frozenset(one.mount.device for one in found)


def warnings(client: Client, container: Container, found: Sequence[Found]) -> list[str]:
    """What an operator is told of volumes that other containers have, too."""
    told = []
    users = _users(client, container, found) if found else {}
    for one in found:
        running = sorted(name for name, paused in users.get(one.source, {}).items() if not paused)
        if running:
            told.append(
                f"The memory volume at {one.destination} of {container.id} is also one of {', '.join(running)}, which "
                "may write there before its own capture. To restore both so that they share it again, capture one with "
                "leave: paused first, and the other while that one is paused."
            )
    return told


@contextlib.contextmanager
def opened(pid: int, path: str, proc: str = "/proc") -> Iterator[int]:
    """A directory of a process's root, open for reading. No link is followed. Raises OSError."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    directory = os.open(f"{proc}/{pid}/root", flags)
    try:
        for name in path.split("/"):
            if name:
                below = os.open(name, flags | os.O_NOFOLLOW, dir_fd=directory)
                os.close(directory)
                directory = below
        yield directory
    finally:
        os.close(directory)


def pack(
    client: Client,
    container: Container,
    pid: int,
    found: Sequence[Found],
    directory: str,
    links: Collection[str] = (),
    proc: str = "/proc",
) -> list[Packed]:
    """Pack each into a file of ``directory``, which is private; to be called while the task stands still.

    ``links``: paths of CRIU's links for deleted files, which are there now.

    Raises RestoreError ``memory_volume_failed``.
    """
    users = _users(client, container, found) if found else {}
    packed = []
    for number, one in enumerate(found):
        path = os.path.join(directory, f"volume-{number}.tar")
        try:
            volume = _pack(one, pid, path, proc)
        except (OSError, UnfitError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise RestoreError(
                "memory_volume_failed",
                f"The memory volume at {one.destination} of {container.id} could not be kept: {why}.",
                "Look at the disk of staging_dir and at what writes there, then run again.",
            ) from error
        shared = users.get(one.source, {})
        paused = tuple(sorted(name for name, stands in shared.items() if stands))
        volume = replace(
            volume,
            container=container.id,
            shared=tuple(sorted(shared)),
            paused=paused,
            links=any(link.startswith(one.mount.mount_point + "/") for link in links),
        )
        packed.append(Packed(path, volume))
    return packed


def store(client: Client, packed: Sequence[Packed]) -> tuple[MemoryVolume, ...]:
    """Put the files into the content store."""
    return tuple(_store(client, one) for one in packed)


def _pack(one: Found, pid: int, path: str, proc: str) -> MemoryVolume:
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with opened(pid, one.mount.mount_point, proc) as top:
            tree_tar.write(top, target, _BOUNDS)
            used = tree_tar.survey(top, _BOUNDS).bytes
            stat, room = os.fstat(top), os.fstatvfs(top)
    finally:
        os.close(target)
    return MemoryVolume(
        # Its digest is reckoned when the workload goes on.
        descriptor=Descriptor(memory_volumes.MEDIA_TYPE, "", os.path.getsize(path)),
        destination=one.destination,
        source=one.source,
        used=used,
        size=room.f_blocks * room.f_frsize,
        inodes=room.f_files,
        mode=stat.st_mode & 0o7777,
        uid=stat.st_uid,
        gid=stat.st_gid,
        flags=tuple(flag for flag in memory_volumes.FLAGS if flag in one.mount.options),
    )


def _store(client: Client, one: Packed) -> MemoryVolume:
    hasher = hashlib.sha256()
    descriptor = os.open(one.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for chunk in streams.file_chunks(descriptor):
            hasher.update(chunk)
        digest, size = f"sha256:{hasher.hexdigest()}", one.volume.descriptor.size
        os.lseek(descriptor, 0, os.SEEK_SET)
        content.write(client, streams.file_chunks(descriptor), digest, size, {})
    finally:
        os.close(descriptor)
    os.unlink(one.path)
    return replace(one.volume, descriptor=Descriptor(memory_volumes.MEDIA_TYPE, digest, size))


def _users(client: Client, container: Container, found: Sequence[Found]) -> dict[str, dict[str, bool]]:
    """By source the other containers that have it and live, and whether they stand still."""
    sources = {one.source for one in found}
    users: dict[str, dict[str, bool]] = {}
    for other in containers.list_all(client):
        if other.id == container.id or other.labels.get(_KIND) == _SANDBOX:
            continue
        shared = sources & _sources(other.spec)
        task = tasks.get(client, other.id) if shared else None
        if task is not None and task.status != "STOPPED":
            for source in shared:
                users.setdefault(source, {})[other.id] = task.status == "PAUSED"
    return users


def _sources(spec: Mapping[str, Any]) -> set[str]:
    mounts = spec.get("mounts")
    return {
        os.path.normpath(str(mount.get("source")))
        for mount in (mounts if isinstance(mounts, list) else ())
        if isinstance(mount, dict) and mount.get("source") and spec_validate.is_bind(mount)
    }


def _devices_of_node() -> set[str]:
    found = set()
    for path in _OF_NODE:
        with contextlib.suppress(OSError):
            device = os.stat(path).st_dev
            found.add(f"{os.major(device)}:{os.minor(device)}")
    return found


def _unfit(container_id: str, destination: str, why: str) -> NodeError:
    return NodeError(
        "memory_volume_unfit",
        f"The memory volume at {destination} of {container_id} cannot be kept: {why}.",
        "Have the workload remove that, or leave the volume out with memory_volumes and bring its content along.",
        details={"destination": destination},
    )
