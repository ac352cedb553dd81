# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is in a node, before and after: the one comparison that all tests of cleanliness use."""

from __future__ import annotations

import collections
import json
import pathlib
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Callable

from gpuops_lab.config import LabError, Node, load_node

Listing = dict[str, list[str]]
COLLECTOR = pathlib.Path(__file__).with_name("collect.py")


def listing(node: Node | str) -> Listing:
    """Sorted lines by kind: namespaces, containers, tasks, images, content, ingests, leases, snapshots,
    shims, processes, mounts, cgroups, tmp, staging, log, etc, run, containerd_temporary, firewall.

    ctr is the witness, for every containerd namespace. Raises LabError when containerd does not answer.
    """
    target = load_node(node) if isinstance(node, str) else node
    target.inside("/")
    with open(COLLECTOR, "rb") as script:
        result = subprocess.run(
            [str(target.directory / "enter"), "/usr/bin/python3", "-I", "-"],
            stdin=script,
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode:
        raise LabError(f"node {target.name} cannot be listed: {result.stderr.strip()[-2000:]}")
    found: Listing = json.loads(result.stdout)
    return found


def difference(
    before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]], ignore: Collection[str] = ()
) -> list[str]:
    """One line for each entry that is only in one: '+ kind: entry' came, '- kind: entry' went.

    ignore: kinds that a test expects to change. Equal entries count: a second process of a name is a line.
    """
    lines = []
    for kind in sorted({*before, *after} - set(ignore)):
        old, new = collections.Counter(before.get(kind, ())), collections.Counter(after.get(kind, ()))
        lines += [f"- {kind}: {entry}" for entry in sorted((old - new).elements())]
        lines += [f"+ {kind}: {entry}" for entry in sorted((new - old).elements())]
    return lines


def settled_difference(
    node: Node | str,
    before: Mapping[str, Sequence[str]],
    ignore: Collection[str] = (),
    seconds: float = 5.0,
    look: Callable[[Any], Listing] | None = None,
) -> list[str]:
    """The difference to what is there now, once it is empty or the time is over; ``look`` made ``before``.

    containerd collects garbage, and the kernel ends processes, a moment after the call that caused it.
    """
    deadline = time.monotonic() + seconds
    pause = 0.2
    while True:
        lines = difference(before, (look or listing)(node), ignore)
        if not lines or time.monotonic() > deadline:
            return lines
        # A look takes a processor for a moment, which others on this machine wait for.
        time.sleep(pause)
        pause = min(2 * pause, 1.0)
