# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Memory volumes of restored containers: each is a tmpfs of our own, with the content that the checkpoint holds.

<root>/<namespace>/<key>/content/       the tmpfs, source of the container's bind
<root>/<namespace>/<key>/state.json     once the content is whole: whose it is, and whether it may have been altered
<root>/<namespace>/<key>/users/<id>     one for each container that has it; not empty once a task of it was started

Below /run, since a tmpfs does not outlive the boot. A volume that several containers had is one again: its key is of
the old source, and it goes with the last of them. Each step is taken under flock on the volume's directory.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from .._checkpoint import volumes as memory_volumes
from .._checkpoint.volumes import MemoryVolume
from .._containerd import content
from .._containerd.client import Client
from .._core import state_dir
from .._core.errors import RETRYABLE, ConflictError, InputError, NodeError
from .._core.text import gib
from .._host import memory as host_memory
from .._streams import tree_extract
from .._streams.streams import ChunkSource, verified
from .._streams.tar_reader import Limits

_CONTENT, _STATE, _USERS = "content", "state.json", "users"
_FLAGS = {"nosuid": 0x2, "nodev": 0x4, "noexec": 0x8}
_MNT_DETACH = 2
#: Bytes of a tmpfs whose size was not recorded, as podman's and Docker's /dev/shm have it.
_USUAL = 64 << 20


@dataclass(frozen=True)
class Volume:
    """A memory volume that a container is to have."""

    record: MemoryVolume
    #: Its directory, of the root's layout.
    place: str
    #: Its SELinux label; empty for none.
    label: str = ""

    @property
    def content(self) -> str:
        """The source of the bind."""
        return os.path.join(self.place, _CONTENT)


def default_root() -> str:
    """Where all of them are."""
    return state_dir.runtime_dir("volumes")


def plan(
    records: Sequence[MemoryVolume],
    wish: tuple[str, ...],
    mapped: Callable[[str], bool],
    root: str,
    namespace: str,
    container_id: str,
    label: str = "",
) -> list[Volume]:
    """Those that are to be made, of all that a checkpoint holds; ``mapped``: whether the operator gives the source.

    Raises InputError ``memory_volumes_invalid``, ``memory_volume_unknown``.
    """
    memory_volumes.check_wish(wish)
    unknown = sorted(
        set(wish) - {record.destination for record in records} - {memory_volumes.AUTO, memory_volumes.NONE}
    )
    if unknown:
        raise InputError(
            "memory_volume_unknown",
            f"The checkpoint of {container_id} holds no memory volume of {', '.join(unknown)}.",
            "Correct memory_volumes; containerd_checkpoint_info names those that there are.",
        )
    found = []
    for number, record in enumerate(records):
        if memory_volumes.chosen(wish, record.destination, auto=True) and not mapped(record.source):
            shared = hashlib.sha256(record.source.encode()).hexdigest()[:32]
            key = f"shared.{shared}" if record.shared else f"{container_id}.{number}"
            found.append(Volume(record, state_dir.volume_dir(root, namespace, key), label))
    return found


def needed(volumes: Sequence[Volume]) -> int:
    """Bytes of host memory that those take which are not there yet."""
    return sum(volume.record.used for volume in volumes if not os.path.exists(os.path.join(volume.place, _STATE)))


def require_room(container_id: str, volumes: Sequence[Volume]) -> None:
    """Raise NodeError ``host_memory_short``."""
    size, free = needed(volumes), host_memory.available()
    if free is not None and size > free:
        raise NodeError(
            "host_memory_short",
            f"The memory volumes of {container_id} hold {gib(size)}, and the node has {gib(free)} of memory left.",
            "Free host memory, then run again.",
            outcome=RETRYABLE,
            details={"needed": size, "available": free},
        )


def missing(volumes: Sequence[Volume], container_id: str, fresh: bool) -> list[Volume]:
    """Those that :func:`lay` would make or join; ``fresh`` as there."""
    found = []
    for volume in volumes:
        user = _user(volume.place, container_id)
        if user is None or (fresh and user["used"]) or not os.path.ismount(volume.content):
            found.append(volume)
    return found


