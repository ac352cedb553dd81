# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the lab keeps its things, and what is known of a node."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re

NODE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
CONTROL_SOCKET = "/run/gpuops-lab/control.sock"
STATE_ROOT = "/var/lib/gpuops-restore"
IDENTITY = "/etc/gpuops-lab-id"


class LabError(Exception):
    """A sentence for the user: what failed, where, and what to do."""


def runtime_dir() -> pathlib.Path:
    """Small files: keys, sockets, scripts, one directory a node."""
    return pathlib.Path(os.environ.get("GPUOPS_LAB_RUN", "/run/gpuops-lab"))


def data_dir() -> pathlib.Path:
    """Large files: each node's writable layer and containerd's store; a real file system, not an overlay."""
    return pathlib.Path(os.environ.get("GPUOPS_LAB_DATA", "/var/tmp/gpuops-lab"))


def cache_dir() -> pathlib.Path:
    """What is downloaded or built once: roots, containerd versions, the workload image."""
    default = pathlib.Path.home() / ".cache" / "gpuops-restore"
    return pathlib.Path(os.environ.get("GPUOPS_CACHE") or default) / "lab"


def ssh_dir() -> pathlib.Path:
    return runtime_dir() / "ssh"


@dataclasses.dataclass(frozen=True)
class Node:
    """One node as recorded in its runtime directory.

    identity: a random word that the node carries in /etc, so that a reused pid is never taken for a node.
    lower: the directories below the writable layer, topmost first.
    """

    name: str
    containerd: str
    identity: str
    lower: tuple[str, ...]

    @property
    def directory(self) -> pathlib.Path:
        return node_dir(self.name)

    @property
    def data(self) -> pathlib.Path:
        return data_dir() / self.name

    @property
    def pid(self) -> int:
        """The host's pid of the node's init, 0 while it does not run."""
        try:
            pid = int((self.directory / "pid").read_text())
            found = pathlib.Path(f"/proc/{pid}/root{IDENTITY}").read_text().strip()
        except (OSError, ValueError):
            return 0
        return pid if found == self.identity else 0

    def inside(self, path: str) -> pathlib.Path:
        """A path of the node as the host reaches it; raises LabError when the node does not run."""
        pid = self.pid
        if not pid:
            raise LabError(f"node {self.name} does not run; start it with 'lab up' or remove it with 'lab down'")
        return pathlib.Path(f"/proc/{pid}/root{path}")

    def save(self) -> None:
        write_atomically(self.directory / "node.json", json.dumps(dataclasses.asdict(self), indent=1) + "\n")


def nodes_dir() -> pathlib.Path:
    return runtime_dir() / "nodes"


def node_dir(name: str) -> pathlib.Path:
    check_name(name)
    return nodes_dir() / name


def check_name(name: str) -> None:
    """Refuse what is no host name: names become paths that 'down' removes."""
    if not NODE_NAME.fullmatch(name):
        raise LabError(f"{name!r} is no node name: use lower-case letters, digits and '-'")


def load_node(name: str) -> Node:
    try:
        values = json.loads((node_dir(name) / "node.json").read_text())
    except FileNotFoundError:
        raise LabError(f"there is no node {name}; 'lab list' shows the nodes") from None
    return Node(values["name"], values["containerd"], values["identity"], tuple(values["lower"]))


def all_names() -> list[str]:
    """Every name that has left something in a directory of the lab, half-made nodes included."""
    names: set[str] = set()
    for directory in (nodes_dir(), data_dir()):
        if directory.is_dir():
            names.update(entry.name for entry in directory.iterdir() if NODE_NAME.fullmatch(entry.name))
    return sorted(names)


def all_nodes() -> list[Node]:
    return [load_node(name) for name in all_names() if (node_dir(name) / "node.json").exists()]


def write_atomically(path: pathlib.Path, text: str, mode: int = 0o644) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.chmod(mode)
    temporary.replace(path)
