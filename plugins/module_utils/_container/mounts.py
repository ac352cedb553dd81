# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an adapted spec needs of the node: bind sources of the right kind, devices, the network namespace.

Facts: CRIU opens the source of an external mount with open_tree(AT_SYMLINK_NOFOLLOW), without recursion
(mount-v2.c), so a symbolic link ends in "Failed to move_mount", and mounts below the source do not come
along; ioctl_nsfs(2). runc makes a mount point that the image lacks when the container first runs, so the
writable layer of the checkpoint tells what each bind was. Neither the spec nor CRIU's images do.
"""

from __future__ import annotations

import fcntl
import os
import posixpath
import re
import stat as stat_module
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .._core.errors import NodeError
from .._criu import image_files
from .._host import mountinfo as host_mountinfo, rooted_path
from .._oci import spec_adapt, spec_validate
from . import driver_files

FILE = "file"
DIRECTORY = "directory"

# What the kubelet and CRI bind there, whatever the sources are called.
KNOWN_KINDS: Mapping[str, str] = {
    "/etc/hosts": FILE,
    "/etc/hostname": FILE,
    "/etc/resolv.conf": FILE,
    "/dev/termination-log": FILE,
    "/dev/shm": DIRECTORY,
    "/var/run/secrets/kubernetes.io/serviceaccount": DIRECTORY,
}

_POD = re.compile(r"/var/lib/kubelet/pods/([^/]+)(?:/|\Z)")
_SANDBOX = re.compile(r"/io\.containerd\.grpc\.v1\.cri/sandboxes/([^/]+)(?:/|\Z)")
_NS_GET_NSTYPE = 0xB703
_CLONE_NEWNET = 0x40000000


def is_netns(path: str) -> bool:
    """Whether ``path`` is a network namespace. Raises OSError if it cannot be opened."""
    # Non-blocking: a FIFO at that path would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        return False
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Node:
    """How the node's files are looked at; tests put their own in place."""

    lstat: Callable[[str], os.stat_result] = os.lstat
    stat: Callable[[str], os.stat_result] = os.stat
    realpath: Callable[[str], str] = os.path.realpath
    exists: Callable[[str], bool] = os.path.exists
    is_netns: Callable[[str], bool] = is_netns


def _missing(destination: str, source: str) -> NodeError:
    """A bind source is not there: whose was it?"""
    remedy = f"Create it, or map it in mounts: '{source}': NEW-SOURCE."
    if driver_files.is_one(source):
        version = driver_files.installed_version()
        remedy = (
            f"It is a file of NVIDIA's driver, of which this node has {version or 'none'}, and no such file was found:"
            f" map it in mounts: '{source}': NEW-SOURCE."
        )
    pod, sandbox = _POD.match(source), _SANDBOX.search(source)
    if pod:
        remedy = (
            f"It belonged to the pod {pod.group(1)}, whose directory went with it: copy its contents to a"
            f" lasting place and map it in mounts: '{source}': NEW-SOURCE."
        )
    elif sandbox:
        remedy = (
            f"It belonged to the pod sandbox {sandbox.group(1)}, which is gone: provide such a file or"
            f" directory elsewhere and map it in mounts: '{source}': NEW-SOURCE."
        )
    return NodeError(
        "mount_source_missing",
        f"The mount at {destination} needs {source}, which is not on this node.",
        remedy,
        details={"destination": destination, "source": source},
    )


def _kind_problem(destination: str, source: str, is_directory: bool, expected: Mapping[str, str]) -> NodeError | None:
    """The source is a file where the container had a directory, or the other way round."""
    wanted = expected.get(os.path.normpath(destination))
    found = DIRECTORY if is_directory else FILE
    if wanted in (None, found):
        return None
    return NodeError(
        "mount_source_kind",
        f"The mount at {destination} is a {wanted} in the container, but {source} is a {found} on this node.",
        f"Put a {wanted} there or map another source in mounts: '{source}': NEW-SOURCE.",
        details={"destination": destination, "source": source, "expected": wanted, "found": found},
    )


