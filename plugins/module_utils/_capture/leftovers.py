# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Memory images that runs which were broken off have left on the node, whatever they worked on.

A kill, a full disk or a loss of power leaves half a dump, half a staged checkpoint, a copy that containerd extracted,
content that only a lease or the temporary name of a pull keeps. They are found where they lie, since what is below
/run does not outlive the boot; a lock that dies with its process tells those of a run that is still at it. A workload
that a capture has left paused is not touched here: its mark stays, and the next capture or ``settled`` resumes it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

from .._checkpoint import stage, staged as staged_checkpoint, staging_root
from .._containerd import content, daemon, extracted, images, leases, leftovers as outside, network_locks
from .._containerd.client import Client
from .._core import state_dir
from .._core.errors import ConflictError, NodeError
from .._image import cri, pull
from . import mark as capture_mark, recovery

DUMP, PARTIAL, EXTRACTED, LEASE, PULLED = "dump", "partial_staging", "extracted_checkpoint", "lease", "pulled_image"
#: An empty file system of a CRIU whose restore failed.
CRIU_MOUNT = "criu_mount"
#: Its rules that drop all packets, of one that was killed.
CRIU_LOCK = "criu_network_lock"
#: A checkpoint that lived on the node alone, to which no name leads any more.
NAMELESS = "nameless_checkpoint"
_CAPTURE, _WORK = "capture", "work"


@dataclass(frozen=True)
class Leftover:
    """Memory images that nobody needs."""

    kind: str
    #: A path, or a name in containerd.
    name: str
    #: On disk; of what containerd keeps it is not known.
    bytes: int | None = None

    def result(self) -> dict[str, str | int | None]:
        """As modules return it."""
        return {"kind": self.kind, "name": self.name, "bytes": self.bytes}


@dataclass
class Swept:
    """What was, or in check mode would be, removed."""

    removed: list[Leftover] = field(default_factory=list)
    #: Why something stayed.
    warnings: list[str] = field(default_factory=list)

    @property
    def actions(self) -> list[str]:
        """One line for each."""
        return [f"remove {found.name}, which a run that was broken off has left" for found in self.removed]


def sweep(
    client: Client, staging_dir: str, check: bool, keep_partials: bool = False, marks_root: str | None = None
) -> Swept:
    """Remove what runs that were broken off have left below ``staging_dir``; never what a live run holds.

    ``keep_partials``: half a staged checkpoint stays as long as the checkpoint itself is in the content store, so that
    staging it goes on from there, and so do leases, under which half an import lies. Raises NodeError
    ``staging_dir_unsafe``, and RpcError.
    """
    swept = Swept()
    marks = marks_root or capture_mark.default_root()
    # A capture may have had a directory of its own, on a tmpfs perhaps, which its mark tells for as long as the boot.
    others = {mark.staging_dir for _namespace, _id, mark in capture_mark.every(marks) if mark.staging_dir}
    for root in sorted({staging_dir, *others}):
        if staged_checkpoint.root_exists(root):
            _sweep_dumps(root, marks, check, swept)
    if staged_checkpoint.root_exists(staging_dir):
        _sweep_extracted(client, staging_dir, check, swept)
        # The directory goes with the last thing in it.
        if staged_checkpoint.root_exists(staging_dir):
            _sweep_partials(client, staging_dir, check, keep_partials, swept)
            _sweep_nameless(client, staging_dir, marks, check, swept)
        if swept.removed and not check:
            staging_root.remove_root_if_empty(staging_dir)
    _sweep_containerd(client, check, keep_partials, swept)
    swept.removed += [Leftover(CRIU_MOUNT, path) for path in outside.criu_mounts(client, remove=not check)]
    programs = daemon.daemon_environment(client)["PATH"]
    swept.removed += [Leftover(CRIU_LOCK, place) for place in network_locks.everywhere(programs, remove=not check)]
    return swept


