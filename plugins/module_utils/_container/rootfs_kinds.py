# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container's root file system has where something is mounted: a file or a directory.

runc makes a mount point that the image lacks when the container first runs, so the writable layer of the checkpoint
tells what each bind was. Neither the spec nor CRIU's images do.
"""

from __future__ import annotations

import os
import posixpath
import stat as stat_module
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from .._oci import spec_validate
from .mounts import DIRECTORY, FILE


def bind_kinds(rootfs: Iterable[Any], mounts: Collection[Mapping[str, Any]]) -> dict[str, str]:
    """Destination -> ``file`` or ``directory`` for the binds among a spec's ``mounts``, where it can be told.

    ``rootfs`` are the mounts of the container's snapshot (``containerd.types.Mount``): overlays and binds are looked
    into without mounting them, with others nothing is known. Nor is it where a symbolic link is on the way, or another
    mount covers the place.
    """
    trees = [tree for mount in rootfs for tree in _trees(mount)]
    places = [posixpath.normpath(str(mount["destination"])) for mount in mounts]
    kinds = {}
    for mount, place in zip(mounts, places):
        covered = any(other != "/" and place.startswith(other + "/") for other in places)
        kind = "" if covered or not spec_validate.is_bind(mount) else _kind(trees, place)
        if kind:
            kinds[place] = kind
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


def _kind(trees: list[str], destination: str) -> str:
    parts = [part for part in destination.split("/") if part]
    if ".." in parts:
        return ""
    for tree in trees:
        path, mode = tree, 0
        for part in parts:
            path = os.path.join(path, part)
            try:
                mode = os.lstat(path).st_mode
            except OSError:
                mode = 0
                break
            if stat_module.S_ISLNK(mode) or stat_module.S_ISCHR(mode):
                # A link leads elsewhere; a character device is how overlayfs says that something is gone.
                return ""
        if mode:
            return DIRECTORY if stat_module.S_ISDIR(mode) else FILE
    return ""