def _nested_problem(
    mount: Mapping[str, Any],
    real: str,
    mounts: list[host_mountinfo.Mount],
    named: set[str],
    resolve: Callable[[str], str] | None,
) -> NodeError | None:
    """Mounts below a recursive bind's source that the spec does not name itself.

    Without ``resolve`` nothing is said of one that the spec may name by another way, through links of the image.
    """
    if "rbind" not in (mount.get("options") or ()):
        return None
    below = real.rstrip("/") + "/"
    destination = (resolve or os.path.normpath)(mount["destination"])

    def is_named(inside: str) -> bool:
        if os.path.join(destination, inside) in named:
            return True
        return resolve is None and any(place.endswith("/" + inside) for place in named)

    nested = sorted(
        {
            entry.mount_point
            for entry in mounts
            if entry.mount_point.startswith(below)
            and entry.mount_point != "/"
            and not is_named(entry.mount_point[len(below) :])
        }
    )
    if not nested:
        return None
    return NodeError(
        "mount_source_nested",
        f"The mount at {mount['destination']} is a recursive bind of {mount['source']}, below which"
        f" {', '.join(nested[:5])}{' and more' if len(nested) > 5 else ''} is mounted: CRIU does not take"
        " that along.",
        "Unmount what is below it, or map a source without further mounts.",
        details={"destination": mount["destination"], "source": mount["source"], "nested": nested},
    )


