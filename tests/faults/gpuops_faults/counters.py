# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The counters of a node: how far they are, and that none has lost or repeated a number."""

from __future__ import annotations

import time
from collections.abc import Collection

from gpuops_lab import workload
from gpuops_lab.config import LabError, Node

_LOG = "/var/count.log"
_SECONDS = 20.0
#: What makes a counter one that goes on: a number it was about to write, and one more.
MORE = 2


def pids(node: Node, containers: Collection[str]) -> dict[str, int]:
    """The process of each of these tasks, as the node numbers it. Raises LabError when one does not run."""
    rows = [line.split() for line in workload.ctr(node, workload.NAMESPACE, "tasks", "ls").splitlines()[1:]]
    found = {row[0]: int(row[1]) for row in rows if row[0] in containers and row[2] == "RUNNING"}
    if missing := sorted(set(containers) - set(found)):
        raise LabError(f"{', '.join(missing)} of node {node.name} does not run: {rows}")
    return found


def latest(node: Node, pid: int) -> int:
    """The last number that the counter has written; 0 before the first."""
    return (_numbers(_log(node, pid)) or [0])[-1]


def await_number(node: Node, pid: int, number: int) -> None:
    """Raises LabError when the counter does not come so far, or ends."""
    deadline = time.monotonic() + _SECONDS
    reached = 0
    while reached < number:
        if time.monotonic() > deadline:
            raise LabError(f"the counter {pid} of node {node.name} stands at {reached} and does not come to {number}")
        time.sleep(0.02)
        try:
            reached = latest(node, pid)
        except FileNotFoundError:
            raise LabError(f"the counter {pid} of node {node.name} has ended at {reached}") from None


def check_log(node: Node, pid: int) -> None:
    """Raises AssertionError when a number is lost or repeated."""
    _check(_numbers(_log(node, pid)), f"the counter {pid} of node {node.name}")


def check_task(node: Node, container: str) -> None:
    """The same, read by an exec of containerd's: the task is one that takes it."""
    read = ["tasks", "exec", "--exec-id", "faults", container, "/bin/cat", _LOG]
    _check(_numbers(workload.ctr(node, workload.NAMESPACE, *read)), container)


def _log(node: Node, pid: int) -> str:
    # As its own process sees it: no exec, which would cost as much as the rest of a comparison.
    return node.inside(f"/proc/{pid}/root{_LOG}").read_text(encoding="ascii")


def _numbers(text: str) -> list[int]:
    # The last line may be one that is being written.
    return [int(line) for line in text[: text.rfind("\n") + 1].split()]


def _check(numbers: list[int], who: str) -> None:
    assert numbers == list(range(1, len(numbers) + 1)), f"{who} has lost or repeated a number"
