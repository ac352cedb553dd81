# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The mounts of a running container: those that its spec names, those that CRIU takes by itself, and the others.

runc tells CRIU of the binds that the spec names, each by its place with links followed (criu_linux.go,
addCriuDumpMount). Others can be told to CRIU in its configuration, ``external=mnt[PLACE]:NAME``: so a library or a
device that a hook has mounted is taken along when the node still has the file that is mounted, and becomes a bind of
the captured spec. What else is no whole file system of a kind that CRIU knows ends the dump (mount.c).
"""

from __future__ import annotations

import os
import re
import stat as stat_module
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .._containerd import bundle as bundles
from .._containerd.bundle import Edits
from .._containerd.containers import Container
from .._containerd.tasks import Task
from .._core.errors import NodeError, RestoreError
from .._criu import dump_config
from .._host import mountinfo, rooted_path
from .._host.mountinfo import Mount
from .._oci import spec_validate

#: File systems that CRIU dumps together with a container, so that nobody has to name them.
_DUMPED = frozenset(
    [
        "tmpfs",
        "proc",
        "sysfs",
        "devpts",
        "mqueue",
        "cgroup",
        "cgroup2",
        "devtmpfs",
        "debugfs",
        "tracefs",
        "securityfs",
        "pstore",
        "fusectl",
        "configfs",
        "binfmt_misc",
        "hugetlbfs",
    ]
)
#: Their mounts show a group, so the path of its root says nothing about how much of the file system is there.
_GROUPS = frozenset({"cgroup", "cgroup2"})
#: What the kernel puts behind the root of a bind whose file or directory has no name any more.
_DELETED = "//deleted"
#: What a path may have in CRIU's configuration file, and between its brackets.
_PLAIN = re.compile(r"/[^\s\"'\\#\[\]\x00-\x1f\x7f]*\Z")
#: The driver's part of /proc, which every node with the driver has. A hook of NVIDIA's covers ``params`` in it with a
#: copy that is nowhere else, so that programs in the container make no device nodes.
_DRIVER_PROC = "/proc/driver/nvidia/"
_KEPT_OPTIONS = ("ro", "nosuid", "nodev", "noexec")


@dataclass(frozen=True)
class Taken:
    """A mount that the spec does not name and CRIU is told of."""

    #: Its place in the container.
    destination: str
    #: What is mounted there, on the node.
    source: str
    options: tuple[str, ...] = ()
    #: ``c`` or ``b``, major and minor number, where it is a device.
    device: tuple[str, int, int] | None = None
    #: The file that is mounted is nowhere on the node; ``source`` is the node's own file of that path.
    stands_in: bool = False

    def result(self) -> dict[str, str]:
        """As modules return it."""
        return {"destination": self.destination, "source": self.source}


@dataclass
class Survey:
    """A container as it runs."""

    #: With the spec that runc runs, and the mounts that are in no spec as binds of it.
    container: Container
    #: What the runtime has added to containerd's spec.
    edits: Edits = field(default_factory=Edits)
    #: CRIU has to be told of these.
    taken: list[Taken] = field(default_factory=list)
    #: What keeps a capture from beginning.
    problems: list[RestoreError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    #: Its root file system on the node, as runc looks at it.
    root: str = ""


def survey(namespace: str, recorded: Container, task: Task, proc: str = "/proc") -> Survey:
    """Look at what runs; ``recorded``: as containerd's record has it. What is wrong is in the result."""
    found = Survey(recorded, root=f"{proc}/{task.pid}/root")
    try:
        bundle = bundles.find(namespace, recorded.id, task.pid, proc)
        found.container = bundles.as_it_runs(recorded, bundle)
    except RestoreError as error:
        found.problems.append(error)
        return found
    host_root, host = "", "/proc/self/mountinfo"
    if bundle is None:
        found.warnings.append(
            f"The bundle that {recorded.id} runs from was not found, so what its runtime has added to the spec in "
            "containerd's record is not in the checkpoint."
        )
    else:
        found.edits = bundles.edits(recorded.spec, bundle.spec)
        host_root, host = f"{bundle.shim}/root", f"{bundle.shim}/mountinfo"
        if os.path.isdir(bundle.rootfs):
            found.root = bundle.rootfs
    spec = found.container.spec
    mounts = mountinfo.parse(mountinfo.read(f"{proc}/{task.pid}/mountinfo"))
    strange = unnamed(mounts, spec, found.root)
    if strange:
        visible = mountinfo.parse(mountinfo.read(host))
        found.taken, left = take(strange, f"{proc}/{task.pid}/root", visible, host_root)
        if left:
            found.problems.append(_not_in_spec(recorded.id, left, spec))
        config = dump_config.config_of(spec, recorded.labels)
        if found.taken and not config.writable:
            found.problems.append(_not_told(recorded.id, found.taken, config.path))
        found.container = replace(found.container, spec=with_taken(spec, found.taken))
        found.warnings += [
            f"The mount at {one.destination} of {recorded.id} shows a file that is nowhere else on this node; after a "
            f"restore the node's own {one.source} is there."
            for one in found.taken
            if one.stands_in
        ]
    return found