def _source_problems(
    mount: Mapping[str, Any],
    node: Node,
    mounts: list[host_mountinfo.Mount],
    expected: Mapping[str, str],
    named: set[str],
    resolve: Callable[[str], str] | None,
) -> list[NodeError]:
    """Everything that is wrong with one bind mount."""
    destination, source = mount["destination"], mount.get("source") or ""
    try:
        link = stat_module.S_ISLNK(node.lstat(source).st_mode)
        is_directory = stat_module.S_ISDIR(node.stat(source).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return [_missing(destination, source)]
    except OSError as error:
        return [
            NodeError(
                "mount_source_unreadable",
                f"The mount at {destination} needs {source}, which cannot be looked at: {error.strerror}.",
                "Mend the file system it is on, or map another source in mounts.",
                details={"destination": destination, "source": source},
            )
        ]
    real = node.realpath(source)
    problems: list[NodeError | None] = []
    if link:
        problems.append(
            NodeError(
                "mount_source_symlink",
                f"The mount at {destination} comes from {source}, a symbolic link, which CRIU does not follow"
                ' ("Failed to move_mount").',
                f"Map it to what it leads to in mounts: '{source}': '{real}'.",
                details={"destination": destination, "source": source, "resolved": real},
            )
        )
    problems.append(_kind_problem(destination, source, is_directory, expected))
    problems.append(_nested_problem(mount, real, mounts, named, resolve))
    return [problem for problem in problems if problem]


def _device_problem(device: Mapping[str, Any], node: Node) -> NodeError | None:
    """A device node is missing, or is another device by now."""
    path, kind = device["path"], device["type"]
    details = {"path": path}
    try:
        found = node.stat(path)
    except OSError:
        numbers = (device.get("major"), device.get("minor"))
        tree = "block" if kind == "b" else "char"
        if None not in numbers and node.exists(f"/sys/dev/{tree}/{numbers[0]}:{numbers[1]}"):
            # The container's own node is in the dump, and may be called otherwise than the node's (sysfs(5)).
            return None
        return NodeError(
            "device_missing",
            f"The container needs the device {path}, which is not on this node.",
            "Load its driver or choose a node that has it.",
            details=details,
        )
    tests = {
        "c": stat_module.S_ISCHR,
        "u": stat_module.S_ISCHR,
        "b": stat_module.S_ISBLK,
        "p": stat_module.S_ISFIFO,
    }
    same_kind = kind not in tests or tests[kind](found.st_mode)
    wanted = (device.get("major"), device.get("minor"))
    numbers = (os.major(found.st_rdev), os.minor(found.st_rdev))
    if same_kind and (kind == "p" or all(want in (None, have) for want, have in zip(wanted, numbers))):
        return None
    return NodeError(
        "device_mismatch",
        f"The container had {path} as device {kind} {wanted[0]}:{wanted[1]}, but here it is another"
        f" ({numbers[0]}:{numbers[1]}).",
        "Restore on a node with the same device numbers, or give an ociSpec with this node's in"
        " linux.devices and in linux.resources.devices.",
        details=details,
    )


def _namespace_problem(entry: Mapping[str, Any], node: Node) -> NodeError | None:
    """A network namespace's path is missing or leads to something else."""
    path = entry["path"]
    details = {"path": path}
    try:
        valid = node.is_netns(path)
    except OSError as error:
        return NodeError(
            "netns_missing",
            f"The network namespace {path} cannot be opened on this node: {error.strerror or error}.",
            "Make it with 'ip netns add NAME' and set network to /run/netns/NAME, or set network to host or none.",
            details=details,
        )
    if valid:
        return None
    return NodeError(
        "netns_invalid",
        f"{path} is not a network namespace (any more).",
        "Remove that file, make the namespace with 'ip netns add NAME' and set network to /run/netns/NAME.",
        details=details,
    )


def problems(
    spec: Mapping[str, Any],
    *,
    expected_kinds: Mapping[str, str] | None = None,
    mountinfo: str | None = None,
    planned: Collection[str] = (),
    node: Node | None = None,
    resolve: Callable[[str], str] | None = None,
) -> list[NodeError]:
    """All that the node lacks for ``spec`` (adapted, checked), at once, in the order of the spec.

    ``expected_kinds`` as :func:`bind_kinds` tells, added to :data:`KNOWN_KINDS`.
    ``mountinfo``: text, read from this process if not given. ``planned``: sources and namespace paths that
    the caller makes before the restore; they are not looked at. ``resolve``: where a path leads in the container's root
    file system, where that is at hand (:func:`resolver`). Codes: ``mount_source_missing``,
    ``mount_source_unreadable``, ``mount_source_symlink``, ``mount_source_kind``, ``mount_source_nested``,
    ``device_missing``, ``device_mismatch``, ``netns_missing``, ``netns_invalid``. Raises InputError
    ``spec_invalid``.
    """
    spec_validate.check(spec)
    node = node or Node()
    expected = {os.path.normpath(key): kind for key, kind in {**KNOWN_KINDS, **(expected_kinds or {})}.items()}
    mounts = host_mountinfo.parse(host_mountinfo.read() if mountinfo is None else mountinfo)
    named = {(resolve or os.path.normpath)(mount["destination"]) for mount in spec.get("mounts") or ()}
    found: list[NodeError] = []
    external = spec_adapt.external_mounts(spec)
    alone = [{"destination": place, "source": external[place], "type": "bind"} for place in sorted(external)]
    for mount in [*(spec.get("mounts") or ()), *alone]:
        if spec_validate.is_bind(mount) and mount.get("source") not in planned:
            found += _source_problems(mount, node, mounts, expected, named, resolve)
    for device in spec["linux"].get("devices") or ():
        problem = _device_problem(device, node)
        found += [problem] if problem else []
    for entry in spec["linux"].get("namespaces") or ():
        if entry["type"] == "network" and entry.get("path") and entry["path"] not in planned:
            problem = _namespace_problem(entry, node)
            found += [problem] if problem else []
    return found


def unnamed(images: str, spec: Mapping[str, Any]) -> list[NodeError]:
    """Mounts of the dump in the directory ``images`` that need a source and are not in the spec (adapted, checked).

    Code ``mount_unnamed``. A place that the spec may name by another way, through links of the image, counts as named.
    """
    try:
        wanted = image_files.external_mounts(images)
    except (OSError, image_files.UnreadableError):
        # A dump that CRIU cannot read either is found elsewhere.
        return []
    named = {os.path.normpath(mount["destination"]) for mount in spec.get("mounts") or ()}
    named |= {*spec_adapt.external_mounts(spec), *spec_validate.device_places(spec)}
    # Of the groups of version 1 runc makes a mount each below the one that the spec names.
    groups = [os.path.normpath(one["destination"]) for one in spec.get("mounts") or () if one.get("type") == "cgroup"]
    by_links = {os.path.basename(place) for place in named - set(wanted)}
    return [
        NodeError(
            "mount_unnamed",
            f"The checkpoint has a mount at {place} which its spec does not name, so CRIU is given no source for it.",
            f"Give it one in added_mounts: '{place}': SOURCE.",
            details={"destination": place},
        )
        for place in wanted
        if place not in named
        and os.path.basename(place) not in by_links
        and not any(place.startswith(group + "/") for group in groups)
    ]


def resolver(rootfs: Iterable[Any]) -> Callable[[str], str]:
    """Where paths lead in the root file system that ``rootfs`` shows, as in :func:`bind_kinds`."""
    trees = [tree for mount in rootfs for tree in _trees(mount)]
    return lambda path: _resolve(trees, path)


def bind_kinds(rootfs: Iterable[Any], mounts: Collection[Mapping[str, Any]]) -> dict[str, str]:
    """Destination -> ``file`` or ``directory`` for the binds among a spec's ``mounts``, where it can be told.

    ``rootfs`` are the mounts of the container's snapshot (``containerd.types.Mount``): overlays and binds are looked
    into without mounting them, with others nothing is known. Nor is it where another mount covers the place. Links are
    followed as runc does.
    """
    trees = [tree for mount in rootfs for tree in _trees(mount)]
    places = {str(mount["destination"]): _resolve(trees, str(mount["destination"])) for mount in mounts}
    kinds = {}
    for mount in mounts:
        place = places[str(mount["destination"])]
        covered = any(other != "/" and place.startswith(other + "/") for other in places.values())
        kind = "" if covered or not spec_validate.is_bind(mount) else _kind(trees, place)
        if kind:
            kinds[posixpath.normpath(str(mount["destination"]))] = kind
    return kinds


def _trees(mount: Any) -> list[str]:
    """The directories that the mount shows, topmost first."""
    if mount.type == "bind":
        return [str(mount.source)]
    options = dict(option.split("=", 1) for option in mount.options if "=" in option)
    if mount.type != "overlay" or "lowerdir" not in options:
        return []
    upper = [options["upperdir"]] if "upperdir" in options else []
    return [*upper, *options["lowerdir"].split(":")]


def _resolve(trees: list[str], path: str) -> str:
    def link_at(inside: str) -> str:
        found = _visible(trees, inside)
        return os.readlink(found[0]) if found and stat_module.S_ISLNK(found[1]) else ""

    return rooted_path.follow(path, link_at)


def _kind(trees: list[str], place: str) -> str:
    found = _visible(trees, place)
    if not found or stat_module.S_ISLNK(found[1]):
        return ""
    return DIRECTORY if stat_module.S_ISDIR(found[1]) else FILE


def _visible(trees: list[str], place: str) -> tuple[str, int] | None:
    """What is at a place of an overlay, with its mode; None for what is not there. The way to it has no links."""
    parts = [part for part in place.split("/") if part]
    for tree in trees:
        path, mode = tree, stat_module.S_IFDIR
        for part in parts:
            if not stat_module.S_ISDIR(mode):
                # A file of this layer covers what others have below it.
                return None
            path = os.path.join(path, part)
            try:
                mode = os.lstat(path).st_mode
            except OSError:
                mode = 0
                break
            if stat_module.S_ISCHR(mode):
                # A character device is how overlayfs says that something is gone.
                return None
        if mode:
            return path, mode
    return None
