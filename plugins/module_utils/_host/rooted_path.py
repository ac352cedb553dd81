# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Paths within a root file system, their symbolic links followed without ever leaving it.

As runc does it where it mounts, and where it tells CRIU of its mounts (filepath-securejoin's SecureJoin).
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable

#: As many as SecureJoin follows.
_LINKS = 255


def resolve(root: str, path: str) -> str:
    """Where ``path`` leads in the root file system at ``root``; both, and the result, begin with a slash.

    What is not there, or cannot be looked at, is taken for what it is called.
    """

    def link_at(inside: str) -> str:
        try:
            return os.readlink(root.rstrip("/") + inside)
        except OSError:
            return ""

    return follow(path, link_at)


def follow(path: str, link_at: Callable[[str], str]) -> str:
    """The same, where ``link_at`` tells what the link at a path of the root file system says; empty: there is none."""
    left = [part for part in path.split("/") if part]
    found = "/"
    links = 0
    while left:
        part = left.pop(0)
        if part == ".":
            continue
        if part == "..":
            found = posixpath.dirname(found)
            continue
        step = posixpath.join(found, part)
        target = link_at(step) if links < _LINKS else ""
        if not target:
            found = step
            continue
        links += 1
        if target.startswith("/"):
            found = "/"
        left[:0] = [part for part in target.split("/") if part]
    return found