def _not_in_spec(container_id: str, left: Sequence[Mount], spec: Mapping[str, Any]) -> NodeError:
    names = ", ".join(f"{mount.mount_point} ({mount.fstype})" for mount in left)
    hooks = sorted(set(bundles.hook_programs(spec)))
    if hooks:
        who = f"added by a hook of its runtime ({', '.join(hooks)}) or by hand"
        remedy = (
            "Have the runtime name them in the spec instead (NVIDIA's: mode cdi, with a specification of nvidia-ctk "
            "cdi generate), or unmount them in the container."
        )
    else:
        who = "added inside the container after its start"
        remedy = "Name each as a mount of its own in the spec, or unmount it in the container."
    return NodeError(
        "mount_not_in_spec",
        f"The container {container_id} has mounts that its spec does not name, {who}, and what is mounted is nowhere "
        f"on the node, so CRIU cannot be told where to take it from: {names}.",
        remedy,
        details={"mounts": [mount.mount_point for mount in left], "hooks": hooks},
    )


def _not_told(container_id: str, taken: Sequence[Taken], config: str) -> NodeError:
    names = ", ".join(one.destination for one in taken)
    return NodeError(
        "criu_config_foreign",
        f"The container {container_id} has mounts that its spec does not name ({names}), and CRIU's option for them "
        f"would have to stand in {config or 'no file, as its spec says'}, which is not of this collection.",
        f"Put {', '.join(external(taken))} there, or unmount them in the container.",
        details={"mounts": [one.destination for one in taken]},
    )


def unnamed(mounts: Sequence[Mount], spec: Mapping[str, Any], root: str = "") -> list[Mount]:
    """Mounts of a container that CRIU cannot take by itself: neither named by the spec nor dumped with the container.

    ``mounts`` are those of the container's first process, as it sees them; ``root``: its root file system, in which
    links are followed.
    """
    linux = spec.get("linux") or {}
    named = {place(mount.get("destination"), root) for mount in spec.get("mounts") or ()}
    named |= {place(path, root) for key in ("maskedPaths", "readonlyPaths") for path in linux.get(key) or ()}
    named |= {place(path, root) for path in spec_validate.device_places(spec)}
    binds = _binds(spec, root)
    known = [mount for mount in mounts if mount.mount_point in {"/", *named}]
    found = []
    # Whole file systems that are there anyway: CRIU makes binds of their parts from them.
    whole = [*known, *(one for one in mounts if _is_whole(one) and not _is_below(one.mount_point, binds))]
    for mount in mounts:
        if mount in known:
            continue
        dumped = _is_whole(mount) or any(_shows(other, mount) for other in whole if other is not mount)
        if not dumped or _is_below(mount.mount_point, binds):
            found.append(mount)
    return found


def is_dumped(mount: Mount, spec: Mapping[str, Any], root: str = "") -> bool:
    """Whether the files of a mount are in a dump: it is of such a kind, and not from outside of the container."""
    binds = _binds(spec, root)
    outside = mount.mount_point in binds or _is_below(mount.mount_point, binds)
    return mount.fstype in _DUMPED and not outside


