# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m gpuops_bench.fleet``: what a node costs the controller, and how that grows with their number.

All nodes are namespaces of this machine, so wall time is shared by controller and nodes; the controller's own CPU
seconds (of ansible-playbook, its forks and its ssh) are what a projection can be made from.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[3]
for _path in (ROOT / "tests" / "lab", ROOT / "tests" / "integration"):
    sys.path.append(str(_path))

import in_node  # noqa: E402
from gpuops_lab import (  # noqa: E402
    inventory,
    node as lab_node,  # noqa: E402
    workload,
)
from gpuops_lab.config import LabError, Node  # noqa: E402

CHECKPOINT = "gpuops.test/fleet:1"
ARCHIVE = "/srv/fleet.tar"
#: A name, and what is set in the environment of ansible-playbook beside examples/ansible.cfg.
VARIANTS: dict[str, dict[str, str]] = {
    "as in examples/ansible.cfg": {},
    "5 forks (Ansible's default)": {"ANSIBLE_FORKS": "5"},
    "without pipelining": {"ANSIBLE_PIPELINING": "false"},
    "strategy free": {"ANSIBLE_STRATEGY": "free"},
}


#: The window's work, which costs nothing.
WORK = "[{name: Nothing, ansible.builtin.meta: noop}]"


@dataclasses.dataclass(frozen=True)
class Run:
    """One playbook over all nodes; seconds of wall time, and of the controller's processors."""

    nodes: int
    playbook: str
    variant: str
    wall: float
    controller: float
    peak_mib: int

    @property
    def per_node(self) -> float:
        return self.controller / self.nodes


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench-fleet")
    parser.add_argument("--nodes", default="4 16 48")
    parser.add_argument(
        "--variants-at", type=int, default=16, help="number of nodes at which the settings are compared"
    )
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build" / "bench")
    options = parser.parse_args(arguments)
    found: list[Run] = []
    with _archive() as archive:
        for count in map(int, options.nodes.split()):
            with _fleet(count, archive) as (nodes, directory):
                found += _measure(nodes, directory, "as in examples/ansible.cfg")
                if count == options.variants_at:
                    for variant in list(VARIANTS)[1:]:
                        found += _measure(nodes, directory, variant)
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps([{**dataclasses.asdict(run), "per_node": round(run.per_node, 3)} for run in found], indent=1)
    (options.out / "fleet.json").write_text(text + "\n")
    print(table(found))
    return 0


def table(found: Sequence[Run]) -> str:
    """In the form of a table of Markdown, which is what the documentation takes."""
    lines = [
        "| nodes | playbook | settings | wall, s | controller CPU, s | per node, s | peak of a process, MiB |",
        "|---:|---|---|---:|---:|---:|---:|",
    ]
    for run in found:
        cells = [run.nodes, run.playbook, run.variant, f"{run.wall:.1f}", f"{run.controller:.1f}"]
        lines.append("| " + " | ".join(map(str, [*cells, f"{run.per_node:.2f}", run.peak_mib])) + " |")
    return "\n".join(lines)


@contextmanager
def _archive() -> Iterator[pathlib.Path]:
    """A checkpoint with its base image, as a file of this machine."""
    (node,) = lab_node.up([f"fleet-source-{os.getpid()}"], "1.7")
    try:
        in_node.install(node, ROOT)
        workload.start(node, "original", 8)
        workload.await_count(node, "original", 5)
        wish = {"container_id": "original", "name": CHECKPOINT, "gpu": "none"}
        _module(node, "containerd_checkpoint", wish)
        wish = {"operation": "export", "name": CHECKPOINT, "path": ARCHIVE, "compression": "none"}
        _module(node, "containerd_checkpoint_archive", wish)
        with tempfile.TemporaryDirectory() as directory:
            yield pathlib.Path(shutil.copy(node.inside(ARCHIVE), directory))
    finally:
        lab_node.down(node.name)


def _module(node: Node, name: str, params: dict[str, Any]) -> None:
    answer = in_node.run_module(node, name, params)
    if answer.get("failed"):
        raise LabError(f"{name} failed: {answer.get('msg')}")


@contextmanager
def _fleet(count: int, archive: pathlib.Path) -> Iterator[tuple[list[Node], pathlib.Path]]:
    names = [f"fleet-{os.getpid()}-{number}" for number in range(1, count + 1)]
    print(f"==> {count} nodes", file=sys.stderr, flush=True)
    try:
        nodes = lab_node.up(names, "1.7")
        for node in nodes:
            shutil.copy(archive, node.inside(ARCHIVE))
        with tempfile.TemporaryDirectory() as directory:
            yield nodes, pathlib.Path(directory)
    finally:
        for name in names:
            lab_node.down(name)


def _measure(nodes: Sequence[Node], directory: pathlib.Path, variant: str) -> list[Run]:
    entry = {"name": "counter", "checkpoint": CHECKPOINT, "checkpoint_archive": ARCHIVE, "image_archive": ARCHIVE}
    variables = {
        "restore_node_workloads": [{**entry, "gpu": "none"}],
        "restore_batches": ["100%"],
        # What was restored leaves once more, and comes back.
        "workloads": {"names": ["counter"], "defaults": {"gpu": "none"}},
        "maintenance_window": f"fleet-{list(VARIANTS).index(variant)}",
        "maintenance_tasks": str(directory / "work.yml"),
        "maintenance_report": str(directory / "report"),
        "maintenance_batches": ["100%"],
    }
    hosts = {node.name: inventory.host_variables(node) for node in nodes}
    (directory / "inventory.yml").write_text(inventory.inventory_text(hosts))
    (directory / "workloads.yml").write_text(json.dumps(variables))
    (directory / "work.yml").write_text(WORK)
    return [
        _run(len(nodes), directory, name, variant, VARIANTS[variant])
        for name in ("plan", "stage", "restore", "maintenance", "cleanup")
    ]


def _run(count: int, directory: pathlib.Path, name: str, variant: str, setting: Mapping[str, str]) -> Run:
    # The forks of the example's settings are for fleets of this size.
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "examples" / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"}
    environment.update(setting)
    options = ["-i", str(directory / "inventory.yml"), "-e", f"@{directory}/workloads.yml"]
    log = directory / "log.txt"
    begun = time.monotonic()
    with log.open("wb") as output:
        files = [(os.POSIX_SPAWN_DUP2, output.fileno(), 1), (os.POSIX_SPAWN_DUP2, output.fileno(), 2)]
        program = shutil.which("ansible-playbook")
        if program is None:
            raise LabError("There is no ansible-playbook.")
        command = [program, *options, f"gpuops.restore.{name}"]
        pid = os.posix_spawn(program, command, environment, file_actions=files)
        # The process and all of its children that it has waited for.
        _pid, status, usage = os.wait4(pid, 0)
    wall = time.monotonic() - begun
    if status:
        raise LabError(f"{name} on {count} nodes failed: {log.read_text(errors='replace')[-3000:]}")
    run = Run(count, name, variant, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss // 1024)
    print(f"  {name}, {variant}: {wall:.1f} s, controller {run.controller:.1f} s", file=sys.stderr, flush=True)
    return run


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LabError as problem:
        sys.exit(f"bench-fleet: {problem}")
