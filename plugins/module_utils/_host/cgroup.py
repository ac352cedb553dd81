# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Control groups: the node's mode, a path for a container, the processes in it.

Facts: cgroups(7), the kernel's cgroup-v1 freezer and cgroup-v2 documents, runc's docs/systemd.md for the
``slice:prefix:name`` form that its systemd driver demands.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

from .._core.errors import InputError, NodeError
from . import mountinfo as host_mountinfo

V1 = "v1"
HYBRID = "hybrid"
UNIFIED = "unified"
CGROUPFS = "cgroupfs"
SYSTEMD = "systemd"

ROOT = "/sys/fs/cgroup"

# containerd's rule for identifiers: a container id becomes a directory name and a part of a unit name.
_IDENTIFIER = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*\Z")
_IDENTIFIER_MAX = 76
# Most telling first: runc puts a container into every one of these, a process manager only into some.
_V1_PREFERENCE = ("freezer", "devices", "pids", "memory", "cpu", "cpuset", "blkio", "name=systemd")


def mode(root: str = ROOT, mountinfo: str | None = None) -> str:
    """``v1``, ``hybrid`` (v1 controllers, and cgroup2 at ``<root>/unified``) or ``unified``.

    ``mountinfo`` is the text of a mountinfo file, read from this process if not given.
    Raises NodeError ``cgroup_not_mounted``.
    """
    text = host_mountinfo.read() if mountinfo is None else mountinfo
    types = {mount.mount_point: mount.fstype for mount in host_mountinfo.parse(text)}
    if types.get(root) == "cgroup2":
        return UNIFIED
    below = root.rstrip("/") + "/"
    if any(kind == "cgroup" and point.startswith(below) for point, kind in types.items()):
        return HYBRID if types.get(below + "unified") == "cgroup2" else V1
    raise NodeError(
        "cgroup_not_mounted",
        f"No cgroup file system is mounted at {root}.",
        "Mount the cgroup hierarchy there: runc needs it to start a container.",
    )


def cgroups_path(container_id: str, driver: str, name: str) -> str:
    """A path of our own for ``linux.cgroupsPath``, outside of everything that a kubelet looks after.

    ``name``: the container's on the node (:func:`_core.state_dir.node_name`).
    ``driver`` is ``cgroupfs`` or ``systemd``. Raises InputError ``container_id_invalid``,
    ``cgroup_driver_invalid``.
    """
    if len(container_id) > _IDENTIFIER_MAX or not _IDENTIFIER.match(container_id):
        raise InputError(
            "container_id_invalid",
            f"{container_id!r} is no container id that containerd accepts.",
            f"Use letters, digits and single . _ - between them, at most {_IDENTIFIER_MAX} characters.",
        )
    if driver == CGROUPFS:
        # No parent of our own: runc would leave it behind, empty.
        return f"/gpuops-restore-{name}"
    if driver == SYSTEMD:
        return f"system.slice:gpuops-restore:{name}"
    raise InputError(
        "cgroup_driver_invalid",
        f"There is no cgroup driver {driver!r}.",
        "Use cgroupfs or systemd, as the runtime's option SystemdCgroup says.",
    )


def check_path(path: str, driver: str | None = None) -> str:
    """Gives ``path`` back if it may stand in ``linux.cgroupsPath``, for ``driver`` if that is known.

    Raises InputError ``cgroups_path_invalid`` (empty, not absolute, ``..``, not in the form that the driver
    takes) or ``cgroups_path_kubepods``: the kubelet kills all processes in cgroups of pods that it does not
    know.
    """
    if "kubepods" in path:
        raise InputError(
            "cgroups_path_kubepods",
            f"The cgroup path {path} lies below kubepods, where the kubelet kills processes of pods it does not know.",
            "Leave cgroups_path out, or name a path outside of kubepods.",
        )
    is_systemd = path.count(":") == 2 and bool(path.split(":")[2]) and "/" not in path
    is_cgroupfs = path.startswith("/") and path != "/" and ":" not in path and ".." not in path.split("/")
    fits = {SYSTEMD: is_systemd, CGROUPFS: is_cgroupfs}.get(driver or "", is_systemd or is_cgroupfs)
    if not fits:
        raise InputError(
            "cgroups_path_invalid",
            f"{path!r} is no cgroup path" + (f" for the {driver} driver." if driver else "."),
            "Give an absolute path for the cgroupfs driver, slice:prefix:name for the systemd driver.",
        )
    return path


