# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The workload in a node, driven by containerd's own ctr: the oracle that the collection is compared with."""

from __future__ import annotations

import shutil
import time

from gpuops_lab import image
from gpuops_lab.config import LabError, Node
from gpuops_lab.node import output, restart, run

NAMESPACE = "k8s.io"
ARCHIVE = f"/var/lib/gpuops-lab/{image.FILE_NAME}"


def place_image(node: Node) -> str:
    """Copy the image's archive into the node; returns its path there. It is not imported."""
    target = node.inside(ARCHIVE)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image.archive(), target)
    return ARCHIVE


def start(node: Node, identifier: str, mib: int = 0, namespace: str = NAMESPACE) -> None:
    """Import the image and run the counter detached, its output in /var/log/<identifier>.log of the node."""
    place_image(node)
    ctr(node, namespace, "images", "import", ARCHIVE)
    start_imported(node, identifier, mib, namespace)
    await_count(node, identifier, 1, 60 + mib / 50, namespace)


def start_imported(node: Node, identifier: str, mib: int = 0, namespace: str = NAMESPACE) -> None:
    """The same where the node has the image already; does not wait for the counter's first number."""
    arguments = ["run", "--detach", "--log-uri", log_uri(identifier), image.REFERENCE, identifier]
    # Arguments replace the image's whole command line.
    ctr(node, namespace, *arguments, *(["/bin/counter", "--mib", str(mib)] if mib else []))


def log_uri(identifier: str) -> str:
    return f"file:///var/log/{identifier}.log"


def checkpoint(node: Node, identifier: str, reference: str, namespace: str = NAMESPACE) -> None:
    """Capture task, writable layer and base image as a checkpoint image; the container goes on running."""
    ctr(node, namespace, "containers", "checkpoint", "--task", "--rw", "--image", identifier, reference)


def restore(node: Node, identifier: str, reference: str, namespace: str = NAMESPACE) -> None:
    """What ctr does with a checkpoint image, as a comparison; it leaves ctrd-checkpoint* in /tmp."""
    ctr(node, namespace, "containers", "restore", "--live", "--rw", identifier, reference)


def count(node: Node, identifier: str, namespace: str = NAMESPACE) -> int:
    """The latest number of a running counter, read from its file system."""
    for _time in range(5):
        command = ["tasks", "exec", "--exec-id", f"count-{time.monotonic_ns()}", identifier, "/bin/cat", "/var/count"]
        # It may be read while it is being written anew.
        if found := ctr(node, namespace, *command).strip():
            return int(found)
    return 0


def numbers(node: Node, identifier: str, namespace: str = NAMESPACE) -> list[int]:
    """All that a running counter has written in its own file system, since its very first start."""
    command = ["tasks", "exec", "--exec-id", f"log-{time.monotonic_ns()}", identifier, "/bin/cat", "/var/count.log"]
    # The last line may be half written.
    return [int(line) for line in ctr(node, namespace, *command).splitlines(keepends=True) if line.endswith("\n")]


def require_unbroken(node: Node, identifier: str, least: int, namespace: str = NAMESPACE) -> int:
    """No number is missing or double from the first to now, and there are more than ``least``; returns the last.

    Raises LabError.
    """
    await_count(node, identifier, least + 1, 30.0, namespace)
    found = numbers(node, identifier, namespace)
    if found != list(range(1, len(found) + 1)) or len(found) <= least:
        raise LabError(f"{identifier} on {node.name} has not counted on from {least}: {found}")
    return len(found)


def await_count(node: Node, identifier: str, number: int, seconds: float = 10.0, namespace: str = NAMESPACE) -> int:
    """Wait until the counter has reached the number; returns where it is, raises LabError when not."""
    deadline = time.monotonic() + seconds
    problem = "it stands still"
    while time.monotonic() < deadline:
        seen = _glance(node, identifier, namespace)
        if seen is not None and seen < number:
            problem = f"it stands at {seen}"
            time.sleep(0.05)
            continue
        try:
            reached = count(node, identifier, namespace)
        except LabError as error:
            problem = str(error)
        else:
            if reached >= number:
                return reached
            problem = f"it stands at {reached}"
        time.sleep(0.1)
    raise LabError(f"{identifier} did not count to {number} within {seconds:.0f} s: {problem}")


def pid(node: Node, identifier: str, namespace: str = NAMESPACE) -> int:
    """The pid, in the node, of a running task. Raises OSError when there is none."""
    bundle = f"/run/containerd/io.containerd.runtime.v2.task/{namespace}/{identifier}"
    return int(node.inside(f"{bundle}/init.pid").read_text())


def _glance(node: Node, identifier: str, namespace: str) -> int | None:
    """The number in a running counter's file, read from outside, without an exec; None: look inside."""
    try:
        return int(node.inside(f"/proc/{pid(node, identifier, namespace)}/root/var/count").read_text())
    except (OSError, ValueError):
        return None


def delete(node: Node, identifier: str, namespace: str = NAMESPACE) -> None:
    """End and remove the task and the container with its snapshot; what is not there is fine."""
    if identifier in ctr(node, namespace, "tasks", "ls", "-q").split():
        run(node, ["ctr", "-n", namespace, "tasks", "kill", "--signal", "SIGKILL", "--all", identifier])
        ctr(node, namespace, "tasks", "rm", "--force", identifier)
    if identifier in ctr(node, namespace, "containers", "ls", "-q").split():
        ctr(node, namespace, "containers", "rm", identifier)


def ctr(node: Node, namespace: str, *arguments: str) -> str:
    """Output of ctr in the node; raises LabError with its message when it fails."""
    return output(node, ["ctr", "-n", namespace, *arguments])


def cri_problems(node: Node) -> list[str]:
    """Restart containerd; returns a line for every CRI plugin that is then not ok, or that there is none."""
    restart(node)
    rows = [line.split() for line in output(node, ["ctr", "plugins", "ls"]).splitlines()[1:]]
    mine = [row for row in rows if len(row) > 2 and (row[0].startswith("io.containerd.cri.") or row[1] == "cri")]
    if not mine:
        return ["containerd has no CRI plugin"]
    return [f"{row[0]} {row[1]}: {row[-1]}" for row in mine if row[-1] != "ok"]
