# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that processes hold open or mapped, which were deleted by the name they were opened by and have another one.

CRIU takes such a file along as a link that it makes beside the old name (``link_remap.N``) for as long as the dump
lasts, with its option ``link-remap``; the restore takes the file from there (criu/files-reg.c). A file system that is
dumped with the container holds that link. The writable layer is taken after the dump, when the link is gone again: so
it is made once more until the layer is there. On mounts from outside of the container nothing could keep it. A file
without any name left is in the dump itself, and not meant here.
"""

from __future__ import annotations

import contextlib
import os
import stat as stat_module
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._containerd.containers import Container
from .._core.errors import NodeError, RestoreError
from .._criu import dump_config
from .._host import mountinfo
from .._host.mountinfo import Mount
from . import mounts as container_mounts, resources
from .params import OFF, DumpOptions

#: CRIU's option for them.
LINK_REMAP = "link-remap"
_DELETED = " (deleted)"
#: A file's place: the writable layer, a file system that is dumped with the container, a memory volume, another one
#: from outside, no mount of the container's at all.
LAYER, DUMPED, VOLUME, OUTSIDE, NOWHERE = "layer", "dumped", "volume", "outside", "nowhere"


@dataclass(frozen=True)
class UnlinkedFile:
    """One such file of one process."""

    pid: int
    #: The name that it was opened by, as the container saw it.
    path: str
    place: str
    #: What leads to it below /proc.
    handle: str
    #: Device and inode.
    identity: tuple[int, int]
    #: How many names it still has.
    links: int = 1
    #: What it takes on its file system.
    bytes: int = 0

    def result(self) -> dict[str, Any]:
        """As modules return it."""
        return {"pid": self.pid, "path": self.path}

    def __str__(self) -> str:
        return f"{self.path} of process {self.pid}"


def find(
    pids: Sequence[int],
    spec: Mapping[str, Any],
    proc: str = "/proc",
    root: str = "",
    volumes: Collection[str] = (),
) -> list[UnlinkedFile]:
    """Each file that has another name, once for each process; processes that have ended hold none.

    ``root``: the container's root file system, in which links of its spec's paths are followed; ``volumes``: devices of
    the file systems whose content is kept beside the dump.
    """
    return [file for file in _deleted(pids, spec, proc, root, volumes) if file.links]


def nameless(pids: Sequence[int], spec: Mapping[str, Any], proc: str = "/proc", root: str = "") -> list[UnlinkedFile]:
    """Each file that no name leads to any more. Not those that never had one (memfd), which are on no mount."""
    return [file for file in _deleted(pids, spec, proc, root) if not file.links and file.place != NOWHERE]


def _deleted(
    pids: Sequence[int], spec: Mapping[str, Any], proc: str, root: str, volumes: Collection[str] = ()
) -> list[UnlinkedFile]:
    found: dict[tuple[int, tuple[int, int]], UnlinkedFile] = {}
    mounts: dict[int, Mount] | None = None
    for pid in pids:
        for handle, path in (*_descriptors(pid, proc), *_mappings(pid, proc)):
            looked_up = _look_up(handle, proc)
            if looked_up is None:
                continue
            status, mount_id = looked_up
            if mounts is None:
                mounts = {mount.mount_id: mount for mount in resources.mounts(pids, proc)}
            place = _place(mounts.get(mount_id), spec, root, volumes)
            identity = (status.st_dev, status.st_ino)
            file = UnlinkedFile(pid, path, place, handle, identity, status.st_nlink, status.st_blocks * 512)
            found.setdefault((pid, identity), file)
    return list(found.values())


def problems(container: Container, found: Sequence[UnlinkedFile], options: DumpOptions) -> list[NodeError]:
    """Why they cannot be taken along."""
    hold = f"The processes of {container.id} hold deleted files that have another name still"
    close = "have the workload close them first"

    def problem(code: str, which: Sequence[UnlinkedFile], why: str, remedy: str) -> NodeError:
        more = f" and {len(which) - 3} more" if len(which) > 3 else ""
        names = ", ".join(map(str, which[:3])) + more
        details = {"files": [file.result() for file in which[:20]]}
        return NodeError(code, f"{hold} ({names}), {why}.", f"{remedy}, or {close}.", details=details)

    outside = [file for file in found if file.place in (OUTSIDE, NOWHERE)]
    taken = [file for file in found if file not in outside]
    config = dump_config.config_of(container.spec, container.labels)
    problems = []
    if outside:
        why = "on mounts from outside of the container, which are in no checkpoint"
        remedy = "Put their directory on a file system of the container's own"
        problems.append(problem("unlinked_file_outside", outside, why, remedy))
    if taken and options.link_remap == OFF and not config.has(LINK_REMAP):
        why = "which CRIU takes along only by links of its own"
        problems.append(problem("unlinked_files_open", taken, why, "Leave criu.link_remap at auto"))
    return problems


@contextlib.contextmanager
def linked(pid: int, paths: Mapping[str, UnlinkedFile], proc: str = "/proc") -> Iterator[None]:
    """Each path leads to its file while this is entered; ``pid``: a process whose root directory is the container's.

    Raises RestoreError ``link_remap_failed``.
    """
    made: list[str] = []
    try:
        for path, file in paths.items():
            try:
                with _parent(pid, path, proc) as directory:
                    os.link(file.handle, os.path.basename(path), dst_dir_fd=directory)
            except OSError as error:
                raise _failed(file.path, f"{path} cannot be made in its root file system: {error.strerror}") from error
            made.append(path)
        yield
    finally:
        unlink(pid, made, proc)


def unlink(pid: int, paths: Iterable[str], proc: str = "/proc") -> None:
    """Take links away, as far as they are there. Nothing of it may keep a workload from going on."""
    for path in paths:
        with contextlib.suppress(OSError), _parent(pid, path, proc) as directory:
            os.unlink(os.path.basename(path), dir_fd=directory)


def links_of_layer(remaps: Sequence[tuple[str, str]], files: Sequence[UnlinkedFile]) -> dict[str, UnlinkedFile]:
    """The links that the writable layer and memory volumes have to have, by their paths.

    ``remaps``: of the dump, names of files and links.

    Raises RestoreError ``link_remap_failed`` where such a file cannot be told, or is on a mount from outside.
    """
    wanted: dict[str, UnlinkedFile] = {}
    for path, link in remaps:
        same = {file.identity: file for file in files if file.path == path}
        if len(same) != 1:
            number = len(same) or "no"
            raise _failed(path, f"there are {number} files that were opened by that name")
        (file,) = same.values()
        if file.place in (OUTSIDE, NOWHERE):
            raise _failed(path, "it is on a mount from outside of the container, which is in no checkpoint")
        if file.place in (LAYER, VOLUME):
            wanted[link] = file
    return wanted


def _failed(path: str, why: str) -> RestoreError:
    return RestoreError(
        "link_remap_failed",
        f"The checkpoint could not be restored: it lacks the deleted file {path}, which is open still, since {why}.",
        "Take it again at another moment, or have the workload close the file first.",
    )


@contextlib.contextmanager
def _parent(pid: int, path: str, proc: str) -> Iterator[int]:
    """The directory of a path in a process's root, open. The kernel gave the path, so no links are on the way."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    directory = os.open(f"{proc}/{pid}/root", flags)
    try:
        for name in os.path.dirname(path).split("/"):
            if name:
                below = os.open(name, flags | os.O_NOFOLLOW, dir_fd=directory)
                os.close(directory)
                directory = below
        yield directory
    finally:
        os.close(directory)