def place(path: Any, root: str) -> str:
    """Where a path of a spec is within the root file system; without ``root`` no link is followed."""
    text = str(path or "")
    if not text:
        return text
    return rooted_path.resolve(root, text) if root else rooted_path.follow(text, lambda _path: "")


def take(
    found: Sequence[Mount], container_root: str, host: Sequence[Mount], host_root: str
) -> tuple[list[Taken], list[Mount]]:
    """Those of the mounts of which CRIU can be told, since the node has what is mounted, and the others.

    ``container_root``: what the container sees; ``host``: the mounts that runc sees, below ``host_root``.
    """
    taken, left = [], []
    for mount in found:
        one = _told(mount, container_root, host, host_root)
        if one is None:
            left.append(mount)
        else:
            taken.append(one)
    return taken, left


def with_taken(spec: Mapping[str, Any], taken: Sequence[Taken]) -> dict[str, Any]:
    """The spec with these as binds of its own; devices among them are allowed to the container, as they were."""
    made = dict(spec)
    made["mounts"] = [
        *(spec.get("mounts") or ()),
        *(
            {
                "destination": one.destination,
                "type": "bind",
                "source": one.source,
                "options": ["bind", "rprivate", *one.options],
            }
            for one in taken
        ),
    ]
    rules = [
        {"allow": True, "type": one.device[0], "major": one.device[1], "minor": one.device[2], "access": "rwm"}
        for one in taken
        if one.device
    ]
    if rules:
        linux = dict(spec.get("linux") or {})
        resources = dict(linux.get("resources") or {})
        resources["devices"] = [*(resources.get("devices") or ()), *rules]
        made["linux"] = {**linux, "resources": resources}
    return made


def external(taken: Sequence[Taken]) -> list[str]:
    """The lines of CRIU's configuration that tell it of them, by the names that runc gives at a restore."""
    return [f"external=mnt[{one.destination}]:{one.destination}" for one in taken]


def _told(mount: Mount, container_root: str, host: Sequence[Mount], host_root: str) -> Taken | None:
    if not _PLAIN.match(mount.mount_point):
        return None
    options = tuple(option for option in mount.options if option in _KEPT_OPTIONS)
    try:
        inside = os.stat(container_root + mount.mount_point)
    except OSError:
        return None
    for path in _ways(mount, host):
        try:
            outside = os.stat(host_root + path)
        except OSError:
            continue
        if os.path.samestat(inside, outside):
            return Taken(mount.mount_point, path, options, _device(inside))
    if mount.mount_point.startswith(_DRIVER_PROC) and os.path.exists(host_root + mount.mount_point):
        return Taken(mount.mount_point, mount.mount_point, options, stands_in=True)
    return None


def _ways(mount: Mount, host: Sequence[Mount]) -> list[str]:
    """Paths of the node that lead to what is mounted, the shortest first."""
    if mount.root.endswith(_DELETED):
        return []
    found = set()
    for other in host:
        if _shows(other, mount):
            below = mount.root[len(other.root.rstrip("/")) :].lstrip("/")
            found.add(os.path.join(other.mount_point, below).rstrip("/") or "/")
    return sorted((path for path in found if _PLAIN.match(path)), key=lambda path: (len(path), path))


def _device(stat: os.stat_result) -> tuple[str, int, int] | None:
    for kind, holds in (("c", stat_module.S_ISCHR), ("b", stat_module.S_ISBLK)):
        if holds(stat.st_mode):
            return kind, os.major(stat.st_rdev), os.minor(stat.st_rdev)
    return None


def _binds(spec: Mapping[str, Any], root: str) -> set[str]:
    return {place(one.get("destination"), root) for one in spec.get("mounts") or () if spec_validate.is_bind(one)}


def _is_below(point: str, places: set[str]) -> bool:
    return any(point.startswith(place.rstrip("/") + "/") for place in places)


def _is_whole(mount: Mount) -> bool:
    return mount.fstype in _DUMPED and (mount.root == "/" or mount.fstype in _GROUPS)


def _shows(other: Mount, mount: Mount) -> bool:
    """Whether a mount is a bind of a part of the other one, from where it can be made again."""
    whole = other.root.rstrip("/") + "/"
    return bool(other.device) and other.device == mount.device and (mount.root + "/").startswith(whole)