def _sweep_containerd(client: Client, check: bool, keep: bool, swept: Swept) -> None:
    for image in pull.abandoned(client):
        swept.removed.append(Leftover(PULLED, image.name))
        if not check:
            cri.remove(client, image, ordinary=False)
    for lease in leases.abandoned(client) if not keep else ():
        swept.removed.append(Leftover(LEASE, lease.id))
        if not check:
            leases.delete(client, lease.id)


def _sweep_dumps(staging_dir: str, marks_root: str, check: bool, swept: Swept) -> None:
    """Directories of captures, of whatever container and namespace: only a capture under way has one."""
    for directory, namespace, container_id in _of_containers(os.path.join(staging_dir, _CAPTURE)):
        try:
            with _not_captured(marks_root, namespace, container_id, check):
                pids = recovery.working_in(directory, "/proc")
                if pids:
                    # CRIU goes on when its client was killed.
                    swept.warnings.append(
                        f"A process (pid {', '.join(map(str, pids))}) still works in {directory}; it stays."
                    )
                    continue
                found = Leftover(DUMP, directory, staging_root.disk_usage(directory))
                if not check:
                    recovery.remove_directory(directory, staging_dir)
                swept.removed.append(found)
        except ConflictError:
            continue


@contextlib.contextmanager
def _not_captured(marks_root: str, namespace: str, container_id: str, check: bool) -> Iterator[None]:
    """No capture of the container is under way, nor begins meanwhile. Raises ConflictError."""
    if check:
        capture_mark.peek(marks_root, namespace, container_id)
        yield
    else:
        with capture_mark.locked(marks_root, namespace, container_id):
            yield


def _sweep_partials(client: Client, staging_dir: str, check: bool, keep: bool, swept: Swept) -> None:
    directory = staging_root.Root(staging_dir, create=False)
    with directory.locked():
        for path, name in directory.abandoned():
            if keep and content.stat(client, f"sha256:{name}") is not None:
                continue
            swept.removed.append(Leftover(PARTIAL, path, staging_root.disk_usage(path)))
            if not check:
                shutil.rmtree(path)


def _sweep_nameless(client: Client, staging_dir: str, marks_root: str, check: bool, swept: Swept) -> None:
    """Memory of checkpoints that lived on the node alone and were deleted by name, or never got one."""
    for key, namespace, container_id in staged_checkpoint.only_copies(staging_dir):
        if namespace != client.namespace:
            continue
        try:
            # A capture gives its name only when all is there.
            with _not_captured(marks_root, namespace, container_id, check):
                if images.by_digest(client, f"sha256:{key}"):
                    continue
                path = os.path.join(staging_dir, key)
                found = Leftover(NAMELESS, path, staging_root.disk_usage(path))
                if not check and not stage.absent(client, key, staging_dir, check, keep_captured=True).changed:
                    continue
                swept.removed.append(found)
        except ConflictError as error:
            if error.code != "busy":
                swept.warnings.append(error.sentence())


def _sweep_extracted(client: Client, staging_dir: str, check: bool, swept: Swept) -> None:
    for work, namespace, _container_id in _of_containers(os.path.join(staging_dir, _WORK)):
        # A note speaks of paths in the daemon's root, which is the same for all namespaces.
        if namespace and extracted.is_abandoned(work):
            try:
                copies = extracted.noted(client, work)
            except NodeError as error:
                swept.warnings.append(error.message)
                continue
            swept.removed += [Leftover(EXTRACTED, path, staging_root.disk_usage(path)) for path in copies]
            if not check:
                swept.warnings += extracted.remove_abandoned(client, staging_dir, work)


def _of_containers(root: str) -> list[tuple[str, str, str]]:
    """The directories ``<root>/<namespace>/<container>``, with both names."""
    found = []
    for namespace in _directories(root):
        for container_id in _directories(os.path.join(root, namespace)):
            found.append((state_dir.capture_dir(root, namespace, container_id), namespace, container_id))
    return found


def _directories(path: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))
    return []
