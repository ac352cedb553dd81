# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes' control groups: one below gpuops-lab/ in every hierarchy of the host, v1, hybrid or v2."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import time

from gpuops_lab.config import LabError

TOP = "gpuops-lab"
# cgroup v2 allows no processes beside child groups that have controllers: the node's own stay in a leaf.
LEAF = "init"
# What thaws a group's processes, in cgroup v1 and in v2.
THAWS = {"freezer.state": "THAWED", "cgroup.freeze": "0"}


@dataclasses.dataclass(frozen=True)
class Hierarchy:
    """One mounted hierarchy: mount point, options that mount it again ('' for v2), and whether it is v2."""

    mount: str
    options: str
    unified: bool

    def top(self) -> pathlib.Path:
        return pathlib.Path(self.mount) / TOP

    def node(self, name: str) -> pathlib.Path:
        return self.top() / name

    def procs(self, name: str) -> pathlib.Path:
        """Where a process of the node is written to."""
        group = self.node(name)
        return (group / LEAF if self.unified else group) / "cgroup.procs"


def hierarchies(mountinfo: str, own_cgroups: str) -> list[Hierarchy]:
    """The hierarchies in the text of /proc/self/mountinfo; own_cgroups is that of /proc/self/cgroup."""
    names = {line.split(":", 2)[1] for line in own_cgroups.splitlines() if line.count(":") >= 2}
    known = {word for name in names for word in name.split(",")}
    found: dict[tuple[str, str], Hierarchy] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, super_fields = left.split(), right.split()
        if len(super_fields) < 3 or super_fields[0] not in ("cgroup", "cgroup2") or fields[3] != "/":
            continue
        unified = super_fields[0] == "cgroup2"
        words = [word for word in super_fields[2].split(",") if word in known] if not unified else []
        if any(word.startswith("name=") for word in words):
            words.insert(0, "none")
        entry = Hierarchy(fields[4], ",".join(words), unified)
        if unified or words:
            found.setdefault((super_fields[0], entry.options), entry)
    return list(found.values())


def host_hierarchies() -> list[Hierarchy]:
    mountinfo = pathlib.Path("/proc/self/mountinfo").read_text()
    found = hierarchies(mountinfo, pathlib.Path("/proc/self/cgroup").read_text())
    if not found:
        raise LabError("no cgroup hierarchy is mounted on this host; mount one at /sys/fs/cgroup")
    return found


def create(name: str) -> None:
    """Make the node's groups, with processors and memory nodes where v1 demands them first."""
    for entry in host_hierarchies():
        _enable(pathlib.Path(entry.mount))
        entry.top().mkdir(exist_ok=True)
        _inherit_cpuset(entry.top())
        _enable(entry.top())
        entry.node(name).mkdir(exist_ok=True)
        _inherit_cpuset(entry.node(name))
        if entry.unified:
            (entry.node(name) / LEAF).mkdir(exist_ok=True)


def enter(name: str) -> None:
    """Move the calling process to the node's group, which can then be the root of a cgroup namespace."""
    for entry in host_hierarchies():
        (entry.node(name) / "cgroup.procs").write_text("0")


def settle(name: str, entries: list[Hierarchy]) -> None:
    """Within the cgroup namespace: go to the leaf and pass the controllers on to the containers' groups."""
    for entry in entries:
        if entry.unified:
            entry.procs(name).write_text("0")
            _enable(entry.node(name))


def processes(name: str) -> set[int]:
    """The host's pids of all processes in the node's groups and below."""
    found: set[int] = set()
    for entry in host_hierarchies():
        for directory, _, files in os.walk(entry.node(name)):
            if "cgroup.procs" in files:
                try:
                    text = (pathlib.Path(directory) / "cgroup.procs").read_text()
                except OSError:
                    continue  # a group that went away between the two calls, or a threaded one
                found.update(int(word) for word in text.split() if word != "0")
    return found


def thaw(name: str) -> None:
    """Have the node's paused tasks go on: with cgroup v1 a frozen process does not end, not even by SIGKILL."""
    for entry in host_hierarchies():
        for directory, _, files in os.walk(entry.node(name)):
            for file in THAWS.keys() & set(files):
                # The group may go away meanwhile.
                with contextlib.suppress(OSError):
                    (pathlib.Path(directory) / file).write_text(THAWS[file])


def remove(name: str, seconds: float = 10.0) -> None:
    """Remove the node's groups, with the last node's the common parent too. Raises LabError if busy."""
    deadline = time.monotonic() + seconds
    for entry in host_hierarchies():
        for directory, _, _ in os.walk(entry.node(name), topdown=False):
            _remove_group(directory, deadline)
        # It may be absent, or other nodes may be in it.
        with contextlib.suppress(OSError):
            entry.top().rmdir()


def _remove_group(directory: str, deadline: float) -> None:
    while True:
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            return
        except OSError as error:
            # The kernel lets go of a dead process's group a moment after the process is gone.
            if time.monotonic() > deadline:
                raise LabError(f"cgroup {directory} cannot be removed: {error.strerror}") from error
            time.sleep(0.02)
        else:
            return


def _enable(group: pathlib.Path) -> None:
    """v2: give the children every controller that this group has."""
    control = group / "cgroup.subtree_control"
    if not control.exists():
        return
    enabled = control.read_text().split()
    for controller in (group / "cgroup.controllers").read_text().split():
        if controller not in enabled:
            try:
                control.write_text(f"+{controller}")
            except OSError:
                continue  # some, like cpu with realtime processes about, are refused; nodes do without


def _inherit_cpuset(group: pathlib.Path) -> None:
    """v1: a new cpuset is empty and takes no process until it has processors and memory nodes."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        own = group / name
        if own.exists() and not (group / "cgroup.controllers").exists() and not own.read_text().strip():
            own.write_text((group.parent / name).read_text())
