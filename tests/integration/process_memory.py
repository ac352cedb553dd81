# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The memory of a container's process, as its node's /proc has it."""

from __future__ import annotations

import hashlib
import pathlib

from gpuops_lab import workload
from gpuops_lab.config import Node


def process(node: Node, name: str) -> pathlib.Path:
    """What the node's /proc has of the container's process."""
    lines = map(str.split, workload.ctr(node, "k8s.io", "tasks", "ls").splitlines())
    return node.inside(f"/proc/{next(int(words[1]) for words in lines if words[0] == name)}")


def digest(node: Node, name: str, mib: int) -> str:
    """Of the container's largest area of memory, which does not change while it counts."""
    proc = process(node, name)
    areas = [line.split()[0].split("-") for line in (proc / "maps").read_text().splitlines() if " rw-p " in line]
    start, end = max(((int(low, 16), int(high, 16)) for low, high in areas), key=lambda area: area[1] - area[0])
    assert end - start >= mib << 20
    found = hashlib.sha256()
    with (proc / "mem").open("rb", buffering=0) as stream:
        stream.seek(start)
        for _mib in range(mib):
            found.update(stream.read(1 << 20))
    return found.hexdigest()