def lay(client: Client, volumes: Sequence[Volume], container_id: str, fresh: bool) -> list[Volume]:
    """Have the container's volumes with the content of its checkpoint; returns those that were made or joined.

    ``fresh``: one that a task of the container had before is made anew. Raises ConflictError
    ``memory_volume_in_use``, InputError for content that is not whole, NodeError ``host_memory_short``,
    ``memory_volume_mount``. After a failure nothing of this call is left.
    """
    laid: list[Volume] = []
    require_room(container_id, volumes)
    try:
        for volume in missing(volumes, container_id, fresh):
            _lay(client, volume, container_id)
            laid.append(volume)
    except BaseException:
        for volume in laid:
            _leave(volume.place, container_id)
        raise
    return laid


def set_used(root: str, namespace: str, container_id: str) -> None:
    """Note that a task of the container is about to run: from then on the content is that of a process."""
    for place in places(root, namespace, container_id):
        with _locked(place):
            user = _user(place, container_id)
            if user is not None:
                _write(place, os.path.join(_USERS, container_id), {**user, "used": True})


def places(root: str, namespace: str, container_id: str) -> list[str]:
    """The directories of the volumes that a container has."""
    top = os.path.join(root, namespace)
    try:
        names = sorted(os.listdir(top))
    except FileNotFoundError:
        return []
    return [os.path.join(top, name) for name in names if os.path.lexists(os.path.join(top, name, _USERS, container_id))]


def release_used(root: str, namespace: str, container_ids: Sequence[str]) -> None:
    """Take from containers that are all to be made anew the volumes that their tasks have run on."""
    for container_id in container_ids:
        for place in places(root, namespace, container_id):
            if (_user(place, container_id) or {}).get("used"):
                _leave(place, container_id)


def release(root: str, namespace: str, container_id: str) -> None:
    """The container needs its volumes no longer; one that nobody else has goes. What is mounted in a task lives on."""
    for place in places(root, namespace, container_id):
        _leave(place, container_id)


def _lay(client: Client, volume: Volume, container_id: str) -> None:
    record = volume.record
    with _locked(volume.place):
        users = _users(volume.place)
        others = {name: user for name, user in users.items() if name != container_id}
        state = _read(os.path.join(volume.place, _STATE))
        if others and state and os.path.ismount(volume.content):
            _require_joinable(volume, container_id, users, state)
        else:
            _clear(volume.place)
            _fill(client, volume)
        os.makedirs(os.path.join(volume.place, _USERS), mode=0o700, exist_ok=True)
        user = {"container": record.container, "used": False}
        _write(volume.place, os.path.join(_USERS, container_id), user)


def _require_joinable(
    volume: Volume, container_id: str, users: Mapping[str, Mapping[str, Any]], state: Mapping[str, Any]
) -> None:
    """One that others have is joined as they have it, if that is what this checkpoint's moment goes with."""
    others = sorted(name for name in users if name != container_id)
    same = [name for name in others if users[name].get("container") == volume.record.container]
    if same:
        why = f"{', '.join(same)} is a restore of the same container"
    elif state.get("digest") != volume.record.digest:
        why = "they had another content of it in their checkpoints"
    elif state.get("altered") or users.get(container_id, {}).get("used"):
        why = "an earlier restore of this one has run on it, and may have altered it"
    else:
        return
    raise ConflictError(
        "memory_volume_in_use",
        f"The memory volume at {volume.record.destination} of {container_id} is one of {', '.join(others)} on this "
        f"node, and cannot be joined: {why}.",
        f"Restore those that share it in one call, after removing {', '.join(others)}; or give {container_id} a "
        f"directory of its own in mounts: '{volume.record.source}': NEW-SOURCE.",
        details={"destination": volume.record.destination, "users": others},
    )