def _descriptors(pid: int, proc: str) -> Iterator[tuple[str, str]]:
    """Way and old name of each deleted file that is open."""
    directory = f"{proc}/{pid}/fd"
    try:
        numbers = os.listdir(directory)
    except (FileNotFoundError, ProcessLookupError):
        return
    for number in numbers:
        with contextlib.suppress(OSError):
            target = os.readlink(f"{directory}/{number}")
            if target.endswith(_DELETED) and target.startswith("/"):
                yield f"{directory}/{number}", target[: -len(_DELETED)]


def _mappings(pid: int, proc: str) -> Iterator[tuple[str, str]]:
    """Way and old name of each deleted file that is mapped."""
    try:
        with open(f"{proc}/{pid}/maps", encoding="utf-8", errors="surrogateescape") as stream:
            lines = [line.rstrip("\n") for line in stream if line.endswith(_DELETED + "\n")]
    except (FileNotFoundError, ProcessLookupError):
        return
    for line in lines:
        words = line.split(maxsplit=5)
        if len(words) == 6 and words[5].startswith("/"):
            start, end = (int(address, 16) for address in words[0].split("-"))
            yield f"{proc}/{pid}/map_files/{start:x}-{end:x}", words[5][: -len(_DELETED)]


def _look_up(handle: str, proc: str) -> tuple[os.stat_result, int] | None:
    """Status and mount of a regular file; None for another one."""
    try:
        status = os.stat(handle)
        if not stat_module.S_ISREG(status.st_mode):
            return None
        descriptor = os.open(handle, os.O_PATH | os.O_CLOEXEC)
        try:
            mount = mountinfo.of_descriptor(f"{proc}/self/fdinfo/{descriptor}")
        finally:
            os.close(descriptor)
    except OSError:
        # Closed since.
        return None
    return status, mount


def _place(mount: Mount | None, spec: Mapping[str, Any], root: str, volumes: Collection[str]) -> str:
    if mount is None:
        return NOWHERE
    if mount.device in volumes:
        return VOLUME
    if mount.mount_point == "/":
        return LAYER
    return DUMPED if container_mounts.is_dumped(mount, spec, root) else OUTSIDE
