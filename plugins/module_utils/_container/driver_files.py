# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of NVIDIA's driver that a container has mounted one by one, found where this node keeps its own.

A runtime or a CDI specification mounts each library under its whole name, ``libcuda.so.580.159.04``, and the next node
may have another release, or the same one elsewhere. Facts: the folders that nvidia-container-toolkit searches
(internal/lookup) and those where driver containers install; ``modinfo``'s version of the loaded module, in sysfs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._oci import spec_validate

_LIBRARY = re.compile(
    r"(?P<name>lib(?:cuda|cudadebugger|nvcuvid|nvoptix|vdpau_nvidia|glxserver_nvidia|nvidia-[\w-]+|[A-Za-z0-9_]+_nvidia)"
    r"\.so)\.(?P<version>\d+(?:\.\d+)+)\Z"
)
_PROGRAM = re.compile(r"nvidia-(?:smi|debugdump|persistenced|cuda-mps-control|cuda-mps-server|imex|imex-ctl)\Z")
_FIRMWARE = re.compile(r"/firmware/nvidia/(?P<version>\d+(?:\.\d+)+)/(?P<name>[\w.-]+)\Z")
#: Where a driver's files are: in the root file system, or in that of a driver container of the GPU operator's.
_ROOTS = ("", "/run/nvidia/driver")
_LIBRARIES = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib/aarch64-linux-gnu/nvidia/current",
    "/usr/lib64",
    "/usr/lib",
)
_PROGRAMS = ("/usr/bin", "/usr/sbin", "/usr/local/bin")
_FIRMWARES = ("/lib/firmware/nvidia", "/usr/lib/firmware/nvidia")
#: Folders that hold all of a driver, on Google's node images.
_ALONE = ("/home/kubernetes/bin/nvidia/lib64", "/home/kubernetes/bin/nvidia/bin")
_VERSION = "/sys/module/nvidia/version"


def installed_version() -> str:
    """The release of the driver that is loaded; empty where none is."""
    try:
        with open(_VERSION, encoding="ascii", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return ""


@dataclass(frozen=True)
class Node:
    """How the node's files are looked at; tests put their own in place."""

    exists: Callable[[str], bool] = os.path.exists
    realpath: Callable[[str], str] = os.path.realpath
    #: Names in a directory. Raises OSError.
    listdir: Callable[[str], list[str]] = os.listdir
    version: Callable[[], str] = installed_version


def mapping(spec: Mapping[str, Any], given: Mapping[str, str], node: Node | None = None) -> dict[str, str]:
    """Sources of binds that are not on this node, to this node's own of the same driver file, where it has one.

    ``given``: the operator's mapping, which counts for what it covers. ``spec`` has been checked.
    """
    node = node or Node()
    found = {}
    for mount in spec.get("mounts") or ():
        source = str(mount.get("source") or "")
        covered = any(source == old or source.startswith(old.rstrip("/") + "/") for old in given)
        if not spec_validate.is_bind(mount) or covered or not is_one(source) or node.exists(source):
            continue
        here = _find(source, node)
        if here:
            found[os.path.normpath(source)] = here
    return found


def is_one(source: str) -> bool:
    """Whether a path is that of a file of the driver, by its name."""
    name = os.path.basename(source)
    return bool(_LIBRARY.match(name) or _PROGRAM.match(name) or _FIRMWARE.search(source))


def _find(source: str, node: Node) -> str:
    """The node's own; empty where there is none, or more than one that could be meant."""
    for path in _candidates(source, node.version()):
        if node.exists(path):
            # CRIU follows no link where it mounts.
            return node.realpath(path)
    library = _LIBRARY.match(os.path.basename(source))
    if library is None:
        return ""
    for folder in _folders(source, _LIBRARIES):
        try:
            same = [name for name in node.listdir(folder) if _is_release_of(name, library.group("name"))]
        except OSError:
            continue
        if same:
            return node.realpath(os.path.join(folder, same[0])) if len(same) == 1 else ""
    return ""


def _candidates(source: str, version: str) -> Iterator[str]:
    """Where the file may be, first those of the same release, then those of the one that is loaded here."""
    name = os.path.basename(source)
    firmware, library = _FIRMWARE.search(source), _LIBRARY.match(name)
    if firmware:
        for release in dict.fromkeys((firmware.group("version"), version)):
            if release:
                yield from (f"{root}{folder}/{release}/{name}" for root in _ROOTS for folder in _FIRMWARES)
        return
    if library is None:
        yield from (f"{folder}/{name}" for folder in _folders(source, _PROGRAMS))
        return
    for release in dict.fromkeys((library.group("version"), version)):
        if release:
            yield from (f"{folder}/{library.group('name')}.{release}" for folder in _folders(source, _LIBRARIES))


def _folders(source: str, usual: Sequence[str]) -> list[str]:
    """The file's own folder, then the usual ones."""
    own = os.path.dirname(source)
    return list(dict.fromkeys([own, *(root + folder for root in _ROOTS for folder in usual), *_ALONE]))


def _is_release_of(name: str, library: str) -> bool:
    found = _LIBRARY.match(name)
    return found is not None and found.group("name") == library