def _fill(client: Client, volume: Volume) -> None:
    record, descriptor = volume.record, volume.record.descriptor
    what = f"The memory volume {descriptor.digest}"
    try:
        _mount(volume)
        top = os.open(volume.content, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            chunks = content.read(client, descriptor.digest, descriptor.size)
            with closing(verified(chunks, digest=descriptor.digest, size=descriptor.size, what=what)) as checked:
                tree_extract.extract(ChunkSource(checked), top, Limits.of_tree(descriptor.size), what)
            os.fchown(top, record.uid, record.gid)
            os.fchmod(top, record.mode)
        finally:
            os.close(top)
        _write(volume.place, _STATE, {"digest": record.digest, "source": record.source})
    except BaseException as error:
        _clear(volume.place)
        if isinstance(error, OSError):
            raise NodeError(
                "memory_volume_mount",
                f"{what} cannot be laid into a tmpfs at {volume.content}: {error.strerror}.",
                "It takes root, and as much memory as the volume held; run again when the node has that.",
                details={"errno": errno.errorcode.get(error.errno or 0, "")},
            ) from error
        raise


def _mount(volume: Volume) -> None:
    """An empty tmpfs, as the old one was. Raises OSError."""
    record = volume.record
    # Whole pages are counted, so that many small files take more than their bytes.
    room = max(record.used, record.descriptor.size) + (1 << 20)
    size = _USUAL if record.size is None else record.size
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    options = ["mode=0700", f"size={min(max(size, room), most) if size else 0}"]
    if volume.label:
        options.append(f'context="{volume.label}"')
    if record.inodes:
        options.append(f"nr_inodes={record.inodes}")
    os.makedirs(volume.content, mode=0o700, exist_ok=True)
    flags = 0
    for flag in record.flags:
        flags |= _FLAGS[flag]
    library = ctypes.CDLL(None, use_errno=True)
    data = ",".join(options).encode()
    if library.mount(b"gpuops-restore", os.fsencode(volume.content), b"tmpfs", ctypes.c_ulong(flags), data) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _leave(place: str, container_id: str) -> None:
    with _locked(place):
        user = _user(place, container_id)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(place, _USERS, container_id))
        if not _users(place):
            _clear(place)
        elif user and user.get("used"):
            state = _read(os.path.join(place, _STATE))
            _write(place, _STATE, {**state, "altered": True})


def _clear(place: str) -> None:
    """Take away all but the directory itself, which is locked."""
    mounted = os.path.join(place, _CONTENT)
    while os.path.ismount(mounted):
        _unmount(mounted)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(mounted)
    for name in (_STATE, ".new"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(place, name))
    shutil.rmtree(os.path.join(place, _USERS), ignore_errors=True)


def _unmount(path: str) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.umount2(os.fsencode(path), _MNT_DETACH) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{path} cannot be unmounted: {os.strerror(number)}")


@contextlib.contextmanager
def _locked(place: str) -> Iterator[None]:
    """The volume's directory, made and locked; an empty one goes with the block."""
    top = os.path.dirname(os.path.dirname(os.path.dirname(place)))
    while True:
        state_dir.make_private(place, top)
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            # Else the last user has taken it away between open and lock.
            if os.path.samestat(os.fstat(descriptor), os.lstat(place)):
                break
        os.close(descriptor)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.rmdir(place)
        os.close(descriptor)
        state_dir.prune(os.path.dirname(place), top)


def _users(place: str) -> dict[str, dict[str, Any]]:
    try:
        names = os.listdir(os.path.join(place, _USERS))
    except FileNotFoundError:
        return {}
    return {name: _read(os.path.join(place, _USERS, name)) for name in names}


def _user(place: str, container_id: str) -> dict[str, Any] | None:
    path = os.path.join(place, _USERS, container_id)
    return {"used": False, **_read(path)} if os.path.exists(path) else None


def _read(path: str) -> dict[str, Any]:
    try:
        found = json.loads(state_dir.read_text(path) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _write(place: str, name: str, document: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    new = os.path.join(place, ".new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(new, flags, 0o600), "w", encoding="utf-8") as stream:
        json.dump(document, stream)
    os.replace(new, os.path.join(place, name))
