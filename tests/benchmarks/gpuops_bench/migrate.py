# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Migration to a second node, by route: from the workload's last number on the source to its first one there."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pathlib
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator

from gpuops_lab import inventory, node as lab_node, workload
from gpuops_lab.config import LabError, Node
from registry_server import Relay

from gpuops_bench import role
from gpuops_bench.bench import STATE, TICK_MS, Bench, say
from gpuops_bench.measure import Comparison, Sample, pairs
from gpuops_bench.overhead import CALLBACKS

PEER = "the same with migrate_route=controller"
PORT = 5444
#: The nodes have no network but their loopback; the relay is the way between them.
DIRECT = {
    "migrate_route": "direct",
    "migrate_address": "127.0.0.1",
    "migrate_port": PORT,
    "migrate_clients": ["127.0.0.1"],
}
CONTROLLER = {"migrate_route": "controller"}


def run(bench: Bench) -> list[Comparison]:
    (other,) = lab_node.up([f"bench-to-{os.getpid()}"], bench.node.containerd)
    try:
        relay = Relay(other, bench.node, PORT, PORT)
        try:
            with tempfile.TemporaryDirectory() as name:
                return [_of(bench, other, pathlib.Path(name), mib) for mib in bench.sizes]
        finally:
            relay.close()
    finally:
        lab_node.down(other.name)


def _of(bench: Bench, other: Node, directory: pathlib.Path, mib: int) -> Comparison:
    hosts = {each.name: inventory.host_variables(each) for each in (bench.node, other)}
    (directory / "inventory.yml").write_text(inventory.inventory_text(hosts))
    numbers = itertools.count()
    name = f"migrate {mib} MiB, route direct, outage"
    say(name)

    def by(**way: object) -> Sample:
        return _moved(bench, other, directory, mib, f"moves-{next(numbers)}", way)

    return pairs(name, PEER, bench.pairs, lambda: by(**DIRECT), lambda: by(**CONTROLLER), say)


def _moved(
    bench: Bench, other: Node, directory: pathlib.Path, mib: int, identifier: str, way: dict[str, object]
) -> Sample:
    """One migration; its phases are the tasks within the outage."""
    there = dataclasses.replace(bench, node=other)
    wanted = {"name": identifier, "checkpoint": f"gpuops.test/{identifier}:1", "gpu": "none"}
    wanted["stdout"] = f"/var/log/{identifier}.log"
    given = {"migrate_source": bench.node.name, "migrate_target": other.name, "migrate_workloads": [wanted], **way}
    variables, record = directory / "move.json", directory / "seconds.jsonl"
    variables.write_text(json.dumps(given))
    bench.run_counter(identifier, mib, TICK_MS)
    last, first = bench.node.inside(f"/var/log/{identifier}.log"), other.inside(f"/var/log/{identifier}.log")
    bench.timed(["sync"])
    bench.back(3 * mib)
    record.unlink(missing_ok=True)
    setting = {
        "ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS),
        "ANSIBLE_CALLBACKS_ENABLED": "gpuops_seconds",
        "GPUOPS_SECONDS": str(record),
        # What of it lies on the controller.
        "TMPDIR": str(directory),
    }
    try:
        with _First(first) as seen:
            command = ["ansible-playbook", "gpuops.restore.migrate", "-e", f"@{variables}"]
            role.ansible(bench, directory, *command, **setting)
        begun = last.stat().st_mtime
        if seen.at < begun or int(first.read_text().split()[0]) != int(last.read_text().split()[-1]) + 1:
            raise LabError(f"{identifier} on {other.name} did not count on from where it stood still")
        workload.await_count(other, identifier, workload.count(other, identifier) + 1)
    finally:
        for each in (bench, there):
            each.remove(identifier)
            for reference in workload.ctr(each.node, workload.NAMESPACE, "images", "ls", "-q").split():
                each.remove_image(reference)
            shutil.rmtree(each.node.inside(STATE), ignore_errors=True)
    return Sample(seen.at - begun, phases=dict(_within(record, begun, seen.at)))


def _within(record: pathlib.Path, begun: float, ended: float) -> Iterator[tuple[str, float]]:
    """The tasks of that time, each with the seconds that it takes of it."""
    for line in record.read_text().splitlines():
        entry = json.loads(line)
        seconds = min(entry["at"], ended) - max(entry["at"] - entry["seconds"], begun)
        if seconds > 0.05 and entry["ended"] != "skipped":
            yield entry["task"], round(seconds, 3)


class _First:
    """Watches from outside for the first number on the target. ``at``: when it came, in seconds since the epoch."""

    def __init__(self, path: pathlib.Path) -> None:
        self.at = 0.0
        self._path = path
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> _First:
        self._thread.start()
        return self

    def __exit__(self, *_unused: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.is_set():
            if self._path.exists() and self._path.stat().st_size:
                self.at = time.time()
                return
            time.sleep(0.005)