def _hierarchies(pid: int, proc: str, root: str) -> Iterator[tuple[str, str]]:
    """``(v1 controllers or "", directory)`` of the groups that hold ``pid``, most telling first.

    The root group is left out: its processes are the whole node's, not a container's.
    """
    path = os.path.join(proc, str(pid), "cgroup")
    try:
        with open(path, encoding="utf-8") as stream:
            lines = stream.read().splitlines()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise NodeError(
            "process_gone",
            f"There is no process {pid}: {path} cannot be read.",
            "Look at the task's status: its process has ended.",
        ) from error
    found: list[tuple[int, str, str]] = []
    for line in lines:
        _number, controllers, group = line.split(":", 2)
        if group == "/" or ".." in group.split("/"):
            continue
        names = controllers.split(",") if controllers else []
        rank = min((_V1_PREFERENCE.index(name) for name in names if name in _V1_PREFERENCE), default=99)
        # v2 alone is mounted at the root; beside v1 at "unified". Joined v1 controllers have links, or not.
        mounts = [controllers, *names] if names else ["", "unified"]
        for mount in mounts:
            top = os.path.join(root, mount[len("name=") :] if mount.startswith("name=") else mount)
            found.append((rank, controllers, os.path.join(top, group.lstrip("/"))))
    for _rank, controllers, directory in sorted(found, key=lambda item: item[0]):
        if os.path.isfile(os.path.join(directory, "cgroup.procs")):
            yield controllers, directory


def _procs(directory: str) -> set[int]:
    """Process ids in one group. A group that vanished, or a threaded one (its domain lists it), has none."""
    try:
        with open(os.path.join(directory, "cgroup.procs"), encoding="ascii") as stream:
            # The kernel writes 0 for a process outside of our pid namespace.
            return {int(word) for word in stream.read().split()} - {0}
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return set()
        raise


def _tree(directory: str) -> set[int]:
    """Process ids in a group and in all groups below it."""
    pids: set[int] = set()
    for place, _directories, _files in os.walk(directory):
        pids |= _procs(place)
    return pids


def tgids_of(pid: int, proc: str = "/proc", root: str = ROOT) -> list[int]:
    """Process ids (thread group ids), ascending, of the cgroup that holds ``pid`` and of all groups below it.

    Raises NodeError ``process_gone``, or ``cgroup_of_process`` if ``pid`` is in no group but the root.
    """
    for _controllers, directory in _hierarchies(pid, proc, root):
        pids = _tree(directory)
        # A mount may show another part of the tree than /proc/<pid>/cgroup speaks of: only believe a group
        # with it.
        if pid in pids:
            return sorted(pids)
    raise NodeError(
        "cgroup_of_process",
        f"Process {pid} is in no cgroup of its own below {root}, so its container's processes are unknown.",
        "Restore the container with a cgroup path, and see that the cgroup file system is visible here.",
    )


def freeze(pid: int, proc: str = "/proc", root: str = ROOT) -> bool:
    """Freeze the group that holds ``pid``, never one that this process is in; False where that cannot be done.

    Raises NodeError ``process_gone``.
    """
    for controllers, directory in _hierarchies(pid, proc, root):
        if controllers and "freezer" not in controllers.split(","):
            continue
        name, word = ("freezer.state", "FROZEN") if controllers else ("cgroup.freeze", "1")
        path = os.path.join(directory, name)
        held = _tree(directory)
        if pid in held and os.getpid() not in held and os.path.exists(path):
            with open(path, "w", encoding="ascii") as stream:
                stream.write(word)
            return True
    return False


def is_frozen(pid: int, proc: str = "/proc", root: str = ROOT) -> bool:
    """Whether the cgroup that holds ``pid`` is frozen, by itself or by one above it.

    v1: ``freezer.state`` of the freezer hierarchy; v2: ``frozen`` in ``cgroup.events``. Raises NodeError
    ``process_gone``.
    """
    for controllers, directory in _hierarchies(pid, proc, root):
        if controllers and "freezer" not in controllers.split(","):
            continue
        name = "freezer.state" if controllers else "cgroup.events"
        try:
            with open(os.path.join(directory, name), encoding="ascii") as stream:
                text = stream.read()
        except FileNotFoundError:
            continue
        if text.strip() in ("FROZEN", "FREEZING") or "frozen 1" in text.splitlines():
            return True
    return False
